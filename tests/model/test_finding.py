"""Findings and questions survive their JSON form, and nothing unprintable or unbounded comes out of it."""

from __future__ import annotations

import json
import unicodedata
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripshark.errors import BadInput
from tripshark.model.alert import Connection, Endpoint, Json, Proto
from tripshark.model.claim import MAX_FRAMES, NOT_CAPTURED
from tripshark.model.finding import (
    MAX_ROWS,
    MAX_SUMMARY,
    TABLES,
    Activity,
    AlertLine,
    Conversation,
    Finding,
    Findings,
    Question,
    Severity,
)
from tripshark.model.text import MAX_TEXT, printable

ENDPOINT = st.builds(
    Endpoint,
    address=st.none() | st.ip_addresses(),
    port=st.none() | st.integers(0, 65_535),
)
CONNECTION = st.builds(
    Connection,
    client=ENDPOINT,
    server=ENDPOINT,
    proto=st.none() | st.sampled_from(Proto),
    listening=st.booleans(),
)
PLAIN = st.text(st.characters(codec="ascii", exclude_categories=["C"]), max_size=60)
COUNT = st.integers(0, (1 << 63) - 1)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
TALK = Conversation(
    proto="tcp",
    a="10.0.0.1",
    a_port=1,
    b="10.0.0.2",
    b_port=2,
    packets_ab=3,
    packets_ba=4,
    bytes_ab=5,
    bytes_ba=6,
    first_ns=7,
    last_ns=8,
    frame=9,
    opened_by="10.0.0.1",
    from_start=True,
    app="TLSv1.3",
    tunnel="vxlan",
    named=True,
    filter="tcp.stream == 0",
    community_id="1:V+aG00KjdVLOW1AMUg4PrGb61iI=",
    retransmissions=1,
    resets=2,
)
CLAIM = Finding(
    id="F1",
    kind="beacon",
    severity=Severity.HIGH,
    title="A beacon",
    text="Five connections, every 60 s.",
    frames=(1, 5),
    filter="tcp.flags.syn == 1",
    matches=5,
    first_ns=1,
    last_ns=2,
    techniques=("T1071", "T1071.004"),
    about={"peer": "203.0.113.66"},
    checked=True,
)
FINDINGS = Findings(
    manifest_sha256="ab",
    tool="TShark 4.0.17",
    sandbox=("uid", "seccomp"),
    packets=7,
    other_packets=1,
    first_ns=1,
    last_ns=2,
    conversations=(TALK,),
    dns=({"name": "a.example", "answers": ["10.0.0.2"], "asked_ns": 1, "proven": True},),
    tls=({"name": "b.example", "weight": 0.5},),
    http=({"host": "c.example", "more": {"deep": [None]}},),
    ssh=({"banner": "SSH-2.0-x"},),
    findings=(CLAIM,),
    endpoints=({"address": "10.0.0.1", "ours": True},),
    icmp=({"type": 8},),
    credentials=({"secret": "6 characters"},),
    files=({"sha256": "ab"},),
    experts=({"summary": "x"},),
    activity=Activity(
        start_ns=1, step_ns=2, packets_out=(1,), packets_in=(2,), bytes_out=(3,), bytes_in=(4,)
    ),
    names={"10.0.0.2": "a.example"},
    flow_captured=True,
    flow=TALK,
    seconds_before_alert=0.7,
    truncated=True,
    complete=False,
    notes=("half",),
    summary="One paragraph.",
)


@given(
    question=st.builds(
        Question,
        t0_ns=COUNT,
        target=PLAIN,
        addresses=st.lists(PLAIN, max_size=4).map(tuple),
        connections=st.lists(CONNECTION, max_size=4).map(tuple),
        names=st.dictionaries(PLAIN, PLAIN, max_size=4),
        manifest_sha256=PLAIN,
        alerts=st.lists(
            st.builds(
                AlertLine,
                rule=PLAIN,
                priority=PLAIN,
                time_ns=COUNT,
                tags=st.lists(PLAIN, max_size=3).map(tuple),
            ),
            max_size=3,
        ).map(tuple),
        node_addresses=st.lists(PLAIN, max_size=2).map(tuple),
        api_server=st.lists(PLAIN, max_size=2).map(tuple),
    )
)
def test_a_question_survives_its_json_form(question: Question) -> None:
    """What the responder asked is what the analyst reads."""
    assert Question.from_json(json.loads(json.dumps(question.as_json()))) == question


