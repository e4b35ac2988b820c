"""The lifecycle: which replicas to start, stop and replace, and the job's conditions. Pure."""
