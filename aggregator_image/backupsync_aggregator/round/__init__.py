"""The round: which gradient is accepted, when an iteration is complete, who is told what. Pure."""
