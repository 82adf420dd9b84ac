"""The model registry: each retraining's bundle a version of one model in MLflow, with aliases.

Not here: which version deserves an alias, and the history of those that held it.
"""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, RESOURCE_DOES_NOT_EXIST, ErrorCode
from mlflow.tracking import MlflowClient
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

from pedfrac.config.locations import TrackingConfig
from pedfrac.errors import PedfracError
from pedfrac.mlflow_runs import errors_of, moved_store, tracking_uri
from pedfrac.promotion.audit_log import CHAMPION

CHALLENGER = "challenger"
BUNDLE = "bundle"  # tag with the key of the artifact that tells one version from another
MODEL = "logged model"  # tag with the id of MLflow's entry for the files of a version
REQUIREMENTS = (
    *("mlflow", "torch", "torchvision", "timm", "safetensors", "numpy", "pandas", "scikit-learn"),
    *("scipy", "pydantic", "pyyaml", "filelock", "psutil", "pandera", "pyarrow", "matplotlib"),
    *("grad-cam", "opencv-python-headless", "isal", "pydicom", "pylibjpeg"),
    *("pylibjpeg-openjpeg", "pyjpegls", "python-gdcm"),
)
"""What the served model imports; ``pedfrac`` itself travels with it."""


@dataclass(frozen=True)
class Version:
    """One version of the model: the run and artifacts (``tags``) it came of, and its aliases."""

    number: int
    run_id: str
    created: datetime
    tags: dict[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()


class Registry:
    """The versions of one registered model. Every method raises PedfracError where MLflow fails."""

    def __init__(self, client: MlflowClient, name: str):
        self._client, self.name = client, name

    @classmethod
    def of(cls, config: TrackingConfig, folder: Path) -> "Registry":
        """Return the registry beside the runs: where these are kept, see ``tracking_uri``.

        Raises PedfracError where the store was moved: its models would not be found.
        """
        uri = tracking_uri(config, folder)
        folder.mkdir(parents=True, exist_ok=True)
        if moved := moved_store(config, folder):
            raise PedfracError(moved)
        with errors_of(uri):
            return cls(MlflowClient(uri), config.model)

    def register(self, folder_of_bundle: Path, run_id: str, tags: Mapping[str, str]) -> Version:
        """Make a bundle a version of the model, the challenger; ``tags`` must hold its key.

        A bundle that is registered gives the version that it has, with ``tags`` renewed; a champion
        does not become its own challenger. Files go first: a version exists once its model is
        whole.
        """
        found = self._of_bundle(tags[BUNDLE])
        number = found.number if found else self._create(folder_of_bundle, run_id, tags)
        if found:
            self.set_tags(number, tags)
        if found is None or CHAMPION not in found.aliases:
            self.set_alias(CHALLENGER, number)
        return self.version(number)

    def versions(self) -> list[Version]:
        """Return all versions, the newest first; none where nothing was registered."""
        held = self._aliases()
        found = [_version(one, held) for one in self._search() if one.status == "READY"]
        return sorted(found, key=lambda one: one.number, reverse=True)

    def version(self, number: int) -> Version:
        """Return a version. Raises PedfracError that names those there are."""
        found = {one.number: one for one in self.versions()}
        if number not in found:
            there = ", ".join(map(str, sorted(found))) or "none"
            raise PedfracError(f"{self.name} has no version {number}; registered: {there}")
        return found[number]

    def holder(self, alias: str) -> Version | None:
        """Return the version that holds an alias, or None."""
        return next((one for one in self.versions() if alias in one.aliases), None)

    def set_alias(self, alias: str, number: int) -> None:
        """Give an alias to a version, in place of the one that held it."""
        self.version(number)
        with self._told():
            self._client.set_registered_model_alias(self.name, alias, str(number))
            if alias == CHAMPION:
                self._client.set_registered_model_tag(self.name, CHAMPION, str(number))

    def drop_alias(self, alias: str) -> None:
        """Take an alias from whichever version holds it; nothing happens where none does."""
        if alias == CHAMPION and CHAMPION in self._model_tags():
            with self._told():
                self._client.delete_registered_model_tag(self.name, CHAMPION)
        if alias in self._aliases():
            with self._told():
                self._client.delete_registered_model_alias(self.name, alias)

    def set_tags(self, number: int, tags: Mapping[str, str]) -> None:
        """Add tags to a version, or change them."""
        has = self.version(number).tags
        with self._told():
            for name, value in tags.items():
                if has.get(name) != value:
                    self._client.set_model_version_tag(self.name, str(number), name, value)

    def delete(self, number: int) -> None:
        """Delete a version, and mark its files for ``mlflow gc``; the champion is refused."""
        version = self.version(number)
        if CHAMPION in version.aliases or self._model_tags().get(CHAMPION) == str(number):
            raise PedfracError(
                f"version {number} of {self.name} is the champion and cannot be deleted; "
                "make another one champion before"
            )
        with self._told():
            for alias in version.aliases:  # or it would name a version that is gone
                self._client.delete_registered_model_alias(self.name, alias)
            self._client.delete_model_version(self.name, str(number))
            if MODEL in version.tags:
                self._client.delete_logged_model(version.tags[MODEL])

    def lost(self) -> str | None:
        """Say how the champion was lost behind our back; None where it is as it was set.

        MLflow deletes a version that holds an alias, and the alias with it, without a word.
        """
        was, now = self._model_tags().get(CHAMPION), self._aliases().get(CHAMPION)
        if was == now:
            return None
        if was is None:
            return f"version {now} of {self.name} was made champion by other means than pedfrac"
        if now is not None:
            return (
                f"version {was} of {self.name} was made champion, "
                f"but the alias was moved to version {now} by other means than pedfrac"
            )
        there = any(str(one.number) == was for one in self.versions())
        how = "the alias was dropped" if there else "the version was deleted"
        return f"version {was} of {self.name} was made champion, but {how}: there is none now"

    def _of_bundle(self, key: str) -> Version | None:
        """Return the version of a bundle: the first, should there be several."""
        return next((one for one in self.versions()[::-1] if one.tags.get(BUNDLE) == key), None)

    def _create(self, bundle: Path, run_id: str, tags: Mapping[str, str]) -> int:
        client = self._client
        with self._told(), tempfile.TemporaryDirectory() as temporary:
            run = client.get_run(run_id)
            model = client.create_logged_model(
                run.info.experiment_id,
                name=self.name,
                source_run_id=run_id,
                tags=dict(tags),
            )
            saved = Path(temporary) / "model"
            save_model(bundle, saved)
            client.log_model_artifacts(model.model_id, str(saved))
            client.finalize_logged_model(model.model_id, "READY")
            self._ensure_model()
            made = client.create_model_version(
                self.name,
                model.artifact_location,
                run_id=run_id,
                tags={**tags, MODEL: model.model_id},
                model_id=model.model_id,
            )
        return self._first_of_racers(int(made.version), tags[BUNDLE])

    def _first_of_racers(self, number: int, key: str) -> int:
        """Return the version of a bundle where two registered it at once: the first stays."""
        first = self._of_bundle(key)
        if first is None or first.number >= number:
            return number
        self.delete(number)
        return first.number

    def _ensure_model(self) -> None:
        try:
            self._client.create_registered_model(self.name)
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
                raise

    def _search(self) -> list[ModelVersion]:
        quoted = self.name.replace("'", "''")
        found: list[ModelVersion] = []
        token: str | None = ""
        with self._told():
            while token is not None:
                page = self._client.search_model_versions(
                    f"name = '{quoted}'", page_token=token or None
                )
                found += page
                token = page.token or None
        return found

    def _model(self) -> Any:
        """Return the registered model, or None before anything was registered."""
        with self._told():
            try:
                return self._client.get_registered_model(self.name)
            except MlflowException as error:
                if error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                    return None
                raise

    def _aliases(self) -> dict[str, str]:
        model = self._model()
        return {alias: str(number) for alias, number in model.aliases.items()} if model else {}

    def _model_tags(self) -> dict[str, str]:
        model = self._model()
        return dict(model.tags) if model else {}

    @contextmanager
    def _told(self) -> Iterator[None]:
        with errors_of(self._client.tracking_uri):
            yield


def save_model(bundle: Path, folder: Path) -> None:
    """Write a bundle as a model of MLflow's pyfunc flavour, from code: nothing is pickled.

    It carries the package's code beside the bundle: its answers do not change with a machine's.
    """
    package = Path(__file__).parents[1]
    mlflow.pyfunc.save_model(
        folder,
        python_model=str(package / "serving" / "mlflow_model.py"),
        artifacts={BUNDLE: str(bundle)},
        code_paths=[str(package)],
        pip_requirements=[f"{name}=={_public_version(name)}" for name in REQUIREMENTS],
        signature=signature(),
        input_example=pd.DataFrame({"path": ["image.png"], "age": [7.5]}),
    )


def signature() -> ModelSignature:
    """Return what the served model takes and gives (see ``served``)."""
    from pedfrac.serving.service import ANSWERS, INPUTS, PARAMETERS

    types = {str: DataType.string, float: DataType.double, bool: DataType.boolean}

    def schema(columns: Mapping[str, type]) -> Schema:
        return Schema([ColSpec(types[kind], name, False) for name, kind in columns.items()])

    parameters = [
        ParamSpec(name, types[type(default)], default) for name, default in PARAMETERS.items()
    ]
    return ModelSignature(schema(INPUTS), schema(ANSWERS), ParamSchema(parameters))


def _public_version(package: str) -> str:
    """Return a version as registries have it, without the local part of a build (+cu126)."""
    return installed_version(package).partition("+")[0]


def _version(entry: ModelVersion, aliases: Mapping[str, str]) -> Version:
    number = str(entry.version)
    return Version(
        number=int(number),
        run_id=entry.run_id or "",
        created=datetime.fromtimestamp(entry.creation_timestamp / 1000, UTC),
        tags=dict(entry.tags),
        aliases=tuple(
            sorted(alias for alias, held in aliases.items() if held == str(entry.version))
        ),
    )
