"""The manifest as bytes: what is written is read back, and nothing else is read at all."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripshark.errors import BadInput
from tripshark.model import evidence
from tripshark.model.evidence import (
    Entry,
    Ledger,
    Manifest,
    SealedFile,
    Word,
    canonical,
    file_name,
    incident_id,
    manifest_json,
    read_json,
    read_manifest,
    rfc3339,
)

INT64 = st.integers(-(2**63), 2**63 - 1)
COUNT = st.integers(0, 2**63 - 1)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
ENTRY = st.builds(
    Entry,
    kind=st.text(),
    message=st.text(),
    word=st.sampled_from(Word),
    count=COUNT,
    from_ns=INT64,
    to_ns=INT64,
)
NAME = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", fullmatch=True)
FILE = st.builds(
    SealedFile, name=NAME, sha256=st.from_regex(r"[0-9a-f]{64}", fullmatch=True), bytes=COUNT
)
MANIFEST = st.builds(
    Manifest,
    incident=st.from_regex(r"[a-z0-9][a-z0-9-]{0,63}", fullmatch=True).map(incident_id),
    created_ns=INT64,
    ledger=st.builds(Ledger, entries=st.lists(ENTRY, max_size=4).map(tuple)),
    files=st.lists(FILE, max_size=4, unique_by=lambda file: file.name).map(tuple),
    details=st.dictionaries(st.text(), JSON, max_size=4),
)
PLAIN = Manifest(
    incident=incident_id("i-1"),
    created_ns=1_795_429_500_123_456_789,
    ledger=Ledger(
        entries=(
            Entry(kind="limit", message="m", word=Word.TRUNCATED, count=3, from_ns=5, to_ns=7),
        )
    ),
    files=(SealedFile(name="evidence.pcapng", sha256="ab" * 32, bytes=9),),
    details={"what": {"packets": 1}},
)


@given(manifest=MANIFEST)
def test_every_manifest_is_read_back_as_it_was_written(manifest: Manifest) -> None:
    """Writing and reading lose nothing, and the bytes are canonical."""
    data = manifest_json(manifest)
    assert read_manifest(data) == manifest
    assert manifest_json(read_manifest(data)) == data


@given(data=st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_other_bytes_are_refused(data: bytes) -> None:
    """Whatever else is handed in, the one documented error comes out."""
    with pytest.raises(BadInput):
        read_manifest(data)


def test_the_manifest_reads_like_this() -> None:
    """The file is ASCII, indented by two, sorted, with each time twice and a newline at its end."""
    text = manifest_json(PLAIN).decode("ascii")
    assert text.startswith(
        '{\n  "created": "2026-11-23T10:25:00.123456789Z",\n  "created_ns": 1795429500123456789,\n'
    )
    assert text.endswith("}\n")
    assert json.loads(text)["ledger"]["entries"][0]["from"] == "1970-01-01T00:00:00.000000005Z"
    assert json.loads(text)["ledger"]["word"] == "truncated"


def _set(path: str, value: object) -> Callable[[dict], None]:
    def change(root: dict) -> None:
        *way, last = path.split(".")
        for step in way:
            root = root[int(step)] if step.isdigit() else root[step]
        root[last] = value

    return change


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("format", "tripshark-evidence/2"),
        ("format", ["x"]),
        ("incident", "../../etc"),
        ("incident", 5),
        ("created", "2026-11-23T10:15:00.000000000Z"),
        ("created_ns", True),
        ("created_ns", 2**63),
        ("created_ns", None),
        ("details", []),
        ("files", {}),
        ("files", [5]),
        ("files.0.name", "../x"),
        ("files.0.name", ".hidden"),
        ("files.0.sha256", "AB" * 32),
        ("files.0.bytes", -1),
        ("files.0.bytes", 1.0),
        ("ledger", None),
        ("ledger.word", "complete"),
        ("ledger.entries", "x"),
        ("ledger.entries.0.word", "fine"),
        ("ledger.entries.0.count", True),
        ("ledger.entries.0.kind", None),
        ("ledger.entries.0.to", "yesterday"),
    ],
)
def test_one_wrong_value_is_refused(path: str, value: object) -> None:
    """A manifest that contradicts itself or its format in one place is not read."""
    root = json.loads(manifest_json(PLAIN))
    _set(path, value)(root)
    with pytest.raises(BadInput, match=r"manifest|incident|file name"):
        read_manifest(json.dumps(root).encode())


def test_the_same_name_twice_is_refused() -> None:
    """Two files of one name, and one name twice in an object, leave open which is meant."""
    twice = Manifest(
        incident=PLAIN.incident, created_ns=0, ledger=Ledger(), files=PLAIN.files * 2, details={}
    )
    with pytest.raises(BadInput, match="twice"):
        read_manifest(manifest_json(twice))
    with pytest.raises(BadInput, match="twice"):
        read_json(b'{"a": 1, "a": 2}', "here")


@pytest.mark.parametrize(
    "text",
    [b"[NaN]", b"[1e999]", b"[" * 100_000, b"\xff", b"", b"[" + b"9" * 5000 + b"]", b"-Infinity"],
)
def test_json_is_read_strictly(text: bytes) -> None:
    """Depth, infinity and broken UTF-8 end in the one documented error."""
    with pytest.raises(BadInput, match="JSON"):
        read_json(text, "here")


def test_a_huge_manifest_is_not_even_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the bound nothing is read."""
    monkeypatch.setattr(evidence, "MAX_MANIFEST_BYTES", 100)
    with pytest.raises(BadInput, match="larger than"):
        read_manifest(manifest_json(PLAIN))


