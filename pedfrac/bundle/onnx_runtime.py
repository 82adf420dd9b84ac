"""Exported networks: each a file of ONNX, run by ONNX Runtime on the CPU as PyTorch ran it before.

Not here: how such files are made and checked (export).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
import torch
from pydantic import Field, ValidationError
from torch import Tensor

from pedfrac.bundle.checksums import verify
from pedfrac.config.base import Section
from pedfrac.config.loading import explain_invalid
from pedfrac.config.training import ModelConfig
from pedfrac.errors import PedfracError
from pedfrac.models.heads import Head

EXPORT = "export.json"
IMAGES, PROBABILITIES, YEARS = "images", "probabilities", "years"  # what goes in, what comes out


class ExportInfo(Section):
    """Description of exported networks: their files and how closely they agree with PyTorch."""

    schema_version: Literal[1] = 1
    precision: Literal["float32", "int8"]
    opset: int
    versions: dict[str, str] = Field(description="Of the libraries that exported")
    checks: dict[str, dict[str, Any]] = Field(
        description="Of each network against PyTorch; on random images where none were given"
    )
    images: dict[str, Any] = Field(description="The bundle against PyTorch's on labelled images")


class OnnxNetwork:
    """A network of a bundle in ONNX Runtime, with as many threads as PyTorch would take.

    ``path`` of the file. Raises PedfracError where it is not an ONNX file, or does not map images
    (n, 1, ``size``, ``size``) to probabilities (n, ``classes``) and, if ``tells_age``, to years
    (n,).
    """

    def __init__(self, path: Path, size: int, classes: int, tells_age: bool):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # missing, cut short, of a newer format: each its own type
            raise PedfracError(f"{path}: cannot be loaded as ONNX ({error})") from None
        wanted = {IMAGES: [1, size, size], PROBABILITIES: [classes]} | (
            {YEARS: []} if tells_age else {}
        )
        ends = [*self._session.get_inputs(), *self._session.get_outputs()]
        found = {end.name: list(end.shape[1:]) for end in ends}
        fixed = [end.name for end in ends if isinstance(end.shape[0], int)]
        if found != wanted or fixed:
            raise PedfracError(
                f"{path}: is not the network that {EXPORT} and the bundle name: it has {found}"
                f"{f', {fixed} of a fixed number of images' if fixed else ''}; wanted are {wanted}"
            )
        self._outputs = list(wanted)[1:]

    def answers(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the probabilities (n, k) and ages in years (n,) of images (n, 1, size, size)."""
        given = images.numpy()
        # ONNX need not say what comes of no image at all
        shown = given if len(given) else np.zeros((1, *given.shape[1:]), given.dtype)
        made = self._session.run(self._outputs, {IMAGES: shown})
        found = [torch.from_numpy(np.asarray(one)[: len(given)]) for one in made]
        return found[0], found[1] if len(found) > 1 else None


def load_networks(
    folder: Path,
    parts: Mapping[str, tuple[ModelConfig, Head]],
    device: str | torch.device = "cpu",
) -> dict[str, OnnxNetwork]:
    """Return the exported networks of a folder, by name.

    Raises PedfracError where a file is missing, broken, or not the one that was exported.
    """
    if torch.device(device).type != "cpu":
        raise PedfracError(f"device {str(device)!r}: exported networks run on the CPU alone")
    read_export(folder)
    verify(folder, [f"{name}.onnx" for name in parts])
    return {
        name: OnnxNetwork(folder / f"{name}.onnx", model.size, head.classes, head.tells_age)
        for name, (model, head) in parts.items()
    }


def read_export(folder: Path) -> ExportInfo:
    """Return what is known of the exported networks in a folder.

    Raises PedfracError where there are none.
    """
    path = folder / EXPORT
    if not path.is_file():
        raise PedfracError(
            f"{folder}: holds no {EXPORT}; `pedfrac export` makes of a bundle what runs by ONNX"
        )
    verify(folder, [EXPORT])
    try:
        return ExportInfo.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise PedfracError(f"{path}: {explain_invalid(error, ExportInfo)}") from None
