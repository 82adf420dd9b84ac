"""The step that compares a window of scored images with what a bundle's own images were like."""

import hashlib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from pedfrac.bundle.bundle import bundle_digest
from pedfrac.bundle.reference_profile import load_profile
from pedfrac.config.monitoring import DriftConfig, MonitorConfig
from pedfrac.monitoring.drift import find_drift, metrics_of
from pedfrac.monitoring.time_windows import Window, read_window
from pedfrac.storage.code_version import code_digest
from pedfrac.storage.files import export, write_json
from pedfrac.storage.manifest import Artifact
from pedfrac.storage.store import ArtifactStore

CODE = (
    *("age_groups", "bundle", "evaluation.calibration", "imaging", "models", "monitoring"),
    *("pipeline.monitoring", "scoring", "serving.score_table", "statistics"),
)
FINDINGS, PAGE = "drift.json", "drift.html"


class Monitored(BaseModel):
    """What a comparison found: the artifact's key, the bundle's digest and what changed, in words.

    ``drifted`` names what was called changed; ``page`` is where people look.
    """

    model_config = ConfigDict(frozen=True)
    key: str
    bundle: str
    verdict: str
    drifted: tuple[str, ...]
    said: str
    page: str


def monitor_window(config: MonitorConfig) -> Monitored:
    """Compare a window with its bundle's profile; keep metrics and page as an artifact.

    Raises PedfracError where tables, labels or bundle are not what they should be, or the bundle
    has no profile.
    """
    from pedfrac.pipeline.bundles import bundle_folder  # the readers of DICOM are slow to import

    folder = bundle_folder(config.bundle, config.artifacts)
    profile, digest = load_profile(folder), bundle_digest(folder)
    window = read_window(config, digest, profile.features)

    rules, bundle = config.part(DriftConfig), config.bundle

    def make(target: Path) -> None:
        from pedfrac.monitoring.page import write_page  # matplotlib is slow to import

        found = find_drift(profile, window, rules)
        found |= {"bundle": {"name": bundle, "digest": digest}}
        write_json(target / FINDINGS, found)
        write_page(target / PAGE, found)

    made = store_for(config).produce(
        "drift",
        make,
        config=rules.model_dump(mode="json") | {"bundle": bundle},
        sources={"window": _digest(window), "bundle": digest, "code": code_digest(CODE)},
    )
    found = made.read_json(FINDINGS)
    return Monitored(
        key=made.key,
        bundle=digest,
        verdict=found["verdict"],
        drifted=tuple(found["drifted"]),
        said=found["said"],
        page=_published(config, made),
    )


def track_window(config: MonitorConfig) -> tuple[Monitored, str]:
    """Compare a window as ``monitor_window`` does, as a run of MLflow; return what was found and
    where the run is.
    """
    from pedfrac import mlflow_runs  # slow to import

    settings = config.model_dump(mode="json")
    with mlflow_runs.start_run(config.tracking, config.tracking_folder, "monitor", settings) as run:
        found = monitor_window(config)
        run.log_tags(
            {"bundle": found.bundle, "drift": found.key, "verdict": found.verdict}
            | {"drifted": ", ".join(found.drifted)}
        )
        run.log_metrics(drift_metrics(config, found))
    return found, run.link


def store_for(config: MonitorConfig) -> ArtifactStore:
    """Return the store that the configuration names."""
    return ArtifactStore(config.artifact_root)


def drift_findings(config: MonitorConfig, found: Monitored) -> dict[str, Any]:
    """Return all that a comparison left."""
    findings: dict[str, Any] = store_for(config).get(found.key).read_json(FINDINGS)
    return findings


def drift_metrics(config: MonitorConfig, found: Monitored) -> dict[str, float | None]:
    """Return the metrics of a comparison by flat names."""
    return metrics_of(drift_findings(config, found))


def _published(config: MonitorConfig, made: Artifact) -> str:
    """Return where the page lies: a copy in the output folder, if there is to be one."""
    if not config.output:
        return f"{store_for(config).place(made.key)}/{PAGE}"
    for name in (FINDINGS, PAGE):
        export(made.file(name), Path(config.output) / name)
    return str(Path(config.output) / PAGE)


def _digest(window: Window) -> str:
    told = [window.images.to_csv(index=False), repr(window.counts), window.since, window.until]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()
