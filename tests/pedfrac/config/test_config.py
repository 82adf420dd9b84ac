"""Configuration: read from YAML and flags, refused with field, value and what is allowed."""

import pytest

from pedfrac.config.loading import load_config, load_promotion, load_search
from pedfrac.errors import PedfracError


def test_flags_come_after_the_file(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("data: {root: here}\ncohort: {age_bounds: [0, 5, 19]}\n")
    config = load_config(str(path), ["cohort.age_bounds=0,6,12,19", "fracture.training.epochs=3"])
    assert config.data.root == "here"
    assert config.cohort.ages.names == ["0-6y", "6-12y", "12-19y"]
    assert config.fracture.training.epochs == 3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("fracture.training.imbalance=both", "fracture.training.imbalance.*'both'"),
        ("cohort.age_bounds=5,1", "must ascend"),
        ("cohort.projections=1,4", "cohort.projections.*found '4'"),
        ("colour=red", "colour: there is no such field .*'red'.*cohort"),
        ("fracture.training.epoch=3", "training.epoch: there is no such field .*near it: epochs$"),
        (
            "fracture.qwx=3",
            "fracture.qwx: there is no .*allowed are model, training, maps, specialist",
        ),
        ("fracture.model.options={", "^--set fracture.model.options={: is not YAML"),
        ("cohort.age_bounds=0", "cohort.age_bounds.*at least 2"),
        ("split.folds=1", "split.folds.*found 1"),
        ("split.fold=1", "split.*fold 1 is one of folds, which must be given"),
        ("fracture.training.learning_rate=.inf", "learning_rate: Input should be a finite"),
        ("fracture.training.learning_rate=1e999", "learning_rate: Input should be a finite"),
        ("cohort.age_bounds=[0, .nan, 19]", "age_bounds.1: Input should be a finite"),
        ("cohort.age_bounds='0,nan,19'", "age_bounds.1: Input should be a finite"),
        ("split.validation_fraction=.nan", "validation_fraction: Input should be a finite"),
        ("evaluation.fixed=.nan", "evaluation.fixed: Input should be a finite"),
        ("robustness.rotation=5,inf", "rotation.1: Input should be a finite"),
        (
            "fracture.model.options={drop_path_rate: .nan}",
            "drop_path_rate.float: Input should be a finite",
        ),
        ("fracture.model.options={dims: [8, .inf]}", "dims.list.1.float: Input should be a finite"),
        ("fracture.model.options={num_classes: 5}", "num_classes is not an option: the head"),
        ("age.model.options={in_chans: 3}", "in_chans is not an option: images have one grey"),
        ("age.model.options={img_size: 64}", "img_size is not an option: set size instead"),
        ("age.model.options={pretrained: true}", "pretrained is not an option: set weights"),
        ("fracture.model.options={a: 1, a: 2}", "'a' is given twice, on line 1 and line 1"),
        ("epochs", "must look like"),
        ("data.root.x=1", "data.root|root is a value"),
    ],
)
def test_what_is_wrong_is_named(override, message):
    with pytest.raises(PedfracError, match=message):
        load_config(None, ["data.root=x", override])


def test_a_broken_file_is_named(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("a: [")
    with pytest.raises(PedfracError, match="c.yaml: is not YAML"):
        load_config(str(path), [])
    with pytest.raises(PedfracError, match="nowhere.yaml: cannot be read"):
        load_config(str(tmp_path / "nowhere.yaml"), [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: {root: a}\ndata: {root: b}\n", "key 'data' is given twice, on line 1 and line 2"),
        ("data:\n  root: a\n  root: b\n", "key 'root' is given twice, on line 2 and line 3"),
        ('data: {root: a, "root": b}\n', "key 'root' is given twice"),
    ],
)
def test_a_key_that_is_given_twice_is_refused(tmp_path, text, message):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    for read in (lambda: load_config(str(path), []), lambda: load_promotion(str(path), [])):
        with pytest.raises(PedfracError, match=f"c.yaml: {message}"):
            read()
    with pytest.raises(PedfracError, match=message):
        load_search(str(path))


def test_merged_keys_may_be_overridden(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(
        "data: {root: a}\nfracture: {training: &t {epochs: 4, batch_size: 2}}\n"
        "age: {training: {<<: *t, epochs: 5}}\n"
    )
    config = load_config(str(path), [])
    assert (config.age.training.epochs, config.age.training.batch_size) == (5, 2)


def test_what_must_be_given_is_named():
    with pytest.raises(PedfracError, match=r"^configuration: data.root: must be given \(Folder"):
        load_config(None, [])


@pytest.mark.parametrize(
    ("override", "section", "field", "value"),
    [
        ("pixels.markers=off", "pixels", "markers", "off"),  # which YAML takes for false
        ("runtime.compile=on", "runtime", "compile", "on"),
        ("tracking.experiment=2024", "tracking", "experiment", "2024"),
        ("cohort.projections=1", "cohort", "projections", (1,)),
        ("split.folds=none", "split", "folds", None),
    ],
)
def test_words_are_understood_whatever_yaml_makes_of_them(override, section, field, value):
    config = load_config(None, ["data.root=x", override])
    assert getattr(getattr(config, section), field) == value


def test_specialists_differ_only_where_said():
    config = load_config(None, ["data.root=x", "fracture.specialist.epochs=2"])
    assert config.fracture.specialist_training.epochs == 2
    assert (
        config.fracture.specialist_training.learning_rate == config.fracture.training.learning_rate
    )


def test_one_value_set_leaves_its_neighbours_at_their_defaults():
    config = load_config(None, ["data.root=x", "age.model.size=96", "age.training.epochs=3"])
    assert config.age.model.backbone.startswith("swin")
    assert config.age.training.monitor == "f1"


def test_the_environment_names_the_artifacts_where_the_configuration_does_not(monkeypatch):
    default, named = (load_config(None, ["data.root=d", *more]) for more in ([], ["artifacts=b"]))
    monkeypatch.delenv("PEDFRAC_ARTIFACTS", raising=False)
    assert default.artifact_root == "artifacts"
    monkeypatch.setenv("PEDFRAC_ARTIFACTS", "s3://bucket/prefix")
    assert default.artifact_root == "s3://bucket/prefix" and named.artifact_root == "b"
    assert str(default.tracking_folder) == "results" and str(named.tracking_folder) == "b"


def test_a_promotion_takes_its_sections_from_the_file_of_a_retraining(tmp_path):
    file = tmp_path / "retraining.yaml"
    file.write_text("data: {root: images}\nartifacts: kept\npromotion: {gate: {patients: 7}}\n")
    config = load_promotion(str(file), ["promotion.gate.may_change=data,network"])
    assert (config.artifacts, config.promotion.gate.patients) == ("kept", 7)
    assert config.promotion.gate.may_change == ("data", "network")
    with pytest.raises(PedfracError, match=r"promotion\.gate\.floor: there is no such field"):
        load_promotion(str(file), ["promotion.gate.floor=1"])
    with pytest.raises(PedfracError, match=r"may_change.*'weather'"):
        load_promotion(None, ["promotion.gate.may_change=weather"])
