"""The model as MLflow runs it: `mlflow models serve`, `mlflow models predict`, Spark.

A script that MLflow stores with the model and executes, not a module to import; the answers come
from service.py.
"""

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

from pedfrac.errors import PedfracError
from pedfrac.serving.service import BUNDLE, PARAMETERS, Served


class ServedModel(PythonModel):
    """A bundle with MLflow's interface."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the bundle; ``model_config`` may name its device."""
        device = (context.model_config or {}).get("device", "auto")
        self.served = Served.load(Path(context.artifacts[BUNDLE]), device)

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Score the rows of a request (see ``served``); what is wrong with it is the caller's."""
        try:
            return self.served.answer(model_input, **{**PARAMETERS, **(params or {})})
        except PedfracError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error


set_model(ServedModel())
