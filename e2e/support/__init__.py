"""What the end-to-end tests share: the API, waiting, jobs, faults, traces, and what is left of a failure."""
