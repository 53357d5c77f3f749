"""What environment variables say."""

from __future__ import annotations

import re
from collections.abc import Mapping

import yaml

from tripshark.settings.merging import Sources, own, put
from tripshark.settings.problems import near
from tripshark.settings.tree import Settings
from tripshark.settings.walking import PREFIX, variable, walk

# What Kubernetes puts into every container for a Service whose name begins with `tripshark`.
_OF_A_SERVICE = re.compile(r".*_(SERVICE_(HOST|PORT(_.*)?)|PORT(_[0-9]+_(TCP|UDP|SCTP)(_.*)?)?)")


def read_environment(
    environ: Mapping[str, str], sources: Sources, problems: list[str]
) -> dict[str, object]:
    tree: dict[str, object] = {}
    fields = {variable(each.keys): each for each in walk(Settings)}
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name == PREFIX + "CONFIG":
            continue
        field = fields.get(name)
        if field is None:
            parent = next(
                (f for v, f in fields.items() if f.is_map and name.startswith(v + "__")), None
            )
            if parent is not None:  # TRIPSHARK_INGEST__AUTH__BASIC__falco=…
                keys = (*parent.keys, name[len(variable(parent.keys)) + 2 :])
                put(tree, keys, environ[name])
                own(sources, keys, f"environment ({name})")
            elif not _OF_A_SERVICE.fullmatch(name):
                problems.append(f"environment ({name}): no such setting{near(name, fields)}")
            continue
        text = environ[name]
        value: object = text
        if (field.is_list or field.is_map) and text.lstrip()[:1] in ("[", "{"):
            try:
                value = yaml.safe_load(text)
            except yaml.YAMLError:
                problems.append(f"environment ({name}): neither YAML nor a list a,b,c")
                continue
        elif field.is_list:
            value = [part.strip() for part in text.split(",") if part.strip()]
        put(tree, field.keys, value)
        own(sources, field.keys, f"environment ({name})")
    return tree
