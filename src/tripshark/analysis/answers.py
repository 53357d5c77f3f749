"""What of sharkd's answers is believed: read field by field and bounded, whatever packets made of the dissector.

A dissector that packets have taken over may answer anything. An answer may also have no `result` at all, and fields
come and go between versions (seen from 4.0 to 4.6).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from tripshark.analysis.sharkd import BESIDE, COLUMNS, FOLLOWED, MAX_FRAME
from tripshark.errors import NotFound, Permanent, Transient
from tripshark.formats.wireshark_profile import COLOURS
from tripshark.model.alert import Json
from tripshark.model.text import visible

MAX_FIELDS: Final = 200
MAX_ROWS: Final = 2000  # of a tap
_LONGEST: Final = 4096  # characters of any one text that is shown
_MAX_NODES: Final = 20_000  # of one packet's tree
_MAX_DEPTH: Final = 60
_COLOUR: Final = re.compile(r"[0-9a-f]{6}")
_STREAM: Final = re.compile(r"(?:tcp|udp)\.stream eq ([0-9]{1,10})")
_URGENT, _WARNING, _ALERT, _MARK, _NOTED = ((bg, fg) for _, _, bg, fg in COLOURS[:5])
_BY_PRIORITY: Final = {  # as sharkd spells them: "CRIT - critical conditions"
    "EMERG": _URGENT,
    "ALERT": _URGENT,
    "CRIT": _URGENT,
    "ERR": _WARNING,
    "ERROR": _WARNING,
    "WARNING": _WARNING,
}


class Refused(Exception):
    """sharkd's own words against what it was asked."""

    def __init__(self, said: str) -> None:
        super().__init__(said)
        self.said = said


def read_answer(raw: bytes, number: int) -> Any:  # noqa: ANN401 - any JSON; every reader below checks
    """The result. Raises `Refused` with its words, `Transient` for what is no answer to that request."""
    try:
        document = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        document = _lenient(raw)
    if not isinstance(document, dict) or document.get("id") != number:
        raise Transient(
            "sharkd's answer cannot be read and it was ended", where="analyst", after=0.5
        )
    error = document.get("error")
    if isinstance(error, dict):
        raise Refused(words(error.get("message")).removeprefix("Filter invalid - "))
    return document.get("result")


def id_of(raw: bytes) -> int:
    """Which request an answer is to; 0 for none."""
    document = _lenient(raw)
    return number(document.get("id")) if isinstance(document, dict) else 0


def _lenient(raw: bytes) -> Any:  # noqa: ANN401 - as above
    """Bytes that are no UTF-8 come out of packets, and out of sharkd as they are."""
    try:
        return json.loads(raw.decode("utf-8", "replace"), strict=False)
    except (ValueError, RecursionError):
        return None


def words(value: object, most: int = _LONGEST) -> str:
    """Text for people: bounded, with what cannot be seen spelled out."""
    return visible(value[:most]) if isinstance(value, str) else ""


def number(value: object, most: int = MAX_FRAME) -> int:
    """A whole number within bounds, else 0."""
    return value if type(value) is int and 0 <= value <= most else 0


def listed(value: object) -> list[Any]:
    """A list as it is, an empty one for anything else."""
    return value if isinstance(value, list) else []


def seconds_ns(text: str) -> int:
    """`1760000000.123456789` as nanoseconds; 0 for anything else."""
    whole, _, part = text.partition(".")
    if not (whole.isascii() and whole.isdigit() and len(whole) < 12):
        return 0
    part = part[:9].ljust(9, "0")
    return int(whole) * 1_000_000_000 + int(part) if part.isascii() and part.isdigit() else 0


def time_of(further: object) -> int:
    """When the only frame of a page with further columns was seen; 0 where it does not say."""
    match further:
        case [{"c": [str(epoch), *_]}]:
            return seconds_ns(epoch)
        case _:
            return 0


