"""When checkpoints are written, and what happens when one cannot be."""

import logging
import time
from collections.abc import Callable
from typing import Any

from backupsync.errors import CheckpointError
from backupsync_aggregator.checkpoints.checkpoint import CheckpointDirectory
from backupsync_aggregator.telemetry.metrics import Metrics
from backupsync_aggregator.tensors.model_state import ModelState

_log = logging.getLogger(__name__)

Progress = dict[str, Any]


class Saver:
    """Writes checkpoints into the directory, if the job has one."""

    def __init__(self, directory: CheckpointDirectory | None, every: int, metrics: Metrics) -> None:
        self.newest: int | None = None
        """Iteration of the newest checkpoint."""
        self.problem = ""
        """Why the last checkpoint could not be written; empty when it could."""
        self.progress: Callable[[], Progress] = dict
        """Gives what a checkpoint holds beside tensors."""
        self.flush_trace: Callable[[], None] = lambda: None
        """Hands the trace to the operating system: it must never be shorter than the newest checkpoint."""
        self._directory = directory
        self._every = every
        self._metrics = metrics
        self._saved_at = 0
        self._said = ""

    def resumed_from(self, iteration: int) -> None:
        """Remember where the job was taken up."""
        self.newest = self._saved_at = iteration

    def verify(self) -> None:
        """Make sure that no newer aggregator has taken over. Raises Fenced."""
        if self._directory is not None:
            try:
                self._directory.verify_claim()
            except CheckpointError as error:
                if str(error) != self._said:  # asked before every update: the log has it once
                    self._said = str(error)
                    _log.warning("claim on the checkpoint directory: %s", error)

    def save_when_due(self, iteration: int, model: ModelState) -> None:
        """Write a checkpoint if `iteration` has passed the next mark; a failure is kept, training goes on."""
        if self._directory is not None and iteration // self._every > self._saved_at // self._every:
            self._saved_at = iteration
            self.save(iteration, model)

    def save(self, iteration: int, model: ModelState) -> bool:
        """Write a checkpoint now; False, with `problem` set, when that fails. Raises Fenced."""
        try:
            self.save_or_raise(iteration, model)
        except CheckpointError as error:
            self.problem = f"checkpoint at iteration {iteration} could not be written: {error}"
            self._metrics.checkpoint_failures.inc()
            _log.error("%s", self.problem)
            return False
        return True

    def save_or_raise(self, iteration: int, model: ModelState) -> None:
        """Write a checkpoint now. Raises CheckpointError, Fenced."""
        if self._directory is None or self.newest == iteration:
            return
        begin = time.perf_counter()
        self.flush_trace()
        self._directory.save(iteration, model, self.progress())
        self.newest, self.problem = iteration, ""
        self._metrics.checkpoint_seconds.observe(time.perf_counter() - begin)
        self._metrics.checkpoint_success.set_to_current_time()

    def save_model(self, model: ModelState) -> bool:
        """Write the model files; False, with `problem` set, when that fails. Raises Fenced."""
        if self._directory is None:
            return True
        try:
            self._directory.save_model(model)
        except CheckpointError as error:
            self.problem = f"the model could not be written: {error}"
            _log.error("%s", self.problem)
            return False
        return True
