"""BackupSync: synchronous SGD with backup workers, as a system people run.

N+b workers each send one gradient per iteration; the aggregator averages the first N and drops the late b
(Chen et al., "Revisiting Distributed Synchronous SGD", algorithms 3 and 4).
"""

from importlib.metadata import version

__version__ = version("backupsync")
