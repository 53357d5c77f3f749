"""DNS: who asked for which names, what was answered, and which answers prove a name."""

from __future__ import annotations

import math
from collections import Counter
from typing import cast

from tripshark.analysis.filters import is_plain, place
from tripshark.analysis.table import Row, Table, whole
from tripshark.analysis.wanted import address_or_none
from tripshark.formats.tshark import DnsMessage, Frame
from tripshark.model.alert import Json
from tripshark.model.reading import MAX_ROWS
from tripshark.model.text import printable

MAX_PENDING = 20_000  # questions that wait for their answer
MAX_DOMAINS = 2_000
MAX_CLIENTS = 500
MAX_NAMES = 1_000  # distinct ones remembered of one domain or client; more are not told apart
_MAX_ANSWERS = 16  # of one name
_ANSWER = 120  # characters of one answer
_FRAMES = 20
LONG_LABEL = 20
"""Characters: hardly any label that people choose is longer, and every tunnel's is (a label may have 63)."""
RANDOM_BITS = 3.5
"""Of entropy per character: English has about 4.1 over a whole text but 2 to 3.2 in one short name; hexadecimal
reaches 4, base32 reaches 5 and base64 6, where a label is long enough."""

_CNAME = 5
_NOERROR, _SERVFAIL, _NXDOMAIN = 0, 2, 3
_DNS_TYPES = {
    1: "A",
    2: "NS",
    5: "CNAME",
    6: "SOA",
    12: "PTR",
    15: "MX",
    16: "TXT",
    28: "AAAA",
    33: "SRV",
    35: "NAPTR",
    64: "SVCB",
    65: "HTTPS",
    252: "AXFR",
    255: "ANY",
}
_RCODES = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}
_OF_THE_CLUSTER = (".local", ".internal", ".arpa", ".svc", ".localdomain", ".lan")
"""A resolver with search domains (Kubernetes: `ndots:5`) asks for names below these that do not exist all day."""


class Domain:
    """Random-looking names below one domain, and the frames that speak of any name below it."""

    __slots__ = ("bits", "clients", "first_ns", "frames", "last_ns", "longest", "names", "packets")

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.clients: set[str] = set()
        self.frames: list[int] = []
        self.packets = 0
        self.bits = 0.0  # summed over `names`
        self.longest = 0
        self.first_ns = self.last_ns = 0


class Client:
    """Whom names were refused to: failed answers, and the names outside the cluster that failed."""

    __slots__ = ("failed", "first_ns", "frames", "good", "last_ns", "names")

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.frames: list[int] = []
        self.failed = 0  # frames
        self.good = 0  # answers without failure
        self.first_ns = self.last_ns = 0


