"""Claims about what was sent: credentials, files, odd HTTP requests, data in ping, errors, segments sent again."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import cast

from tripshark.analysis import filters
from tripshark.analysis.claims.view import View, claim
from tripshark.analysis.said import LARGE_PING
from tripshark.analysis.words import count, endpoint, short, size
from tripshark.model.alert import Json
from tripshark.model.claim import Finding, Severity
from tripshark.model.files import CarriedFile
from tripshark.model.text import printable

MIN_LARGE_PINGS = 10
"""Echo requests larger than ping's own, from one address to another; fewer is somebody who tests a path's MTU."""
MIN_AGAIN = 20
AGAIN_SHARE = 0.05
"""Of all TCP segments: from about a twentieth on, a connection visibly stalls."""

_TOOLS = re.compile(
    r"^(curl|wget|python-requests|python-urllib|libwww-perl|powershell|lua-resty)", re.I
)
"""What scripts say they are. Inside a cluster that is ordinary; to an address outside it is worth a look."""
_SCANNERS = re.compile(
    r"(sqlmap|nikto|nmap|masscan|zgrab|gobuster|dirbuster|feroxbuster|wpscan|nuclei|hydra|acunetix)",
    re.I,
)
_PROGRAMS = re.compile(r"\.(sh|elf|so|bin|ps1|exe|dll|py|pl|jar|war)$", re.I)
_SCANNER = "a scanner by its own word"
_PROGRAM = "a program or script by its name"
_ICMP_REQUEST = {"icmp": 8, "icmpv6": 128}


def claims(view: View, files: tuple[CarriedFile, ...]) -> Iterator[Finding]:
    """Everything that can be said about contents."""
    yield from _credentials(view)
    yield from _files(view, files)
    yield from _requests(view)
    yield from _pings(view)
    yield from _errors(view)
    yield from _again(view)


def _credentials(view: View) -> Iterator[Finding]:
    groups: dict[tuple[str, str, str, int], list[Mapping[str, Json]]] = defaultdict(list)
    for row in view.said.credentials.rows:
        place = (str(row["proto"]), str(row["client"]), str(row["server"]), cast(int, row["port"]))
        groups[place].append(row)
    for (proto, client, server, port), rows in groups.items():
        users = [str(row["user"]) for row in rows if row["user"]]
        whose = ", ".join(map(short, dict.fromkeys(users[:3])))
        frames = [cast(int, row["frame"]) for row in rows][:20]
        yield claim(
            "credentials",
            Severity.HIGH if view.outside(server) else Severity.MEDIUM,
            f"{proto} credentials in clear text to {endpoint(server, port)}",
            f"{client} sent {proto} credentials{f' of {whose}' if whose else ''} in clear text to "
            f"{endpoint(server, port)}{view.named(server)}; whoever sees the packets can read them (here they "
            f"are masked).",
            frames=frames,
            filter=filters.numbers(frames),
            matches=len({*frames}),
            times=(cast(int, rows[0]["first_ns"]), cast(int, rows[-1]["first_ns"])),
            about={
                "address": client,
                **view.peer(server),
                "port": str(port),
                "proto": "tcp",
                "users": whose,
            },
        )


def _files(view: View, files: tuple[CarriedFile, ...]) -> Iterator[Finding]:
    for each in files:
        if not each.runs:
            continue
        sender, receiver = (
            (each.client, each.server) if each.uploaded else (each.server, each.client)
        )
        incoming = view.ours(receiver) and view.outside(sender)
        part = "" if each.complete else " (not all of it was captured)"
        yield claim(
            "file",
            Severity.MEDIUM if incoming else Severity.LOW,
            f"{each.type} transferred by {each.source}",
            f"{each.source} carried {short(each.name) or 'a file'} from {sender}{view.named(sender)} to "
            f"{receiver}{view.named(receiver)}: {each.type}, {size(each.bytes)}{part}, SHA-256 {each.sha256}. It was not run.",
            frames=[each.frame],
            filter=filters.number(each.frame),
            matches=1,
            times=(each.first_ns, each.first_ns),
            techniques=("T1105",) if incoming else (),
            about={
                "address": receiver,
                **view.peer(sender),
                "receiver_name": view.gathered.name_of(receiver),
                "file": each.name,
                "sha256": each.sha256,
            },
        )


def _requests(view: View) -> Iterator[Finding]:
    groups: dict[tuple[str, str, str], list[Mapping[str, Json]]] = defaultdict(list)
    for row in view.said.http.rows:
        if reason := _odd(view, row):
            groups[reason, str(row["client"]), str(row["user_agent"])].append(row)
    for (reason, client, agent), rows in groups.items():
        frames = [cast(int, row["frame"]) for row in rows][:20]
        first = rows[0]
        server = str(first["server"])
        servers = {str(row["server"]) for row in rows}
        what = f"{first['method']} {first['uri']}"
        more = f" and {count(len(servers) - 1, 'more host')}" if len(servers) > 1 else ""
        scanner = reason == _SCANNER
        program = reason == _PROGRAM
        yield claim(
            "http-request",
            Severity.MEDIUM if scanner or program else Severity.LOW,
            f"HTTP request: {reason}",
            f"{client} asked {server}{view.named(server)}{more} for {short(what)}"
            f"{f' and {len(rows) - 1} more' if len(rows) > 1 else ''}"
            f"{f', as {short(agent)}' if agent else ''}: {reason}.",
            frames=frames,
            filter=filters.numbers(frames),
            matches=len({*frames}),
            times=(cast(int, first["first_ns"]), cast(int, rows[-1]["first_ns"])),
            techniques=("T1595",) if scanner else ("T1105",) if program else (),
            about={
                "address": client,
                **(view.peer(server) if len(servers) == 1 else {"first_peer": server}),
                "first_peer_name": view.gathered.name_of(server),
                "request": what,
                "user_agent": agent,
            },
        )


def _odd(view: View, row: Mapping[str, Json]) -> str:
    """Why a request stands out, "" where it does not."""
    agent, path = str(row["user_agent"]), str(row["uri"]).partition("?")[0]
    away = view.ours(str(row["client"])) and view.outside(str(row["server"]))
    if _SCANNERS.search(agent):
        return _SCANNER
    if not away:
        return ""
    if _PROGRAMS.search(path) and row["method"] == "GET":
        return _PROGRAM
    if _is_address(str(row["host"])):
        return "the host is an address"
    return "a command-line tool or script by its own word" if _TOOLS.search(agent) else ""


def _is_address(host: str) -> bool:
    plain = host.rpartition(":")[0] if host.count(":") == 1 else host.strip("[]")
    try:
        ip_address(plain)
    except ValueError:
        return False
    return True


def _pings(view: View) -> Iterator[Finding]:
    for (kind, client, server), seen in view.said.pings.items():
        if seen.count < MIN_LARGE_PINGS or len(seen.sizes) < 2:
            continue  # ping -s sends many of one size
        yield claim(
            "icmp",
            Severity.MEDIUM if view.outside(server) else Severity.LOW,
            f"Large ICMP echo requests to {server}",
            f"{client} sent {seen.count} echo requests of more than {LARGE_PING} bytes in "
            f"{len(seen.sizes)} different sizes to {server}{view.named(server)}. Tunnels through ping look "
            f"like this; ping itself sends one size.",
            frames=seen.frames,
            filter=f"{kind}.type == {_ICMP_REQUEST[kind]} && {filters.source(client)} && "
            f"{filters.destination(server)} && frame.len > {LARGE_PING}",
            matches=seen.count,
            times=(seen.first_ns, seen.last_ns),
            techniques=("T1095",),
            about={"address": client, **view.peer(server), "proto": kind},
        )


def _errors(view: View) -> Iterator[Finding]:
    for (group, summary), seen in view.said.errors.items():
        shown = filters.sentence("_ws.expert.message", summary)
        frames = seen.frames
        yield claim(
            "expert",
            Severity.INFO,
            f"tshark calls it an error: {short(summary.strip())}",
            f"tshark says {short(summary.strip())} ({group}) of what it shows. Cut packets, unusual programs and attacks "
            f"on dissectors all cause this.",
            frames=frames,
            filter=shown or filters.numbers(frames),
            matches=seen.count if shown else len({*frames}),
            times=(seen.first_ns, seen.last_ns),
            about={"group": group, "summary": printable(summary.strip())},
        )


def _again(view: View) -> Iterator[Finding]:
    talks = view.talks
    if talks.sent_again < max(MIN_AGAIN, AGAIN_SHARE * talks.segments):
        return
    yield claim(
        "retransmissions",
        Severity.INFO,
        f"{talks.sent_again / talks.segments:.0%} of TCP segments were sent again",
        f"{talks.sent_again:,} of {talks.segments:,} TCP segments are, as tshark sees it, sent again: the network "
        f"lost packets, or a peer did not answer.",
        frames=talks.again,
        filter="tcp.analysis.retransmission || tcp.analysis.fast_retransmission || "
        "tcp.analysis.spurious_retransmission",
        matches=talks.sent_again,
        times=(view.gathered.first_ns, view.gathered.last_ns),
        about={"proto": "tcp"},
    )
