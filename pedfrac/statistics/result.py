"""What every computed result is made of."""

from pydantic import BaseModel, ConfigDict


class Result(BaseModel):
    """Part of a result: frozen, and a field that is not declared is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
