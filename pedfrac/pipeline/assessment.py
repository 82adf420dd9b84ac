"""All that is found out about trained networks, as one piece of work for a machine with a GPU."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from pedfrac.config.retrain import RetrainConfig
from pedfrac.pipeline.keys import Evaluated, Prepared, Trained, parents_of, store_of
from pedfrac.storage.code_version import code_digest
from pedfrac.storage.files import write_json
from pedfrac.storage.inputs import Inputs
from pedfrac.storage.manifest import Artifact

KEYS = "keys.json"
CODE = (
    "bundle",
    "evaluation",
    "explanation",
    "scoring",
    "models",
    "imaging",
    "packs",
    "statistics",
)
SECTIONS = ("cohort", "pixels", "fracture", "age", "evaluation", "explanation", "robustness")


@dataclass(frozen=True)
class Assessment:
    """Bundle, evaluation, heat maps and robustness of trained networks.

    What it leaves are the keys of these four; its own key is known before any of them is made.
    """

    config: RetrainConfig
    prepared: Prepared
    trained: Trained
    folds: str | None
    name: ClassVar[str] = "bundle"
    kind: ClassVar[str] = "assessment"

    @property
    def inputs(self) -> Inputs:
        """What it is made from."""
        config = self.config.model_dump(mode="json", include=set(SECTIONS))
        return Inputs.of(self.kind, config, {"code": code_digest(CODE)}, self._from)

    @property
    def key(self) -> str:
        """The key of the keys, known before they are."""
        return self.inputs.key

    @property
    def done(self) -> bool:
        """Whether all four are in the store."""
        store = store_of(self.config)
        return store.exists(self.key) and all(
            map(store.exists, self.evaluated.model_dump().values())
        )

    def run(self, assess: Callable[[], Evaluated]) -> str:
        """Keep the keys that ``assess`` returns, whose own steps make only what is missing."""
        found = assess()
        inputs = self.inputs
        return (
            store_of(self.config)
            .produce(
                self.kind,
                lambda folder: write_json(folder / KEYS, found.model_dump(mode="json")),
                config=inputs.config,
                sources=inputs.sources,
                parents=self._from,
            )
            .key
        )

    @property
    def evaluated(self) -> Evaluated:
        """The keys, once they are there."""
        return Evaluated.model_validate(store_of(self.config).get(self.key).read_json(KEYS))

    @property
    def _from(self) -> dict[str, Artifact]:
        more = {"age": self.trained.age, "generalist": self.trained.generalist}
        more |= {f"specialist-{n}": key for n, key in enumerate(self.trained.specialists)}
        more |= {"folds": self.folds} if self.folds else {}
        return parents_of(store_of(self.config), self.prepared, **more)
