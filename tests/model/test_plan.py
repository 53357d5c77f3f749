"""Every alert ends as a plan or as a refusal that says what would change the answer."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from tripshark.formats import bpf, falco, rulefile
from tripshark.model.alert import Alert, Connection, Endpoint, Priority, Proto, meaning
from tripshark.model.filter import Scope
from tripshark.model.plan import (
    Defaults,
    Limits,
    Plan,
    Reason,
    Refusal,
    decide,
    within_policy,
)
from tripshark.model.rule import Action, Capture, Match, Rule, RuleSet, evaluate
from tripshark.model.target import (
    Identity,
    Interface,
    Resolution,
    RingState,
    Target,
    TargetKey,
    TargetKind,
)

EVENTS = Path(__file__).parents[1] / "falco-events"
RULES = Path(__file__).parents[2] / "rules"
NOW = 1_800_000_000_000_000_000

RING = RingState(
    ring="1",
    interface=Interface(
        name="eth0", ifindex=2, hardware_type=1, addresses=("10.0.0.7/24", "10.244.1.23/24")
    ),
    live=True,
    bytes=1,
    snaplen=262_144,
    oldest_ns=NOW - 60_000_000_000,
)
LOOPBACK = replace(
    RING, interface=Interface(name="lo", ifindex=1, hardware_type=772, addresses=("127.0.0.1/8",))
)
POD = Target(
    key=TargetKey("ns-1"),
    kind=TargetKind.NETNS,
    name="netns:shop0",
    inode=1,
    since_ns=1,
    identity=Identity(namespace="payments", pod="checkout"),
    rings=(LOOPBACK, RING),
)
HOST = replace(POD, key=TargetKey("host"), kind=TargetKind.HOST, name="host", identity=Identity())
FOUND = Resolution(target=POD, reason="k8s.pod.name is payments/checkout")


def alert(**said: Any) -> Alert:
    connection = Connection(
        client=Endpoint(ip_address("10.0.0.7"), 40000),
        server=Endpoint(ip_address("203.0.113.66"), 4444),
        proto=Proto.TCP,
    )
    return Alert(
        **(
            {
                "rule": "C2",
                "priority": Priority.WARNING,
                "time_ns": NOW - 1_000_000_000,
                "connection": connection,
            }
            | said
        )
    )


def answer(
    said: Alert, *rules: Rule, resolution: Resolution = FOUND, **options: Any
) -> Plan | Refusal:
    verdict = evaluate(RuleSet(rules), said, resolution.target)
    return decide(said, verdict, resolution, now_ns=NOW, **options)


def plan(said: Alert, *rules: Rule, **options: Any) -> Plan:
    decided = answer(said, *rules, **options)
    assert isinstance(decided, Plan), decided
    return decided


def refusal(said: Alert, *rules: Rule, **options: Any) -> Refusal:
    decided = answer(said, *rules, **options)
    assert isinstance(decided, Refusal), decided
    assert decided.message
    return decided


def test_without_a_word_from_the_rule_the_defaults_hold() -> None:
    """Thirty seconds before, ten after, never ended early, everything of every packet."""
    decided = plan(alert(), Rule(name="r", hash="h"))
    assert (decided.rule, decided.rule_hash, decided.target) == ("r", "h", "ns-1")
    assert decided.t0_ns == NOW - 1_000_000_000
    assert (decided.before_ns, decided.after_ns, decided.idle_ns) == (30 * 10**9, 10 * 10**9, 0)
    assert (decided.snaplen, decided.limits) == (262_144, Limits())
    assert decided.scope is Scope.FLOW
    assert [rung.scope for rung in decided.rungs] == [Scope.FLOW, Scope.PEER, Scope.POD]
    assert decided.reason.startswith("k8s.pod.name is payments/checkout; the alert names")


def test_what_the_rule_says_goes_into_the_plan() -> None:
    """Zero is a word too; a rule's snaplen can only reduce."""
    capture = Capture(
        scope=Scope.PEER,
        before_ns=0,
        after_ns=0,
        idle_ns=5,
        max_bytes=1,
        max_packets=2,
        extend_ns=0,
        snaplen=262_144,
        filter="not port 9100",
    )
    rule = Rule(
        name="r",
        capture=capture,
        actions=(Action(name="Quarantine", actionner="kubernetes:networkpolicy"),),
        notifiers=("slack",),
    )
    decided = plan(alert(), rule, defaults=Defaults(snaplen=128))
    assert (decided.before_ns, decided.after_ns, decided.idle_ns) == (0, 0, 5)
    assert decided.limits == Limits(max_bytes=1, max_packets=2, extend_ns=0)
    assert (decided.snaplen, decided.user_filter) == (128, "not port 9100")
    assert (decided.scope, decided.actions, decided.notifiers) == (
        Scope.PEER,
        ("Quarantine",),
        ("slack",),
    )


