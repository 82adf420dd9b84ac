"""Prediction as a step: images found, scored and written as the configuration says."""

import logging
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from pedfrac.bundle.bundle import Bundle, bundle_digest
from pedfrac.bundle.reference_profile import has_profile, load_profile
from pedfrac.compute.devices import resolve_device
from pedfrac.compute.malloc import keep_freed_memory
from pedfrac.config.serving import PredictionConfig
from pedfrac.errors import PedfracError
from pedfrac.pipeline.bundles import bundle_folder
from pedfrac.serving.images import find_images, read_ages
from pedfrac.serving.observer import Observer
from pedfrac.serving.prediction import NUMBERS, Prediction, predict, predict_to
from pedfrac.serving.score_table import ScoreFile, local_output, read_scores

logger = logging.getLogger(__name__)
NAMED = 20  # left-out files that the log names; all are in the result


def predict_images(
    config: PredictionConfig, progress: Callable[[int, int], None] | None = None
) -> Prediction:
    """Find and score images, and write what is asked for.

    Raises PedfracError where the input is wrong or none of the images could be scored; a table is
    written then, too.
    """
    keep_freed_memory()
    if config.output:
        ScoreFile(Path(config.output), NUMBERS)  # refuses a wrong suffix before anything is done
    left_out: dict[str, str] = {}
    images = find_images(
        config.images,
        read_ages(Path(config.ages)) if config.ages else None,
        Path(config.labels) if config.labels else None,
        left_out,
    )
    for name, reason in islice(left_out.items(), NAMED):
        logger.warning("%s: left out: %s", name, reason)
    if len(left_out) > NAMED:
        logger.warning("and %d more left out", len(left_out) - NAMED)
    folder = bundle_folder(config.bundle, config.artifacts)
    on_cpu = (config.runtime, config.device) == ("onnx", "auto")
    device = resolve_device("cpu" if on_cpu else config.device)
    bundle = Bundle.load(folder, device, config.runtime)
    if config.prevalence is not None:
        bundle = bundle.at_prevalence(config.prevalence)
    options: Any = {"batch_size": config.batch_size, "progress": progress}
    refused: dict[str, str] = {}
    if not config.output:
        rows = predict(bundle, images, **options)
        done = Prediction(Counter(rows["call"]), refused, lambda: rows, left_out)
    else:
        digest = bundle_digest(folder)
        observer = Observer(load_profile(folder).basis if has_profile(folder) else None)
        if config.dicom_out:
            from pedfrac.serving.dicom_output import DicomFolder

            out = DicomFolder(Path(config.dicom_out), bundle, digest)
            options |= {"witness": out.write, "is_whole": out.holds}
            refused = out.refused
        with local_output(config.output) as path:
            calls = predict_to(path, bundle, digest, images, observer=observer, **options)
        numbers = [*NUMBERS, *observer.numbers]
        done = Prediction(calls, refused, partial(read_scores, config.output, numbers), left_out)
    if done.failed == len(images):
        raise PedfracError(
            f"none of {len(images)} images could be scored; the first: {done.rows['error'].iloc[0]}"
        )
    return done
