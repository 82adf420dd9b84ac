"""What the metadata of the real data set predict: the metrics known of it."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold

from pedfrac.config.data import DataConfig
from pedfrac.data.records import read_records
from pedfrac.evaluation.metadata_baseline import baseline_scores

ROOT = Path(__file__).parents[2].parent / "shared" / "data" / "grazpedwri"

pytestmark = pytest.mark.skipif(
    not (ROOT / "dataset.csv").exists(), reason=f"the real data are not at {ROOT}"
)


@pytest.fixture(scope="module")
def images():
    return read_records(DataConfig(root=str(ROOT), images=False)).table


@pytest.mark.parametrize(("clinical", "known"), [(False, 0.698), (True, 0.869)])
def test_metadata_predict_fractures_as_well_as_is_known(images, clinical, known):
    scores = np.empty(len(images))
    folds = GroupKFold(5, shuffle=True, random_state=0)
    for train, test in folds.split(images, groups=images["patient_id"]):
        scores[test] = baseline_scores(images.iloc[train], images.iloc[test], clinical=clinical)
    assert roc_auc_score(images["fracture_visible"], scores) == pytest.approx(known, abs=0.01)
