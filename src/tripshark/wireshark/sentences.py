"""What an extcap program says of itself, in Wireshark's sentences: `interface {value=…}{display=…}`.

A sentence is one line, and a value ends at the first closing brace: names of pods and rules are foreign, so every
value goes through `plain`, and identifiers through `quoted`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote, unquote

from tripshark import __version__
from tripshark.model.text import printable

HELP: Final = (Path(__file__).parent / "help.html").as_uri()
ANY: Final = "tripshark"  # the interface that asks whom to watch
HERE, AT = (
    "tripshark:",
    "tripshark-at:",
)  # prefixes: this machine's, and those of the server that was named
INCIDENT: Final = "incident:"
_LONGEST: Final = 160

FILTER, COMMENT, MARK, PAUSE, LOG, HELP_BUTTON = range(6)
"""Numbers of the toolbar's controls."""

LINKTYPE: Final = "dlt {number=1}{name=EN10MB}{display=Ethernet}"


def plain(text: str) -> str:
    """Foreign text as a value: one line, nothing invisible, and no brace that could end it."""
    return printable(text, _LONGEST).translate({ord("{"): "(", ord("}"): ")"})


def quoted(name: str) -> str:
    """A name within an interface's identifier; `unquoted` gives it back."""
    return quote(name, safe="/:._-~@+")


def unquoted(text: str) -> str:
    """The name that `quoted` was given."""
    return unquote(text)


def sentence(word: str, **fields: str) -> str:
    """One line. Values are made plain."""
    return f"{word} " + "".join(f"{{{name}={plain(value)}}}" for name, value in fields.items())


class Listed(NamedTuple):
    """One interface as Wireshark lists it. (A dataclass would be a third of what starting costs.)"""

    value: str
    display: str


def interfaces(listed: Iterable[Listed]) -> Iterator[str]:
    """The answer to --extcap-interfaces, with the toolbar's controls."""
    yield sentence("extcap", version=__version__, help=HELP, display="Tripshark")
    for each in listed:
        yield sentence("interface", value=each.value, display=each.display)
    for number, kind, display, tooltip in (
        (FILTER, "string", "Filter", "pcap-filter(7): keep only these packets from now on"),
        (COMMENT, "string", "Comment", "What to say in the next mark"),
        (MARK, "button", "Mark now", "A row of your own in the packet list"),
        (PAUSE, "boolean", "Pause", "Leave packets out until you go on; they are counted"),
    ):
        yield sentence("control", number=str(number), type=kind, display=display, tooltip=tooltip)
    for number, role, display in ((LOG, "logger", "Log"), (HELP_BUTTON, "help", "Help")):
        yield sentence("control", number=str(number), type="button", role=role, display=display)


def options(interface: str, version: tuple[int, int], found: Mapping[str, str]) -> Iterator[str]:
    """The answer to --extcap-config: what can be chosen before a capture; `found` (value → shown) fills the list.

    A list that can be typed into is known since Wireshark 4.4; before it is a line of text.
    """
    before = sentence(
        "arg",
        number="0",
        call="--before",
        display="History at most",
        type="string",
        placeholder="30s, 5m; empty: all there is",
        tooltip="How far back to begin",
        group="Capture",
    )
    if interface == ANY:
        # without a list there is nothing to reload
        kind = (
            {"type": "editselector", "reload": "true"} if version >= (4, 4) else {"type": "string"}
        )
        yield sentence(
            "arg",
            number="3",
            call="--target",
            display="Target",
            **kind,
            placeholder="ns/pod, netns:NAME, container:ID, host",
            tooltip="Whom to watch, as tripshark targets lists them",
            group="Capture",
        )
        if version >= (4, 4):
            yield from values(3, found)
    yield before
    yield sentence(
        "arg",
        number="1",
        call="--server",
        display="Server",
        type="string",
        placeholder="https://hub.example:2803; empty: this machine",
        tooltip="Another Tripshark",
        group="Connection",
    )
    yield sentence(
        "arg",
        number="2",
        call="--token-file",
        display="Token in file",
        type="fileselect",
        mustexist="true",
        tooltip="A file that holds the bearer token; a token itself would be seen in the list of processes",
        group="Connection",
    )


def values(argument: int, found: Mapping[str, str]) -> Iterator[str]:
    """The lines of a list that can be chosen from."""
    for value, display in found.items():
        yield sentence("value", arg=str(argument), value=value, display=display)
