"""What is wrong with `spec.training`, as far as only torch can say: asked for before anything is started."""

from backupsync.spec import ManifestError, Problem, TrainingSpec
from backupsync.wire.schema import FLOATING, Schema
from backupsync_aggregator.tensors.optimizer_checks import group_problems, optimizer_problems
from backupsync_aggregator.tensors.schedule import schedule_problems


def validate_training(training: TrainingSpec) -> list[Problem]:
    """Return every problem of optimizer and schedule that shows without a model."""
    return optimizer_problems(training.optimizer) or schedule_problems(training.optimizer, training.schedule)


def check_training(training: TrainingSpec, schema: Schema) -> None:
    """Check optimizer, groups and schedule against the model's tensors.

    Raises ManifestError with every problem in it.
    """
    problems = _model_problems(schema) or validate_training(training)
    problems = problems or group_problems(training.optimizer, schema.trainable)
    if problems:
        raise ManifestError("manifest", problems)


def _model_problems(schema: Schema) -> list[Problem]:
    if not schema.trainable:
        return [
            Problem("spec.program", "", "has a model without trainable parameters; nothing can be trained")
        ]
    return [
        Problem(
            "spec.program",
            f"parameter {entry.name}",
            f"is trainable with dtype {entry.dtype}; valid: floating",
        )
        for entry in schema.trainable
        if entry.dtype not in FLOATING
    ]
