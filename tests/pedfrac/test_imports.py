"""The domain trains and predicts where none of Prefect, MLflow and boto3 is installed."""

import subprocess
import sys

import pytest

from pedfrac import pipeline

BLOCK = """
import sys
for name in ("prefect", "mlflow", "boto3"):
    sys.modules[name] = None
import pedfrac.training.trainer, pedfrac.serving.prediction, pedfrac.pipeline
for name in pedfrac.pipeline.__all__:
    getattr(pedfrac.pipeline, name)
"""


def test_training_and_steps_need_neither_prefect_nor_mlflow_nor_boto3():
    done = subprocess.run(
        [sys.executable, "-c", BLOCK], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_steps_on_tables_import_no_torch():
    """To read a table is a matter of a second."""
    program = "import sys, pedfrac.pipeline.data; print([m for m in HEAVY if m in sys.modules])"
    heavy = ("torch", "timm", "mlflow", "prefect", "matplotlib", "sklearn", "boto3")
    done = subprocess.run(
        [sys.executable, "-c", f"HEAVY = {heavy}\n{program}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_the_pipeline_knows_where_each_of_its_names_lives():
    assert set(pipeline.__all__) == {name for names in pipeline._HOMES.values() for name in names}
    assert all(getattr(pipeline, name) is not None for name in pipeline.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        pipeline.nothing  # noqa: B018
