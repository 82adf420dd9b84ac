"""Configuration of the machine: devices, processes, compilation."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from pedfrac.config.base import NoneOrCount, Section, on_or_off


class RuntimeConfig(Section):
    """The machine's share; nothing here changes a result, so nothing here is part of a key."""

    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    devices: str = Field(
        "one",
        pattern="^(one|all|[1-9][0-9]*)$",
        description="Devices of one training: one, all (GPUs of the node), or a number of GPUs or, "
        "without a GPU, CPU processes",
    )
    workers: int = Field(0, ge=0, description="Processes that decode images; 0: one per core")
    dispatch: Literal["local", "deployments"] = Field(
        "local", description="Trainings run on this machine, or as deployments on the GPU pool"
    )
    parallel: int = Field(
        1, ge=1, description="With 'local': age groups trained at the same time, in processes"
    )
    micro_batch: NoneOrCount = Field(
        None,
        ge=1,
        description="Images of a batch that go through the network at once; none: all, or as many "
        "as a GPU's memory holds",
    )
    compile: Annotated[Literal["auto", "on", "off"], BeforeValidator(on_or_off)] = Field(
        "auto", description="Networks compiled for speed, after a minute or two; auto: on a GPU"
    )
    gradient_checkpointing: bool = Field(
        False, description="Less memory for about a third more time, for large networks"
    )
    attempts: int = Field(
        3, ge=1, description="With 'deployments': how often a training whose node dies is begun"
    )

    @model_validator(mode="after")
    def _devices_are_there(self) -> Self:
        if self.devices == "one":
            return self
        if ":" in self.device:
            raise ValueError(f"device {self.device} is one; choose it or devices {self.devices}")
        if self.device == "cpu" and self.devices == "all":
            raise ValueError("devices all is of GPUs; with device cpu give a number of processes")
        if self.parallel > 1:
            raise ValueError(
                f"choose either devices {self.devices} or parallel {self.parallel}: trainings at "
                "the same time would take the same devices"
            )
        return self
