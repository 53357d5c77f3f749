"""What may be asked about packets, and what of sharkd's answers is believed: bounds on both sides."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripshark.analysis import answers, sharkd
from tripshark.errors import BadInput, NotFound, Permanent, Transient

_KEYS = "c num bg fg l h f n g s tree ds fol bytes comment field t intervals frames".split()  # noqa: SIM905
_KEYS += "shost payloads d taps convs hosts details m p name".split()  # noqa: SIM905  # read as words
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(_KEYS),
            inner,
            max_size=6,
        )
    ),
    max_leaves=30,
)


def ask(**words: object) -> sharkd.Request:
    return sharkd.read_request(json.dumps(words).encode())


@pytest.mark.parametrize(
    "method",
    ["load", "setconf", "setcomment", "download", "dumpconf", "bye", "iograph", "info", "analyse"],
)
def test_no_other_method_of_sharkds_can_be_named(method: str) -> None:
    """What opens files, changes preferences or hands out keys is no request."""
    for words in (
        {"ask": method},
        {"ask": method, "file": "/etc/passwd"},
        {"ask": "page", "method": method},
        {"method": method, "params": {"token": "ssl-secrets"}},
        {"jsonrpc": "2.0", "id": 1, "method": method},
    ):
        with pytest.raises(BadInput):
            ask(**words)


@pytest.mark.parametrize(
    "words",
    [
        {"ask": "page", "limit": 0},
        {"ask": "page", "limit": 501},
        {"ask": "page", "skip": -1},
        {"ask": "page", "skip": 1 << 32},
        {"ask": "page", "skip": "1"},
        {"ask": "page", "filter": 1},
        {"ask": "page", "column0": "frame.number:1"},
        {"ask": "packet", "number": 0},
        {"ask": "packet", "number": True},
        {"ask": "packet"},
        {"ask": "complete", "prefix": ""},
        {"ask": "complete", "prefix": 'a","pref":"'},
        {"ask": "intervals", "step_ms": -1},
        {"ask": "follow", "proto": "tcp", "stream": -1},
        {"ask": "follow", "proto": "TCP || ip", "stream": 0},
        {"ask": "tap", "name": "eo:http"},
        {"ask": "tap", "name": "conv:TCP"},
        {"ask": ["page"]},
        {},
        {"ask": "page", "filter": "x" * 1900},
        {"ask": "page", "filter": "é" * 900},
        {"ask": "page", "filter": '"' * 950},
        {"ask": "page", "filter": "tcp\n"},
        {"ask": "page", "filter": "tcp\0"},
        {"ask": "page", "filter": "\x1b[31mtcp"},
        {"ask": "page", "filter": "tcp\u202e"},
        {"ask": "page", "filter": "\ud800"},
    ],
)
def test_every_word_is_typed_and_bounded(words: dict[str, object]) -> None:
    """Anything else is refused before sharkd hears of it."""
    with pytest.raises(BadInput):
        ask(**words)


@pytest.mark.parametrize("line", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b'{"ask": "page"}x'])
def test_what_is_no_json_is_no_request(line: bytes) -> None:
    """Nothing but one object is read."""
    with pytest.raises(BadInput):
        sharkd.read_request(line)


@given(st.text(max_size=600))
def test_a_request_is_one_line_that_no_sharkd_splits(filter: str) -> None:
    """Whatever is let through is shorter than 4.0's buffer, on one line, and says the same when it is read."""
    try:
        asked = ask(ask="page", filter=filter)
    except BadInput:
        return
    line = sharkd.told(9, "frames", {"filter": f"frame.number > 4000000 && ({filter})", "skip": 9})
    assert len(line) < 2047
    assert b"\n" not in line
    assert b"\0" not in line
    assert isinstance(asked, sharkd.Page)
    assert json.loads(line)["params"]["filter"].endswith(f"({asked.filter})")


