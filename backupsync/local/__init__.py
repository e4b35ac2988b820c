"""The local engine: the planner's actions as processes on this machine."""
