"""Who may do what: capabilities, users, files and sockets of a running Tripshark, as the kernel tells them."""

from __future__ import annotations

import ctypes
import json
import os
import socket
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.conftest import requires_root
from tests.e2e.machine import Machine, Network, wait_for
from tests.e2e.traffic import NAMESPACE, Flows, Pod, make_pods, wait_all_recorded
from tripshark.recorder.capabilities import KEPT

pytestmark = [pytest.mark.root, requires_root, pytest.mark.timeout(120)]

SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
RECORDING = sum(1 << number for number in KEPT)  # net_raw, sys_admin, sys_ptrace, dac_read_search


@dataclass(frozen=True, slots=True)
class House:
    """A Tripshark that has sealed one incident."""

    flows: Flows
    incident: Mapping[str, object]
    dissector: Mapping[str, str]  # /proc/PID/status of the tshark that was seen at work
    opened: Mapping[str, str]  # its descriptors

    @property
    def machine(self) -> Machine:
        return self.flows.machine

    def status(self, program: str) -> Mapping[str, str]:
        return status(self.pid(program))

    def pid(self, program: str) -> int:
        if program == "holder":
            program = "recorder"
        elif program == "worker":
            (said,) = (s for s in self.machine.seen if s.get("program") == "recorder")
            return int(str(said["worker"]))
        return self.machine.pids[program]