def test_an_answer_to_something_else_is_not_believed() -> None:
    """Out of step, or no answer at all: the session is given up instead of shown."""
    for raw in (b"", b"null", b"[]", b'{"id":2,"result":1}', b'{"result":1}', b"{" * 5000):
        with pytest.raises(Transient):
            answers.read_answer(raw, 1)
    assert answers.read_answer(b'{"id":1,"result":7}', 1) == 7
    assert answers.read_answer(b'{"id":1}', 1) is None
    assert answers.read_answer(b'{"id":1,"result":"\xff\xfe"}', 1) == "\ufffd\ufffd"
    with pytest.raises(answers.Refused, match="no good"):
        answers.read_answer(
            b'{"id":1,"error":{"code":-5001,"message":"Filter invalid - no good"}}', 1
        )


@given(_JSON, _JSON)
def test_no_answer_breaks_what_reads_it(answer: object, further: object) -> None:
    """Any JSON becomes rows, trees and numbers within bounds, all of which can be sent on."""
    page = list(answers.rows(answer, further, first_ns=1, limit=10))
    packets, sizes = answers.bins(answer, most=10)
    assert len(page) <= 10
    assert len(packets) == len(sizes) <= 10
    found: list[object] = [page, packets, answers.fields(answer), answers.counted(answer)]
    found += [answers.tapped(name, answer) for name in ("conversations", "endpoints", "expert")]
    for read in (
        lambda: answers.packet(answer, 1),
        lambda: answers.stream(answer, cut=False, most=100),
    ):
        with contextlib.suppress(NotFound, Permanent):
            found.append(read())
    said = json.dumps(found, ensure_ascii=False)
    assert "\x1b" not in said
    assert "\u202e" not in said


def test_what_cannot_be_seen_is_spelled_out() -> None:
    """A terminal's escapes and marks that turn the writing round do not get into a row."""
    plain = [{"num": 1, "c": ["9", "", "\x1b[2J", "a\u202eb", "<script>", "1", "x" * 9000]}]
    (row,) = answers.rows(plain, [], first_ns=0, limit=5)
    assert row["columns"][:4] == ["1", "", "\\x1b[2J", "a\\u202eb"]
    assert len(row["columns"][6]) == 4096
    assert (row["background"], row["foreground"]) == ("ffffff", "12272e")


def test_colours_are_six_digits() -> None:
    """Nothing else gets into a style."""
    plain = [{"num": 1, "c": [], "bg": "red;}", "fg": "00FF00"}, {"num": 2, "bg": "0a0b0c"}]
    first, second = answers.rows(plain, None, first_ns=0, limit=5)
    assert (first["background"], first["foreground"]) == ("ffffff", "12272e")
    assert second["background"] == "0a0b0c"


def test_a_tree_is_bounded() -> None:
    """Neither its depth nor its size can be chosen by a packet."""
    deep: dict[str, object] = {"l": "x"}
    for _ in range(200):
        deep = {"l": "x", "n": [deep]}
    answer = {"tree": [deep, *({"l": str(i)} for i in range(30_000))], "bytes": "AAAA"}
    found = answers.packet(answer, 5)
    assert found["truncated"]
    assert len(found["tree"]) < 20_001


def test_a_stream_that_was_cut_says_so() -> None:
    """What is there of a long one is shown to its last whole piece."""
    whole = {"id": 4, "result": {"chost": "c", "shost": "s", "payloads": []}}
    whole["result"]["payloads"] = [{"n": i, "d": "QUJD"} for i in range(50)]  # type: ignore[index]
    raw = json.dumps(whole, separators=(",", ":")).encode()
    answer = answers.read_answer(answers.mended(raw[:300]), 4)
    found = answers.stream(answer, cut=True, most=1000)
    assert found["truncated"]
    assert 3 < len(found["chunks"]) < 50
    few = answers.stream(answers.read_answer(raw, 4), cut=False, most=10)
    assert few["truncated"]
    assert len(few["chunks"]) == 3