class Resolved:
    """Takes DNS messages in file order."""

    def __init__(self) -> None:
        self.table = Table()
        self.names: dict[str, str] = {}  # address → name, proven by the capture itself
        self.domains: dict[str, Domain] = {}
        self.clients: dict[str, Client] = {}
        self.truncated = False
        self._pending: dict[tuple[str, int, str, int, str, int], None] = {}

    @property
    def pending(self) -> int:
        """Questions that wait for their answer."""
        return len(self._pending)

    def add(self, frame: Frame) -> None:
        """Every message of one packet."""
        for message in frame.dns:
            take = self._answer if message.response else self._ask
            for name, kind in message.questions:
                take(frame, message, name, kind)
        self._below(frame)
        self._failures(frame)

    def _ask(self, frame: Frame, message: DnsMessage, name: str, kind: int) -> None:
        row = self._row(frame, name, kind, client=frame.src, server=frame.dst)
        if row is not None:
            row["asked"] = whole(row, "asked") + 1
            row["asked_ns"] = row["asked_ns"] or frame.time_ns
        if len(self._pending) >= MAX_PENDING:
            del self._pending[next(iter(self._pending))]
            self.truncated = True
        self._pending[frame.src, frame.sport, frame.dst, message.id, name.lower(), kind] = None

    def _answer(self, frame: Frame, message: DnsMessage, name: str, kind: int) -> None:
        asked = (frame.dst, frame.dport, frame.src, message.id, name.lower(), kind)
        proven = asked in self._pending
        chain = _chain(name, message)
        values = [printable(each, _ANSWER) for each in chain]
        row = self._row(frame, name, kind, client=frame.dst, server=frame.src)
        if row is not None:
            row["answered"] = whole(row, "answered") + 1
            row["rcode"] = _RCODES.get(message.rcode, str(message.rcode))
            row["proven"] = bool(row["proven"]) or proven
            known = cast(list[Json], row["answers"])
            new = [each for each in dict.fromkeys(values) if each not in known]
            known += new[: _MAX_ANSWERS - len(known)]
        for address in filter(None, map(address_or_none, chain)) if proven else ():
            if len(self.names) < MAX_ROWS or address in self.names:
                self.names.setdefault(address, printable(name))
            else:
                self.truncated = True

    def _row(self, frame: Frame, name: str, kind: int, *, client: str, server: str) -> Row | None:
        key = (name.lower(), kind, client)
        known = self.table.get(key)
        if known is not None:
            return known
        new: Row = {
            "name": printable(name),
            "type": _DNS_TYPES.get(kind, f"TYPE{kind}"),
            "answers": [],
            "asked_ns": 0,
            "asked": 0,
            "answered": 0,
            "rcode": "",
            "client": client,
            "server": server,
            "proven": False,
            "entropy": round(entropy(_longest(name)), 2),
            **place(frame, "dns.qry.name", name),
        }
        return self.table.row(key, new)

    def _below(self, frame: Frame) -> None:
        """Count the frame for each domain once, and its long random names."""
        names = {name.lower() for message in frame.dns for name, _ in message.questions}
        for domain in {each for each in map(_domain, names) if each}:
            known = self.domains.get(domain)
            if known is None:
                if len(self.domains) >= MAX_DOMAINS:
                    continue
                known = self.domains[domain] = Domain()
                known.first_ns = frame.time_ns
            known.packets += 1
            known.last_ns = max(known.last_ns, frame.time_ns)
            for name in names:
                label = _longest(name.removesuffix("." + domain))
                if _domain(name) != domain or len(label) < LONG_LABEL or name in known.names:
                    continue
                bits = entropy(label)
                if bits >= RANDOM_BITS and len(known.names) < MAX_NAMES:
                    known.names.add(name)
                    known.bits += bits
                    known.longest = max(known.longest, len(label))
                    known.clients.add(frame.dst if frame.dns[0].response else frame.src)
                    if len(known.frames) < _FRAMES and frame.number not in known.frames:
                        known.frames.append(frame.number)

    def _failures(self, frame: Frame) -> None:
        answers = [each for each in frame.dns if each.response]
        if not answers:
            return
        client = self.clients.get(frame.dst)
        if client is None:
            if len(self.clients) >= MAX_CLIENTS:
                return
            client = self.clients[frame.dst] = Client()
        failed = [each for each in answers if each.rcode in (_SERVFAIL, _NXDOMAIN)]
        client.good += any(each.rcode == _NOERROR for each in answers)
        if not failed:
            return
        client.failed += 1
        client.first_ns = client.first_ns or frame.time_ns
        client.last_ns = max(client.last_ns, frame.time_ns)
        names = {name.lower() for message in failed for name, _ in message.questions}
        new = {each for each in names if not each.endswith(_OF_THE_CLUSTER)} - client.names
        if new and len(client.names) < MAX_NAMES:
            client.names |= new
            if len(client.frames) < _FRAMES:
                client.frames.append(frame.number)


def entropy(text: str) -> float:
    """Shannon's, in bits per character."""
    if not text:
        return 0.0
    parts = [count / len(text) for count in Counter(text.lower()).values()]
    return -sum(part * math.log2(part) for part in parts)


def _longest(name: str) -> str:
    return max(name.split("."), key=len)


def _domain(name: str) -> str:
    """The last two labels of a plain name that has more; "" for others."""
    labels = name.rsplit(".", 2)
    domain = ".".join(labels[1:])
    fits = len(labels) == 3 and labels[0] and is_plain(domain) and domain != "in-addr.arpa"
    return domain if fits and domain != "ip6.arpa" else ""


def _chain(name: str, message: DnsMessage) -> list[str]:
    """What the answers say about `name`: aliases and addresses, following CNAMEs only from the name asked."""
    owners = {name.lower()}
    values = []
    for owner, kind, value in message.answers:
        if owner.lower() in owners and value:
            values.append(value)
            if kind == _CNAME:
                owners.add(value.lower())
    return values