def test_times_that_look_wrong_are_kept_and_explained() -> None:
    """T0 is the event's time, whatever our clock says, unless it is still to come: then it is now."""
    early = plan(alert(time_ns=NOW - 100_000_000_000), Rule(name="r"))
    assert early.t0_ns == NOW - 100_000_000_000
    assert "the history begins 40.0 s after the event" in early.reason
    late = plan(alert(time_ns=NOW + 60_000_000_000), Rule(name="r"))
    assert "60 s in the future" in late.reason
    assert late.t0_ns == NOW
    near = plan(alert(time_ns=NOW + 4_000_000_000), Rule(name="r"))
    assert "future" not in near.reason
    assert near.t0_ns == NOW + 4_000_000_000
    empty = replace(POD, rings=(replace(RING, oldest_ns=0),))
    fresh = plan(alert(), Rule(name="r"), resolution=replace(FOUND, target=empty))
    assert "history begins" not in fresh.reason


def test_falco_about_itself_is_never_a_reason_to_capture() -> None:
    """Even where a rule matches everything."""
    assert refusal(alert(source="internal"), Rule(name="r")).reason is Reason.INTERNAL


@pytest.mark.parametrize(
    ("said", "ours"),
    [
        ({"pid": 77, "process": "python3"}, True),
        ({"pid": 78, "process": "python3"}, False),
        ({"container_id": "046b941aae01"}, True),
        ({"container_id": "046b941aae02"}, False),
        ({"process": "tripshark", "fields": {"evt.type": "socket"}}, True),
        ({"process": "tripshark", "fields": {"evt.type": "connect"}}, False),
        ({"process": "tshark", "fields": {"proc.pname": "tripshark"}}, True),
        ({"process": "tshark", "fields": {"proc.pname": "bash"}}, False),
        ({"process": "tshark", "fields": {"proc.pname": None}}, False),
        ({"process": "nc", "fields": {"proc.pname": "tripshark"}}, False),
        ({"process": "nc", "cmdline": "nc tripshark"}, False),
        ({}, False),
    ],
)
def test_tripshark_never_triggers_itself_and_nobody_hides_behind_its_name(
    said: dict[str, Any], ours: bool
) -> None:
    """A borrowed name covers nothing but what our own processes do."""
    decided = answer(
        alert(**said), Rule(name="r"), own_pids={77}, own_containers=["046b941aae01" + "0" * 52]
    )
    assert (isinstance(decided, Refusal) and decided.reason is Reason.OWN_PROCESS) is ours


def test_no_rule_no_capture() -> None:
    """Either none matches, or those that do ask for no packets."""
    none = refusal(alert(), Rule(name="r", match=Match(rules=("Other",))))
    assert (none.reason, none.rule) == (Reason.NO_RULE, "")
    assert "none of 1 rules matches 'C2'" in none.message
    quiet = refusal(alert(), Rule(name="r", capture=None))
    assert (quiet.reason, quiet.rule) == (Reason.NO_RULE, "r")
    assert "ask for no packets: 'r'" in quiet.message


def test_a_rule_on_trial_records_nothing() -> None:
    """And says what would change that."""
    refused = refusal(alert(), Rule(name="r", dry_run=True))
    assert (refused.reason, refused.rule) == (Reason.DRY_RUN, "r")
    assert "dry_run" in refused.hint


def test_an_unknown_or_unrecorded_target_is_refused_with_its_reason() -> None:
    """The resolution's own words, or what the recorder noted."""
    unknown = Resolution(target=None, reason="nothing is called shop/web", hint="static map")
    refused = refusal(alert(), Rule(name="r"), resolution=unknown)
    assert (refused.reason, refused.message, refused.hint) == (
        Reason.NO_TARGET,
        "nothing is called shop/web",
        "static map",
    )
    assert refusal(alert(), Rule(name="r"), resolution=replace(unknown, hint="")).hint
    for note, said in (("over budget", ": over budget"), ("", "not recorded")):
        target = replace(POD, rings=(), note=note)
        refused = refusal(alert(), Rule(name="r"), resolution=replace(FOUND, target=target))
        assert refused.reason is Reason.NOT_RECORDED
        assert refused.message.endswith(said)


@pytest.mark.parametrize("scope", [Scope.WORKLOAD, Scope.SERVICE])
def test_scopes_that_need_a_cluster_are_refused(scope: Scope) -> None:
    """With what to use instead."""
    refused = refusal(alert(), Rule(name="r", capture=Capture(scope=scope)))
    assert refused.reason is Reason.UNSUPPORTED
    assert "scope: pod" in refused.hint


