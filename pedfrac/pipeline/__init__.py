"""Each step of a retraining, from the configuration and its parents' keys to an artifact's key.

The computation of a step is in its package; here are its inputs, its key and the files it writes.
No Prefect: a worker or a notebook can call any step directly.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pedfrac.pipeline.bundling import assemble_bundle
    from pedfrac.pipeline.data import (
        count_listed,
        pack_images,
        pack_key,
        read_records,
        select_cohort,
        split_patients,
    )
    from pedfrac.pipeline.evaluation import evaluate_bundle
    from pedfrac.pipeline.explanation import explain_bundle
    from pedfrac.pipeline.finding import find_trained
    from pedfrac.pipeline.folds import FoldScoring, cut_folds, fold_in_words, pool_folds
    from pedfrac.pipeline.keys import Evaluated, Prepared, Progress, Trained, store_of
    from pedfrac.pipeline.monitoring import (
        Monitored,
        drift_findings,
        drift_metrics,
        monitor_window,
        track_window,
    )
    from pedfrac.pipeline.preflight import require_sound
    from pedfrac.pipeline.results import (
        finished_retraining,
        headline_metrics,
        publish_heat_maps,
        publish_results,
        record_retraining,
        version_tags,
        write_report,
    )
    from pedfrac.pipeline.robustness import check_robustness
    from pedfrac.pipeline.training import (
        Training,
        age_training,
        fracture_training,
        validation_confusion,
    )

# Where each name lives. A step is imported when it is first asked for: to read a table should not
# take the seconds of importing torch.
_HOMES = {
    "data": (
        "count_listed",
        "pack_images",
        "pack_key",
        "read_records",
        "select_cohort",
        "split_patients",
    ),
    "bundling": ("assemble_bundle",),
    "evaluation": ("evaluate_bundle",),
    "explanation": ("explain_bundle",),
    "robustness": ("check_robustness",),
    "finding": ("find_trained",),
    "folds": ("FoldScoring", "cut_folds", "fold_in_words", "pool_folds"),
    "keys": ("Evaluated", "Prepared", "Progress", "Trained", "store_of"),
    "monitoring": (
        "Monitored",
        "drift_findings",
        "drift_metrics",
        "monitor_window",
        "track_window",
    ),
    "preflight": ("require_sound",),
    "results": (
        "finished_retraining",
        "headline_metrics",
        "publish_heat_maps",
        "publish_results",
        "record_retraining",
        "version_tags",
        "write_report",
    ),
    "training": ("Training", "age_training", "fracture_training", "validation_confusion"),
}

__all__ = [
    "Evaluated",
    "FoldScoring",
    "Monitored",
    "Prepared",
    "Progress",
    "Trained",
    "Training",
    "age_training",
    "assemble_bundle",
    "check_robustness",
    "count_listed",
    "cut_folds",
    "drift_findings",
    "drift_metrics",
    "evaluate_bundle",
    "explain_bundle",
    "find_trained",
    "finished_retraining",
    "fold_in_words",
    "fracture_training",
    "headline_metrics",
    "monitor_window",
    "pack_images",
    "pack_key",
    "pool_folds",
    "publish_heat_maps",
    "publish_results",
    "read_records",
    "record_retraining",
    "require_sound",
    "select_cohort",
    "split_patients",
    "store_of",
    "track_window",
    "validation_confusion",
    "version_tags",
    "write_report",
]


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
