"""The command line: its commands by name, and how it ends."""

import typer

from flows.cli import (
    data,
    evaluation,
    platform,
    prediction,
    promotion,
    reproduction,
    training,
)
from flows.cli.artifacts import artifacts
from flows.cli.checking import check
from flows.cli.deployment import deploy
from flows.cli.endings import ending_well
from flows.cli.export import export
from flows.cli.monitoring import monitor
from flows.cli.registry import registry
from flows.cli.surroundings import prepare_surroundings
from flows.cli.weights import weights

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="""Retrain, evaluate and use fracture classifiers for children's wrist X-rays.

    Steps build on one another and keep what they make: `retrain` runs them all, each other
    command runs what it needs and stops. Nothing that is there already is done again.

    Research use only; not a medical device.
    """,
)
for command in (
    *(training.retrain, training.train_age, training.train_fracture, training.search),
    *(reproduction.reproduce,),
    *(check, data.phantom, data.records, data.split, data.pack),
    *(evaluation.evaluate, evaluation.explain, evaluation.report),
    *(prediction.predict, export, monitor),
    *(promotion.promote, promotion.rollback, promotion.promotions),
    *(platform.workers, platform.pools, deploy, weights),
):
    app.command()(command)
app.add_typer(artifacts, name="artifacts")
app.add_typer(registry, name="registry")


def main() -> None:
    """Run the command line: what goes wrong ends in one line on stderr and exit code 1."""
    prepare_surroundings()
    with ending_well():
        app()


if __name__ == "__main__":
    main()
