"""The worker: computes tagged gradients of one rank and pushes them to the aggregator."""
