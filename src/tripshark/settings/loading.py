"""What is in force: defaults, file, environment and command line, read once and refused as a whole."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from tripshark.errors import BadInput
from tripshark.settings.environment import read_environment
from tripshark.settings.file import read_file
from tripshark.settings.merging import Sources, merge, own, put
from tripshark.settings.problems import problem_of
from tripshark.settings.safety import concerns, refusals
from tripshark.settings.tree import SYSTEM_DATA, Settings
from tripshark.settings.walking import PREFIX

DEFAULT_CONFIG = Path("/etc/tripshark/tripshark.yaml")


def load(
    config: Path | None,
    overrides: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Read every source and return the settings, or raise one `BadInput` that lists every problem.

    `overrides` is what the command line said, by dotted name (`{"recorder.total": "1GB"}`); None values are ignored.
    Problems stand one per line in the message, each with file:line, variable or option, and the nearest known name.
    """
    environ = os.environ if environ is None else environ
    sources: Sources = {}
    problems: list[str] = []
    tree: dict[str, object] = {}

    path = config or (Path(environ[PREFIX + "CONFIG"]) if environ.get(PREFIX + "CONFIG") else None)
    if path is None and DEFAULT_CONFIG.exists():
        path = DEFAULT_CONFIG
    if path is not None:
        sources[()] = str(path)
        merge(tree, read_file(path, sources, problems))
    merge(tree, read_environment(environ, sources, problems))
    for name, value in (overrides or {}).items():
        if value is not None:
            keys = tuple(name.split("."))
            put(tree, keys, value)
            own(sources, keys, f"command line ({name})")
    if "data" not in tree and os.geteuid() != 0 and not SYSTEM_DATA.exists():
        state = environ.get("XDG_STATE_HOME") or str(Path("~/.local/state").expanduser())
        tree["data"] = str(Path(state) / "tripshark")
        sources["data",] = "default of an ordinary user"

    settings = Settings()
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        problems += [
            problem_of(each["loc"], each["msg"], each["type"], sources) for each in error.errors()
        ]
    else:
        problems += refusals(settings, sources)
    if problems:
        raise BadInput(
            "\n".join(problems),
            where=sources.get((), "") or "settings",
            hint="`tripshark settings` shows every setting with its meaning",
        )
    settings._sources = sources  # noqa: SLF001  # a frozen model's private part, filled by its maker
    settings._warnings = tuple(concerns(settings))  # noqa: SLF001  # see above
    return settings
