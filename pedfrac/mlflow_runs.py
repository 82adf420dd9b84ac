"""MLflow: one run for a retraining, a nested run for each of its models.

With registry and served_model the only module that knows MLflow; all others work without it.
"""

import logging
import os
import platform
import shlex
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from filelock import FileLock
from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from pedfrac.config.locations import TrackingConfig
from pedfrac.errors import PedfracError
from pedfrac.storage.code_version import code_version

logger = logging.getLogger(__name__)
SLOW = 5.0  # seconds after which a person is told what is waited for
FILES = "mlflow-files"  # beside a local store: files of runs and models
_BATCH = 100  # the most parameters that MLflow takes at once


@dataclass(frozen=True)
class Run:
    """A run of MLflow that is under way."""

    client: MlflowClient
    run_id: str
    experiment_id: str

    @property
    def link(self) -> str:
        """Where a person finds the run: a page of the server, or the store and the run's id.

        PEDFRAC_MLFLOW_URL: the server as a browser sees it, where workers see it elsewhere.
        """
        uri = os.environ.get("PEDFRAC_MLFLOW_URL") or self.client.tracking_uri
        if uri.startswith("http"):
            return f"{uri.rstrip('/')}/#/experiments/{self.experiment_id}/runs/{self.run_id}"
        return f"run {self.run_id} in {uri}"

    def link_to(self, file: str) -> str | None:
        """Return the page of the server that shows a file kept with the run; None without one."""
        return f"{self.link}/artifacts/{file}" if self.link.startswith("http") else None

    def log_epoch(self, epoch: Mapping[str, Any]) -> None:
        """Log all metrics of one epoch as ``training.…`` and ``validation.…`` in one call."""
        metrics = {"learning_rate": epoch["learning_rate"]}
        for part in ("training", "validation"):
            metrics |= {f"{part}.{name}": value for name, value in epoch[part].items()}
        self.log_metrics(metrics, step=epoch["epoch"])

    def log_metrics(self, metrics: Mapping[str, float | None], step: int = 0) -> None:
        """Log metrics; those that do not exist are left out."""
        time = int(np.datetime64("now", "ms").astype(int))
        entries = [
            Metric(name, float(value), time, step)
            for name, value in metrics.items()
            if value is not None
        ]
        self.client.log_batch(self.run_id, metrics=entries)

    def log_tags(self, tags: Mapping[str, str]) -> None:
        """Attach tags, such as the keys of artifacts."""
        self.client.log_batch(self.run_id, tags=[RunTag(k, v) for k, v in tags.items()])

    def log_files(self, path: Path, below: str | None = None) -> None:
        """Keep a file, or all files of a folder, with the run."""
        if path.is_dir():
            self.client.log_artifacts(self.run_id, str(path), below)
        else:
            self.client.log_artifact(self.run_id, str(path), below)

    def log_confusion(self, matrix: list[list[int]], name: str) -> None:
        """Keep a confusion matrix (rows: truth) as JSON."""
        self.client.log_dict(self.run_id, {"rows_are": "truth", "matrix": matrix}, f"{name}.json")


def tracking_uri(config: TrackingConfig, artifacts: Path) -> str:
    """Return where runs are kept: as configured, MLFLOW_TRACKING_URI, or SQLite in artifacts."""
    local = f"sqlite:///{(artifacts / 'mlflow.db').resolve()}"
    return config.uri or os.environ.get("MLFLOW_TRACKING_URI") or local


def missing_store(config: TrackingConfig, artifacts: Path) -> Path | None:
    """Return the SQLite file that should hold runs and models but does not exist, else None."""
    scheme, _, path = tracking_uri(config, artifacts).partition(":///")
    file = Path(path)
    return file if scheme == "sqlite" and not file.is_file() else None


def moved_store(config: TrackingConfig, artifacts: Path) -> str:
    """Return what to do where a store in SQLite was moved with its files; empty where it was not.

    MLflow keeps absolute paths of all files: it would look for models in the old place, and write
    there.
    """
    uri = tracking_uri(config, artifacts)
    if not uri.startswith("sqlite") or missing_store(config, artifacts):
        return ""
    with errors_of(uri):
        return _moved(MlflowClient(uri), config, artifacts)


