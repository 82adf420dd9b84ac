"""Export of a bundle's networks to ONNX, each checked against PyTorch before any file is left.

Not here: running what was exported (onnx_network).
"""

import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.quant_utils import add_pre_process_metadata
from torch import Tensor, nn

from pedfrac.bundle.bundle import INFO, Bundle, BundleInfo
from pedfrac.bundle.checksums import seal
from pedfrac.bundle.onnx_runtime import (
    EXPORT,
    IMAGES,
    PROBABILITIES,
    YEARS,
    ExportInfo,
    OnnxNetwork,
)
from pedfrac.bundle.reference_profile import has_profile, load_profile, save_profile
from pedfrac.config.data import DataConfig
from pedfrac.data.brought_tables import read_brought_table, refuse_repeated
from pedfrac.data.image_files import Progress
from pedfrac.data.records import read_records
from pedfrac.errors import PedfracError
from pedfrac.models.classifier import ImageClassifier
from pedfrac.models.inputs import to_images
from pedfrac.packs.build import build_pack
from pedfrac.packs.pack import Pack
from pedfrac.statistics.patient_bootstrap import PatientBootstrap
from pedfrac.storage.files import write_json
from pedfrac.storage.local_backend import partial_folder

logger = logging.getLogger(__name__)
OPSET = 18  # the exporter's own; ONNX Runtime runs it from 1.14 (2023) on
AGREEMENT = 1e-4  # by how much a probability may differ from PyTorch's
YEARS_AGREEMENT = 1e-2  # years; ages are recorded in steps of 0.1
CHECKED = 16  # images that each network answers
BATCHES = (1, 3)
UNMEASURED = "not measured: no labelled images were given (--check)"
Report = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images with labels, prepared for a bundle's fracture networks and for its age classifier."""

    fracture: Pack
    age: Pack


@contextmanager
def labelled_images(
    data: Path, info: BundleInfo, among: Path | None = None, progress: Progress | None = None
) -> Iterator[LabelledImages]:
    """Prepare the images of a data set as a bundle wants them, for as long as they are needed.

    ``data`` has the published layout; rows without an image are left out, and images of ages that
    the bundle has no group for. ``among``: a table (CSV or Parquet) whose ``filestem`` names the
    images to take, such as an evaluation's predictions: metrics on images that taught the networks
    say little. Raises PedfracError where no image is left.
    """
    records = read_records(DataConfig(root=str(data), missing="drop"), progress=progress)
    usable = info.ages.assign(records.table["age"]) >= 0
    if among is not None:
        stems = records.table["filestem"]
        usable &= stems.isin(_filestems(among, stems)).to_numpy()
    table = records.table[usable].reset_index(drop=True)
    if table.empty:
        wanted = f"is named in {among} and" if among else "is"
        raise PedfracError(f"{data}: none of {len(usable)} images {wanted} of the bundle's ages")
    boxes = records.boxes[records.boxes["filestem"].isin(table["filestem"])]
    with tempfile.TemporaryDirectory() as folder:
        packs = []
        for name, network in (("fracture", info.fracture), ("age", info.age)):
            own = Path(folder) / name
            own.mkdir()
            build_pack(own, table, boxes, data, network.preparation, 0, progress)
            packs.append(Pack.open(own))
        yield LabelledImages(*packs)


