"""What is to be deployed: the shipped prefect.yaml with the operator's file over it, validated.

No server is asked here. Not here: what was set in the UI (kept), and the deploying itself.
"""

import os
import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from prefect import Flow
from prefect.flows import load_flow_from_entrypoint
from pydantic import BaseModel, TypeAdapter, ValidationError

from pedfrac.config.loading import explain_invalid, read_yaml
from pedfrac.config.monitoring import MonitorConfig
from pedfrac.config.operator import OperatorConfig, refuse_placeholders
from pedfrac.config.promotion import PromoteConfig
from pedfrac.config.retrain import RetrainConfig
from pedfrac.config.serving import PredictionConfig
from pedfrac.errors import PedfracError

FILE = "prefect.yaml"
CONFIG = "config"  # the parameter of each flow that holds its settings
_VARIABLE = re.compile(r"\{\{\s*\$(\w+)\s*\}\}")


@dataclass
class Deployment:
    """One deployment: its flow, and what prefect.yaml is to say of it.

    ``missing``: fields that a person or the operator's file must still give before it can run.
    """

    flow: Flow[..., Any]
    described: dict[str, Any]
    missing: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Name of the deployment, without that of its flow."""
        return str(self.described["name"])

    @property
    def path(self) -> str:
        """Name on the server: FLOW/DEPLOYMENT."""
        return f"{self.flow.name}/{self.name}"

    @property
    def scheduled(self) -> bool:
        """Whether a schedule is on."""
        return any(one.get("active") for one in self.described.get("schedules", []))

    def check(self, where: str) -> None:
        """Validate all parameters by the flow's own models; note what is missing.

        Raises PedfracError that names deployment, field, value found and what is allowed.
        """
        hints = get_type_hints(self.flow.fn)
        named = f"{where}: {self.name}"
        refuse_placeholders(self.described["parameters"], named)
        self.missing = []
        for name, value in self.described["parameters"].items():
            if name not in hints:
                known = ", ".join(one for one in hints if one != "return")
                raise PedfracError(f"{named}: there is no parameter {name}; allowed are {known}")
            self._check_value(name, value, hints[name], named)
        if self.missing and self.scheduled:
            raise PedfracError(
                f"{named}: its schedule is on, but {', '.join(self.missing)} must be given"
            )

    def _check_value(self, name: str, value: Any, kind: Any, named: str) -> None:
        try:
            TypeAdapter(kind).validate_python(value)
        except ValidationError as error:
            faults = error.errors()
            if self._may_be_given_later(faults):
                self.missing = [".".join(map(str, (name, *one["loc"]))) for one in faults]
                return
            model = kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None
            told = explain_invalid(error, model) if model else str(error)
            raise PedfracError(f"{named}: {name}: {told}") from None

    def _may_be_given_later(self, faults: Any) -> bool:
        """Whether nothing is wrong but fields that a person gives in the form are missing."""
        takes = get_type_hints(self.flow.fn).get(CONFIG)
        return takes is not RetrainConfig and all(one["type"] == "missing" for one in faults)

    def in_full(self) -> dict[str, Any]:
        """Return the parameters with every default, as JSON; incomplete ones as they are."""
        hints, full = get_type_hints(self.flow.fn), {}
        for name, value in self.described["parameters"].items():
            kind = TypeAdapter(hints[name])
            try:
                full[name] = kind.dump_python(kind.validate_python(value), mode="json")
            except ValidationError:
                full[name] = value
        return full


def read_deployments(folder: Path, operator: OperatorConfig, where: str) -> list[Deployment]:
    """Return all deployments of ``folder``/prefect.yaml with what the operator changes, validated.

    ``where`` names the operator's file in messages. Raises PedfracError that names what is wrong.
    """
    shipped = read_yaml(folder / FILE)["deployments"]
    names = [one["name"] for one in shipped]
    for unknown in operator.deployments.keys() - set(names):
        raise PedfracError(
            f"{where}: deployments.{unknown}: there is no such deployment; "
            f"there are {', '.join(names)}"
        )
    found = [_with_operator(one, operator) for one in shipped]
    for one in found:
        one.check(where)
    return found


def _with_operator(shipped: dict[str, Any], operator: OperatorConfig) -> Deployment:
    described = deepcopy(shipped)
    flow: Flow[..., Any] = load_flow_from_entrypoint(
        shipped["entrypoint"], use_placeholder_flow=False
    )
    takes = get_type_hints(flow.fn).get(CONFIG)
    change = operator.deployments.get(shipped["name"])
    parameters = described.setdefault("parameters", {})
    if section := _section(takes, operator):
        parameters[CONFIG] = laid_over(parameters.get(CONFIG, {}), section)
    if change:
        parameters = laid_over(parameters, change.parameters)
        _change_schedules(described, change.model_dump(exclude_none=True)["schedules"])
        if change.job_variables:
            pool = described["work_pool"]
            pool["job_variables"] = laid_over(pool.get("job_variables", {}), change.job_variables)
    described["parameters"] = _with_variables(parameters, shipped["name"])
    return Deployment(flow, described)


def _section(takes: Any, operator: OperatorConfig) -> dict[str, Any]:
    """Return the operator's section for a flow by the model of its settings."""
    if takes is PromoteConfig:
        known = PromoteConfig.model_fields
        return {name: value for name, value in operator.retraining.items() if name in known}
    sections: dict[Any, dict[str, Any]] = {
        RetrainConfig: operator.retraining,
        PredictionConfig: operator.prediction,
        MonitorConfig: operator.monitoring,
    }
    return sections.get(takes, {})


def _change_schedules(described: dict[str, Any], changes: dict[str, dict[str, Any]]) -> None:
    schedules = {one["slug"]: one for one in described.get("schedules", [])}
    for slug, change in changes.items():
        one = schedules.setdefault(slug, {"slug": slug, "active": True})
        for kind, other in (("cron", "interval"), ("interval", "cron")):
            if kind in change:
                one.pop(other, None)
        one |= change
    if schedules:
        described["schedules"] = list(schedules.values())


def _with_variables(tree: Any, name: str) -> Any:
    """Return values with ``{{ $NAME }}`` replaced by the variable of this process."""
    if isinstance(tree, Mapping):
        return {key: _with_variables(value, name) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_with_variables(value, name) for value in tree]
    if not isinstance(tree, str):
        return tree
    for variable in _VARIABLE.findall(tree):
        if not os.environ.get(variable):
            raise PedfracError(
                f"{FILE}: {name}: {variable} is not set; export it, or give the value in the "
                "operator's file (PEDFRAC_CONFIG)"
            )
    return _VARIABLE.sub(lambda found: os.environ[found[1]], tree)


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested settings with others laid over them; lists are replaced as a whole."""
    result = dict(below)
    for name, value in above.items():
        under = result.get(name)
        both = isinstance(under, Mapping) and isinstance(value, Mapping)
        result[name] = laid_over(under, value) if both else value  # type: ignore[arg-type]
    return result
