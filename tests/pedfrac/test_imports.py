"""The domain trains and predicts where none of Prefect, MLflow and boto3 is installed."""

import subprocess
import sys

BLOCK = """
import sys
for name in ("prefect", "mlflow", "boto3"):
    sys.modules[name] = None
import pedfrac.training.trainer, pedfrac.serving.prediction, pedfrac.pipeline
"""


def test_training_and_steps_need_neither_prefect_nor_mlflow_nor_boto3():
    done = subprocess.run(
        [sys.executable, "-c", BLOCK], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
