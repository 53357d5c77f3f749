"""A whole Tripshark on this machine for tests: real processes, real namespaces, real packets."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from tests.processes import ended_with_us

T = TypeVar("T")


def wait_for(condition: Callable[[], T], what: str, seconds: float = 60) -> T:
    """The first true answer; fails when none came in time."""
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s in vain for {what}")
        time.sleep(0.01)


def run(*argv: str, check: bool = True) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert not check or done.returncode == 0, f"{argv}: {done.stderr}"
    return done.stdout


class Network:
    """Namespaces and links that vanish with the test."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self._names: list[str] = []
        self._processes: list[subprocess.Popen[str]] = []

    def namespace(self, name: str) -> str:
        full = f"ts-{self.prefix}-{name}"
        run("ip", "netns", "del", full, check=False)
        run("ip", "netns", "add", full)
        self._names.append(full)
        run("ip", "-n", full, "link", "set", "lo", "up")
        return full

    def adopt(self, full: str) -> None:
        """A namespace made elsewhere vanishes with the others."""
        run("ip", "netns", "del", full, check=False)
        self._names.append(full)

    def veth(
        self,
        a: str,
        b: str,
        *,
        name: str = "eth0",
        net: str = "10.66.0",
        net6: str = "",
        mtu: int = 1500,
    ) -> None:
        """`a` has .1 on `name`, `b` has .2 on an interface of the same name."""
        run("ip", "-n", a, "link", "add", name, "mtu", str(mtu), "type", "veth",
            "peer", "name", name, "netns", b, "mtu", str(mtu))  # fmt: skip
        for where, host in ((a, 1), (b, 2)):
            run("ip", "-n", where, "addr", "add", f"{net}.{host}/24", "dev", name)
            if net6:
                run("ip", "-n", where, "addr", "add", f"{net6}::{host}/64", "dev", name, "nodad")
            run("ip", "-n", where, "link", "set", name, "up")

    def python(self, where: str, code: str, *arguments: str) -> subprocess.Popen[str]:
        """A program within a namespace; ended with the test."""
        process = subprocess.Popen(
            ["ip", "netns", "exec", where, sys.executable, "-I", "-c", code, *arguments],
            stdout=subprocess.PIPE,
            text=True,
        )
        self._processes.append(process)
        return process

    def spawn(self, where: str, *argv: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            ["ip", "netns", "exec", where, *argv],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._processes.append(process)
        return process

    def delete(self, name: str) -> None:
        run("ip", "netns", "del", name)
        self._names.remove(name)

    def close(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
        for name in self._names:
            run("ip", "netns", "del", name, check=False)


class Machine:
    """`tripshark run` with a data folder of its own."""

    def __init__(self, folder: Path, **config: object) -> None:
        self.folder = folder
        self.data = Path(str(config.pop("data_at", folder / "data")))
        self.config = folder / "tripshark.yaml"
        text = config.pop("rules_text", "")
        if text:  # instead of the shipped rules, whose windows are too long for a test
            (folder / "rules.yaml").write_text(str(text))
            config["rules"] = [str(folder / "rules.yaml")]
        recorder = {"host": False, **dict(config.pop("recorder", {}))}  # type: ignore[call-overload]
        config.setdefault("containers", {"enabled": "off"})
        self.config.write_text(
            json.dumps(
                {"listen": "127.0.0.1:0", "data": str(self.data), "recorder": recorder, **config}
            )
        )
        self.url = ""
        self.pids: dict[str, int] = {}
        self.events: queue.Queue[dict[str, object]] = queue.Queue()
        self.seen: list[dict[str, object]] = []
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> Machine:
        self.log = (self.folder / "log").open("a")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tripshark", "run", "--config", str(self.config), "--json"],
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            start_new_session=True,
            preexec_fn=ended_with_us,
        )
        self.events = queue.Queue()  # of this life alone
        self._reader = threading.Thread(target=self._read, args=(self.process,), daemon=True)
        self._reader.start()
        try:
            self.wait_event("ready", "responder", seconds=60)
        except BaseException:
            self.stop()
            raise
        return self

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        events = self.events
        for line in process.stdout:
            events.put(json.loads(line))
        events.put({"event": "end"})

    def wait_event(self, event: str, program: str, seconds: float = 60) -> dict[str, object]:
        """The next such word of the supervisor."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                said = self.events.get(timeout=0.5)
            except queue.Empty:
                continue
            self.seen.append(said)
            if said["event"] == "end":
                break
            if "pid" in said and str(said["event"]).startswith("ready"):
                self.pids[str(said["program"])] = int(str(said["pid"]))
            if "url" in said:
                self.url = str(said["url"])
            if said["event"] == event and said.get("program") == program:
                return said
        raise AssertionError(
            f"no {event} of {program}: {self.seen[-5:]}\n{(self.folder / 'log').read_text()[-3000:]}"
        )

    def stop(self) -> None:
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
                raise
        self._reader.join(60)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.log.close()
        self.process = None

    # ------------------------------------------------------------------------------- asking

    def get(self, path: str) -> dict[str, object]:
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return dict(json.load(answer))

    def post(self, event: Mapping[str, object], path: str = "/") -> dict[str, object]:
        body = json.dumps(event).encode()
        request = urllib.request.Request(
            self.url + path, data=body, headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.status == 202
            return dict(json.load(answer))

    def incidents(self) -> list[dict[str, object]]:
        return list(self.get("/v1/incidents?limit=500")["incidents"])  # type: ignore[call-overload]

    def wait_sealed(self, count: int = 1, seconds: float = 90) -> list[dict[str, object]]:
        """That many incidents, none of them still open."""

        def done() -> list[dict[str, object]]:
            found = self.incidents()
            ended = [each for each in found if each["state"] not in ("open", "sealing")]
            return found if len(ended) >= count and len(ended) == len(found) else []

        return wait_for(done, f"{count} sealed incidents", seconds)

    def wait_recorded(self, netns: str, interface: str = "eth0") -> dict[str, object]:
        """The target of a namespace, once a ring of that interface with an address is open."""

        def found() -> dict[str, object]:
            for target in self.get("/v1/targets")["targets"]:  # type: ignore[attr-defined]
                if (
                    target["name"] == f"netns:{netns}"
                    and any(
                        ring["live"] and ring["interface"] == interface for ring in target["rings"]
                    )
                    and target["addresses"]
                ):
                    return dict(target)
            return {}

        return wait_for(found, f"the ring of {netns} {interface}")

    def tripshark(self, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "tripshark", *argv],
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
            # in full: readline tells children a width behind Python's back
            env={name: each for name, each in os.environ.items() if name != "COLUMNS"},
        )
        assert not check or done.returncode == 0, done.stderr + done.stdout
        return done


def falco_event(
    *,
    rule: str = "Outbound Connection to C2 Servers",
    priority: str = "Critical",
    time_ns: int | None = None,
    namespace: str = "payments",
    pod: str = "checkout-7d9f",
    connection: str = "",
    proto: str = "tcp",
    **fields: object,
) -> dict[str, object]:
    """An event as Falco prints it."""
    at_ns = time.time_ns() if time_ns is None else time_ns
    seconds, rest = divmod(at_ns, 1_000_000_000)
    stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09d}Z"
    told: dict[str, object] = {
        "container.id": "0123456789ab",
        "evt.time": at_ns,
        "evt.type": "connect",
        "k8s.ns.name": namespace,
        "k8s.pod.name": pod,
        "proc.cmdline": "nc",
        "proc.name": "nc",
    }
    if connection:
        told |= {"fd.name": connection, "fd.l4proto": proto, "fd.type": "ipv4"}
    return {
        "hostname": socket.gethostname(),
        "output": f"{stamp}: {priority} {rule}",
        "priority": priority,
        "rule": rule,
        "source": "syscall",
        "tags": ["network", "mitre_command_and_control"],
        "time": stamp,
        "output_fields": {**told, **fields},
    }


def tshark(path: Path | str, *arguments: str) -> list[str]:
    return run("tshark", "-r", str(path), *arguments).splitlines()


def evidence_files(incident: Mapping[str, object]) -> Sequence[Path]:
    return sorted(Path(str(incident["folder"])).glob("evidence*.pcapng"))


def manifest(incident: Mapping[str, object]) -> dict[str, object]:
    return dict(json.loads((Path(str(incident["folder"])) / "manifest.json").read_text()))


def iterate(lines: Sequence[str]) -> Iterator[list[str]]:
    for line in lines:
        yield line.split("\t")
