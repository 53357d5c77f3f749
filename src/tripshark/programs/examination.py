"""Looks at everything Tripshark needs of a machine and says in words what is good, limited or bad."""

from __future__ import annotations

import asyncio
import ctypes
import os
import platform
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tripshark.errors import TripsharkError
from tripshark.formats import bpf
from tripshark.model.target import Target
from tripshark.programs import accounts, examination_cluster, examination_pod, parts
from tripshark.programs.check import Check
from tripshark.programs.clock import clock_facts, clock_source
from tripshark.programs.here import local_targets
from tripshark.programs.service import Service
from tripshark.scout.client import ScoutClient
from tripshark.settings import Settings

NAMED = 3  # targets of whom the same is said; of the others the number
SYS_LANDLOCK_CREATE_RULESET = 444  # the same number on every architecture


async def examine(settings: Settings) -> list[Check]:
    """Everything, in the order in which a person would mend it."""
    container = examination_pod.here(settings)
    checks = [*_machine(apart=container is not None), *_tools()]
    checks += examination_pod.examine(container) if container else ()
    if container is not None and container.part == "recorder":  # the rest is the responder's
        return [*checks, *await _recorder(settings), *await _runtimes(settings)]
    checks += [*_data(settings), *_rules(settings), *_people(settings)]
    checks += await _recorder(settings)
    checks += await _runtimes(settings)
    checks += await asyncio.to_thread(lambda: list(_service(settings)))
    return checks + [each async for each in examination_cluster.examine(settings)]


def _machine(*, apart: bool) -> Iterator[Check]:
    """`apart`: each of our programs has a container of its own, which says who it is."""
    release = platform.release()
    version = tuple(int(n) for n in re.findall(r"\d+", release)[:2])
    if version >= (4, 20):
        yield Check("kernel", "good", f"Linux {release} on {platform.machine()}")
    else:
        yield Check(
            "kernel",
            "bad",
            f"Linux {release} lacks what the recorder needs",
            "use a kernel of 4.20 or later (PACKET_IGNORE_OUTGOING)",
        )
    if not apart:
        yield from _users()
    facts = clock_facts()
    in_step = facts.get("synchronised")
    yield Check(
        "clock",
        "good" if in_step else "limited",
        f"source {clock_source()}, {'synchronised' if in_step else 'not synchronised'}",
        ""
        if in_step
        else "run chrony or systemd-timesyncd: evidence of several machines is compared by time",
    )
    abi = ctypes.CDLL(None).syscall(SYS_LANDLOCK_CREATE_RULESET, None, 0, 1)
    yield Check(
        "sandbox",
        "good" if abi > 0 else "limited",
        f"Landlock ABI {abi}"
        if abi > 0
        else "no Landlock: tshark keeps its uid, seccomp and limits",
        "" if abi > 0 else "use a kernel of 5.13 or later with lsm=landlock",
    )


def _users() -> Iterator[Check]:
    capable = os.geteuid() == 0
    yield Check(
        "privileges",
        "good" if capable else "limited",
        "root: every namespace can be recorded"
        if capable
        else "an ordinary user: namespaces of others cannot be recorded",
        ""
        if capable
        else "start `tripshark run` as root; responder and analyst give it up at once",
    )
    if not accounts.may_change_user():
        yield Check(
            "separation",
            "limited",
            "recorder, responder and analyst run as the same user here",
            "start as root outside a user namespace, and each gets a user of its own",
        )


def _tools() -> Iterator[Check]:
    try:
        bpf.compile("tcp port 80", 1)
        yield Check("libpcap", "good", "filters can be compiled")
    except TripsharkError as problem:
        yield Check("libpcap", "bad", problem.message, "apt-get install libpcap0.8")
    tshark = shutil.which("tshark")
    if tshark:
        yield Check("tshark", "good", tshark)
    else:
        yield Check(
            "tshark",
            "limited",
            "not installed: evidence is sealed, but nobody reads it for findings",
            "apt-get install --no-install-recommends tshark",
        )


def _data(settings: Settings) -> Iterator[Check]:
    folder = settings.data
    place = next(each for each in (folder, *folder.parents) if _is_there(each))
    if not os.access(place, os.W_OK | os.X_OK):
        yield Check(
            "data folder",
            "limited" if _is_there(folder) else "bad",
            f"this user may not write to {place}",
            "name another with --data, or be root or of the group that owns it",
        )
    usage = shutil.disk_usage(place)
    if usage.free < settings.bounds.reserve:
        yield Check(
            "disk",
            "bad",
            f"{usage.free // 1_000_000} MB free at {place}: captures are refused",
            "make room, or lower bounds.reserve",
        )
    else:
        yield Check("disk", "good", f"{usage.free // 1_000_000} MB free at {place}")
    for warning in settings.warnings:
        yield Check("settings", "limited", warning)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:  # a folder above is closed to us
        return False


