"""Straggler injection: seeded slowness for tests, demo and benchmarks. Pure."""
