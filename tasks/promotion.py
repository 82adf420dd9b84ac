"""Asking the gate and writing down what was decided, as tasks."""

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from pedfrac import challenge
from pedfrac.config import PromoteConfig
from pedfrac.gate import Decision
from pedfrac.ledger import Record


@task(name="ask gate", task_run_name="ask gate of version {version}", cache_policy=NO_CACHE)
def ask_gate(config: PromoteConfig, version: int) -> tuple[str, Decision]:
    """Return the key and the content of the gate's decision; show the comparison."""
    from pedfrac.gate_page import in_markdown  # matplotlib is slow to import

    key, decision = challenge.compare(config, version)
    place = challenge.store_of(config).place(key)
    page = f"{in_markdown(decision)}\n\nPage and figures: `{place}`"
    create_markdown_artifact(page, key="gate", description=decision.title)
    return key, decision


@task(name="write down", cache_policy=NO_CACHE)
def write_down(
    config: PromoteConfig,
    decided: tuple[str, Decision],
    approved: bool,
    by: str,
    reason: str,
    request: str,
    automatic: bool = False,
) -> Record:
    """Promote or reject a version; return the ledger's record."""
    return challenge.settle(config, decided, approved, by, reason, request, automatic=automatic)
