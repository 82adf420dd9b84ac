"""Versions in a registry and a store with artifacts as a retraining leaves them, made up."""

import json
from functools import cache
from pathlib import Path

import numpy as np
from made_versions import AGES, TESTED, answers, images, make_version
from mlflow.tracking import MlflowClient
from small_bundles import INFO, write_bundle_of_words

from pedfrac.config.promotion import PromoteConfig
from pedfrac.data.split import Split, prove_disjoint, save_split
from pedfrac.evaluation.evaluation import save_evaluation
from pedfrac.promotion.registry import Registry
from pedfrac.storage.files import write_json
from pedfrac.storage.store import ArtifactStore

MODELS = ("age", "generalist", *(f"specialist-{name}" for name in AGES.names))


@cache
def _made(**said):
    return make_version(0, answers(**said))


class Registered:
    """A folder with store and registry; ``config`` is that of a promotion."""

    def __init__(self, folder: Path, model: str, root: str | None = None):
        uri = f"sqlite:///{folder}/mlflow.db"
        self.config = PromoteConfig.model_validate(
            {
                "artifacts": root or str(folder / "artifacts" / model),
                "tracking": {"uri": uri, "model": model},
            }
        )
        self.store = ArtifactStore(self.config.artifact_root)
        self.registry = Registry.of(self.config.tracking, folder)
        self.client = MlflowClient(uri)
        self.client.create_registered_model(model)

    def add(self, epochs=3, leak=(), **said) -> int:
        """Register what a retraining left, with these ``answers``; return the version's number.

        ``leak``: test patients that its networks learned from, by a split of their own.
        """
        keys = self._keys(_made(**said), epochs, leak)
        name, count = self.registry.name, len(self.registry.versions())
        self.client.create_model_version(name, f"file:///models/{count}", tags=keys)
        self.registry.set_alias("challenger", count + 1)
        return count + 1

    def _keys(self, made, epochs, leak) -> dict[str, str]:
        produce = self.store.produce
        records = produce(
            "records", lambda f: (f / "r.csv").write_text("images"), config={"root": "images"}
        )
        cohort = produce(
            "cohort",
            lambda f: write_json(f / "c.json", {}),
            config={"exclude_metal": True, "age_bounds": [0, 6, 12, 19]},
            parents={"records": records},
        )
        split = self._split(cohort, ())
        learned = self._split(cohort, leak) if leak else split
        networks = {
            name: produce(
                "fracture-model",
                lambda f, n=name: (f / "m").write_text(f"{n}{epochs}"),
                config={"training": {"epochs": epochs}},
                sources={"name": name},
                parents={"split": learned},
            )
            for name in MODELS
        }
        info = INFO.model_copy(update={"age_bounds": AGES.bounds})

        bundle = produce(
            "bundle",
            lambda folder: write_bundle_of_words(folder, epochs, info),
            config={"threshold": "youden"},
            sources={"code": "c0ffee"},
            parents=networks | {"split": split},
        )
        evaluation = produce(
            "evaluation",
            lambda f: save_evaluation(f, made.images, made.metrics),
            sources={"said": str(made.images["bundle"].sum())},
            parents={"bundle": bundle, "split": split},
        )

        def explain(folder):
            for name, metrics in made.explanation.items():
                write_json(folder / name / "metrics.json", metrics)

        below = {"bundle": bundle, "evaluation": evaluation}
        explanation = produce("explanation", explain, parents=below)
        report = produce("report", lambda f: (f / "report.html").write_text("."), parents=below)
        kept = {"records": records, "split": split, "explanation": explanation, "report": report}
        return {name: one.key for name, one in (kept | below).items()}

    def _split(self, cohort, leak):
        table = images()[["filestem", "patient_id"]].copy()
        tested = (np.arange(len(table)) < TESTED) & ~table["patient_id"].isin(leak)
        table["part"] = np.where(tested, "test", "train")
        table = table.assign(reason="", place=table["part"], fold=-1)
        split = Split(table)
        report = {"disjoint": prove_disjoint(split)}
        return self.store.produce(
            "split",
            lambda folder: save_split(split, json.loads(json.dumps(report)), folder),
            config={"seed": 0},
            sources={"leak": str(sorted(leak))},
            parents={"cohort": cohort},
        )
