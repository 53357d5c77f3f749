"""Claims about places that matter: the cloud's metadata service, the Kubernetes API, SSH servers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from tripshark.analysis import filters
from tripshark.analysis.claims.view import View, claim
from tripshark.analysis.talks import Talk
from tripshark.analysis.words import count, endpoint, short
from tripshark.model.alert import Json
from tripshark.model.claim import Finding, Severity

METADATA: Final = {
    "169.254.169.254": "AWS, Google, Azure, DigitalOcean, OpenStack and others",
    "fd00:ec2::254": "AWS",
    "fd20:ce::254": "Google",
    "100.100.100.200": "Alibaba",
    "169.254.170.2": "AWS (containers' credentials)",
    "169.254.170.23": "AWS (pods' credentials)",
    "169.254.0.23": "Tencent",
}
_METADATA_PORT = 80
"""On Google's machines the same address also answers DNS and NTP, which is no request for metadata."""
_SECRET_PATHS = ("security-credentials", "/token", "/identity", "/credentials", "user-data")
"""Parts of paths under which metadata services hand out credentials, or what machines were started with."""

_API_PORTS = (443, 6443)
_API_NAMES = ("default/svc/kubernetes", "kubernetes.default")


def claims(view: View) -> Iterator[Finding]:
    """Everything that can be said about such places."""
    yield from _metadata(view)
    yield from _kubernetes(view)
    yield from _ssh(view)


def _metadata(view: View) -> Iterator[Finding]:
    for address, talks in _talks_with(view, METADATA, (_METADATA_PORT,)).items():
        requests = [row for row in view.said.http.rows if row["server"] == address]
        asked = list(dict.fromkeys(str(row["uri"]) for row in requests))
        secret = [each for each in asked if any(part in each for part in _SECRET_PATHS)]
        told = ", ".join(map(short, (secret or asked)[:3]))
        answered = any(talk.packets[0] and talk.packets[1] for talk in talks)
        severity = Severity.HIGH if secret else Severity.MEDIUM if answered else Severity.LOW
        packets = sum(sum(talk.packets) for talk in talks)
        text = (
            f"{count(packets, 'packet')} in {count(len(talks), 'TCP connection')} with the cloud metadata "
            f"service at {address}."
        )
        if told:
            text += f" HTTP asked for {told}{' and more' if len(asked) > 3 else ''}."
        if secret:
            text += (
                " Such a path gives out credentials or what the machine was started with. A cloud's own "
                "libraries fetch theirs like this."
            )
        yield claim(
            "cloud-metadata",
            severity,
            f"The cloud metadata service {address}",
            text,
            frames=[talk.frame for talk in talks[:20]],
            filter=f"{filters.either(address)} && tcp.port == {_METADATA_PORT}",
            matches=packets,
            times=_times(talks),
            techniques=("T1552.005",),
            about={"peer": address, "port": str(_METADATA_PORT), "proto": "tcp", "asked": told},
        )


def _kubernetes(view: View) -> Iterator[Finding]:
    named = {
        address: name
        for address, name in {**view.resolved.names, **view.question.names}.items()
        if name.lower().startswith(_API_NAMES)
    }
    known = dict.fromkeys(view.question.api_server, "")
    for address, talks in _talks_with(view, {**named, **known}, _API_PORTS).items():
        port = talks[0].first.dport if talks[0].first.dport in _API_PORTS else talks[0].first.sport
        there = [each for each in talks if port in (each.first.sport, each.first.dport)]
        packets = sum(sum(talk.packets) for talk in there)
        suspect = address == view.suspect
        yield claim(
            "kubernetes-api",
            view.priority() if suspect else Severity.INFO,
            f"The Kubernetes API at {endpoint(address, port)}",
            f"{count(packets, 'packet')} in {count(len(there), 'TCP connection')} with the Kubernetes API at "
            f"{endpoint(address, port)}. Controllers and tools do this all day; most other workloads never.",
            frames=[talk.frame for talk in there[:20]],
            filter=f"{filters.either(address)} && tcp.port == {port}",
            matches=packets,
            times=_times(there),
            techniques=view.techniques if suspect else (),
            about={"peer": address, "port": str(port), "proto": "tcp"},
        )


def _ssh(view: View) -> Iterator[Finding]:
    banners: dict[str, str] = {}
    for row in view.said.ssh.rows:
        banners.setdefault(str(row["address"]), str(row["banner"]))
    for talk in view.talks.talks.values():
        first = talk.first
        if first.transport != "tcp" or not talk.app.upper().startswith("SSH"):
            continue
        ours = view.ours(first.src)
        client, server = banners.get(first.src, ""), banners.get(first.dst, "")
        said = " and ".join(
            f"{who} {short(what)}"
            for who, what in (("client", client), ("server", server))
            if what
        )
        away = ours and view.outside(first.dst)
        yield claim(
            "ssh",
            Severity.MEDIUM if away else Severity.LOW,
            f"SSH to {endpoint(first.dst, first.dport)}",
            f"{first.src} spoke SSH with {endpoint(first.dst, first.dport)}{view.named(first.dst)}"
            f"{f' ({said})' if said else ''}, {count(sum(talk.packets), 'packet')}.",
            frames=talk.frames,
            filter=filters.conversation(first),
            matches=sum(talk.packets),
            times=(first.time_ns, talk.last_ns),
            techniques=("T1021.004",) if ours else (),
            about={
                "address": first.src,
                **view.peer(first.dst),
                "port": str(first.dport),
                "proto": "tcp",
                "banners": said,
            },
        )


def _talks_with(
    view: View, places: Mapping[str, Json] | Mapping[str, str], ports: tuple[int, ...]
) -> dict[str, list[Talk]]:
    """TCP conversations that have one of these addresses with one of these ports at one end, by address."""
    found: dict[str, list[Talk]] = {}
    for talk in view.talks.talks.values():
        first = talk.first
        if first.transport != "tcp":
            continue
        for address, port in ((first.dst, first.dport), (first.src, first.sport)):
            if address in places and port in ports and address not in view.own:
                found.setdefault(address, []).append(talk)
                break
    return found


def _times(talks: list[Talk]) -> tuple[int, int]:
    return min(talk.first.time_ns for talk in talks), max(talk.last_ns for talk in talks)
