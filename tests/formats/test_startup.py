"""What a process is told when it is started arrives as it was said, or is refused with a sentence."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from tripshark.errors import BadInput
from tripshark.formats import startup


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One field of each kind."""

    socket: str
    group: int = -1
    every: float = 3.0
    host: bool = True
    uids: tuple[int, ...] = field(default_factory=lambda: (7,))
    names: tuple[str, ...] = ()


def test_everything_comes_back() -> None:
    """Each kind of field survives."""
    told = Told(socket="/s", group=5, every=0.5, host=False, uids=(1, 2), names=("a", "ä"))
    assert startup.from_json(Told, startup.to_json(told), where="here") == told


def test_what_is_left_out_has_its_default() -> None:
    """Also where a factory makes it; a whole number is a float as well."""
    told = startup.from_json(Told, '{"socket": "/s", "every": 2}', where="here")
    assert told == Told(socket="/s", every=2.0)
    assert told.uids == (7,)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[]", "not a JSON object"),
        ("{}", "socket is missing"),
        ('{"socket": "/s", "sockets": 1}', "unknown name 'sockets'"),
        ('{"socket": 1}', "socket must be str"),
        ('{"socket": "/s", "group": true}', "group must be int"),
        ('{"socket": "/s", "every": true}', "every must be float"),
        ('{"socket": "/s", "host": 1}', "host must be bool"),
        ('{"socket": "/s", "uids": [true]}', "uids must be tuple"),
        ('{"socket": "/s", "names": [1]}', "names must be tuple"),
        ('{"socket": "/s", "names": "ab"}', "names must be tuple"),
    ],
)
def test_anything_else_is_refused(text: str, says: str) -> None:
    """By name, and with the place."""
    with pytest.raises(BadInput, match=says) as refused:
        startup.from_json(Told, text, where="here")
    assert refused.value.where == "here"


@pytest.mark.parametrize(
    ("path", "fits"),
    [("/s", True), ("/" + "s" * 106, True), ("/" + "s" * 107, False), ("", False)],
)
def test_a_socket_has_a_short_path(path: str, fits: bool) -> None:
    """What the kernel takes, and no more."""
    assert (startup.socket_problems(path) == []) is fits
    assert startup.socket_problems("/a\0b")