def test_the_nodes_scope_records_the_host() -> None:
    """Given beside the alert's own target, or being it."""
    rule = Rule(name="r", capture=Capture(scope=Scope.NODE))
    decided = plan(alert(), rule, host=HOST)
    assert (decided.target, decided.scope, decided.rungs[0].core) == ("host", Scope.NODE, "")
    on_host = Resolution(target=HOST, reason="container.id is host")
    assert plan(alert(), rule, resolution=on_host).target == "host"
    nobody = Resolution(target=None, reason="?")
    for resolution in (FOUND, nobody):
        assert refusal(alert(), rule, resolution=resolution).reason is Reason.NOT_RECORDED


def test_meaning_is_rule_target_and_peer() -> None:
    """Neither the client's port nor time, text or uuid make two alerts different."""
    one = alert()
    assert one.connection is not None
    retry = replace(
        one,
        time_ns=1,
        output="x",
        uuid="u",
        connection=replace(one.connection, client=Endpoint(ip_address("10.0.0.7"), 50000)),
    )
    assert meaning(one, "t") == meaning(retry, "t")
    others = [
        meaning(one, "u"),
        meaning(replace(one, rule="X"), "t"),
        meaning(replace(one, connection=None), "t"),
        meaning(replace(one, connection=None, hints=(Endpoint(None, 1),)), "t"),
        meaning(
            replace(one, connection=replace(one.connection, server=Endpoint(None, 4444))), "t"
        ),
    ]
    assert len({meaning(one, "t"), *others}) == 6


# ------------------------------------------------------------------------------- every event there is

SHOP = "web-7d4b9c6f5-x2k8p"
EVERYTHING = [("pod", "")]


def flow(server: str, client: str, port: int, server_port: int) -> list[tuple[str, str]]:
    family = "ip6" if ":" in server else "ip"
    return [
        (
            "flow",
            (
                f"({family} host {server} and {family} host {client} "
                f"and tcp port {port} and tcp port {server_port})"
            ),
        ),
        ("peer", f"{family} host {server}"),
        *EVERYTHING,
    ]


def half(server: str, port: int, server_port: int, word: str) -> list[tuple[str, str]]:
    family = "ip6" if ":" in server else "ip"
    return [
        ("flow", f"({family} host {server} and {word} {port} and {word} {server_port})"),
        ("peer", f"{family} host {server}"),
        *EVERYTHING,
    ]


# file → its rungs by the shipped rules, or the reason for a refusal
TABLE: dict[str, list[tuple[str, str]] | Reason] = {
    "02-full-packet-socket-created-in-container.body": EVERYTHING,
    "06-full-launch-suspicious-network-tool-in-container.body": [
        ("peer", "ip host 203.0.113.66"),
        *EVERYTHING,
    ],
    "07-full-outbound-connection-to-c2-servers.body": [
        ("peer", "ip host 203.0.113.66"),
        *EVERYTHING,
    ],
    "08-full-c2-tuple.body": flow("203.0.113.66", "203.0.113.10", 35438, 4444),
    "13-full-contact-ec2-instance-metadata-service-from-container.body": [
        ("peer", "ip host 169.254.169.254"),
        *EVERYTHING,
    ],
    "15-full-outbound-connection-to-c2-servers.body": [
        ("peer", "ip6 host 2001:db8:66::66"),
        *EVERYTHING,
    ],
    "16-full-c2-tuple.body": flow("2001:db8:66::66", "2001:db8:66::10", 38252, 4444),
    "19-full-redirect-stdout-stdin-to-network-connection-in-container.body": half(
        "203.0.113.66", 48184, 53, "udp port"
    ),
    "24-full-terminal-shell-in-container.body": Reason.NO_RULE,
    "28-noplugin-udp-any.body": Reason.NO_RULE,
    "30-derived-imds-ec2": [("peer", "ip host 169.254.169.254"), *EVERYTHING],
    "30-noplugin-udp-any.body": Reason.NO_RULE,
    "31-derived-cloud-metadata": [("peer", "ip host 169.254.169.254"), *EVERYTHING],
    "32-derived-unexpected-udp": half("203.0.113.7", 40123, 5353, "udp port"),
    "33-derived-redirect-stdio-reverse-shell": flow("198.51.100.9", "10.244.1.23", 37850, 4444),
    "34-derived-miner-pool-rip": [("peer", "ip host 203.0.113.66"), *EVERYTHING],
    "35-derived-outside-local-subnet-names": flow("203.0.113.80", "10.244.1.23", 40022, 443),
    "36-derived-contact-k8s-api-ipv6": flow("fd00:10:96::1", "fd00:10:244:1::17", 48822, 443),
    "37-derived-inbound-listen": [("flow", "tcp port 8080"), *EVERYTHING],
    "37-msgfield-falco-internal-metrics-snapshot.body": Reason.INTERNAL,
    "38-derived-java-class-download": flow("203.0.113.5", "10.244.1.23", 50100, 8888),
    "38-msgfield-falco-internal-syscall-event-drop.body": Reason.INTERNAL,
    "39-derived-system-procs-net-host": flow("203.0.113.44", "192.168.1.10", 39000, 443),
    "40-derived-network-tool-tcpdump-self": EVERYTHING,
    "41-derived-reverse-shell-web": [("peer", "ip host 198.51.100.9"), *EVERYTHING],
    "41-replay-any-connect.body": Reason.NO_RULE,
    "42-derived-unexpected-outbound-deprecated": half("203.0.113.9", 47110, 8443, "port"),
}
# with a rule for everything, those the shipped rules leave alone
LEFT_ALONE = {
    "24-full-terminal-shell-in-container.body": EVERYTHING,
    "28-noplugin-udp-any.body": [("flow", "port 33400"), *EVERYTHING],
    "30-noplugin-udp-any.body": [("flow", "port 33500"), *EVERYTHING],
    "41-replay-any-connect.body": half("2001:4860:4860::8888", 40251, 53, "udp port"),
}


