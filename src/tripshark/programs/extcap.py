"""The program Wireshark starts to list what can be watched, and to watch it: history, then live.

It is started again and again while Wireshark starts, so it imports late and little, and never waits long.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from tripshark.errors import BadInput, NotFound, TripsharkError
from tripshark.wireshark.sentences import (
    ANY,
    AT,
    HERE,
    INCIDENT,
    LINKTYPE,
    Listed,
    interfaces,
    options,
    quoted,
    unquoted,
    values,
)

if TYPE_CHECKING:
    from tripshark.wireshark.asking import Service

LIST_SECONDS: Final = 2.0  # that a service may take while Wireshark starts
BEGIN_SECONDS: Final = 30.0  # until a capture's first bytes
MOST_TARGETS: Final = 30  # Wireshark asks once more about each when it starts
MOST_INCIDENTS: Final = 10
MOST_LISTED: Final = 1000  # in the list that one may choose from
LEFT_EVERY: Final = 0.5  # seconds between two looks whether Wireshark still reads


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point: the exit code; problems of a capture go to standard error, which Wireshark shows."""
    asked = _arguments(sys.argv[1:] if argv is None else argv)
    sys.stdout.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]  # a text file
    try:
        if asked.extcap_interfaces:
            _say(interfaces(_listed(asked)))
        elif asked.extcap_dlts:
            _say([LINKTYPE])
        elif asked.extcap_config:
            _say(_options(asked))
        elif asked.capture:
            _capture(asked)
        elif asked.extcap_capture_filter is not None:
            _say(_wrong_with(asked.extcap_capture_filter))
        else:
            raise BadInput(
                "this is Wireshark's way in", hint="`tripshark wireshark install` tells it of us"
            )
    except TripsharkError as problem:
        sys.stderr.write(f"{problem}\n")
        return problem.exit_code
    except BrokenPipeError:
        pass  # Wireshark has left
    return 0


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tripshark-extcap", allow_abbrev=False)
    for flag in ("interfaces", "dlts", "config"):
        parser.add_argument(f"--extcap-{flag}", action="store_true")
    parser.add_argument("--capture", action="store_true")
    for name in ("interface", "reload-option", "capture-filter", "control-in", "control-out"):
        parser.add_argument(f"--extcap-{name}")
    parser.add_argument("--extcap-version", nargs="?", default="")
    for name in ("fifo", "target", "before", "server", "token-file"):
        parser.add_argument(f"--{name}", default="")
    # the installer's, in the file that starts us
    parser.add_argument("--data", type=Path)
    parser.add_argument("--at", default="")
    parser.add_argument("--at-token-file", type=Path)
    parser.add_argument("--at-ca-file", type=Path)
    return parser.parse_known_args(argv)[0]  # newer Wiresharks say more


def _say(lines: Iterator[str] | Sequence[str]) -> None:
    for line in lines:
        sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


# ------------------------------------------------------------------------------------------- what there is


def _listed(asked: argparse.Namespace) -> Iterator[Listed]:
    """Whom one may watch; where a service is away, an interface that says so."""
    yield Listed(value=ANY, display="Tripshark: any pod, namespace or container")
    for prefix, service in _services(asked):
        far = f" @ {_host(asked.at)}" if prefix == AT else ""
        try:
            yield from _of(service, prefix, far)
        except TripsharkError as away:
            hint = f"; {away.hint}" if away.hint else ""
            yield Listed(value=f"{prefix}away", display=f"Tripshark{far}: {away.message}{hint}")


def _of(service: Service, prefix: str, far: str) -> Iterator[Listed]:
    deadline = time.monotonic() + LIST_SECONDS
    incidents = _rows(
        service.json("/v1/incidents", seconds=LIST_SECONDS, limit=str(MOST_INCIDENTS)), "incidents"
    )
    try:
        left = max(0.1, deadline - time.monotonic())
        targets = _targets(service, left)
    except NotFound:  # a hub records nothing
        targets = {}
    for name, display in list(targets.items())[:MOST_TARGETS]:
        yield Listed(value=prefix + quoted(name), display=f"{display}{far}")
    for each in incidents:
        told = f"Incident {each.get('id')}: {each.get('falco_rule')} | {each.get('target')}"
        yield Listed(
            value=prefix + INCIDENT + quoted(str(each.get("id"))),
            display=f"{told} ({each.get('state')}){far}",
        )


