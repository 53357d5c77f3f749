"""Everything a report may speak of: one part's manifest, its findings and its custody, read without belief.

A manifest may come from another node and quotes alerts, so whatever is in it is hostile: here it becomes plain values
of known types and bounds, once, and text that is shown becomes printable.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from ipaddress import ip_address

from tripshark.errors import BadInput
from tripshark.model.alert import Json, Priority
from tripshark.model.attack import techniques_in
from tripshark.model.evidence import Entry, Manifest, read_json
from tripshark.model.finding import Conversation, Findings, Severity
from tripshark.model.text import printable

MAX_NAME = 253  # characters of a name of Kubernetes or DNS
_OF_PRIORITY = (  # by Falco's priorities, Emergency first
    Severity.CRITICAL,
    Severity.CRITICAL,
    Severity.CRITICAL,
    Severity.HIGH,
    Severity.MEDIUM,
    Severity.LOW,
    Severity.INFO,
    Severity.INFO,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """One line of the custody."""

    time_ns: int
    what: str
    who: str
    hash: str
    details: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertTold:
    """An alert as the manifest quotes it."""

    id: str
    rule: str
    priority: str
    time_ns: int
    received_ns: int
    via: str
    repeats: int
    verbatim: str  # as it came; not made printable
    tags: tuple[str, ...] = ()
    process: str = ""
    cmdline: str = ""

    @property
    def severity(self) -> Severity:
        """Falco's eight words on our scale of five."""
        priority = Priority.named(self.priority)
        return Severity.INFO if priority is None else _OF_PRIORITY[priority]


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Whose an address was, from when to when; 0: not known, or still."""

    address: str
    name: str
    kind: str
    node: str
    uid: str
    from_ns: int
    to_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """Whose packets were recorded."""

    target: str
    end: str  # "own", or "peer": the other end of the connection
    namespace: str
    name: str
    uid: str
    node: str
    owner: str
    service_account: str
    images: tuple[str, ...]
    containers: tuple[str, ...]
    labels: Mapping[str, str]
    since_ns: int
    gone_ns: int

    @property
    def title(self) -> str:
        """`payments/checkout-7d9f`, or the namespace's own name."""
        return f"{self.namespace}/{self.name}" if self.namespace and self.name else self.target


