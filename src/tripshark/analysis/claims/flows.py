"""Claims about who talked to whom, how often and how much: the alert's flow, beacons, exfiltration, scans."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from statistics import median

from tripshark.analysis import filters
from tripshark.analysis.claims.view import View, claim
from tripshark.analysis.talks import Attempts, Place
from tripshark.analysis.words import amount, count, endpoint, relative, seconds, size
from tripshark.model.claim import NOT_CAPTURED, Finding, Severity

MIN_BEACONS = 6
"""Connections to one place: five gaps are the fewest that can be called regular."""
MIN_INTERVAL_S = 1.0
"""Shorter gaps are one program talking, not one that waits."""
JITTER = 0.2
"""A gap counts as regular within ±20 % of the median: beacons that vary their pause mostly do so by less."""
REGULAR_SHARE = 0.8
"""Of the gaps that must be regular; the rest may be a pause or a lost packet."""
_KEEPS_TIME = frozenset({53, 123, 5353})
"""DNS has claims of its own, and NTP is regular by design."""

MIN_EXFILTRATION_BYTES = 1_000_000
"""Sent to one address outside; less is told in the tables."""
EXFILTRATION_RATIO = 5.0
"""Sent for every byte received: a download is far below 1, a chat about 1, acknowledged uploads above 10."""
MIN_EXFILTRATION_PACKET = 100
"""Bytes of a packet, on average: bare SYNs and acknowledgements have less, and carry nothing away."""

MIN_SCANNED = 20
"""Ports of one host, or hosts at one port: no ordinary client tries as many within one capture, and fails."""
FAILED_SHARE = 0.8
"""Of the attempts that nobody answered with SYN-ACK: a busy client's are answered."""

_ALIKE = "Monitoring, and programs that look for peers which are gone, do this as well."
_WEB = frozenset({80, 443, 8000, 8080, 8443})


def claims(view: View) -> Iterator[Finding]:
    """Everything that can be said about flows."""
    yield from _alert_flow(view)
    yield from _beacons(view)
    yield from _exfiltration(view)
    yield from _port_scans(view)
    yield from _sweeps(view)


def _alert_flow(view: View) -> Iterator[Finding]:
    flow, talk = view.flow, view.flow_talk
    if flow is None or talk is None:
        if view.gathered.wanted:
            yield _absent(view)
        return
    a, b = endpoint(flow.a, flow.a_port), endpoint(flow.b, flow.b_port)
    start = "from its first packet (SYN)" if flow.from_start else "from a packet"
    when = relative(view.question.t0_ns - flow.first_ns)
    way = "→" if flow.opened_by == flow.a else "←"
    yield claim(
        "alert-flow",
        view.priority(),
        f"The alert's flow: {flow.proto.upper()} {b}",
        f"{flow.proto.upper()} {a} {way} {b}{view.named(flow.b)}: {amount(flow)}, captured {start} {when}.",
        frames=talk.frames,
        filter=flow.filter,
        matches=flow.packets,
        times=(flow.first_ns, flow.last_ns),
        techniques=view.techniques,
        about={
            "address": flow.a,
            **view.peer(flow.b),
            **({"port": str(flow.b_port)} if flow.b_port else {}),
            "proto": flow.proto,
            "community_id": flow.community_id,
        },
    )


def _absent(view: View) -> Finding:
    """The alert names a flow, and no packet of it is there."""
    wanted = view.gathered.wanted[0]
    proto = "ICMP" if wanted.icmp else (wanted.proto or "").upper()
    sides = [
        endpoint(address, port or 0) if address else f"port {port}"
        for address, port in (wanted.client, wanted.server)
        if address or port
    ]
    return Finding(
        id="F0",
        kind=NOT_CAPTURED,
        severity=Severity.MEDIUM,
        title="The alert's flow is not in the file",
        text=f"No packet of the flow that the alert names ({f'{proto} ' if proto else ''}"
        f"{' and '.join(sides)}) was found in the evidence.",
        about={"flow": " ".join(sides), "proto": proto.lower()},
    )


def _beacons(view: View) -> Iterator[Finding]:
    swept = {place for place, hosts in _by_port(view).items() if _mostly_failed(hosts)}
    for (proto, src, dst, port), tried in view.talks.attempts.items():
        if not view.ours(src) or port in _KEEPS_TIME or len(tried.times) < MIN_BEACONS:
            continue
        if (src, port) in swept and proto == "tcp":
            continue  # a scan that goes round comes back at regular intervals as well
        if not (view.outside(dst) or dst == view.suspect):
            continue  # inside a cluster, regular connections are what probes and pools make
        gap = _regular(tried.times)
        if gap is None:
            continue
        shown = _attempts_filter((proto, src, dst, port))
        web = port in _WEB and proto == "tcp"
        what = "connections" if proto == "tcp" else "exchanges"
        yield claim(
            "beacon",
            Severity.HIGH if dst == view.suspect else Severity.MEDIUM,
            f"Regular {what} to {endpoint(dst, port)}",
            f"{src} began {len(tried.times)} {what} with {proto.upper()} {endpoint(dst, port)}"
            f"{view.named(dst)}, one every {seconds(gap)} (median); at least four of five pauses are "
            f"within a fifth of that. Programs that wait for orders do this, and so do monitoring and updates.",
            frames=tried.frames,
            filter=shown,
            matches=tried.count,
            times=(tried.first_ns, tried.last_ns),
            techniques=("T1071.001",) if web else ("T1071",),
            about={"address": src, **view.peer(dst), "port": str(port), "proto": proto},
        )


