"""A search proposes within its space, goes on where it stopped, and stops what falls behind."""

import optuna
import pytest

from pedfrac.config.loading import changed_config, load_config, to_yaml
from pedfrac.config.retrain import RetrainConfig
from pedfrac.config.search import Range, SearchConfig
from pedfrac.errors import PedfracError
from pedfrac.training.hyperparameter_search import (
    STORAGE,
    Outcome,
    Search,
    falls_behind,
    storage_of,
)

BASE = RetrainConfig.model_validate({"data": {"root": "data"}})
RATE = "fracture.training.learning_rate"


def open_search(folder, monitor="auroc", **changes):
    return Search(SearchConfig(**changes), BASE, monitor, f"sqlite:///{folder}/search.db")


def ended(*metrics, state="complete", hours=0.5, least=False):
    best = min(metrics) if least else max(metrics)
    return Outcome(
        state=state, metric=best, metrics=metrics, best_epoch=1 + metrics.index(best), hours=hours
    )


def rate(trial):
    return trial.config.fracture.training.learning_rate


def test_values_stay_in_their_space(tmp_path):
    space = {
        RATE: Range(low=1e-4, high=1e-3, log=True),
        "fracture.training.epochs": Range(low=2, high=4, whole=True),
        "fracture.training.imbalance": Range(choices=("sampler", "focal")),
        "fracture.training.augment.flip": Range(low=0, high=0.5),
    }
    search = open_search(tmp_path, space=space)
    tried = [search.ask().config.fracture.training for _ in range(12)]
    assert all(1e-4 <= one.learning_rate <= 1e-3 for one in tried)
    assert {one.epochs for one in tried} == {2, 3, 4}
    assert {one.imbalance for one in tried} == {"sampler", "focal"}
    assert len({one.augment.flip for one in tried}) == 12


@pytest.mark.parametrize(("monitor", "wanted"), [("auroc", 1e-3), ("loss", 3e-5)])
def test_it_learns_where_the_best_is(tmp_path, monitor, wanted):
    least = monitor == "loss"
    search = open_search(tmp_path, monitor, trials=25, space={RATE: Range(low=3e-5, high=1e-3)})
    while not search.exhausted:
        trial = search.ask()
        # more is reached with a larger rate: the best is at one end, or for a loss at the other
        search.tell(trial.number, ended(rate(trial) * 100, least=least))
    number, metric, best = search.best()
    assert best.fracture.training.learning_rate == pytest.approx(wanted, rel=0.3)
    assert metric == pytest.approx(100 * best.fracture.training.learning_rate)
    assert search.rows()[number]["metric"] == metric


def test_one_that_goes_on_takes_up_what_was_left(tmp_path):
    first = open_search(tmp_path, name="again")
    done, left = first.ask(), first.ask()
    first.tell(done.number, ended(0.7))
    second = open_search(tmp_path, name="again")
    (found,) = second.unfinished()
    assert (found.number, found.values) == (left.number, left.values)
    second.tell(found.number, ended(0.8))
    assert second.best()[0] == left.number
    assert second.unfinished() == []
    assert rate(second.ask()) not in (rate(done), rate(left))
    assert open_search(tmp_path, name="other").rows() == []


def test_the_budget_of_hours_ends_it(tmp_path):
    search = open_search(tmp_path, gpu_hours=1, trials=100)
    for _ in range(2):
        assert not search.exhausted
        search.tell(search.ask().number, ended(0.7, hours=0.6))
    assert search.exhausted
    assert search.hours_spent == pytest.approx(1.2)


def test_a_training_below_the_median_of_others_falls_behind(tmp_path):
    search = open_search(tmp_path, pruning_after=3, pruning_epochs=1)
    for metrics in [(0.5, 0.6, 0.9), (0.5, 0.7, 0.6), (0.5, 0.8)]:
        assert list(search.ask().floor) == []
        search.tell(len(search.rows()) - 1, ended(*metrics))
    assert list(search.ask().floor) == [None, 0.7, 0.8]

    def history(*metrics):
        return [{"validation": {"auroc": metric}} for metric in metrics]

    floor = [None, 0.7, 0.8]
    assert not falls_behind(history(0.1), "auroc", floor)
    assert falls_behind(history(0.1, 0.69), "auroc", floor)
    assert not falls_behind(history(0.75, 0.2), "auroc", floor)
    assert not falls_behind(history(0.1, 0.1, 0.1, 0.1), "auroc", floor)
    assert falls_behind([{"validation": {"loss": 0.5}}], "loss", [-0.4])
    search.tell(3, ended(0.6, 0.6, state="stopped"))
    assert search.rows()[3] | {"state": "stopped early", "metric": 0.6} == search.rows()[3]
    assert search.best()[1] == 0.9


def test_a_search_without_a_finished_training_has_no_best(tmp_path):
    search = open_search(tmp_path)
    search.fail(search.ask().number)
    with pytest.raises(PedfracError, match="no training was finished"):
        search.best()


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"cohort.age_bounds": {"low": 0, "high": 1}}, "cannot be searched"),
        ({"fracture.training.monitor": {"choices": ["f1", "auroc"]}}, "cannot be searched"),
        ({RATE: {"low": 1, "high": 1}}, "low 1 must be below high 1"),
        ({RATE: {"low": 0, "high": 1, "log": True}}, "above 0"),
        ({RATE: {"low": 0}}, "either low and high, or choices"),
    ],
)
def test_a_wrong_space_is_refused(space, message):
    with pytest.raises(ValueError, match=message):
        SearchConfig.model_validate({"space": space})


@pytest.mark.parametrize("space", [{RATE: (0, 1)}, {"fracture.training.epohcs": (1, 2)}])
def test_a_field_that_does_not_take_the_values_is_named_first(tmp_path, space):
    ranges = {name: Range(low=low, high=high) for name, (low, high) in space.items()}
    with pytest.raises(PedfracError, match=next(iter(space))):
        open_search(tmp_path, space=ranges)
    assert not (tmp_path / "search.db").exists()


def test_storage_that_cannot_be_had_is_named():
    with pytest.raises(PedfracError, match=STORAGE):
        Search(SearchConfig(), BASE, "auroc", "sqlite:////nowhere/at/all.db")


def test_the_best_reads_back_from_yaml(tmp_path):
    best = changed_config(BASE, {RATE: 0.002, "fracture.specialist.epochs": 3})
    (tmp_path / "best.yaml").write_text(to_yaml(best))
    assert load_config(str(tmp_path / "best.yaml"), []) == best
    assert optuna.logging.get_verbosity() == optuna.logging.WARNING


def test_trials_are_remembered_beside_the_artifacts_or_where_the_environment_says(
    tmp_path, monkeypatch
):
    monkeypatch.delenv(STORAGE, raising=False)
    local = BASE.model_copy(update={"artifacts": str(tmp_path / "kept")})
    assert storage_of(local) == f"sqlite:///{tmp_path}/kept/search.db"
    remote = BASE.model_copy(update={"artifacts": "s3://bucket/prefix"})
    with pytest.raises(PedfracError, match=f"set {STORAGE}"):
        storage_of(remote)
    monkeypatch.setenv(STORAGE, "sqlite:///here.db")
    assert storage_of(remote) == "sqlite:///here.db"
