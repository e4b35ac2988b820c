"""The operator: reconciles `BackupSyncJob`s into pods, with the planner of `backupsync.lifecycle`."""
