"""`tripshark demo`: as root, as an ordinary user, interrupted, twice at once, and where it may not."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.e2e.conftest import requires_root
from tests.e2e.machine import run, tshark, wait_for

pytestmark = [pytest.mark.root, requires_root]

NOBODY = 61_999  # no such user


def start(*argv: str, command: Sequence[str] = (sys.executable,)) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*command, "-m", "tripshark", "demo", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def outcome(out: str) -> dict[str, object]:
    return dict(json.loads(out))


@pytest.fixture(autouse=True)
def tidy() -> Iterator[None]:
    """Folders of demos that succeeded are for their user; here nobody wants them."""
    before = set(Path(tempfile.gettempdir()).glob("tripshark-demo-*"))
    yield
    for each in set(Path(tempfile.gettempdir()).glob("tripshark-demo-*")) - before:
        shutil.rmtree(each, ignore_errors=True)


def leftovers() -> list[str]:
    """Namespaces, processes and mounts of any demo."""
    found = [each for each in run("ip", "netns", "list").split() if each.startswith("ts-demo-")]
    for each in Path("/proc").iterdir():
        if each.name.isdigit():
            try:
                line = (each / "cmdline").read_bytes()
            except OSError:
                continue
            if b"/tripshark-demo-" in line or b"ts-demo-" in line:
                found.append(line.replace(b"\0", b" ").decode(errors="replace"))
    return found + [
        line for line in Path("/proc/mounts").read_text().splitlines() if "ts-demo-" in line
    ]


def test_two_demos_at_once_show_the_whole_job_and_leave_nothing() -> None:
    """Each ends with its own incident: DNS and handshake precede the alert row, the pod was gone, names resolve."""
    demos = [start("--json"), start("--json", "--keep")]
    told = []
    for process in demos:
        code, out, err = ended(process)
        assert code == 0, err
        told.append(outcome(out))
    assert len({each["incident"] for each in told}) == 2
    for each in told:
        assert each["ledger"] == "complete"
        assert each["pod_deleted_before_alert"] is True
        assert float(str(each["seconds_before_alert"])) > 0
        for words in ("203.0.113.66", "c2.evil.example", "payments/checkout-7d9f"):
            assert words in str(each["summary"])
        rows = tshark(f"{each['folder']}/evidence.pcapng", "-N", "n")
        alert = next(number for number, row in enumerate(rows) if "FALCO" in row)
        before = "\n".join(rows[:alert])
        for words in ("DNS", "[SYN]", "[SYN, ACK]", "payments/checkout-7d9f"):
            assert words in before
        verified = subprocess.run(
            [sys.executable, "-m", "tripshark", "verify", str(each["folder"])],
            capture_output=True,
            check=False,
        )
        assert verified.returncode == 0
    kept, whole = (Path(str(each["data"])) for each in told)
    assert not (kept / "journal").exists()
    assert (whole / "journal").exists()
    assert leftovers() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing_behind(number: signal.Signals) -> None:
    """Ctrl-C in the middle: no namespace, no process, no mount, no folder."""
    process = start()
    assert process.stderr is not None
    seen = ""
    while "a pod has started" not in seen:
        line = process.stderr.readline()
        assert line, seen
        seen += line
    folders = set(Path(tempfile.gettempdir()).glob("tripshark-demo-*"))
    os.killpg(process.pid, number)
    code, out, err = ended(process)
    assert code != 0
    assert out == ""
    assert "Traceback" not in err
    wait_for(lambda: not leftovers(), "everything of the demo to be gone")
    assert any(not each.exists() for each in folders)


# ------------------------------------------------------------------------------- an ordinary user


@pytest.fixture(scope="module")
def ordinary() -> Iterator[list[str]]:
    """A Python that anybody may run, as a user that does not exist, with a home of its own."""
    python = shutil.which("python3", path="/usr/bin:/bin")
    wanted = f"{sys.version_info.major}.{sys.version_info.minor}"
    if python is None or run(python, "-V").split()[1].rpartition(".")[0] != wanted:
        pytest.skip(f"no Python {wanted} that other users may run")
    code = [each for each in sys.path if each and Path(each).is_dir() and "site-packages" in each]
    code.append(str(Path("src").resolve()))
    if not all(_open(Path(each)) for each in code):
        pytest.skip("this checkout is closed to other users")
    with tempfile.TemporaryDirectory(prefix="ts-user-") as base:
        os.chmod(base, 0o755)
        made = Path(base) / "venv"
        run(python, "-m", "venv", "--without-pip", str(made))
        (made / "lib" / f"python{wanted}" / "site-packages" / "code.pth").write_text(
            "\n".join(code)
        )
        home = Path(base) / "home"
        home.mkdir()
        os.chown(home, NOBODY, NOBODY)
        yield [
            *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"),
            *("env", "-i", f"HOME={home}", f"PATH={os.environ['PATH']}", f"--chdir={home}"),
            str(made / "bin" / "python"),
        ]


def _open(folder: Path) -> bool:
    return all(each.stat().st_mode & 1 for each in (folder.resolve(), *folder.resolve().parents))


def test_an_ordinary_user_has_the_demo_in_a_user_namespace_or_is_told_why(
    ordinary: list[str],
) -> None:
    """The same incident without root; where the machine forbids it, what would allow it."""
    code, out, err = ended(start("--json", command=ordinary))
    if code != 0:
        assert "user namespaces" in err
        pytest.skip("this machine allows ordinary users no user namespaces")
    told = outcome(out)
    assert told["ledger"] == "complete"
    assert told["pod_deleted_before_alert"] is True
    wait_for(lambda: not leftovers(), "everything of the demo to be gone")


# Runs its arguments in a user namespace that has every user we need and may have no user namespace within.
FORBIDDEN = f"""
import ctypes, os, sys
told, tell = os.pipe(); go, gone = os.pipe()
child = os.fork()
if not child:
    assert ctypes.CDLL(None).unshare(0x10000000) == 0
    os.write(tell, b"1"); os.read(go, 1)
    with open("/proc/sys/user/max_user_namespaces", "w") as file:
        file.write("0")
    os.execvp(sys.argv[1], sys.argv[1:])