def rows(
    plain: object, further: object, *, first_ns: int, limit: int
) -> Iterator[dict[str, Json]]:
    """The frames of a page out of both answers, which are about the same frames in the same order."""
    extras = {number(each.get("num")): each for each in listed(further) if isinstance(each, dict)}
    for each in listed(plain)[:limit]:
        if not isinstance(each, dict):
            continue
        num = number(each.get("num"))
        cells = [words(cell) for cell in listed(each.get("c"))[: len(COLUMNS)]]
        cells += [""] * (len(COLUMNS) - len(cells))
        beside = [words(cell) for cell in listed(extras.get(num, {}).get("c"))[: len(BESIDE)]]
        epoch, interface, comment, who, priority = beside + [""] * (len(BESIDE) - len(beside))
        time_ns = seconds_ns(epoch)
        cells[0] = str(num)
        if time_ns and first_ns:
            cells[1] = _relative(time_ns - first_ns)
        is_alert, is_mark = who == "falco", who == "tripshark"
        bg, fg = _colour(each.get("bg"), "ffffff"), _colour(each.get("fg"), "12272e")
        if is_alert:
            bg, fg = _BY_PRIORITY.get(priority.partition(" ")[0], _ALERT)
        elif is_mark or comment:
            bg, fg = _MARK if is_mark else _NOTED
        comments: list[Json] = [comment] if comment else []
        yield {
            "number": num,
            "columns": list(cells),
            "background": bg,
            "foreground": fg,
            "alert": is_alert,
            "comments": comments,
            "marked": is_mark or bool(comments),
            "time_ns": time_ns,
            "interface": interface,
        }


def _relative(ns: int) -> str:
    sign = "-" if ns < 0 else ""
    return f"{sign}{abs(ns) // 1_000_000_000}.{abs(ns) % 1_000_000_000:09d}"


def _colour(value: object, otherwise: str) -> str:
    return value if isinstance(value, str) and _COLOUR.fullmatch(value) else otherwise


def packet(answer: object, asked: int) -> dict[str, Json]:
    """One packet: tree, bytes, comments, and how its streams are followed. Raises `Permanent`."""
    if not isinstance(answer, dict):
        raise Permanent("sharkd says nothing of this packet", where=f"frame {asked}")
    budget = [_MAX_NODES]
    sources: list[Json] = []
    for each in listed(answer.get("ds"))[:64]:
        if isinstance(each, dict):
            sources.append(
                {"name": words(each.get("name"), 200), "bytes": base64(each.get("bytes"))}
            )
    follow: list[Json] = []
    for way in listed(answer.get("fol"))[:16]:
        match way:
            case [str(name), str(filter), *_]:
                found = _STREAM.fullmatch(filter)
                if name.lower() in FOLLOWED and found is not None:
                    follow.append({"proto": name, "filter": filter, "stream": int(found[1])})
            case _:
                pass
    said = answer.get("comment")
    comments: list[Json] = [
        words(each) for each in (said if isinstance(said, list) else [said])[:100] if words(each)
    ]
    return {
        "number": asked,
        "tree": list(_nodes(answer.get("tree"), budget, 0)),
        "bytes": base64(answer.get("bytes")),
        "sources": sources,
        "comments": comments,
        "follow": follow,
        "truncated": budget[0] <= 0,
    }


def _nodes(value: object, budget: list[int], depth: int) -> Iterator[Json]:
    for each in listed(value):
        if not isinstance(each, dict) or depth > _MAX_DEPTH:
            continue
        if budget[0] <= 0:
            return
        budget[0] -= 1
        place = listed(each.get("h"))
        at, size = (number(place[0]), number(place[1])) if len(place) == 2 else (None, None)
        yield {
            "label": words(each.get("l")),
            "offset": at,
            "length": size,
            "source": number(each.get("ds"), 63),
            "filter": words(each.get("f"), 1000),
            "severity": words(each.get("s"), 40),
            "generated": each.get("g") is True,
            "children": list(_nodes(each.get("n"), budget, depth + 1)),
        }


_BASE64: Final = re.compile(r"[A-Za-z0-9+/]*={0,2}")


def base64(value: object) -> str:
    """Base64 as it is, "" for anything else."""
    return value if isinstance(value, str) and _BASE64.fullmatch(value) else ""


def fields(answer: object) -> list[Json]:
    """Completions, shortest first: what is meant most often has the shortest name."""
    found: list[dict[str, Json]] = []
    for each in listed(answer.get("field") if isinstance(answer, dict) else None):
        if isinstance(each, dict) and (name := words(each.get("f"), 200)):
            found.append(
                {
                    "name": name,
                    "type": _type(each.get("t")),
                    "description": words(each.get("n"), 200),
                }
            )
    found.sort(key=lambda field: (str(field["name"]).count("."), str(field["name"])))
    return list(found[:MAX_FIELDS])


_TYPES: Final = (  # by the numbers of epan/ftypes/ftypes.h, the same from 4.0 to 4.6 as far as listed
    (range(1), "label"),
    (range(1, 2), "protocol"),
    (range(2, 3), "yes or no"),
    (range(3, 20), "number"),
    (range(20, 24), "decimal"),
    (range(24, 26), "time"),
    (range(26, 29), "text"),
    (range(29, 30), "hardware address"),
    (range(30, 32), "bytes"),
    (range(32, 33), "IPv4 address"),
    (range(33, 34), "IPv6 address"),
    (range(35, 36), "packet number"),
)


