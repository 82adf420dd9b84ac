"""The flow that scores images: a run on a schedule that finds no image yet ends well."""

import pytest
from prefect.testing.utilities import prefect_test_harness

from flows.prediction import predict
from pedfrac.config.serving import PredictionConfig
from pedfrac.serving.images import NoImage


@pytest.fixture(scope="module", autouse=True)
def server():
    with prefect_test_harness(server_startup_timeout=300):
        yield


def test_an_empty_folder_is_no_failure_for_one_that_watches(tmp_path):
    config = PredictionConfig(
        images=(str(tmp_path),), bundle="bundle", output=str(tmp_path / "a.csv")
    )
    with pytest.raises(NoImage):
        predict(config)
    state = predict(config, watch=True, return_state=True)
    assert (state.name, state.type.value) == ("No image yet", "COMPLETED")
    assert "no image found" in state.message
