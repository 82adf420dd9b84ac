"""Configuration of the hyperparameter search."""

from typing import Self

from pydantic import Field, model_validator

from pedfrac.config.base import NoneOrNumber, Section


class Range(Section):
    """Search space of one field: a range from low to high, or a list of choices."""

    low: float | None = Field(None, description="Least value")
    high: float | None = Field(None, description="Greatest value")
    log: bool = Field(False, description="Draw on a logarithmic scale")
    whole: bool = Field(False, description="Whole numbers only")
    choices: tuple[str | float | bool, ...] = Field((), description="Instead: the values allowed")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        bounded = self.low is not None and self.high is not None
        if bounded == bool(self.choices):
            raise ValueError("give either low and high, or choices")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ValueError(f"low {self.low:g} must be below high {self.high:g}")
        if self.log and self.low is not None and self.low <= 0:
            raise ValueError(f"low {self.low:g} must be above 0 on a logarithmic scale")
        return self


class SearchConfig(Section):
    """A search for better training settings, judged by validation images alone."""

    name: str = Field("search", min_length=1, description="Name; the same goes on where it stopped")
    model: str = Field(
        "generalist", description="What is trained: generalist, age, or the name of an age group"
    )
    space: dict[str, Range] = Field(
        default={
            "fracture.training.learning_rate": Range(low=3e-5, high=1e-3, log=True),
            "fracture.training.weight_decay": Range(low=0.005, high=0.2, log=True),
        },
        min_length=1,
        description="Fields of fracture.training, fracture.specialist or age.training, each with "
        "low and high (and log, whole), or choices",
    )
    trials: int = Field(20, ge=1, description="Trainings, at most")
    gpu_hours: NoneOrNumber = Field(
        None, gt=0, description="No further training begins once so many GPU hours were spent"
    )
    parallel: int = Field(
        1,
        ge=1,
        description="With dispatch 'deployments': trainings at the same time (here, runtime's)",
    )
    pruning: bool = Field(True, description="Stop trainings that fall behind the median of others")
    pruning_after: int = Field(
        5, ge=1, description="Finished trainings before any is stopped, to know the median"
    )
    pruning_epochs: int = Field(3, ge=1, description="Epochs that every training gets")
    seed: int = Field(0, ge=0, description="Seed of the sampler")

    @model_validator(mode="after")
    def _only_training(self) -> Self:
        parts = ("fracture.training", "fracture.specialist", "age.training")
        below = ("fracture.training.augment", "age.training.augment")
        for name in self.space:
            part, _, field = name.rpartition(".")
            if part not in (*parts, *below) or field in ("monitor", "seed"):
                raise ValueError(
                    f"space: {name} cannot be searched; allowed are fields of {', '.join(parts)} "
                    "but for monitor and seed, by which trainings are compared"
                )
        return self
