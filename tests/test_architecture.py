"""The house stands as drawn: pure rooms stay pure, and every contract bites when it is broken."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "tripshark"

# What the pure rooms may import besides each other. A new name here is a decision, not a detail.
STANDARD = {
    "__future__", "base64", "binascii", "bisect", "collections", "collections.abc", "contextlib",
    "dataclasses", "datetime", "difflib", "enum", "functools", "hashlib", "heapq", "hmac", "io",
    "fnmatch", "ipaddress", "itertools", "json", "math", "operator", "re", "string", "struct", "types", "typing",
    "unicodedata", "zlib",
}  # fmt: skip
ALLOWED = {
    "model": STANDARD | {"cel"},
    # libpcap is called through ctypes and is not reentrant, hence the lock; zip files are made in memory; one block
    # cipher makes pseudonyms
    "formats": STANDARD
    | {"cryptography.hazmat.primitives.ciphers"}
    | {"ctypes", "msgspec", "numpy", "numpy.typing", "pydantic", "threading", "yaml", "zipfile"},
}
BANNED_NAMES = {"open", "print", "input", "eval", "exec", "__import__", "breakpoint"}


def sources(part: str, package: Path = PACKAGE) -> Iterator[Path]:
    yield from sorted((package / part).rglob("*.py"))


def violations(part: str, package: Path = PACKAGE) -> list[str]:
    """What a pure room imports or calls that it may not."""
    found = []
    for path in sources(part, package):
        tree = ast.parse(path.read_text())
        own = {
            node.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        }  # a variable may be called `open`: of a block that is
        for node in ast.walk(tree):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            found += [
                f"{path.name}:{node.lineno} imports {name}"
                for name in names
                if name not in ALLOWED[part] and not name.startswith("tripshark.")
            ]
            if isinstance(node, ast.Name) and node.id in BANNED_NAMES - own:
                found.append(f"{path.name}:{node.lineno} uses {node.id}")
    return found


def learns_in_a_function(package: Path = PACKAGE) -> list[str]:
    """Where msgspec is made to learn a class at the moment of its use."""
    found = []
    for path in sorted(package.rglob("*.py")):
        for function in ast.walk(ast.parse(path.read_text())):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for node in ast.walk(function):
                called = node.func if isinstance(node, ast.Call) else None
                if not isinstance(called, ast.Attribute) or not ast.unparse(called).startswith(
                    "msgspec."
                ):
                    continue
                given = (
                    {each.arg for each in node.keywords} if isinstance(node, ast.Call) else set()
                )
                if called.attr == "Decoder" or (called.attr == "decode" and "type" in given):
                    found.append(f"{path.name}:{node.lineno}")
    return found


def test_msgspec_learns_classes_at_import(tmp_path: Path) -> None:
    """Two threads that have it learn one class at the same moment crash the interpreter (msgspec 0.2x, seen)."""
    assert learns_in_a_function() == []
    bad = "import msgspec\ndef f(b):\n    return msgspec.json.decode(b, type=int)\n"
    (tmp_path / "bad.py").write_text(bad)
    assert learns_in_a_function(tmp_path) == ["bad.py:3"]


@pytest.mark.parametrize("part", ["model", "formats"])
def test_pure_rooms_import_and_call_nothing_that_touches_the_world(part: str) -> None:
    """No files, no sockets, no clock, no asyncio."""
    assert violations(part) == []


@pytest.mark.parametrize("part", ["model", "formats"])
@pytest.mark.parametrize(
    "line",
    [
        "import asyncio",
        "import os",
        "import time",
        "import httpx2",
        "from importlib import import_module",
        "x = open('/etc/passwd')",
        "print('x')",
        "f = eval",
        "__import__('socket')",
    ],
)
def test_the_allow_list_bites(tmp_path: Path, part: str, line: str) -> None:
    """Each is caught in a copy."""
    (tmp_path / part).mkdir()
    (tmp_path / part / "bad.py").write_text(line + "\n")
    assert violations(part, tmp_path)


def test_every_module_says_first_what_it_answers() -> None:
    """A docstring whose first line is a whole sentence or ends one."""
    silent = []
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        if tree.body and not (ast.get_docstring(tree) or "").strip():
            silent.append(str(path.relative_to(PACKAGE)))
    assert silent == []


def test_every_test_says_what_it_shows() -> None:
    """One sentence each."""
    silent = [
        f"{path.name}:{node.lineno} {node.name}"
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]
    assert silent == []


# ------------------------------------------------------------------------------- contracts

TOOLS = Path(sys.executable).parent


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A copy of the package to break."""
    shutil.copytree(
        PACKAGE, tmp_path / "src" / "tripshark", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint_imports(house: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(TOOLS / "lint-imports"), "--no-cache"],
        cwd=house,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(house / "src")},
        capture_output=True,
        text=True,
        check=False,
    )


def inject(house: Path, module: str, line: str) -> None:
    path = house / "src" / "tripshark" / module
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.read_text() if path.exists() else '"""New."""\n'
    path.write_text(f"{before}\n{line}\n")


def test_the_contracts_hold(house: Path) -> None:
    """The control: an unbroken copy passes, so that a failure below means what it says."""
    result = lint_imports(house)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "13 kept, 0 broken" in result.stdout


