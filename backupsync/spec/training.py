"""How the model is trained: the end, the batch, the optimizer, the schedule, the device."""

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from backupsync.spec.base import SpecModel


class Scaling(StrEnum):
    """How the learning rate follows the number of accepted gradients k over the reference N."""

    NONE = "None"
    LINEAR = "Linear"
    """lr × k / referenceWorkers (the paper's 0.045·N)."""
    SQRT = "Sqrt"
    """lr × sqrt(k / referenceWorkers)."""


class ParameterGroup(SpecModel):
    """Overrides of optimizer keywords for the parameters whose name matches; the first match wins."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Any]

    match: list[Annotated[str, Field(max_length=1024)]] = Field(min_length=1, max_length=1000)
    """Shell patterns over parameter names, such as `*.bias` or `norm*`."""

    @property
    def overrides(self) -> dict[str, Any]:
        """Optimizer keywords of this group."""
        return dict(self.__pydantic_extra__)


class OptimizerSpec(SpecModel):
    """A class of `torch.optim` by name, and its keywords."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Any]

    name: str = Field(default="SGD", max_length=128)
    """Class name in `torch.optim`, such as SGD, AdamW or RMSprop."""
    lr: float = Field(gt=0)
    """Learning rate at the reference number of workers."""
    groups: list[ParameterGroup] = Field(default=[], max_length=1000)
    """Overrides by parameter name, such as no weight decay on norms and biases."""

    @property
    def keywords(self) -> dict[str, Any]:
        """Keywords of the optimizer's constructor beside `lr`."""
        return dict(self.__pydantic_extra__)


class ScheduleSpec(SpecModel):
    """A class of `torch.optim.lr_scheduler` by name, and its keywords.

    One scheduler step is one reference iteration: referenceWorkers × batchSize applied examples.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Any]

    name: str = Field(max_length=128)
    """Class name in `torch.optim.lr_scheduler`, such as CosineAnnealingLR or StepLR."""

    @property
    def keywords(self) -> dict[str, Any]:
        """Keywords of the scheduler's constructor."""
        return dict(self.__pydantic_extra__)


class WarmupSpec(SpecModel):
    """A linear rise of the learning rate at the start."""

    examples: int = Field(ge=1)
    """Applied examples over which the rate rises to its full value."""
    start_factor: float = Field(default=0.0, ge=0, lt=1)
    """Share of the rate at the first example."""


class EvaluationSpec(SpecModel):
    """When one worker evaluates a copy of the (averaged) parameters."""

    every_iterations: int = Field(default=0, ge=0)
    """Iterations between evaluations; 0 evaluates only at the end."""
    deadline_seconds: float = Field(default=300.0, gt=0)
    """An evaluation longer than this is aborted."""


class LoaderSpec(SpecModel):
    """How a worker reads its mini-batches."""

    workers: int = Field(default=0, ge=0, le=64)
    """Processes that prepare batches ahead; 0 reads in the worker itself."""
    pin_memory: bool = True
    """Page-locked batches, where the device is a GPU."""


class TrainingSpec(SpecModel):
    """How the model is trained. Ends by exactly one of iterations, examples, epochs."""

    iterations: int | None = Field(default=None, ge=1)
    """Updates after which the job ends."""
    examples: int | None = Field(default=None, ge=1)
    """Applied examples after which the job ends."""
    epochs: int | None = Field(default=None, ge=1)
    """Passes over the data set after which the data is at its end."""
    batch_size: int = Field(ge=1)
    """Examples in the mini-batch of one gradient."""
    accumulate: int = Field(default=1, ge=1)
    """Micro-batches a mini-batch is computed in; must divide batchSize."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Every random number of the job is a function of this and the ticket."""
    optimizer: OptimizerSpec
    """The optimizer; it runs in the aggregator."""
    schedule: ScheduleSpec | None = None
    """The learning-rate schedule, in applied examples."""
    warmup: WarmupSpec | None = None
    """Linear warm-up of the learning rate."""
    scaling: Scaling = Scaling.NONE
    """None, Linear (times k over referenceWorkers) or Sqrt (its root), with k gradients accepted."""
    reference_workers: int | None = Field(default=None, ge=1)
    """Number of workers that `optimizer.lr` was tuned for; defaults to `aggregation.workers`."""
    clip_norm: float | None = Field(default=None, gt=0)
    """Each gradient is scaled so that its global norm does not exceed this."""
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    """Decay of the exponential moving average of the parameters; absent means none is kept."""
    evaluation: EvaluationSpec = EvaluationSpec()
    """When the model is evaluated."""
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:[0-9]{1,4})?)$")
    """auto, cpu, cuda or cuda:INDEX."""
    autocast: Literal["None", "bfloat16", "float16"] = "None"
    """Element type of autocast in forward and loss."""
    threads: int | None = Field(default=None, ge=1)
    """Intra-op threads of a worker; by default its share of the machine."""
    loader: LoaderSpec = LoaderSpec()
    """How mini-batches are read."""

    @model_validator(mode="after")
    def _one_end(self) -> Self:
        ends = {k: v for k in ("iterations", "examples", "epochs") if (v := getattr(self, k)) is not None}
        if len(ends) != 1:
            said = ", ".join(f"{k}: {v}" for k, v in ends.items()) or "none"
            raise ValueError(f"set exactly one of iterations, examples, epochs (given: {said})")
        if self.batch_size % self.accumulate:
            raise ValueError(f"accumulate {self.accumulate} must divide batchSize {self.batch_size}")
        return self
