"""YAML whose keys are given once: the second of two equal keys would silently replace the first."""

from collections.abc import Hashable
from typing import Any

import yaml

_MERGE = "tag:yaml.org,2002:merge"


class RepeatedKey(Exception):
    """A key that is given twice in one mapping."""


class _UniqueKeyLoader(yaml.SafeLoader):
    """Safe YAML; keys of a merged mapping (``<<``) may be overridden, as YAML allows."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        lines: dict[Any, int] = {}
        for key, _ in node.value:
            if key.tag == _MERGE:
                continue
            name, line = self.construct_object(key, deep=True), key.start_mark.line + 1
            if not isinstance(name, Hashable):
                continue  # the parent class refuses it
            if name in lines:
                raise RepeatedKey(
                    f"key {name!r} is given twice, on line {lines[name]} and line {line}; keep one"
                )
            lines[name] = line
        return super().construct_mapping(node, deep)


def load_yaml(text: str) -> Any:
    """Return the value of a YAML document. Raises yaml.YAMLError or RepeatedKey."""
    return yaml.load(text, _UniqueKeyLoader)  # a safe loader