def export_onnx(
    folder: Path,
    target: Path,
    *,
    int8: bool = False,
    images: LabelledImages | None = None,
    report: Report = logger.info,
) -> ExportInfo:
    """Write a bundle's networks as ONNX files, with bundle.json and export.json, and return these.

    Each takes any number of images. Its answers to images (those given, or random ones) are
    compared with PyTorch's, alone and three at a time; with ``images`` those of the whole bundle
    are too, and AUROC beside AUROC. ``int8`` then turns the weights of linear layers to 8 bits.
    ``report`` is told of each network. Raises PedfracError, and leaves nothing, where a network
    cannot be exported or its probabilities differ by more than AGREEMENT, or where ``target``
    holds something already.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise PedfracError(f"{target}: is there already; name a new or an empty folder")
    bundle, target = Bundle.load(folder), target.absolute()
    part = partial_folder(target.with_name(f".{target.name}.new"), keep=False)
    try:
        checks, traced = {}, {}
        for name, model in bundle.networks.items():
            kind = "age" if name == "age" else "fracture"
            shown = _shown(bundle, kind, images)
            if kind not in traced:  # the fracture networks differ in their weights alone
                traced[kind] = trace(model, shown.shape[-1])
            checks[name] = export_network(model, traced[kind], shown, part / f"{name}.onnx", int8)
            report(f"{name}: {_in_words(checks[name])}")
        shutil.copyfile(folder / INFO, part / INFO)
        seal(part, [INFO, *(f"{name}.onnx" for name in checks)])
        if has_profile(folder):
            save_profile(part, load_profile(folder))
        info = ExportInfo(
            precision="int8" if int8 else "float32",
            opset=OPSET,
            versions={name: version(name) for name in ("torch", "timm", "onnx", "onnxruntime")},
            checks=checks,
            images={"reason": UNMEASURED},
        )
        _write_export(part, info)
        if images is not None:
            info = info.model_copy(update={"images": _image_metrics(bundle, part, images, int8)})
            _write_export(part, info)
        if target.exists():
            target.rmdir()
        part.replace(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return info


def _write_export(folder: Path, info: ExportInfo) -> None:
    write_json(folder / EXPORT, info.model_dump(mode="json"))
    seal(folder, [EXPORT])


class _Answers(nn.Module):
    """The exported module: images to probabilities and, if the head estimates age, years."""

    def __init__(self, model: ImageClassifier):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        probabilities, years = self.model.answers(images)
        return probabilities if years is None else (probabilities, years)


def trace(model: Any, size: int) -> Any:
    """Return a network of images (n, 1, size, size) as ONNX, by names of its weights."""
    names = [PROBABILITIES, YEARS] if model.head.tells_age else [PROBABILITIES]
    example = torch.zeros(2, 1, size, size)  # of one image the exporter would make a fixed number
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")  # the exporter's own, on its insides
            return torch.onnx.export(
                _Answers(model).eval(),
                (example,),
                dynamo=True,
                input_names=[IMAGES],
                output_names=names,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                opset_version=OPSET,
                optimize=False,  # ONNX Runtime does that on loading; weights keep their names here
                verbose=False,
            )
    except Exception as error:  # what cannot be traced: each exporter's step has its own
        raise PedfracError(f"a network cannot be exported to ONNX ({error})") from error


def export_network(
    model: Any, traced: Any, images: Tensor, path: Path, int8: bool
) -> dict[str, Any]:
    """Write a network, and return how far its answers to images lie from PyTorch's."""
    size, head = images.shape[-1], model.head
    traced.apply_weights(_Answers(model).state_dict())
    try:
        traced.save(path, external_data=False)
    except ValueError as error:
        raise PedfracError(f"{path.stem}: one ONNX file holds at most 2 GB ({error})") from error

    def against_torch() -> dict[str, float]:
        return _differences(model, OnnxNetwork(path, size, head.classes, head.tells_age), images)

    found = against_torch()
    if not (found[PROBABILITIES] <= AGREEMENT and found.get(YEARS, 0) <= YEARS_AGREEMENT):
        raise PedfracError(
            f"{path.name}: its answers differ from PyTorch's by {_differing(found)}; allowed are "
            f"{AGREEMENT:g} in probability and {YEARS_AGREEMENT:g} years. Nothing was exported"
        )
    if int8:
        share = _quantise(path)
        found = against_torch() | {"share_in_8_bits": share}
    return found | {"images": len(images), "megabytes": path.stat().st_size / 1e6}


def _quantise(path: Path) -> float:
    """Quantise the linear layers of a file to 8 bits in place; return their share of the weights.

    Quantisation is dynamic: activations are scaled per batch, so no calibration images are needed.
    Convolutions stay in fp32, because ONNX Runtime runs them slower in 8 bits. Weights use 7 bits,
    since processors without VNNI would saturate sums of 8-bit products.
    """
    quantize_dynamic(
        _folded(path),
        path,
        op_types_to_quantize=["MatMul", "Gemm"],
        per_channel=True,
        reduce_range=True,
        weight_type=QuantType.QInt8,
    )
    counts = {True: 0, False: 0}
    for weight in onnx.load(path).graph.initializer:
        counts[weight.data_type == onnx.TensorProto.INT8] += int(np.prod(weight.dims))
    return counts[True] / sum(counts.values())


