"""Pictures of reports: several runs side by side on one sheet."""

from backupsync.plotting.sheet import PlotError, plot

__all__ = ["PlotError", "plot"]
