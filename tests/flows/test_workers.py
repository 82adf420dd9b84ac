"""Which workers a machine runs for a pool, and which queues each of them serves."""

from pathlib import Path

import yaml

from flows.infrastructure.workers import serving, slots_here

POOLS = Path(__file__).parents[2] / "deployments/pools.yaml"
QUEUES = {
    name: list(pool["queues"]) for name, pool in yaml.safe_load(POOLS.read_text())["pools"].items()
}


def served(pool, slots):
    found = serving(slots_here(pool, slots), ["default", *QUEUES[pool]], pool)
    return [(one.queues, one.limit) for one in found]


def test_parents_and_prediction_hold_no_slot_of_the_others():
    short = ("default", "clicked", "scheduled")
    waiting = ("waiting-clicked", "waiting-scheduled")
    assert served("cpu", 2) == [(short, 1), (short, 1), (waiting, 8), (("prediction",), 1)]


def test_a_pool_without_such_queues_is_served_as_a_whole():
    assert served("gpu", 1) == [((), 1)]