def _regular(times: list[int]) -> float | None:
    """The median gap in seconds, None where the gaps are not regular."""
    gaps = [(later - earlier) / 1e9 for earlier, later in pairwise(times)]
    middle = median(gaps)
    regular = sum(abs(gap - middle) <= JITTER * middle for gap in gaps)
    enough = middle >= MIN_INTERVAL_S and regular >= REGULAR_SHARE * len(gaps)
    return middle if enough else None


def _exfiltration(view: View) -> Iterator[Finding]:
    for (src, dst), sent in view.talks.pairs.items():
        if sent.bytes < MIN_EXFILTRATION_BYTES or sent.nested:
            continue
        if sent.bytes < MIN_EXFILTRATION_PACKET * sent.packets:
            continue
        if not view.ours(src) or not view.outside(dst):
            continue
        back = view.talks.pairs.get((dst, src))
        received = back.bytes if back else 0
        if sent.bytes < EXFILTRATION_RATIO * received:
            continue
        ratio = f"{sent.bytes / received:.0f} times as much as" if received else "and nothing"
        suspect = dst == view.suspect
        yield claim(
            "exfiltration",
            Severity.HIGH if suspect else Severity.MEDIUM,
            f"{size(sent.bytes)} sent to {dst}",
            f"{src} sent {size(sent.bytes)} in {count(sent.packets, 'packet')} to {dst}{view.named(dst)}, "
            f"{ratio} came back ({size(received)}). An upload or a backup looks the same.",
            frames=sent.frames,
            filter=f"{filters.source(src)} && {filters.destination(dst)}",
            matches=sent.packets,
            times=(sent.first_ns, sent.last_ns),
            techniques=("T1041",) if suspect else (),
            about={"address": src, **view.peer(dst), "bytes": str(sent.bytes)},
        )


def _port_scans(view: View) -> Iterator[Finding]:
    tried: dict[tuple[str, str], dict[int, Attempts]] = defaultdict(dict)
    for (proto, src, dst, port), attempts in view.talks.attempts.items():
        if proto == "tcp":
            tried[src, dst][port] = attempts
    for (src, dst), ports in tried.items():
        if not _mostly_failed(ports):
            continue
        listed = ", ".join(map(str, sorted(ports)[:8]))
        failed = sum(not each.answered for each in ports.values())
        yield claim(
            "scan",
            Severity.MEDIUM if view.ours(src) else Severity.LOW,
            f"{len(ports)} ports of {dst} tried",
            f"{src} tried {len(ports)} TCP ports of {dst}{view.named(dst)} ({listed}, …); {failed} of them "
            f"did not answer with SYN-ACK. {_ALIKE}",
            frames=_frames(ports),
            filter=f"{filters.source(src)} && {filters.destination(dst)} && {filters.SYN}",
            matches=sum(each.count for each in ports.values()),
            times=_times(ports),
            techniques=("T1046",),
            about={"address": src, **view.peer(dst), "proto": "tcp"},
        )


def _sweeps(view: View) -> Iterator[Finding]:
    for (src, port), hosts in _by_port(view).items():
        if not _mostly_failed(hosts):
            continue
        failed = sum(not each.answered for each in hosts.values())
        yield claim(
            "scan",
            Severity.MEDIUM if view.ours(src) else Severity.LOW,
            f"Port {port} of {len(hosts)} hosts tried",
            f"{src} tried TCP port {port} of {len(hosts)} hosts; {failed} of them did not answer with SYN-ACK. {_ALIKE}",
            frames=_frames(hosts),
            filter=f"{filters.source(src)} && tcp.dstport == {port} && {filters.SYN}",
            matches=sum(each.count for each in hosts.values()),
            times=_times(hosts),
            techniques=("T1046",),
            about={"address": src, "port": str(port), "proto": "tcp"},
        )


def _by_port(view: View) -> dict[tuple[str, int], dict[str, Attempts]]:
    """Who tried a TCP port, of which hosts."""
    tried: dict[tuple[str, int], dict[str, Attempts]] = defaultdict(dict)
    for (proto, src, dst, port), attempts in view.talks.attempts.items():
        if proto == "tcp":
            tried[src, port][dst] = attempts
    return tried


def _mostly_failed(tried: dict[int, Attempts] | dict[str, Attempts]) -> bool:
    failed = sum(not each.answered for each in tried.values())
    return len(tried) >= MIN_SCANNED and failed >= FAILED_SHARE * len(tried)


def _frames(tried: dict[int, Attempts] | dict[str, Attempts]) -> list[int]:
    return [number for each in tried.values() for number in each.frames[:1]][:20]


def _times(tried: dict[int, Attempts] | dict[str, Attempts]) -> tuple[int, int]:
    return (
        min(each.first_ns for each in tried.values()),
        max(each.last_ns for each in tried.values()),
    )


def _attempts_filter(place: Place) -> str:
    proto, src, dst, port = place
    begun = f" && {filters.SYN}" if proto == "tcp" else ""
    sides = f"{filters.source(src)} && {filters.destination(dst)}"
    return f"{sides} && {proto}.dstport == {port}{begun}"