def _rules(settings: Settings) -> Iterator[Check]:
    try:
        loaded = parts.load_rules(settings)
    except TripsharkError as problem:
        yield Check("rules", "bad", str(problem), "see `rules:` in the settings")
        return
    errors = [p for p in loaded.problems if p.severity == "error"]
    if errors:
        yield Check(
            "rules",
            "bad",
            f"{len(errors)} errors, the first: {errors[0]}",
            "tripshark rules check",
        )
    else:
        yield Check("rules", "good", f"{len(loaded.rules)} rules")


def _people(settings: Settings) -> Iterator[Check]:
    auth = settings.ingest.auth
    if settings.alert_listen.is_loopback and auth.is_none:
        yield Check(
            "alerts",
            "good",
            f"from this machine only, at {settings.alert_listen}, without credentials",
        )
    else:
        yield Check("alerts", "good", f"at {settings.alert_listen}, with credentials")


async def _recorder(settings: Settings) -> list[Check]:
    try:
        with local_targets(settings) as (client, known):
            targets = await known.all()
            stats = await client.stats()
    except TripsharkError as problem:
        return [Check("recorder", "bad", problem.message, problem.hint or "start `tripshark run`")]
    alive = [target for target in targets if target.alive]
    drops = sum(ring.drops for target in alive for ring in target.rings)
    checks = [
        Check(
            "recorder",
            "good",
            f"{len(alive)} targets recorded, {len(targets) - len(alive)} tombstones",
        )
    ]
    if refused := stats.get("flow_cut_refused"):
        checks.append(
            Check(
                "flows",
                "limited",
                f"recorded whole, a flood shortens the past: {refused}",
                "recorder.flow_cut needs Linux 4.19, CAP_SYS_ADMIN on the machine itself and, before Linux 5.11, "
                "a high limit of locked memory; or set it to 0",
            )
        )
    if drops:
        checks.append(
            Check(
                "recording",
                "limited",
                f"{drops} packets could not be recorded since the rings were opened",
                "raise recorder.per_target, or record headers only: recorder.snaplen",
            )
        )
    checks += _noted(alive)
    named = {resident.netns for resident in parts.residents(settings) if resident.netns}
    found = {target.name.removeprefix("netns:") for target in targets}
    checks += [
        Check(
            "targets.static",
            "limited",
            f"namespace {name!r} is configured and does not exist",
            "it is recorded as soon as it appears",
        )
        for name in sorted(named - found)
    ]
    return checks


def _noted(alive: Sequence[Target]) -> Iterator[Check]:
    """What is said of targets, once for all of whom the same is said."""
    whose: dict[str, list[str]] = {}
    for target in sorted(alive, key=lambda each: (not each.identity.pod, each.title)):
        if target.note and target.mode != "off":  # that is somebody's will
            whose.setdefault(target.note, []).append(target.title)
    for note, titles in whose.items():
        more = f" and {len(titles) - NAMED} more" if len(titles) > NAMED else ""
        who = f"{', '.join(titles[:NAMED])}{more}"
        yield Check("target", "limited", f"{who}: {note}", "raise recorder.total")


async def _runtimes(settings: Settings) -> list[Check]:
    """Whom the scout follows."""
    if settings.containers.enabled == "off" or not settings.scout_socket.exists():
        return []
    scout = ScoutClient(str(settings.scout_socket))
    try:
        told = await scout.state()
    except TripsharkError as away:
        hint = "pods are recorded without names until it is back: see the log of `tripshark run`"
        return [Check("scout", "bad", away.message, away.hint or hint)]
    finally:
        scout.close()
    known = told.get("runtimes")
    found = (
        [each for each in known if isinstance(each, Mapping)] if isinstance(known, list) else []
    )
    if not found:
        return [Check("runtimes", "limited", "no container runtime is found on this machine")]
    return [
        Check(
            "runtime",
            "good" if each.get("state") == "followed" else "bad",
            " ".join(
                str(each.get(word))
                for word in ("runtime", "version", "socket", "state", "error")
                if each.get(word)
            ),
            "" if each.get("state") == "followed" else "pods of it are recorded without names",
        )
        for each in found
    ]


def _service(settings: Settings) -> Iterator[Check]:
    """What the running service says of itself: journal, rules in force, Falco's heartbeat, files."""
    service = Service(settings)
    try:
        _, ready = service.ask("/readyz")  # 503 tells as much as 200
    except TripsharkError as problem:
        yield Check("service", "bad", problem.message, "start `tripshark run`")
        return
    yield Check("service", "good", f"answers at {service.where}")
    checks = ready.get("checks")
    for name, each in checks.items() if isinstance(checks, Mapping) else ():
        wrong = str(each.get("problem") or "") if isinstance(each, Mapping) else ""
        yield Check(f"service: {name}", "bad" if wrong else "good", wrong or "good")
    warnings = ready.get("warnings")
    for warning in warnings if isinstance(warnings, list) else ():
        name = "upstream" if str(warning).startswith("Falco") else "warning"
        yield Check(name, "limited", str(warning))