os.read(told, 1)
for name in ("uid_map", "gid_map"):
    with open(f"/proc/{{child}}/{{name}}", "w") as file:
        file.write("0 0 {NOBODY + 1}")
os.write(gone, b"1")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_where_user_namespaces_are_forbidden_the_demo_says_what_it_needs(
    ordinary: list[str],
) -> None:
    """Exit 1, three parts, and the sysctl by which they are allowed."""
    forbidden = [sys.executable, "-I", "-c", FORBIDDEN]
    if subprocess.run([*forbidden, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine cannot forbid them to a part of itself")
    code, _, err = ended(start(command=[*forbidden, *ordinary]))
    assert code == 1
    for words in ("cannot run here", "unprivileged user namespaces", "root", "sysctl"):
        assert words in " ".join(err.split())


def test_the_same_user_is_told_what_recording_needs(ordinary: list[str]) -> None:
    """`run` without rights names the capabilities; `doctor` says what is limited; data lies in the user's home."""
    asked = [*ordinary, "-m", "tripshark"]
    done = subprocess.run([*asked, "run"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "CAP_NET_RAW" in done.stderr
    seen = subprocess.run(
        [*asked, "doctor"], capture_output=True, text=True, timeout=60, check=False
    )
    assert seen.returncode == 1
    assert "namespaces of others cannot be recorded" in seen.stdout
    settings = subprocess.run(
        [*asked, "settings", "--json"], capture_output=True, text=True, timeout=60, check=False
    )
    data = next(
        each for each in map(json.loads, settings.stdout.splitlines()) if each["name"] == "data"
    )
    assert data["value"].endswith("/home/.local/state/tripshark")