def _folded(path: Path) -> onnx.ModelProto:
    """Return a file's network with all that is constant computed, such as weights turned about."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path.with_suffix(".folded"))
    options.log_severity_level = 3
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    folded = onnx.load(options.optimized_model_filepath)
    Path(options.optimized_model_filepath).unlink()
    add_pre_process_metadata(folded)
    return folded


@torch.inference_mode()
def _differences(model: ImageClassifier, network: OnnxNetwork, images: Tensor) -> dict[str, float]:
    """Return by how much answers differ at most, over all sizes of batch."""
    found: dict[str, float] = {}
    for batch in BATCHES:
        for some in images.split(batch):
            for name, ours, theirs in zip(
                (PROBABILITIES, YEARS), model.answers(some), network.answers(some), strict=True
            ):
                if ours is not None and theirs is not None:
                    # a NaN is no agreement
                    far = float((ours - theirs).abs().nan_to_num(torch.inf).max())
                    found[name] = max(found.get(name, 0.0), far)
    return found


def _shown(bundle: Bundle, kind: str, images: LabelledImages | None) -> Tensor:
    """Return the images that a network answers: given ones spread over all, or random ones."""
    if images is None:
        part = bundle.info.age if kind == "age" else bundle.info.fracture
        size = part.preparation.size
        rng = np.random.default_rng(0)
        pixels = rng.integers(0, 256, (CHECKED, size, size), dtype=np.uint8)
    else:
        pack = images.age if kind == "age" else images.fracture
        pixels = pack.images[np.unique(np.linspace(0, len(pack) - 1, CHECKED).astype(int))]
    return to_images(pixels, torch.device("cpu"))


def _image_metrics(
    bundle: Bundle, folder: Path, images: LabelledImages, int8: bool
) -> dict[str, Any]:
    """Return how the bundle's probabilities and their AUROC differ on labelled images, paired."""
    stems = images.fracture.index["filestem"].tolist()
    packs = images.fracture, images.age
    ours, theirs = (
        one.score_packs(*packs, stems, specialists="every").filter(
            regex=r"^(network_|age_\d|bundle)"
        )
        for one in (bundle, Bundle.load(folder, runtime="onnx"))
    )
    differences = (ours - theirs).abs()
    worst = float(differences.drop(columns="bundle").to_numpy().max())
    if not int8 and not worst <= AGREEMENT:
        raise PedfracError(
            f"probabilities of {len(stems)} images differ from PyTorch's by up to {worst:.2g}; "
            f"allowed are {AGREEMENT:g}. Nothing was exported"
        )
    index = images.fracture.index
    truth = index["fracture_visible"].to_numpy(dtype=bool)
    bootstrap = PatientBootstrap(index["patient_id"], 2000, 0)
    torch_area, onnx_area = (bootstrap.area(truth, one["bundle"]) for one in (ours, theirs))
    return {
        "images": len(stems),
        "patients": int(index["patient_id"].nunique()),
        "networks_differ_at_most": worst,
        "probability_differs_at_most": float(differences["bundle"].max()),
        "probability_differs_on_average": float(differences["bundle"].mean()),
        "auroc": {
            "torch": bootstrap.interval(torch_area),
            "onnx": bootstrap.interval(onnx_area),
            "loss": bootstrap.difference(torch_area, onnx_area),
        },
    }


def _filestems(path: Path, images: pd.Series) -> list[str]:
    """Return the filestems that a table names; those of no image are counted in the log."""
    if path.suffix == ".parquet":
        named = _filestems_of_parquet(path)
    else:
        table = read_brought_table(path, ("filestem",))
        refuse_repeated(path, table, "filestem")
        named = table["filestem"].tolist()
    known = set(images)
    if strange := [name for name in named if name not in known]:
        logger.warning(
            "%s: %d of %d filestems are those of no image (%s%s)",
            *(path, len(strange), len(named), ", ".join(strange[:3])),
            " …" if len(strange) > 3 else "",
        )
    return named


def _filestems_of_parquet(path: Path) -> list[str]:
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise PedfracError(f"{path}: cannot be read as a table ({error})") from None
    if "filestem" not in table:
        raise PedfracError(f"{path}: column filestem is missing")
    return table["filestem"].astype(str).tolist()


def _differing(found: Mapping[str, float]) -> str:
    years = f" and {found[YEARS]:.2g} years" if YEARS in found else ""
    return f"{found[PROBABILITIES]:.2g} in probability{years}"


def _in_words(check: Mapping[str, Any]) -> str:
    share = check.get("share_in_8_bits")
    bits = "" if share is None else f", {share:.0%} of its weights in 8 bits"
    return f"{check['megabytes']:.1f} MB{bits}, differs from PyTorch by at most {_differing(check)}"
