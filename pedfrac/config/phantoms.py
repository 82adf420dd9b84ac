"""Configuration of synthetic radiographs."""

from typing import Literal

from pydantic import Field

from pedfrac.config.base import Section


class PhantomConfig(Section):
    """Synthetic images in the published layout."""

    images: int = Field(400, ge=1, description="Number of images")
    seed: int = Field(0, ge=0, description="Seed; the same seed gives the same bytes")
    scale: float = Field(1.0, ge=0.1, le=1, description="Linear size relative to real images")
    shortcut: bool = Field(False, description="Let the side marker tell the label")
    lesion: Literal["none", "by age", "shared"] = Field(
        "none",
        description="One of two lesions instead of fractures, in wrists drawn at one age: which of "
        "them is a fracture turns round at 10 years (by age), or is the same at all ages (shared)",
    )
    severity: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Least severity of fractures: 0 holds some that nobody could see, 1 only the "
        "clearest",
    )
    faults: int = Field(0, ge=0, description="Number of images of each planted fault")
    workers: int = Field(0, ge=0, description="Processes; 0: one per core")
