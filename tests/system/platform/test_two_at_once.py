"""Two retrainings at once: they share what is equal, and neither changes what the other says."""

import time
from collections import Counter

from platforms import GROUPS, children, config

METRICS = ("age-model", "fracture-model", "evaluation")


def test_two_retrainings_share_what_is_equal_and_spoil_nothing(stage, first, store):
    begun = time.time()
    parents = [stage.begin("retrain/retrain", _config(stage, "both", start)) for start in STARTS]
    for parent in parents:
        state = stage.finish(parent)
        assert state["type"] == "COMPLETED", state["message"]
    names = Counter(run["name"] for run in children(stage, begun))
    shared, own = ("train-age", "train-generalist"), (f"train-{group}" for group in GROUPS)
    assert names == dict.fromkeys(shared, 1) | dict.fromkeys(own, len(STARTS))
    spans = [stage.ask("GET", f"/flow_runs/{parent}") for parent in parents]
    assert max(run["start_time"] for run in spans) < min(run["end_time"] for run in spans)

    alone = stage.begin("retrain/retrain", _config(stage, "first", "fresh"))
    assert stage.finish(alone)["type"] == "COMPLETED"
    both, undisturbed = _metrics(store("both")), _metrics(store("first"))
    assert both == {key: undisturbed.get(key) for key in both}


STARTS = ("generalist", "fresh")  # the first is that of the undisturbed retraining


def _config(stage, artifacts: str, start: str) -> dict:
    settings = config(stage, artifacts)
    settings["config"]["fracture"]["specialist"] = {"start": start}
    return settings


def _metrics(store) -> dict[str, str]:
    return {a.key: a.digest for kind in METRICS for a in store.of_kind(kind)}
