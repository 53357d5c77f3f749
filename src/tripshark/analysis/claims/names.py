"""Claims about names and greetings: DNS that fails or looks random, TLS that is weak or nameless."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from tripshark.analysis import filters
from tripshark.analysis.claims.view import View, claim
from tripshark.analysis.resolved import LONG_LABEL
from tripshark.analysis.words import count, short
from tripshark.formats.tls_names import WEAK_VERSIONS
from tripshark.model.alert import Json
from tripshark.model.claim import Finding, Severity

MIN_FAILED_NAMES = 10
"""Different names outside the cluster that do not exist: a mistyped setting has one or two."""
FAILED_SHARE = 0.5
"""Of all answers: someone who browses has some failures among many successes."""
MANY_FAILED_NAMES = 50
"""From here on they are hardly typed by anybody."""

MIN_RANDOM_NAMES = 10
"""Long random names below one domain: a content network shows one program few, a tunnel needs one for each message."""

_VERSION_FILTERS = {"SSL 3.0": "0x0300", "TLS 1.0": "0x0301", "TLS 1.1": "0x0302"}


def claims(view: View) -> Iterator[Finding]:
    """Everything that can be said about names."""
    yield from _failures(view)
    yield from _random(view)
    yield from _weak(view)
    yield from _nameless(view)


def _failures(view: View) -> Iterator[Finding]:
    for address, client in view.resolved.clients.items():
        many = len(client.names)
        if many < MIN_FAILED_NAMES or client.failed < FAILED_SHARE * (client.failed + client.good):
            continue
        yield claim(
            "dns-failures",
            Severity.MEDIUM if many >= MANY_FAILED_NAMES else Severity.LOW,
            f"{many} names could not be resolved",
            f"{count(client.failed, 'answer')} told {address} that a name does not exist or cannot be "
            f"resolved; {many} different names outside the cluster's own domains were among them.",
            frames=client.frames,
            filter=f"(dns.flags.rcode == 3 || dns.flags.rcode == 2) && {filters.destination(address)}",
            matches=client.failed,
            times=(client.first_ns, client.last_ns),
            about={"address": address, "proto": "dns"},
        )


def _random(view: View) -> Iterator[Finding]:
    for name, domain in view.resolved.domains.items():
        many = len(domain.names)
        if many < MIN_RANDOM_NAMES:
            continue
        yield claim(
            "dns-entropy",
            Severity.MEDIUM,
            f"{many} random-looking names below {name}",
            f"{many} different names below {name} whose longest part has {LONG_LABEL} to {domain.longest} "
            f"characters that look random ({domain.bits / many:.1f} bits each) were asked for or answered. DNS "
            f"tunnels look like this, and so do some content networks and security products.",
            frames=domain.frames,
            filter=filters.below(name),
            matches=domain.packets,
            times=(domain.first_ns, domain.last_ns),
            techniques=("T1071.004",),
            about={"domain": name, "proto": "dns"},
        )


def _weak(view: View) -> Iterator[Finding]:
    weak: dict[tuple[str, str], list[Mapping[str, Json]]] = defaultdict(list)
    for row in view.said.tls.rows:
        if row["version"] in WEAK_VERSIONS and str(row["version"]) in _VERSION_FILTERS:
            weak[str(row["server"]), str(row["version"])].append(row)
    for (server, version), rows in weak.items():
        chosen = view.said.chosen.get((server, version))
        if chosen is None:
            continue
        names = ", ".join(short(str(row["name"])) for row in rows[:3] if row["name"])
        yield claim(
            "tls-weak",
            Severity.LOW,
            f"{version} with {server}",
            f"{server}{view.named(server)} chose {version} in {count(chosen.count, 'greeting')}"
            f"{f' (for {names})' if names else ''}. That version is no longer to be used (RFC 8996, RFC 7568).",
            frames=chosen.frames,
            filter=f"tls.handshake.type == 2 && tls.handshake.version == {_VERSION_FILTERS[version]} && "
            f"{filters.source(server)}",
            matches=chosen.count,
            times=(chosen.first_ns, chosen.last_ns),
            about={"server": server, "proto": "tls", "names": names},
        )


def _nameless(view: View) -> Iterator[Finding]:
    for (client, server), seen in view.said.nameless.items():
        if not (view.ours(client) and view.outside(server)):
            continue
        suspect = server == view.suspect
        yield claim(
            "tls-no-name",
            Severity.MEDIUM if suspect else Severity.LOW,
            f"TLS to {server} without a server name",
            f"{client} greeted {server}{view.named(server)} {count(seen.count, 'time')} with TLS and gave no server "
            f"name. Browsers and most libraries always give one.",
            frames=seen.frames,
            filter=f"tls.handshake.type == 1 && !tls.handshake.extensions_server_name && "
            f"{filters.source(client)} && {filters.destination(server)}",
            matches=seen.count,
            times=(seen.first_ns, seen.last_ns),
            about={"address": client, **view.peer(server), "proto": "tls"},
        )