@pytest.mark.parametrize("captured", [None, True, False])
def test_findings_survive_their_json_form(captured: bool | None) -> None:
    """Every field comes back, the empty ones too."""
    for found in (
        FINDINGS,
        Findings(
            manifest_sha256="",
            tool="",
            sandbox=(),
            packets=0,
            first_ns=0,
            last_ns=0,
            flow_captured=captured,
        ),
    ):
        assert Findings.from_json(json.loads(json.dumps(found.as_json()))) == found


BAD_CLAIMS: list[dict[str, Json]] = [
    {"id": "1"},
    {"kind": "rumour"},
    {"severity": "apocalyptic"},
    {"frames": []},
    {"frames": [5, 1]},
    {"frames": [1, 1]},
    {"frames": [True]},
    {"frames": [-1]},
    {"frames": ["1"]},
    {"frames": list(range(MAX_FRAMES + 1))},
    {"kind": NOT_CAPTURED},
    {"techniques": ["T1"]},
    {"techniques": ["T1071.004; DROP"]},
]


@pytest.mark.parametrize("change", BAD_CLAIMS)
def test_a_claim_without_its_frames_or_of_no_known_kind_is_refused(
    change: dict[str, Json],
) -> None:
    """Only a finding about what is missing cites nothing; every other cites frames in order."""
    with pytest.raises(BadInput):
        Finding.from_json({**CLAIM.as_json(), **change})


def test_what_is_missing_cites_no_frame() -> None:
    """The one kind without frames."""
    gap = Finding(
        id="F2", kind=NOT_CAPTURED, severity=Severity.LOW, title="Dropped", text="7 packets"
    )
    assert Finding.from_json(gap.as_json()) == gap


def test_severities_are_ranked() -> None:
    """Least first."""
    assert [each.rank for each in (Severity.INFO, Severity.HIGH, Severity.CRITICAL)] == [0, 3, 4]


def test_columns_of_activity_belong_together() -> None:
    """Columns of different length cannot be one picture."""
    with pytest.raises(BadInput):
        Activity.from_json({"packets_out": [1]})


def test_every_table_is_read_back() -> None:
    """The list of tables names them all."""
    assert all(getattr(FINDINGS, name) for name in TABLES)


def test_a_conversation_adds_up() -> None:
    """Both directions together."""
    assert (TALK.packets, TALK.bytes) == (7, 11)


@given(document=JSON)
def test_any_json_is_findings_or_bad_input(document: Json) -> None:
    """A hijacked analyst can answer anything: never another error, never unprintable text."""
    for kind in (Findings, Finding, Activity, Question, AlertLine, Conversation):
        try:
            kind.from_json(document)
        except BadInput:
            continue


@given(name=st.sampled_from(sorted(FINDINGS.as_json())), value=JSON)
def test_any_field_is_believed_only_within_its_type(name: str, value: Json) -> None:
    """One field replaced by anything: read within bounds, as text that prints, or refused."""
    try:
        found = Findings.from_json({**FINDINGS.as_json(), name: value})
    except BadInput:
        return
    document = json.dumps(found.as_json(), ensure_ascii=False, allow_nan=False)
    assert document.isprintable()
    assert Findings.from_json(json.loads(document)) == found


BAD_QUESTIONS: list[tuple[str, Json]] = [
    ("t0_ns", True),
    ("t0_ns", 1.5),
    ("target", 7),
    ("addresses", "10.0.0.1"),
    ("addresses", [1]),
    ("names", []),
    ("names", {"a": 1}),
    ("connections", [None]),
    ("connections", [{"client": {}, "server": {}, "proto": "http"}]),
    ("connections", [{"client": {"address": "here"}, "server": {}}]),
    ("connections", [{"client": {"port": "80"}, "server": {}}]),
    ("connections", [{"client": {}, "server": {}, "listening": 1}]),
]


