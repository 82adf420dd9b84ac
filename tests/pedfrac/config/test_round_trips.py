"""Equal settings give one dump and one key, on whatever way they arrive, in every section."""

import json
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

import pedfrac.config
from pedfrac.config.base import Section
from pedfrac.config.loading import load_config, load_promotion
from pedfrac.config.monitoring import DriftConfig
from pedfrac.config.promotion import PromoteConfig
from pedfrac.config.retrain import RetrainConfig
from pedfrac.storage.files import content_hash


def sections() -> list[type[Section]]:
    """Return every section that a module of pedfrac.config defines."""
    modules = [
        import_module(f"pedfrac.config.{one.name}") for one in iter_modules(pedfrac.config.__path__)
    ]
    found = {
        kind
        for module in modules
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Section) and kind is not Section
    }
    return sorted(found, key=lambda kind: kind.__name__)


def values(schema: dict, definitions: dict) -> st.SearchStrategy:
    """Return values that a JSON schema allows, as far as it tells."""
    if reference := schema.get("$ref"):
        return trees(definitions[reference.rpartition("/")[2]], definitions)
    if options := schema.get("enum") or ([schema["const"]] if "const" in schema else None):
        return st.sampled_from(options)
    if options := schema.get("anyOf"):
        return st.one_of(*(values(option, definitions) for option in options))
    kind = schema.get("type")
    low, high = schema.get("minimum"), schema.get("maximum")
    if kind == "number":
        above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
        low, high = (low if above is None else above), (high if below is None else below)
        fractions = st.floats(low, high, allow_nan=False, allow_infinity=False)
        whole = st.integers(int(low or 0), int(high or (low or 0) + 40)).map(float)
        return st.one_of(whole, fractions)
    if kind == "array":
        least = schema.get("minItems", 0)
        most = schema.get("maxItems", least + 3)
        return st.lists(values(schema["items"], definitions), min_size=least, max_size=most)
    if kind == "object":
        return trees(schema, definitions)
    simple = {
        "integer": st.integers(low or 0, high or (low or 0) + 500),
        "boolean": st.booleans(),
        "null": st.none(),
        "string": st.text("abz09._ ü", min_size=1, max_size=8).map(str.strip).filter(bool),
    }
    return simple[kind] if kind else st.one_of(st.integers(-9, 9), st.floats(-9, 9, width=16))


def trees(schema: dict, definitions: dict) -> st.SearchStrategy:
    """Return trees with the required fields, and some of the others."""
    if "properties" not in schema:  # a mapping of free names
        names, held = st.text("abc", min_size=1, max_size=3), schema.get("additionalProperties")
        return st.dictionaries(
            names, values(held if isinstance(held, dict) else {}, definitions), max_size=3
        )
    fields = {name: values(one, definitions) for name, one in schema["properties"].items()}
    required = set(schema.get("required", ()))
    needed = {name: value for name, value in fields.items() if name in required}
    chosen = st.sets(st.sampled_from(sorted(fields)), max_size=3)
    return chosen.flatmap(
        lambda names: st.fixed_dictionaries(needed | {name: fields[name] for name in names})
    )


def as_form_sends_it(value):
    """Return JSON as a browser writes it, which knows no difference between 5 and 5.0."""
    if isinstance(value, dict):
        return {name: as_form_sends_it(one) for name, one in value.items()}
    if isinstance(value, list):
        return [as_form_sends_it(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def leaves(tree: dict, above: str = ""):
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def dump(section: Section) -> dict:
    return section.model_dump(mode="json")


def same(one: Section, other: Section) -> None:
    assert dump(one) == dump(other) and one == other
    assert content_hash(dump(one)) == content_hash(dump(other))


@pytest.mark.parametrize("kind", sections(), ids=lambda kind: kind.__name__)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_section_is_the_same_on_every_way(kind, data):
    schema = kind.model_json_schema()
    tree = data.draw(trees(schema, schema.get("$defs", {})))
    try:
        arrived = kind.model_validate(tree)
    except ValidationError:
        assume(False)  # what only rules over several fields refuse
    from_yaml = kind.model_validate(yaml.safe_load(yaml.safe_dump(tree, sort_keys=False)))
    from_server = kind.model_validate(json.loads(json.dumps(dump(arrived))))
    from_short = kind.model_validate(arrived.model_dump(mode="json", exclude_defaults=True))
    from_python = kind(**{name: getattr(arrived, name) for name in kind.model_fields})
    for other in (from_yaml, from_server, from_short, from_python):
        same(arrived, other)
        assert repr(arrived) == repr(other)  # 5 and 5.0 are equal, but not the same
    same(arrived, kind.model_validate(as_form_sends_it(tree)))
    same(arrived, kind.model_validate(as_form_sends_it(dump(arrived))))


@pytest.mark.parametrize("kind", [RetrainConfig, PromoteConfig], ids=lambda kind: kind.__name__)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_flags_mean_what_a_file_means(kind, data, tmp_path_factory):
    schema = kind.model_json_schema()
    tree = data.draw(trees(schema, schema.get("$defs", {})))
    try:
        arrived = kind.model_validate(tree)
    except ValidationError:
        assume(False)
    load = {RetrainConfig: load_config, PromoteConfig: load_promotion}[kind]
    flags = [
        f"{name}={yaml.safe_dump(value, default_flow_style=True, sort_keys=False)}"
        for name, value in leaves(tree)
    ]
    same(arrived, load(None, [flag.removesuffix("\n...\n").strip() for flag in flags]))
    file = Path(tmp_path_factory.mktemp("flags")) / "c.yaml"
    file.write_text(yaml.safe_dump(tree, sort_keys=False))
    same(arrived, load(str(file), []))


def test_a_rate_near_zero_is_refused_and_not_an_overflow():
    with pytest.raises(ValidationError, match="at least infinitely many are needed"):
        DriftConfig(false_alarm_rate=1e-310)
