"""How a person reads a setting: its meaning, its value, and where that came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import BaseModel, SecretStr

from tripshark.formats.ruledocuments import SNAPLEN_FULL, SNAPLEN_HEADERS
from tripshark.model.units import SECONDS, SIZES
from tripshark.settings.tree import Settings
from tripshark.settings.walking import variable, walk


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """One setting as people see it; every value is text, secrets are masked."""

    name: str  # "recorder.per_target"; "targets.static[].netns" within a list
    variable: str  # TRIPSHARK_RECORDER__PER_TARGET; empty within a list
    meaning: str
    unit: str
    default: str
    value: str
    source: (
        str  # "default", "/etc/tripshark/tripshark.yaml:3", "environment (…)", "command line (…)"
    )


def explain(settings: Settings) -> list[Explained]:
    """Every setting with meaning, unit, default, value in force and source, in the order of the tree."""
    result = []
    for field in walk(Settings):
        value: object = settings
        for key in field.keys:
            value = getattr(value, key)
        source = "default"
        for known, said in settings.sources.items():
            if known and (
                field.keys[: len(known)] == known or known[: len(field.keys)] == field.keys
            ):
                exact = field.keys == known
                # A group's own line says nothing about a field which it does not mention.
                if exact or len(known) > len(field.keys):
                    source = said if exact or source == "default" else source
        result.append(
            Explained(
                name=".".join(field.keys),
                variable=variable(field.keys),
                meaning=field.meaning,
                unit=field.unit,
                default=show(field.default, field.unit),
                value=show(value, field.unit),
                source=source,
            )
        )
    return result


def show(value: object, unit: str) -> str:
    """A value as a person would write it; secrets are masked."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case SecretStr():
            return "********"
        case int() if unit.startswith("bytes per"):
            return {SNAPLEN_FULL: "full", SNAPLEN_HEADERS: "headers"}.get(value, str(value))
        case int() if unit == "bytes":
            return _in_units(
                value, {k.upper().replace("IB", "iB"): v for k, v in SIZES.items() if len(k) > 1}
            )
        case int() if unit == "count":
            return _in_units(value, {"m": 10**6, "k": 10**3})
        case int() | float() if unit == "duration":
            return (
                _in_units(value, {k: v for k, v in SECONDS.items() if k in "wdhms" and k}) or "0s"
            )
        case tuple() if all(isinstance(each, SecretStr) for each in value):
            return f"({len(value)} secret)" if value else "[]"
        case tuple():
            return "[" + ", ".join(show(each, "") for each in value) + "]"
        case dict():
            return "{" + ", ".join(f"{k}: {show(v, '')}" for k, v in value.items()) + "}"
        case BaseModel():
            given = {k: v for k, v in value if v not in ("", None, (), {})}
            return show(given, "")
        case _:
            return str(value)


def _in_units(value: float, units: Mapping[str, float]) -> str:
    for name, factor in sorted(units.items(), key=lambda each: -each[1]):
        if value and value >= factor and (value / factor) == int(value / factor):
            return f"{int(value / factor)}{name}"
    return f"{value:g}" if value != int(value) else str(int(value))


def reference() -> list[Explained]:
    """Every setting with its default, those within lists too: what `docs/settings.md` is made of."""
    inside = [
        Explained(
            name=".".join((*field.keys[:-1], field.keys[-1] + "[]", below.keys[0])),
            variable="",
            meaning=below.meaning,
            unit=below.unit,
            default=show(below.default, below.unit),
            value="",
            source="",
        )
        for field in walk(Settings)
        if field.is_list and field.inner
        for below in walk(field.inner)
    ]
    result = []
    for each in explain(Settings()):
        result.append(each)
        result += [one for one in inside if one.name.startswith(each.name + "[]")]
    return result
