"""Asking the gate and writing down what was decided, as tasks."""

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from pedfrac.config.promotion import PromoteConfig
from pedfrac.promotion import comparison
from pedfrac.promotion.audit_log import Record
from pedfrac.promotion.decision import Decision


@task(name="ask gate", task_run_name="ask gate of version {version}", cache_policy=NO_CACHE)
def ask_gate(config: PromoteConfig, version: int) -> tuple[str, Decision]:
    """Return the key and the content of the gate's decision; show the comparison."""
    from pedfrac.promotion.page import in_markdown  # matplotlib is slow to import

    key, decision = comparison.compare(config, version)
    place = comparison.store_of(config).place(key)
    page = f"{in_markdown(decision)}\n\nPage and metrics: `{place}`"
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
    return comparison.settle(config, decided, approved, by, reason, request, automatic=automatic)