def _moved(client: MlflowClient, config: TrackingConfig, artifacts: Path) -> str:
    file = Path(client.tracking_uri.partition(":///")[2]).resolve()
    here = file.parent / FILES
    experiment = client.get_experiment_by_name(config.experiment)
    if experiment is None or file.parent != artifacts.resolve():
        return ""  # files of a store elsewhere lie where its first run had its artifacts
    place = urllib.parse.urlsplit(experiment.artifact_location)
    before = Path(urllib.parse.unquote(place.path))
    if place.scheme != "file" or before.name != FILES or before.resolve() == here:
        return ""
    link = shlex.join(["ln", "-s", str(file.parent), str(before.parent)])
    return (
        f"{file}: was moved here, but MLflow still keeps files of runs and models in "
        f"{before.parent}; move it back, link the old place to this one ({link}), or name another "
        "store by tracking.uri"
    )


@contextmanager
def errors_of(uri: str) -> Iterator[None]:
    """Raise MLflow's errors as PedfracError that names the store, and say what is waited for."""
    slow = threading.Timer(SLOW, logger.warning, ("still waiting for MLflow at %s", uri))
    slow.daemon = True
    slow.start()
    try:
        yield
    except (mlflow.exceptions.MlflowException, SQLAlchemyError) as error:
        raise PedfracError(f"MLflow at {uri}: {_in_one_line(error)}") from error
    finally:
        slow.cancel()


def _in_one_line(error: Exception) -> str:
    """Return the first line of an error, which may go on with pages of its causes."""
    return next(iter(str(error).splitlines()), type(error).__name__)


@contextmanager
def start_run(
    config: TrackingConfig,
    artifacts: Path,
    name: str,
    parameters: Mapping[str, Any],
    *,
    parent: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> Iterator[Run]:
    """Open a run, below the run of id ``parent`` if given; it ends as finished or as failed.

    ``parameters`` may be nested; they are logged flat, with the environment as tags.
    Raises PedfracError where the tracking store cannot be reached, or was moved.
    """
    run = _create(config, artifacts, name, parent)
    flat = [Param(key, value) for key, value in _flat(parameters)]
    for start in range(0, len(flat), _BATCH):
        run.client.log_batch(run.run_id, params=flat[start : start + _BATCH])
    run.log_tags(_environment() | dict(tags or {}))
    try:
        yield run
    except BaseException:
        run.client.set_terminated(run.run_id, "FAILED")
        raise
    run.client.set_terminated(run.run_id, "FINISHED")


def _create(config: TrackingConfig, artifacts: Path, name: str, parent: str | None) -> Run:
    client, experiment = _open_experiment(config, artifacts)
    nested = {"mlflow.parentRunId": parent} if parent else {}
    with errors_of(client.tracking_uri):
        run = client.create_run(experiment, run_name=name, tags=nested)
    return Run(client, run.info.run_id, experiment)


def _open_experiment(config: TrackingConfig, artifacts: Path) -> tuple[MlflowClient, str]:
    """Return a client of the store and the id of the experiment, made where it is missing."""
    uri = tracking_uri(config, artifacts)
    artifacts.mkdir(parents=True, exist_ok=True)
    # one at a time, since two that make the tables of a new file at once would meet in them
    alone: AbstractContextManager[object] = (
        FileLock(artifacts / ".mlflow.lock") if uri.startswith("sqlite") else nullcontext()
    )
    with errors_of(uri), alone:
        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name(config.experiment)
        if moved := _moved(client, config, artifacts) if uri.startswith("sqlite") else "":
            raise PedfracError(moved)
        if experiment is not None:
            return client, experiment.experiment_id
        files = (artifacts / FILES).resolve().as_uri() if "sqlite" in uri else None
        return client, client.create_experiment(config.experiment, artifact_location=files)


def _environment() -> dict[str, str]:
    import sklearn  # these are slow to import, and who only reads runs and models needs none
    import timm
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "scikit-learn": sklearn.__version__,
        "pedfrac": code_version(),
        "machine": platform.platform(),
        "gpu": gpu,
    }


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)
