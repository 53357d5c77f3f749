"""What is wrong with a setting, where it stands, and what was probably meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

from tripshark.settings.tree import Settings
from tripshark.settings.walking import walk


def problem_of(
    loc: tuple[int | str, ...], message: str, kind: str, sources: Mapping[tuple[str, ...], str]
) -> str:
    keys = tuple(str(each) for each in loc)
    where = ""
    for length in range(len(keys), 0, -1):
        if keys[:length] in sources:
            where = sources[keys[:length]]
            break
    name = ".".join(keys) or "settings"
    message = message.removeprefix("Value error, ")
    if kind == "extra_forbidden":
        known = {".".join(each.keys): each for each in walk(Settings, groups=True)}
        message = "no such setting" + near(_without_index(name), known)
    elif kind == "string_type":
        message += "; put it in quotes"
    return f"{where}: {name}: {message}" if where else f"{name}: {message}"


def _without_index(name: str) -> str:
    return re.sub(r"\.[0-9]+(?=\.|$)", "[]", name)


def near(name: str, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.75)
    if not close:  # the right word in the wrong place
        last = re.split(r"\.|__", name)[-1]
        tails = [each for each in known if re.split(r"\.|__", each)[-1] == last]
        close = tails[:1]
    return f"; did you mean {close[0]}?" if close else ""