LAYERS = "Imports point down, towards the model"
PORTS = "The flow reaches the world only through ports"
RECORDER = "The privileged recorder carries only what recording needs"
SCOUT = "Whoever opens runtimes' sockets carries only what asking them needs"
ANALYST = "Whatever dissects packets holds no credentials"
CLUSTER = "Whoever speaks with the Kubernetes API touches no evidence"
KUBERNETES = "Kubernetes and identity providers are each spoken with in one room"
SIGNIN = "Identity providers are spoken with in one room, which touches no evidence"
PROOF = "What identity providers say is proved in one room"
STORES = "Databases and object stores are spoken with in one room"
SETTINGS = "Only programs and commands know the settings"
REPORTS = "Reports are values in and bytes out"
CYCLES = "No package has cycles among its siblings"


@pytest.mark.parametrize(
    ("contract", "module", "line"),
    [
        (LAYERS, "model/alert.py", "import tripshark.formats.falco"),
        (LAYERS, "web/__init__.py", "import tripshark.store"),
        (LAYERS, "respond/__init__.py", "import tripshark.store"),
        (LAYERS, "utils.py", "x = 1"),
        (
            LAYERS,
            "model/alert.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import tripshark.ports",
        ),
        (PORTS, "model/alert.py", "import os"),
        (PORTS, "formats/falco.py", "import socket"),
        (PORTS, "respond/__init__.py", "import subprocess"),
        (PORTS, "ports.py", "import pathlib"),
        (RECORDER, "recorder/__init__.py", "import pydantic"),
        (RECORDER, "recorder/__init__.py", "import tripshark.formats.falco"),
        (RECORDER, "programs/recorder.py", "import numpy"),
        (SCOUT, "scout/__init__.py", "import pydantic"),
        (SCOUT, "scout/__init__.py", "import tripshark.formats.falco"),
        (SCOUT, "programs/scout.py", "import numpy"),
        (ANALYST, "analysis/__init__.py", "import starlette"),
        (ANALYST, "programs/analyst.py", "import tripshark.store"),
        (ANALYST, "programs/analyst.py", "import tripshark.cluster"),
        (ANALYST, "programs/analyst.py", "import tripshark.wireshark"),
        (RECORDER, "programs/privileged.py", "import structlog"),
        (RECORDER, "programs/recorder.py", "import tripshark.report"),
        (CLUSTER, "cluster/__init__.py", "import tripshark.store"),
        (CLUSTER, "cluster/__init__.py", "import tripshark.web"),
        (CLUSTER, "cluster/__init__.py", "import tripshark.ingest"),
        (CLUSTER, "cluster/__init__.py", "import numpy"),
        (KUBERNETES, "targets/__init__.py", "import httpx2"),
        (KUBERNETES, "wireshark/__init__.py", "import httpx2"),
        (SIGNIN, "signin/__init__.py", "import starlette"),
        (SIGNIN, "signin/__init__.py", "import tripshark.formats.falco"),
        (LAYERS, "web/__init__.py", "import tripshark.signin"),
        (PROOF, "web/__init__.py", "import joserfc"),
        (STORES, "web/__init__.py", "import sqlalchemy"),
        (STORES, "cluster/__init__.py", "import obstore"),
        (LAYERS, "cluster/__init__.py", "import tripshark.programs.parts"),
        (LAYERS, "store/__init__.py", "import tripshark.cluster"),
        (REPORTS, "report/page.py", "import pathlib"),
        (SETTINGS, "ingest/__init__.py", "import tripshark.settings"),
        (CYCLES, "model/target.py", "import tripshark.model.plan"),
    ],
)
def test_each_contract_bites(house: Path, contract: str, module: str, line: str) -> None:
    """One deliberate violation, and that contract is broken."""
    inject(house, module, line)
    result = lint_imports(house)
    assert result.returncode != 0
    assert f"{contract} BROKEN" in result.stdout, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("code", "module", "line"),
    [
        ("TID251", "respond/bad.py", "from datetime import UTC, datetime\n\nNOW = datetime.now(tz=UTC)"),
        ("TID251", "respond/bad.py", "import time\n\nNOW = time.time()"),
        ("TID251", "store/bad.py", "import os\n\nHOME = os.environ"),
        (
            "TID251",
            "respond/bad.py",
            ("import asyncio\n\n\nasync def f() -> None: ...\n\n\nasync def g() -> None:\n"
            "    task = asyncio.create_task(f())\n    await task"),
        ),
        ("ASYNC251", "respond/bad.py", "import time\n\n\nasync def f() -> None:\n    time.sleep(1)"),
        ("BLE001", "web/bad.py", "try:\n    pass\nexcept Exception:\n    pass"),
        ("TID252", "web/bad.py", "from . import x"),
        ("T201", "model/bad.py", "print(1)"),
        ("ANN201", "model/bad.py", "def f():\n    return 1"),
    ],
)  # fmt: skip
def test_each_rule_of_the_linter_bites(house: Path, code: str, module: str, line: str) -> None:
    """What contracts cannot see."""
    inject(house, module, line)
    result = subprocess.run(
        [str(TOOLS / "ruff"), "check", "--no-cache", "--output-format=concise", f"src/tripshark/{module}"],
        cwd=house,
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert f" {code} " in result.stdout
