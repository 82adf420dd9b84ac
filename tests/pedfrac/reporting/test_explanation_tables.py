"""Tables of heat maps' metrics."""

import numpy as np

from pedfrac.explanation.faithfulness import BETTER, faithfulness_metrics
from pedfrac.reporting.explanation_tables import explained_tables
from pedfrac.statistics.patient_bootstrap import PatientBootstrap


def test_each_metric_of_faithfulness_has_a_row_beside_the_centre_prior():
    images = np.zeros((3, 16, 16), np.uint8)
    images[:, 8:12, 8:12] = [[[200]], [[220]], [[240]]]
    bootstrap = PatientBootstrap(np.arange(3), 0, 0)
    found = faithfulness_metrics(
        lambda made: made.mean(axis=(1, 2)) / 255,
        images,
        images.astype(np.float32),
        [(0, 0, 16, 16)] * 3,
        bootstrap,
    )
    methods = {"gradcam": {"faithfulness": found.model_dump(mode="json")}}
    tables = explained_tables({"0-6y": {"method": "gradcam", "methods": methods}}, str)
    (table,) = (one for one in tables if "pixels are removed" in one.caption)
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert [row["metric"] for row in rows] == [name.replace("_", " ") for name in BETTER]
    for row, name in zip(rows, BETTER, strict=True):
        assert row["map"]["value"] == getattr(found, name).map.value
        assert row["map less centre prior"]["value"] is not None