def _targets(service: Service, seconds: float) -> Mapping[str, str]:
    """Name → as it is shown; the busiest first, the dead last."""
    rows = _rows(service.json("/v1/targets", seconds=seconds), "targets")
    rows.sort(key=lambda each: (not each.get("alive"), -_int(each, "newest_ns")))
    found: dict[str, str] = {}
    for each in rows[:MOST_LISTED]:
        if each.get("mode") == "off":
            continue
        title, kind = str(each.get("title")), "Pod" if _pod(each) else "Network of"
        history = f"{each.get('history_seconds', 0):.0f} s back" if each.get("alive") else "gone"
        found.setdefault(title, f"{kind} {title} ({history})")
    return found


def _rows(answer: Mapping[str, object], name: str) -> list[dict[str, Any]]:
    rows = answer.get(name)
    return [each for each in rows if isinstance(each, dict)] if isinstance(rows, list) else []


def _int(row: Mapping[str, Any], name: str) -> int:
    value = row.get(name)
    return value if isinstance(value, int) else 0


def _pod(row: Mapping[str, Any]) -> bool:
    identity = row.get("identity")
    return bool(isinstance(identity, dict) and identity.get("pod"))


def _services(asked: argparse.Namespace) -> list[tuple[str, Service]]:
    """Those of the installation: this machine's, and the one that was named."""
    from tripshark.wireshark.asking import Service

    found = []
    if asked.data is not None:
        found.append((HERE, _here(asked.data)))
    if asked.at:
        far = Service(url=asked.at, token_file=asked.at_token_file, ca_file=asked.at_ca_file)
        found.append((AT, far))
    return found


def _here(data: Path) -> Service:
    """Over its socket; who may not open that may still be allowed to ask like anybody else."""
    from tripshark.wireshark.asking import Service

    try:
        url = (data / "listening").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        url = ""
    return Service(socket=data / "run" / "api.sock", url=url)


def _host(url: str) -> str:
    return url.partition("://")[2].partition("/")[0]


# ------------------------------------------------------------------------------------------- what may be chosen


def _options(asked: argparse.Namespace) -> Iterator[str]:
    version = _version(asked.extcap_version)
    if asked.extcap_reload_option:
        return values(3, _choices(asked) if asked.extcap_reload_option == "target" else {})
    return options(asked.extcap_interface or ANY, version, {})


def _choices(asked: argparse.Namespace) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for _, service in _services(_at_server(asked)):
        try:
            found |= _targets(service, LIST_SECONDS)
        except TripsharkError as away:
            sys.stderr.write(f"{away}\n")
    return found


def _version(text: str | None) -> tuple[int, int]:
    """(4, 0) where Wireshark does not say: what it knows, all of them know."""
    numbers = (text or "").split(".")
    try:
        return int(numbers[0]), int(numbers[1])
    except (ValueError, IndexError):
        return 4, 0


def _wrong_with(filter: str) -> list[str]:
    """What Wireshark shows beside its capture filter; nothing where it is right."""
    from tripshark.formats import bpf

    try:
        bpf.compile(filter, 1)
    except BadInput as problem:
        return [problem.message]
    return []


# ------------------------------------------------------------------------------------------- capturing


def _at_server(asked: argparse.Namespace) -> argparse.Namespace:
    """A server that was typed into the dialog stands for all others."""
    if asked.server:
        asked.data, asked.at = None, asked.server
        asked.at_token_file = Path(asked.token_file) if asked.token_file else None
    return asked