@pytest.fixture(scope="module")
def shipped() -> RuleSet:
    return rulefile.load([(path.name, path.read_text()) for path in RULES.glob("*.yaml")]).rules


def test_the_table_has_every_event() -> None:
    """A new sample needs its line."""
    assert {path.name.removesuffix(".json") for path in EVENTS.glob("*.json")} == set(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_every_event_gives_the_expected_filter_or_refusal(name: str, shipped: RuleSet) -> None:
    """By the shipped rules; each filter compiles where it will be used."""
    said = falco.decode((EVENTS / f"{name}.json").read_bytes())
    decided = answer(said, *shipped)
    expected = TABLE[name]
    if isinstance(expected, Reason):
        assert isinstance(decided, Refusal)
        assert decided.reason is expected
        return
    assert isinstance(decided, Plan)
    assert [(str(rung.scope), rung.core) for rung in decided.rungs] == expected
    for rung in decided.rungs:
        assert rung.reason
        for text in filter(None, (rung.core, rung.also)):
            bpf.compile(text, 1)


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_a_rule_for_everything_takes_the_rest(name: str) -> None:
    """Listening sockets, a shell, an IPv6 look-up."""
    decided = plan(falco.decode((EVENTS / f"{name}.json").read_bytes()), Rule(name="all"))
    assert [(str(rung.scope), rung.core) for rung in decided.rungs] == LEFT_ALONE[name]


@pytest.mark.parametrize(
    ("name", "container", "on_host", "pod"),
    [
        ("02-full-packet-socket-created-in-container.body", "046b941aae01", False, None),
        ("08-full-c2-tuple.body", "d732c48fd7f5", False, None),
        ("28-noplugin-udp-any.body", None, False, None),
        ("33-derived-redirect-stdio-reverse-shell", "41ae0eb6f163", False, SHOP),
        ("39-derived-system-procs-net-host", None, True, None),
        ("40-derived-network-tool-tcpdump-self", "41ae0eb6f163", False, SHOP),
    ],
)
def test_every_event_names_its_target_as_well_as_falco_can(
    name: str, container: str | None, on_host: bool, pod: str | None
) -> None:
    """A container's twelve digits, the host, or the pod."""
    said = falco.decode((EVENTS / f"{name}.json").read_bytes())
    assert (said.container_id, said.on_host, said.pod) == (container, on_host, pod)
    assert said.namespace == ("shop" if pod else None)


def test_the_recording_policy_bounds_a_plan() -> None:
    """Off is a refusal with the reason; headers keep 128 bytes of each packet; full changes nothing."""
    plan = Plan(
        rule="All",
        rule_hash="",
        target=POD.key,
        t0_ns=1,
        before_ns=1,
        after_ns=1,
        idle_ns=0,
        scope=Scope.POD,
        rungs=(),
        snaplen=262_144,
    )
    assert within_policy(plan, POD) is plan
    off = within_policy(plan, replace(POD, mode="off"))
    assert isinstance(off, Refusal)
    assert off.reason is Reason.NOT_RECORDED
    headers = within_policy(plan, replace(POD, mode="headers"))
    assert isinstance(headers, Plan)
    assert headers.snaplen == 128
    assert within_policy(headers, replace(POD, mode="headers")) is headers
