"""The job's tensors: parameters, optimizer, schedule, average. No sockets, no files."""
