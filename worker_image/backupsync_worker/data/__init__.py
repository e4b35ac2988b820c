"""Mini-batches as a function of seed and ticket."""
