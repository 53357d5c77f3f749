"""How `docs/settings.md` and `examples/tripshark.yaml` are written from the settings."""

from __future__ import annotations

from typing import cast

from tripshark.settings.explaining import reference, show
from tripshark.settings.group import Group
from tripshark.settings.tree import Settings
from tripshark.settings.walking import Setting, bare, walk

_HOW_TO_WRITE = (
    (
        "One YAML file (`--config FILE`, else `TRIPSHARK_CONFIG`, else `/etc/tripshark/tripshark.yaml`), every key "
        "optional; [an example](../examples/tripshark.yaml). An environment variable is stronger than the file, the "
        "command line stronger than both. `tripshark settings` shows what is in force and where it came from."
    ),
    "",
    (
        "Sizes: `16MB` (10⁶), `16MiB` (2²⁰). Durations: `30s`, `1m30s`, `7d`. Counts: `200k`. Lists in a variable: "
        "`a,b` or YAML. A dot in a name is a level of the file and `__` in the variable: `recorder.total` is "
        "`TRIPSHARK_RECORDER__TOTAL`."
    ),
)


def as_markdown() -> str:
    """`docs/settings.md`."""
    lines = [
        "# Settings",
        "",
        "Written from `src/tripshark/settings/` by `python -m tripshark.settings docs/settings.md`.",
        "",
        *_HOW_TO_WRITE,
    ]
    group = None
    for each in reference():
        head = each.name.partition(".")[0] if "." in each.name else ""
        if head != group:
            group = head
            said = _said_of(head) if head else "What every program needs."
            lines += ["", f"## {head or 'General'}", "", said, ""]
            lines += ["| setting | meaning | unit | default |", "|---|---|---|---|"]
        default = f"`{each.default}`" if each.default not in ("", "required") else each.default
        lines.append(f"| `{each.name}` | {each.meaning} | {each.unit} | {default} |")
    return "\n".join(lines) + "\n"


def _said_of(group: str) -> str:
    kind, _ = bare(Settings.model_fields[group].annotation)
    return (cast("type[Group]", kind).__doc__ or "").partition("\n")[0]


def as_yaml() -> str:
    """`examples/tripshark.yaml`: every setting commented out (`# key`), its meaning above it (`## text`)."""
    lines = [
        "## Tripshark's settings, all at their defaults: take the `# ` away from what you change (and from the groups",
        "## above it). Meanings: docs/settings.md. What is in force, and why: tripshark settings",
    ]
    seen: set[tuple[str, ...]] = set()
    for field in walk(Settings):
        for depth in range(1, len(field.keys)):
            group = field.keys[:depth]
            if group not in seen:
                seen.add(group)
                lines += ([""] if depth == 1 else []) + [f"# {'  ' * (depth - 1)}{group[-1]}:"]
        indent = "  " * (len(field.keys) - 1)
        lines += ([""] if not indent else []) + [f"##{indent} {field.meaning}"]
        if field.inner is not None:
            lines += [f"##{indent}   {each.keys[0]}: {each.meaning}" for each in walk(field.inner)]
        lines.append(f"# {indent}{field.keys[-1]}: {_yaml_of(field)}")
    return "\n".join(lines) + "\n"


def _yaml_of(field: Setting) -> str:
    shown = show(field.default, field.unit)
    if field.default is None:
        return "null"
    return f'"{shown}"' if field.unit == "text" or ":" in shown else shown
