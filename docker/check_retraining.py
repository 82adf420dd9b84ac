"""Begin a deployment of retrain as a click does, with tiny networks, and wait for how it ends.

check_retraining.py DEPLOYMENT STATE     exit 0 where the run ends in the state of this name
"""

import sys

from prefect.client.orchestration import get_client
from prefect.deployments import run_deployment

TINY = {"epochs": 1, "patience": 1, "batch_size": 16}
SETTINGS = {
    "cohort": {"age_bounds": [0, 10, 19]},
    "split": {"test_per_year": 1, "validation_fraction": 0.3},
    "fracture": {
        "model": {
            "backbone": "convnextv2_atto",
            "options": {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]},
            "weights": "none",
            "size": 48,
        },
        "training": TINY,
    },
    "age": {
        "model": {
            "options": {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 3},
            "weights": "none",
            "size": 48,
        },
        "training": TINY,
    },
    "evaluation": {"resamples": 50},
    "explanation": {"images_per_group": 3},
}


def main(deployment: str, wanted: str) -> None:
    """Run it with what the deployment has as parameters, and these settings over them."""
    name = f"retrain/{deployment}"
    with get_client(sync_client=True) as client:
        parameters = client.read_deployment_by_name(name).parameters
    config = parameters["config"] | SETTINGS
    run = run_deployment(name, parameters=parameters | {"config": config}, timeout=1800)
    state = run.state
    print(f"{run.name}: {state.name if state else 'no state'}: {state.message if state else ''}")
    if state is None or state.name != wanted:
        sys.exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
