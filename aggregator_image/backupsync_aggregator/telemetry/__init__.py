"""Seen from outside: the trace, the metrics, the status."""
