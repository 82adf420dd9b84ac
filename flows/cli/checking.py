"""The command ``check``: all that is known to be wrong with a retraining, before it begins."""

from typing import Any

from flows.cli.options import AsJson, Settings, configured
from flows.cli.output import as_table, out, print_result
from pedfrac.errors import PedfracError


@configured
def check(given: Settings, as_json: AsJson = False) -> None:
    """Look for all that would stop a retraining, in seconds, and compute nothing.

    Looked at are networks and their weights, heat maps, table, images and labels by name, age
    groups of the split, folders, disk, object storage and MLflow. Ends with exit code 1 where a
    retraining would stop; `retrain` looks by itself before it begins.
    """
    settings = given.read()
    from pedfrac.pipeline.preflight import preflight

    found = preflight(settings)
    stopping = sum(one.stops for one in found)
    rows: list[dict[str, Any]] = [
        {"where": one.where, "finding": one.what, "stops": one.stops} for one in found
    ]
    result = {"findings": [one.model_dump() for one in found], "stopping": stopping}
    print_result(result if as_json else {}, as_json, [as_table("Findings", rows)])
    if stopping:
        raise PedfracError(f"check: {stopping} of {len(found)} findings would stop a retraining")
    if not as_json:
        out.print("Nothing is known that would stop a retraining.")