def _meant(asked: argparse.Namespace) -> tuple[Service, str, str]:
    """The service, and the target or the incident that is to be shown."""
    name = asked.extcap_interface or ""
    services = dict(_services(_at_server(asked)))
    if name == ANY:
        if not asked.target:
            raise BadInput(
                "whom to watch was not said",
                hint="double-click the gear beside the interface, or -o extcap.tripshark.target:ns/pod",
            )
        return (services.get(AT) if asked.server else None) or _first(services), asked.target, ""
    prefix = next((each for each in (AT, HERE) if name.startswith(each)), "")
    rest = unquoted(name.removeprefix(prefix))
    if not prefix or rest == "away":
        raise NotFound(
            "there is nothing to watch behind this interface", hint="refresh interfaces"
        )
    service = services.get(AT if asked.server else prefix) or _first(services)
    if rest.startswith(INCIDENT):
        return service, "", rest.removeprefix(INCIDENT)
    return service, rest, ""


def _first(services: Mapping[str, Service]) -> Service:
    for each in services.values():
        return each
    raise NotFound("no service is known", hint="tripshark wireshark install")


def _capture(asked: argparse.Namespace) -> None:
    """The pipe first: until it was opened Wireshark waits, also for an answer that is a refusal."""
    if not asked.fifo:
        raise BadInput("a capture needs --fifo", hint="Wireshark gives it")
    with Path(asked.fifo).open("wb", buffering=0) as fifo:
        _end_with(fifo)
        service, path, wanted = _asking(asked)
        with service.stream(path, seconds=BEGIN_SECONDS, **wanted) as (headers, pieces):
            _relay(asked, service, headers.get("x-tripshark-live", ""), pieces, fifo)


def _asking(asked: argparse.Namespace) -> tuple[Service, str, dict[str, str]]:
    """Whom for what: a live view, or the evidence of an incident that is sealed."""
    from urllib.parse import quote

    service, target, incident = _meant(asked)
    if incident:
        found = service.json(f"/v1/incidents/{quote(incident)}", seconds=BEGIN_SECONDS)
        if found.get("state") != "open":  # its evidence is final
            return service, _evidence(service, incident), {}
    wanted = {
        "filter": asked.extcap_capture_filter or "",
        "before": asked.before,
        "target": target,
        "incident": incident,
    }
    return service, "/v1/live", wanted


def _evidence(service: Service, incident: str) -> str:
    """The file of a sealed incident; of several nodes' parts, all in one."""
    from urllib.parse import quote

    parts = _rows(
        service.json(f"/v1/incidents/{quote(incident)}/parts", seconds=BEGIN_SECONDS), "parts"
    )
    name = "merged.pcapng" if len(parts) > 1 else "evidence.pcapng"
    return f"/v1/incidents/{quote(incident)}/{name}"


def _relay(
    asked: argparse.Namespace,
    service: Service,
    view: str,
    pieces: Iterator[bytes],
    fifo: BinaryIO,
) -> None:
    """Packets to Wireshark until one of both ends; the toolbar's wishes beside."""
    from tripshark.wireshark.relay import Relay

    relay = Relay(lambda block: _whole(fifo, block))
    if asked.extcap_control_in and asked.extcap_control_out:
        from tripshark.programs.extcap_toolbar import Toolbar

        toolbar = Toolbar(asked.extcap_control_out, relay, service, view)
        threading.Thread(target=toolbar.run, args=(asked.extcap_control_in,), daemon=True).start()
    for piece in pieces:
        relay.feed(piece)


def _whole(fifo: BinaryIO, block: bytes) -> None:
    left = memoryview(block)
    while left:
        left = left[fifo.write(left) :]


def _end_with(fifo: BinaryIO) -> None:
    """Once Wireshark no longer reads we end; while no packet comes no write would tell."""
    import select

    def watch() -> None:
        poll = select.poll()
        poll.register(fifo.fileno(), 0)
        while not any(event & select.POLLERR for _, event in poll.poll(LEFT_EVERY * 1000)):
            pass
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
