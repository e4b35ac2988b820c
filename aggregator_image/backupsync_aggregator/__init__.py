"""The aggregator: averages the first N gradients of every iteration and owns parameters and optimizer."""
