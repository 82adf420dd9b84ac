"""Finding what earlier runs have trained, for commands that train nothing themselves."""

from collections.abc import Iterator, Sequence

from pedfrac.config.retrain import RetrainConfig
from pedfrac.errors import PedfracError
from pedfrac.pipeline.keys import Prepared, Trained, store_of
from pedfrac.pipeline.training import age_training, fracture_training


def find_trained(config: RetrainConfig, splits: Sequence[Prepared]) -> list[Trained]:
    """Return the networks that were trained on each of some splits of the patients.

    Raises PedfracError that names the networks which are not there.
    """
    # each name once: where the images are not packed, all splits say the same
    if missing := dict.fromkeys(name for one in splits for name in _missing(config, one)):
        raise PedfracError(
            f"not trained yet with this data and configuration: {'; '.join(missing)}. "
            "'pedfrac retrain' with the same options trains what is missing"
        )
    return [_trained(config, prepared) for prepared in splits]


def _missing(config: RetrainConfig, prepared: Prepared) -> Iterator[str]:
    """Yield the names of networks that are not there."""
    store = store_of(config)
    if not (store.exists(prepared.fracture_pack) and store.exists(prepared.age_pack)):
        yield "all networks (the images are not packed)"
        return
    generalist = fracture_training(config, prepared)
    trainings = [generalist, age_training(config, prepared)]
    warm = config.fracture.specialist.start == "generalist"
    if generalist.done or not warm:  # the key of a specialist follows that of its start
        start = generalist.key if warm else None
        groups = range(len(config.cohort.ages))
        trainings += [fracture_training(config, prepared, group, start) for group in groups]
    yield from (one.name for one in trainings if not one.done)


def _trained(config: RetrainConfig, prepared: Prepared) -> Trained:
    generalist = fracture_training(config, prepared).key
    start = generalist if config.fracture.specialist.start == "generalist" else None
    groups = range(len(config.cohort.ages))
    return Trained(
        generalist=generalist,
        age=age_training(config, prepared).key,
        specialists=tuple(fracture_training(config, prepared, one, start).key for one in groups),
    )