@dataclass(frozen=True, kw_only=True)
class Case:
    """One sealed folder. `findings` is None where there are none, and `problem` then says why."""

    manifest: Manifest
    manifest_sha256: str
    findings: Findings | None = None
    problem: str = ""
    deeds: tuple[Deed, ...] = ()
    custody_problem: str = ""  # why the custody cannot be believed
    node: str = ""  # whose part this is, where an incident has several

    def __post_init__(self) -> None:
        for name in ("problem", "custody_problem", "node"):
            object.__setattr__(self, name, printable(getattr(self, name)))

    @property
    def id(self) -> str:
        return self.manifest.incident

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """Of the ledger."""
        return tuple(
            replace(each, kind=printable(each.kind, 60), message=printable(each.message, 1000))
            for each in self.manifest.ledger.entries
        )

    @cached_property
    def what(self) -> Mapping[str, Json]:
        return group(self.manifest.details.get("what"))

    @cached_property
    def why(self) -> Mapping[str, Json]:
        return group(self.manifest.details.get("why"))

    @cached_property
    def where(self) -> Mapping[str, Json]:
        return group(self.manifest.details.get("where"))

    @cached_property
    def when(self) -> Mapping[str, Json]:
        return group(self.manifest.details.get("when"))

    @cached_property
    def title(self) -> str:
        return text(self.what.get("title")) or self.id

    @cached_property
    def host(self) -> str:
        return text(self.where.get("host"), MAX_NAME)

    @cached_property
    def t0_ns(self) -> int:
        return number(self.when.get("t0_ns")) or self.manifest.created_ns

    @cached_property
    def packets(self) -> int:
        return max(0, number(self.what.get("packets")))

    @cached_property
    def asked(self) -> tuple[int, int]:
        """The window that was asked for; zeros where it is not known."""
        return _span(self.when.get("asked"))

    @cached_property
    def covered(self) -> tuple[int, int]:
        """The window in which the recording is whole; zeros where it is not known."""
        return _span(self.when.get("covered"))

    @cached_property
    def seen(self) -> tuple[int, int]:
        """When the first and the last packet were seen; zeros where there are none."""
        return number(self.when.get("first_packet_ns")), number(self.when.get("last_packet_ns"))

    @cached_property
    def alerts(self) -> tuple[AlertTold, ...]:
        told = rows(self.why.get("alerts"))
        return tuple(sorted(map(_alert, told), key=lambda each: (each.time_ns, each.id)))

    @cached_property
    def alerts_counted(self) -> int:
        """Every copy."""
        return max(number(self.why.get("alerts_counted")), len(self.alerts))

    @cached_property
    def rule(self) -> str:
        return text(self.why.get("rule"))

    @cached_property
    def captures(self) -> tuple[Mapping[str, Json], ...]:
        return tuple(rows(self.what.get("captures")))

    @cached_property
    def pods(self) -> tuple[Pod, ...]:
        """Everybody whose packets were recorded, the target first."""
        found = [
            _pod(
                group(each.get("who")),
                text(each.get("target")),
                text(each.get("end"), 20) or "own",
            )
            for each in self.captures
        ]
        if not found:
            found = [_pod(group(self.manifest.details.get("who")), self.title, "own")]
        return tuple({(each.title, each.uid): each for each in found}.values())

    @property
    def pod(self) -> Pod:
        """The target."""
        return self.pods[0]

    @cached_property
    def holders(self) -> tuple[Held, ...]:
        """Who held which address when, as far as it was known at sealing."""
        return tuple(
            Held(
                address=text(address, 60),
                name=text(each.get("name"), MAX_NAME),
                kind=text(each.get("kind"), 20),
                node=text(each.get("node"), MAX_NAME),
                uid=text(each.get("uid"), 64),
                from_ns=number(each.get("from_ns")),
                to_ns=number(each.get("to_ns")),
            )
            for address, told in sorted(group(self.manifest.details.get("names")).items())
            for each in rows(group(told).get("holders"))
        )

    @cached_property
    def interfaces(self) -> tuple[Mapping[str, Json], ...]:
        return tuple(rows(self.where.get("interfaces")))

    @cached_property
    def addresses(self) -> frozenset[str]:
        """The target's own, without loopback's."""
        of_rings = {
            text(address, 60).partition("/")[0]
            for ring in self.interfaces
            if ring.get("name") != "lo"
            for address in sequence(ring.get("addresses"))
        }
        if self.findings is not None:
            of_rings |= {
                str(each.get("address")) for each in self.findings.endpoints if each.get("ours")
            }
        return frozenset(filter(is_address, of_rings))

    @cached_property
    def names(self) -> Mapping[str, str]:
        """Address → what to call it: its holder, else the DNS name that the capture itself proves."""
        proven = self.findings.names if self.findings is not None else {}
        found = {text(address, 60): text(name, MAX_NAME) for address, name in proven.items()}
        for address, name in group(self.where.get("names")).items():
            if isinstance(name, str):
                found[text(address, 60)] = text(name, MAX_NAME)
        return found

    @cached_property
    def severity(self) -> Severity:
        """The worst of what was found and of what Falco said."""
        words = [each.severity for each in self.alerts]
        if self.findings is not None:
            words += [each.severity for each in self.findings.findings]
        return max(words, key=lambda each: each.rank, default=Severity.INFO)

    @cached_property
    def techniques(self) -> tuple[str, ...]:
        """Of ATT&CK, as the alerts' tags and the findings name them; each once."""
        named = [each for alert in self.alerts for each in techniques_in(alert.tags)]
        if self.findings is not None:
            named += [id for each in self.findings.findings for id in each.techniques]
        return tuple(dict.fromkeys(named))

    @cached_property
    def _flows(self) -> Mapping[tuple[str, str, int], Sequence[Conversation]]:
        """(client, server, server's port) → their conversations."""
        found: dict[tuple[str, str, int], list[Conversation]] = {}
        for each in self.conversations:
            client, server = ends(each)
            found.setdefault((client[0], server[0], server[1]), []).append(each)
        return found

    def flow(self, client: str, server: str, port: int, at_ns: int) -> Conversation | None:
        """The one conversation of theirs, or the one that was going on then: rows know no more of theirs."""
        among = self._flows.get((client, server, port), ())
        if len(among) > 1:
            among = [each for each in among if each.first_ns <= at_ns <= each.last_ns]
        return among[0] if len(among) == 1 else None

    @property
    def conversations(self) -> Sequence[Conversation]:
        return self.findings.conversations if self.findings is not None else ()

    def name_of(self, address: str) -> str:
        """`payments/checkout-7d9f`, `c2.example`, or "" for an address nobody has named."""
        return self.names.get(address, "")

    def called(self, address: str, port: int = 0) -> str:
        """`c2.example (203.0.113.66:4444)`."""
        there = endpoint(address, port)
        name = self.name_of(address)
        return f"{name} ({there})" if name else there