def test_nothing_in_the_details_can_keep_evidence_from_being_sealed() -> None:
    """Depth, infinities, monstrous numbers, lone surrogates and strange objects are written as text."""
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    details = {
        "deep": deep,
        "nan": float("nan"),
        "inf": float("-inf"),
        "big": 1 << 100_000,
        "surrogate": "\ud800",
        "bytes": b"a\xff",
        "tuple": (1, 2),
        "object": object,
    }
    manifest = Manifest(
        incident=PLAIN.incident,
        created_ns=10**40,
        ledger=Ledger(entries=(Entry(kind="k", message="m", count=-1, from_ns=-(10**40)),)),
        files=(),
        details=details,  # type: ignore[arg-type]  # hostile on purpose
    )
    back = read_manifest(manifest_json(manifest))
    assert back.created_ns == 2**63 - 1
    assert back.ledger.entries[0].count == 0
    assert back.details["nan"] == "nan"
    assert back.details["inf"] == "-inf"
    assert back.details["surrogate"] == "\ud800"
    assert back.details["bytes"] == "a\\xff"
    assert back.details["tuple"] == [1, 2]
    assert str(back.details["big"]).startswith("0x1")
    assert "nested too deeply" in json.dumps(back.details["deep"])


def test_canonical_json_is_compact_unless_asked() -> None:
    """Chains and signatures are over bytes without any space."""
    assert canonical({"b": [1, None], "a": "é"}) == b'{"a":"\\u00e9","b":[1,null]}'


@given(ns=st.integers())
def test_any_time_can_be_printed(ns: int) -> None:
    """No clock, however wrong, makes printing fail."""
    assert rfc3339(ns).endswith(("Z", " ns"))


def test_times_are_printed_to_the_nanosecond() -> None:
    """Before 1970 and outside the calendar, too."""
    assert rfc3339(-1) == "1969-12-31T23:59:59.999999999Z"
    assert rfc3339(-62_135_596_800 * 10**9) == "0001-01-01T00:00:00.000000000Z"
    assert rfc3339(10**30) == f"{10**30} ns"


@given(text=st.text())
def test_only_harmless_text_becomes_a_path(text: str) -> None:
    """What passes the gate has no separator, no dot in front, and no character a shell could read."""
    with contextlib.suppress(BadInput):
        assert set(incident_id(text)) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    with contextlib.suppress(BadInput):
        assert not set(file_name(text)) & set("/\0\n \\")
        assert not text.startswith((".", "-"))


def test_the_ledgers_word_is_the_worst_of_its_entries() -> None:
    """Complete < truncated < expired < interrupted."""
    assert Ledger().word is Word.COMPLETE
    entries = tuple(Entry(kind="k", message="m", word=word) for word in reversed(Word))
    assert Ledger(entries=entries).word is Word.INTERRUPTED
    assert Ledger(entries=entries[2:]).word is Word.TRUNCATED