@pytest.mark.parametrize(("name", "value"), BAD_QUESTIONS)
def test_a_wrong_type_names_its_place(name: str, value: Json) -> None:
    """The refusal says where."""
    good = Question(t0_ns=1, target="", addresses=(), connections=()).as_json()
    with pytest.raises(BadInput) as problem:
        Question.from_json({**good, name: value})
    assert problem.value.where


@pytest.mark.parametrize("value", [True, "1", None])
def test_seconds_are_a_number(value: Json) -> None:
    """True is no number of seconds."""
    with pytest.raises(BadInput):
        Findings.from_json({**FINDINGS.as_json(), "seconds_before_alert": value})


def test_numbers_that_json_cannot_carry_are_tamed() -> None:
    """Infinity, not-a-number and integers beyond 64 bits become something every reader can hold."""
    found = Findings.from_json(
        {
            **FINDINGS.as_json(),
            "packets": 1 << 80,
            "seconds_before_alert": float("nan"),
            "dns": [{"a": float("inf"), "b": -(1 << 90), "c": [[[[[["deep"]]]]]]}],
        }
    )
    assert found.packets == (1 << 63) - 1
    assert found.seconds_before_alert == 0.0
    assert found.dns[0] == {"a": 0.0, "b": -((1 << 63) - 1), "c": [[[[None]]]]}


def test_lists_and_texts_are_bounded() -> None:
    """More rows or longer texts than anybody needs are cut."""
    rows: list[Json] = [{"name": "x" * 9_999}] * 9_999
    found = Findings.from_json(
        {
            **FINDINGS.as_json(),
            "dns": rows,
            "conversations": [TALK.as_json()] * 9_999,
            "names": {str(at): "n" for at in range(9_999)},
            "summary": "s" * 9_999,
        }
    )
    assert len(found.dns) == len(found.conversations) == len(found.names) == MAX_ROWS
    assert len(str(found.dns[0]["name"])) == MAX_TEXT
    assert len(found.summary) == MAX_SUMMARY
    with pytest.raises(BadInput):
        Findings.from_json({**FINDINGS.as_json(), "dns": ["row"]})


@given(text=st.text(), limit=st.integers(1, 50))
def test_printable_is_one_bounded_printable_line(text: str, limit: int) -> None:
    """No control, format, surrogate or line-separating character survives, and doing it twice changes nothing."""
    safe = printable(text, limit)
    assert len(safe) <= limit
    assert safe.isprintable()
    assert not any(unicodedata.category(each) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for each in safe)
    assert printable(safe, limit) == safe


PRINTED = [
    ("plain", "plain"),
    ("\x1b[2J\n\x00", "\\x1b[2J\\x0a\\x00"),
    ("\u202eevil\u2066", "\\u202eevil\\u2066"),
    ("a\u00a0b\u2028c", "a b\\u2028c"),
    ("\U000e0041", "\\U000e0041"),
    ("café 🦈", "café 🦈"),
    ("x" * 401, "x" * 399 + "…"),
    ("é" * 401, "é" * 399 + "…"),
    ("\n" * 300, ("\\x0a" * 100)[:399] + "…"),
]


@pytest.mark.parametrize(("text", "expected"), PRINTED)
def test_hostile_characters_become_visible(text: str, expected: str) -> None:
    """The reader sees what was there, and the terminal does not obey it."""
    assert printable(text) == expected


def test_an_address_is_kept_as_an_address() -> None:
    """IPv6 and IPv4 endpoints come back as the values they were."""
    connection = Connection(
        client=Endpoint(ip_address("fd00::1"), 1), server=Endpoint(ip_address("10.0.0.1"), 2)
    )
    asked = Question(t0_ns=1, target="", addresses=(), connections=(connection,))
    assert Question.from_json(asked.as_json()).connections == (connection,)
