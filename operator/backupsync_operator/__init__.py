"""The operator: reconciles `BackupSyncJob`s into pods, with the planner of `backupsync.lifecycle`.

Where to begin reading: `reconcile` is one look at one job. What it reads comes from `store` (filled by
`informers`, which is kopf) and from `poller` (the aggregators' own status); `observe`, `nodes`, `cr` and
`cr_status` turn raw objects into the planner's plain data and back. `record` writes the status; `hands` and
`children` do what was planned, with bodies from `render`. `queue` and `workers` say who looks when, `lease`
who is active at all, and `app` puts it together.
"""