def _type(value: object) -> str:
    if isinstance(value, str):
        return words(value, 40)
    return next((name for which, name in _TYPES if value in which), "")


def bins(answer: object, *, most: int) -> tuple[list[int], list[int]]:
    """Packets and bytes of each step from the file's first moment, dense; `most` bounds how many."""
    packets, sizes = [0] * most, [0] * most
    last = -1
    for each in listed(answer.get("intervals") if isinstance(answer, dict) else None):
        match each:
            case [int(place), int(count), int(size)] if 0 <= place < most:
                packets[place] += number(count)
                sizes[place] += number(size, 1 << 50)
                last = max(last, place)
    return packets[: last + 1], sizes[: last + 1]


def counted(answer: object) -> int:
    """How many frames an `intervals` answer is about."""
    return number(answer.get("frames")) if isinstance(answer, dict) else 0


def stream(answer: object, *, cut: bool, most: int) -> dict[str, Json]:
    """Both sides of a stream, in order, at most `most` bytes. Raises `NotFound` where there is none."""
    if not isinstance(answer, dict) or (
        answer.get("shost") == "NONE" and not listed(answer.get("payloads"))
    ):
        raise NotFound("no packet belongs to that stream", where="stream")

    def side(which: str) -> str:
        return f"{words(answer.get(which + 'host'), 200)}:{words(answer.get(which + 'port'), 20)}"

    chunks: list[Json] = []
    size, truncated = 0, cut
    for each in listed(answer.get("payloads")):
        if not isinstance(each, dict):
            continue
        data = base64(each.get("d"))
        if size + len(data) * 3 // 4 > most:
            truncated = True
            break
        size += len(data) * 3 // 4
        chunks.append(
            {
                "frame": number(each.get("n")),
                "from": "server" if each.get("s") else "client",
                "data": data,
            }
        )
    return {
        "client": side("c"),
        "server": side("s"),
        "chunks": chunks,
        "truncated": truncated,
    }


def mended(raw: bytes) -> bytes:
    """An answer with payloads that was cut, ended behind the last whole one."""
    return raw[: raw.rfind(b"},{")] + b"}]}}" if b'"payloads":[' in raw and b"},{" in raw else raw


def tapped(name: str, answer: object) -> dict[str, Json]:
    """The rows of one tap, at most `MAX_ROWS` of them."""
    found: list[Json] = []
    truncated = False
    for tap in listed(answer.get("taps") if isinstance(answer, dict) else None):
        if not isinstance(tap, dict):
            continue
        for each in listed(tap.get(_ROWS_OF[name])):
            if not isinstance(each, dict):
                continue
            if len(found) >= MAX_ROWS:
                truncated = True
                break
            found.append(_ROW_OF[name](each))
    return {"name": name, "rows": found, "truncated": truncated}


_ROWS_OF: Final = {"conversations": "convs", "endpoints": "hosts", "expert": "details"}


def _conversation(each: Mapping[str, object]) -> dict[str, Json]:
    return {
        "source": words(each.get("saddr"), 200),
        "source_port": words(each.get("sport"), 20),
        "destination": words(each.get("daddr"), 200),
        "destination_port": words(each.get("dport"), 20),
        "packets_out": number(each.get("txf"), 1 << 50),
        "packets_in": number(each.get("rxf"), 1 << 50),
        "bytes_out": number(each.get("txb"), 1 << 50),
        "bytes_in": number(each.get("rxb"), 1 << 50),
        "filter": words(each.get("filter"), 1000),
    }


def _endpoint(each: Mapping[str, object]) -> dict[str, Json]:
    return {
        "address": words(each.get("host"), 200),
        "port": words(each.get("port"), 20),
        "packets_out": number(each.get("txf"), 1 << 50),
        "packets_in": number(each.get("rxf"), 1 << 50),
        "bytes_out": number(each.get("txb"), 1 << 50),
        "bytes_in": number(each.get("rxb"), 1 << 50),
        "filter": words(each.get("filter"), 1000),
    }


def _expert(each: Mapping[str, object]) -> dict[str, Json]:
    return {
        "frame": number(each.get("f")),
        "severity": words(each.get("s"), 40),
        "group": words(each.get("g"), 40),
        "summary": words(each.get("m")),
        "proto": words(each.get("p"), 40),
    }


_ROW_OF: Final = {"conversations": _conversation, "endpoints": _endpoint, "expert": _expert}