def endpoint(address: str, port: int) -> str:
    """`203.0.113.66:4444`, `[2001:db8::1]:443`."""
    if not port:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def ends(each: Conversation) -> tuple[tuple[str, int], tuple[str, int]]:
    """Who asked and who answered, each as (address, port): by who opened, else by the lower port."""
    a, b = (each.a, each.a_port), (each.b, each.b_port)
    if each.opened_by and (each.from_start or each.proto != "tcp"):
        return (a, b) if each.opened_by == each.a else (b, a)
    if a[1] and b[1] and a[1] != b[1]:
        return (a, b) if b[1] < a[1] else (b, a)
    return (b, a) if each.opened_by == each.b else (a, b)


@dataclass(frozen=True, slots=True)
class Flow:
    """A conversation as whoever opened it sees it."""

    client: str
    client_port: int
    server: str
    server_port: int
    packets_sent: int
    packets_back: int
    bytes_sent: int
    bytes_back: int


def flow_of(each: Conversation) -> Flow:
    """Who asked whom, and what went which way."""
    client, server = ends(each)
    sides = [(each.packets_ab, each.bytes_ab), (each.packets_ba, each.bytes_ba)]
    if client != (each.a, each.a_port):
        sides.reverse()
    (packets_sent, bytes_sent), (packets_back, bytes_back) = sides
    return Flow(*client, *server, packets_sent, packets_back, bytes_sent, bytes_back)


def is_address(said: str) -> bool:
    """It is one of IP."""
    try:
        ip_address(said)
    except ValueError:
        return False
    return True


def port_of(said: str) -> int:
    """A port's number, or 0."""
    return int(said) if said.isascii() and said.isdigit() and int(said) < 65_536 else 0


def host_of(said: str) -> str:
    """A Host header's name or address, without its port."""
    name, colon, port = said.rpartition(":")
    return name if colon and port.isdigit() and "]" not in port else said


def url_of(host: str, target: str) -> str:
    """The URL of a request; what is asked of a proxy is one already, and `*` and CONNECT have no path."""
    if re.match(r"https?://", target, re.IGNORECASE):
        return target
    return f"http://{host}{target if target.startswith('/') else ''}" if host else ""


def group(value: Json) -> Mapping[str, Json]:
    """An object, or an empty one."""
    return value if isinstance(value, dict) else {}


def rows(value: Json) -> list[Mapping[str, Json]]:
    """The objects of a list."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def sequence(value: Json) -> Sequence[Json]:
    """A list, or an empty one."""
    return value if isinstance(value, list) else []


def text(value: Json, most: int = 400) -> str:
    """Printable text, or none."""
    if isinstance(value, str) and len(value) <= most and value.isascii() and value.isprintable():
        return value
    return printable(value, most) if isinstance(value, str) else ""


def texts(value: Json, most: int = 50) -> tuple[str, ...]:
    """The first printable texts of a list."""
    return tuple(text(each) for each in sequence(value)[:most] if isinstance(each, str))


def number(value: Json) -> int:
    """A whole number of 64 bits, or 0."""
    return value if type(value) is int and -(2**63) <= value < 2**63 else 0


def _span(value: Json) -> tuple[int, int]:
    told = group(value)
    return number(told.get("from_ns")), number(told.get("to_ns"))


def _alert(told: Mapping[str, Json]) -> AlertTold:
    verbatim = told.get("verbatim")
    body = verbatim if isinstance(verbatim, str) else text(told.get("verbatim_base64"), 1 << 20)
    event = _event(body)
    fields = group(event.get("output_fields"))
    return AlertTold(
        id=text(told.get("id"), 60),
        rule=text(told.get("rule")),
        priority=text(told.get("priority"), 40),
        time_ns=number(told.get("time_ns")),
        received_ns=number(told.get("received_ns")),
        via=text(told.get("via"), 200),
        repeats=max(0, number(told.get("repeats"))),
        verbatim=body,
        tags=texts(event.get("tags")),
        process=text(fields.get("proc.name"), 100),
        cmdline=text(fields.get("proc.cmdline")),
    )


def _event(body: str) -> Mapping[str, Json]:
    """What can be read of the quoted alert, also within an envelope of CloudEvents."""
    try:
        event = group(read_json(body.encode(), "alert"))
    except (BadInput, UnicodeEncodeError):
        return {}
    return group(event.get("data")) if "specversion" in event else event


def _pod(who: Mapping[str, Json], target: str, end: str) -> Pod:
    labels = list(group(who.get("labels")).items())[:50]
    return Pod(
        target=target,
        end=end,
        namespace=text(who.get("namespace"), MAX_NAME),
        name=text(who.get("pod"), MAX_NAME),
        uid=text(who.get("uid"), 64),
        node=text(who.get("node"), MAX_NAME),
        owner=text(who.get("owner")),
        service_account=text(who.get("service_account"), MAX_NAME),
        images=texts(who.get("images")),
        containers=texts(who.get("containers")),
        labels={text(key): text(value) for key, value in labels},
        since_ns=number(who.get("since_ns")),
        gone_ns=number(who.get("gone_ns")),
    )