def status(pid: int) -> Mapping[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    network = Network(f"pv{os.getpid():x}")
    with tempfile.TemporaryDirectory(prefix="ts-machine-") as base:
        os.chmod(base, 0o755)
        rules = Path(base) / "rules.yaml"
        rules.write_text("- rule: all\n  capture: {before: 2s, after: 100ms}\n")
        machine = Machine(
            Path(base),
            rules=[str(rules)],
            recorder={"include": [f"ts-{network.prefix}-pod"], "per_target": "4MB"},
            targets={
                "static": [
                    {"netns": f"ts-{network.prefix}-pod", "namespace": NAMESPACE, "pod": "pod"}
                ]
            },
        )
        flows = None
        try:
            machine.start()
            pods = make_pods(network, ["pod"])
            wait_all_recorded(machine, pods)
            flows = Flows(machine, pods)
            yield seal_one(flows, pods["pod"])
        finally:
            machine.stop()
            for each in flows.pods.values() if flows else ():
                each.close()
            network.close()


def seal_one(flows: Flows, pod: Pod) -> House:
    """One incident; while it is analysed, tshark is looked at through /proc."""
    machine, seen = flows.machine, []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set() and not seen:
            found = look_at_child(machine.pids["analyst"])
            if found:
                seen.append(found)
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    port, t0_ns = pod.tcp(pod.netns, pod.far, pod.peer, 4444)
    watcher.start()
    evidence = flows.alert(pod, t0_ns, connection=f"{pod.ip}:{port}->{pod.peer}:4444")
    folder = Path(str(evidence.incident["folder"]))
    try:
        wait_for((folder / "findings.json").exists, "the findings")
    finally:
        done.set()
        watcher.join()
    dissector, opened = seen[0] if seen else ({}, {})
    return House(flows, evidence.incident, dissector, opened)


def look_at_child(analyst: int) -> tuple[Mapping[str, str], Mapping[str, str]] | None:
    """Status and descriptors of the analyst's tshark, once it has been confined."""
    try:
        children = Path(f"/proc/{analyst}/task/{analyst}/children").read_text().split()
        for child in children:
            told = status(int(child))
            if told.get("Name") == "tshark" and told.get("Seccomp") == "2":
                folder = Path(f"/proc/{child}/fd")
                fds = {each.name: os.readlink(each) for each in folder.iterdir()}
                if Path(os.readlink(f"/proc/{child}/exe")).name == "tshark":
                    return told, fds
    except OSError:
        return None
    return None


@pytest.mark.parametrize("program", ["holder", "worker"])
def test_the_recorder_keeps_its_four_capabilities_alone(house: House, program: str) -> None:
    """Permitted, effective and bounding set hold what recording needs, the inherited ones nothing."""
    told = house.status(program)
    held = {name: int(told[name], 16) for name in SETS}
    assert held == {
        "CapInh": 0,
        "CapPrm": RECORDING,
        "CapEff": RECORDING,
        "CapBnd": RECORDING,
        "CapAmb": 0,
    }
    assert told["NoNewPrivs"] == "1"


@pytest.mark.parametrize("program", ["responder", "analyst"])
def test_responder_and_analyst_hold_none(house: House, program: str) -> None:
    """No set holds anything, and none can be won back: another user, no new privileges."""
    told = house.status(program)
    assert {name: int(told[name], 16) for name in SETS} == dict.fromkeys(SETS, 0)
    assert told["NoNewPrivs"] == "1"
    assert len(set(told["Uid"].split())) == 1
    assert len(set(told["Gid"].split())) == 1
    assert "0" not in told["Uid"].split() + told["Gid"].split() + told["Groups"].split()


def test_everybody_is_somebody_else(house: House) -> None:
    """Recorder, responder and analyst are three users; the analyst is in no group of the others."""
    users = {
        name: house.status(name)["Uid"].split()[0] for name in ("worker", "responder", "analyst")
    }
    assert len(set(users.values())) == 3
    groups = {
        name: {*house.status(name)["Groups"].split(), house.status(name)["Gid"].split()[0]}
        for name in ("responder", "analyst")
    }
    assert not groups["analyst"] & groups["responder"]
    assert len(house.status("analyst")["Groups"].split()) <= 1


def test_the_tshark_of_the_running_service_holds_nothing(house: House) -> None:
    """While it dissected: no capability, a system call filter, and no file but the evidence."""
    assert house.dissector, "tshark was not seen at work"
    assert {name: int(house.dissector[name], 16) for name in SETS} == dict.fromkeys(SETS, 0)
    assert (house.dissector["NoNewPrivs"], house.dissector["Seccomp"]) == ("1", "2")
    assert house.dissector["Uid"] == house.status("analyst")["Uid"]
    files = {
        target
        for target in house.opened.values()
        if not target.startswith(("pipe:", "/dev/null", "anon_inode:"))
    }
    evidence = f"{house.incident['folder']}/evidence.pcapng"
    assert evidence in files
    assert all(each == evidence or each.startswith("/usr/") for each in files), files


@pytest.mark.parametrize("program", ["responder", "analyst"])
def test_what_their_users_cannot_open(house: House, program: str) -> None:
    """With exactly the process's identity: no secret of the system, no memory of the recorder."""
    forbidden = [
        "/etc/shadow",
        f"/proc/{house.pid('worker')}/mem",
        f"/proc/{house.pid('worker')}/environ",
    ]
    forbidden += [str(house.machine.data / "run" / "new")]
    if program == "analyst":
        data = house.machine.data
        forbidden += [str(data), f"{house.incident['folder']}/evidence.pcapng"]
        forbidden += [str(data / "keys" / "signing.key"), str(data / "catalogue.sqlite")]
    assert os.path.exists("/etc/shadow")
    told = json.loads(as_process(house.status(program), TRY_TO_OPEN, *forbidden))
    assert told == dict.fromkeys(forbidden, "PermissionError")


TRY_TO_OPEN = """
import json, os, sys
told = {}
for path in sys.argv[1:]:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR if path.endswith("/new") else os.O_RDONLY))
        told[path] = "opened"
    except OSError as problem:
        told[path] = type(problem).__name__
print(json.dumps(told))
"""


def as_process(told: Mapping[str, str], code: str, *arguments: str) -> str:
    """What a program says that runs with the identity and capabilities of a process."""
    groups = told["Groups"].split()
    done = subprocess.run(
        [
            "setpriv",
            *("--reuid", told["Uid"].split()[0], "--regid", told["Gid"].split()[0]),
            *(("--groups", ",".join(groups)) if groups else ("--clear-groups",)),
            *("--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all", "--no-new-privs"),
            *("/usr/bin/python3", "-I", "-c", code, *arguments),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_files_are_closed_to_the_world(house: House) -> None:
    """Nothing below the data folder is open to others; sealed files cannot even be written by their owner."""
    responder = int(house.status("responder")["Uid"].split()[0])
    modes: dict[str, tuple[int, int]] = {}
    for path in [house.machine.data, *house.machine.data.rglob("*")]:
        info = path.lstat()
        modes[str(path)] = (stat.S_IMODE(info.st_mode), info.st_uid)
        assert path.name == "signing.pub" or not info.st_mode & 0o007, path
        if not stat.S_ISSOCK(info.st_mode):
            assert not info.st_mode & 0o020, path
    folder = Path(str(house.incident["folder"]))
    for name in ("evidence.pcapng", "manifest.json"):
        assert modes[str(folder / name)] == (0o440, responder)
    for name in ("custody.jsonl", "findings.json"):
        assert modes[str(folder / name)] == (0o640, responder)
    assert modes[str(house.machine.data / "keys" / "signing.key")] in [
        (0o400, responder),
        (0o600, responder),
    ]
    run = house.machine.data / "run"
    assert modes[str(run)] == (0o750, 0)
    assert modes[str(run / "recorder.sock")] == (0o660, 0)
    others = {path for path, (_, owner) in modes.items() if owner != responder}
    assert all(path.startswith(str(run)) for path in others), others


def test_the_recorders_socket_is_for_the_responder(house: House) -> None:
    """A stranger does not even reach it, nor does the analyst; reached by a stranger it says no."""
    path = house.machine.data / "run" / "recorder.sock"
    analyst = house.status("analyst")
    responder = house.status("responder")
    shared = path.stat().st_gid
    assert str(shared) in [*responder["Groups"].split(), responder["Gid"].split()[0]]
    assert knock(path, 65_534, 65_534, []) == "PermissionError"
    assert (
        knock(path, int(analyst["Uid"].split()[0]), int(analyst["Gid"].split()[0]), [])
        == "PermissionError"
    )
    assert (
        json.loads(knock(path, int(responder["Uid"].split()[0]), shared, [shared]))["t"] == "hello"
    )
    modes = {each: each.stat().st_mode & 0o777 for each in (path, path.parent, path.parent.parent)}
    try:
        for each in modes:
            each.chmod(0o777)
        assert json.loads(knock(path, 65_534, 65_534, []))["code"] == "denied"
    finally:
        for each, mode in modes.items():
            each.chmod(mode)


def knock(path: Path, uid: int, gid: int, groups: list[int]) -> str:
    """What the recorder answers somebody: a thread's own identity is what the kernel tells it."""
    libc = ctypes.CDLL(None, use_errno=True)
    setgroups, setresgid, setresuid = 116, 119, 117  # x86-64; glibc would change the whole process
    answers: list[str] = []

    def work() -> None:
        listed = (ctypes.c_uint * len(groups))(*groups)
        assert libc.syscall(setgroups, len(groups), listed) == 0
        assert libc.syscall(setresgid, gid, gid, gid) == 0
        assert libc.syscall(setresuid, uid, uid, uid) == 0
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
            try:
                asking.connect(str(path))
                asking.send(b'{"t": "hello", "id": 1, "version": 1}')
                answers.append(asking.recv(65_536).decode())
            except OSError as problem:
                answers.append(type(problem).__name__)

    run_in_thread(work)
    return answers[0]


def run_in_thread(work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
