"""What the pages say is true: their commands, rules, settings, paths, links, words and numbers of things."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from pydantic import BaseModel

from tripshark import settings
from tripshark.cli.main import build
from tripshark.formats import bpf, ruledocuments, rulefile
from tripshark.formats.rulefile import Loaded
from tripshark.model import evidence, expression, filter, finding, incident
from tripshark.model.plan import Reason
from tripshark.web.routes import ROUTES

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
WRITTEN_LATER = {"docs/performance.md"}  # by `make bench`


@dataclass(frozen=True)
class Block:
    """One fenced block and the line it begins at."""

    page: Path
    line: int
    info: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def _blocks() -> Iterator[Block]:
    for page in PAGES:
        for found in re.finditer(r"^```(\S.*)\n((?:.*\n)*?)```$", page.read_text(), re.MULTILINE):
            line = page.read_text()[: found.start()].count("\n") + 1
            yield Block(page, line, tuple(found[1].split()), found[2])


def _prose(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def _spans(page: Path) -> list[str]:
    """What stands in backticks."""
    return [span.replace("\\|", "|") for span in re.findall(r"`([^`\n]+)`", _prose(page))]


BLOCKS = list(_blocks())
COMMANDS: Any = typer.main.get_command(build())


def _marked(*info: str) -> list[Block]:
    return [block for block in BLOCKS if block.info[: len(info)] == info]


def _page_id(page: object) -> str:
    return page.name if isinstance(page, Path) else str(page)


# ------------------------------------------------------------------------------------------ rules, settings


def _loaded(text: str, name: str) -> Loaded:
    return rulefile.load([(name, text)], check_filter=lambda each: bpf.compile(each, 1))


@pytest.mark.parametrize("block", _marked("yaml", "rules"), ids=str)
def test_every_example_of_a_rule_loads(block: Block) -> None:
    """A block marked `yaml rules` is a rule file; without `warns` in its mark nothing is remarked upon."""
    loaded = _loaded(block.text, str(block))
    assert loaded.ok, loaded.problems
    assert bool(loaded.problems) == ("warns" in block.info), loaded.problems


@pytest.mark.parametrize("block", _marked("yaml", "config"), ids=str)
def test_every_example_of_settings_loads(block: Block, tmp_path: Path) -> None:
    """A block marked `yaml config` is a configuration file; files that it names are made up."""
    (tmp_path / "token").write_text("a-token-that-is-long-enough-0123456789\n")
    text = block.text.replace("/etc/tripshark/token", str(tmp_path / "token"))
    (tmp_path / "tripshark.yaml").write_text(text)
    settings.load(tmp_path / "tripshark.yaml")


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.info[0] == "yaml"], ids=str)
def test_every_yaml_example_is_yaml(block: Block) -> None:
    """Also the snippets for other programs can be read."""
    assert yaml.safe_load(block.text) is not None


@pytest.mark.parametrize("page", PAGES, ids=_page_id)
def test_every_setting_that_is_named_exists(page: Path) -> None:
    """`recorder.total` in backticks is a setting, or a group of them."""
    known = {each.name for each in settings.reference()}
    groups = {name.partition(".")[0] for name in known if "." in name}
    known |= {name.rpartition(".")[0] for name in known}
    for span in _spans(page):
        if re.fullmatch(rf"({'|'.join(groups)})(\.[a-z_]+)+", span) and page.name != "rules.md":
            assert span in known or Path(span).suffix in (".sock", ".pcapng", ".py"), span


# ------------------------------------------------------------------------------------------------- commands


def _words(line: str) -> list[list[str]]:
    """The calls of `tripshark` in one line of shell, without their redirections."""
    calls = []
    for part in re.split(r"\s\|\s|&&|;", re.sub(r"\s#.*$|\s[<>].*$", "", line)):
        words = shlex.split(part) if "tripshark" in part.partition("'")[0] else []
        while words and (words[0] in ("$", "sudo", "#", "-u") or "=" in words[0]):
            words = words[1:]
        if words and re.fullmatch(r"(\S*/)?tripshark", words[0]):
            calls.append(words[1:])
    return calls


def _resolve(words: list[str]) -> tuple[Any, list[str]]:
    """The command that these words call, and what is left for it."""
    command = COMMANDS
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        assert words[0] in command.commands, f"no command {words[0]!r}"
        command, words = command.commands[words[0]], words[1:]
    return command, words


def _shell_lines() -> Iterator[tuple[str, list[str]]]:
    for block in BLOCKS:
        if block.info[0] in ("sh", "console"):
            for line in block.text.replace("\\\n", " ").splitlines():
                if block.info[0] == "sh" or line.startswith("$ "):
                    for words in _words(line):
                        yield f"{block}: {line}", words


def test_every_command_in_a_block_can_be_called_so() -> None:
    """Command, options and arguments of every `tripshark …` in a shell block are understood."""
    lines = list(_shell_lines())
    assert len(lines) > 20
    for line, words in lines:
        command, rest = _resolve(words)
        if rest == ["--version"] or "--help" in rest:
            continue
        try:
            command.make_context("tripshark", list(rest)).close()
        except Exception as problem:
            raise AssertionError(f"{line}: {problem!r}") from problem


@pytest.mark.parametrize("page", PAGES, ids=_page_id)
def test_every_command_in_a_sentence_exists(page: Path) -> None:
    """`tripshark verify --key` in a sentence names a command that is there, with options that it has."""
    for span in _spans(page):
        for words in _words(span) if span.startswith("tripshark ") else []:
            command, rest = _resolve([w for w in words if w not in ("…", "[…]")])
            known = {"--help"} | {
                name for each in command.params for name in (*each.opts, *each.secondary_opts)
            }
            for word in rest:
                if word.startswith("-") and word != "-":
                    assert word.partition("=")[0] in known, f"{span}: no {word}"


def test_the_readme_lists_every_command() -> None:
    """The table of commands has all of them and no other."""
    table = re.findall(r"^\| `tripshark ([a-z]+)[^`]*` \|", (ROOT / "README.md").read_text(), re.M)
    assert sorted(table) == sorted(COMMANDS.commands)


@pytest.mark.parametrize(
    "page", sorted({b.page for b in BLOCKS if b.info[0] == "console"}), ids=_page_id
)
def test_what_is_shown_is_what_comes(page: Path, tmp_path: Path) -> None:
    """Commands of `console` blocks are run in a folder with the page's named files; `…` stands for anything."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment |= {"COLUMNS": "110", "TRIPSHARK_DATA": str(tmp_path / "data"), "NO_COLOR": "1"}
    for block in BLOCKS:
        if block.page != page:
            continue
        if block.info[-1].startswith("file="):
            (tmp_path / block.info[-1].removeprefix("file=")).write_text(block.text)
        for shown in (
            re.split(r"^\$ ", block.text, flags=re.M)[1:] if block.info[0] == "console" else ()
        ):
            command, _, expected = shown.partition("\n")
            done = subprocess.run(
                ["sh", "-c", command], cwd=tmp_path, env=environment, timeout=60, check=False,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
            pattern = ".*".join(re.escape(part.strip()) for part in expected.split("…"))
            said = "\n".join(line.rstrip() for line in done.stdout.splitlines())
            assert re.fullmatch(rf"(?s){pattern.strip() or '.*'}", said.strip()), (
                f"{block}\n{said}"
            )


# ------------------------------------------------------------------------------------------ paths and links


def _exists(path: str, page: Path) -> bool:
    places = (ROOT, ROOT / "src/tripshark", page.parent)
    return path in WRITTEN_LATER or any(
        next(iter(place.glob(path.rstrip("/"))), None) is not None for place in places
    )


@pytest.mark.parametrize("page", PAGES, ids=_page_id)
def test_every_path_exists(page: Path) -> None:
    """What looks like a path of this repository is one; a test that is named is there."""
    top = {each.name for each in ROOT.iterdir()} - {".venv", "build"}
    for span in _spans(page):
        path, _, test = span.partition("::")
        looks = re.fullmatch(r"[\w.*/-]+/[\w.*-]*", path) and (
            path.split("/")[0] in top or path.endswith((".py", ".md"))
        )
        if looks:
            assert _exists(path, page), f"{page.name}: {span}"
        if looks and test:
            assert f"def {test}(" in (ROOT / path).read_text(), f"{page.name}: {span}"


def _anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.+)$", _prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=_page_id)
def test_every_link_leads_somewhere(page: Path) -> None:
    """Links within the repository have a file, and a heading where they name one."""
    for target in re.findall(r"\]\(([^)\s]+)\)|(?:src|srcset|href)=\"([^\"]+)\"", _prose(page)):
        link = target[0] or target[1]
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        other = (page.parent / file).resolve() if file else page
        assert other.exists() or str(other.relative_to(ROOT)) in WRITTEN_LATER, link
        assert not anchor or anchor in _anchors(other), link


# -------------------------------------------------------------------------------- words that code defines


def _entries() -> set[str]:
    """Every kind of ledger entry that the code can write."""
    kinds = set(filter.kinds(ethernet=True))
    for path in (ROOT / "src/tripshark").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Entry":
                kinds |= {
                    word.value.value
                    for word in node.keywords
                    if word.arg == "kind" and isinstance(word.value, ast.Constant)
                }
    return kinds


def _keys(model: type[BaseModel]) -> set[str]:
    return {each.alias or name for name, each in model.model_fields.items()}


def _documents() -> Iterator[type[BaseModel]]:
    for name in ("Rule", "Match", "Capture", "Max", "Action", "Output"):
        yield getattr(ruledocuments, f"{name}Document")


WORDS = {
    "evidence.md": _entries() | {*evidence.Word, *incident.State},
    "troubleshooting.md": {*Reason},
    "findings.md": {*finding.KINDS, *finding.Severity, *finding.TABLES}
    | {each.name for kind in (finding.Findings, finding.Finding) for each in fields(kind)},
    "rules.md": {key for each in _documents() for key in _keys(each)}
    | {*expression.NAMES, *expression.FUNCTIONS}
    | {f"{name}.{part}" for name, parts in expression.NAMES.items() for part in parts}
    | {*filter.Scope},
    "http.md": {route.path for route in ROUTES}
    | set(
        re.findall(r'"(tripshark_[a-z_]+)"', (ROOT / "src/tripshark/web/metrics.py").read_text())
    ),
}


@pytest.mark.parametrize("name", WORDS)
def test_the_reference_is_complete(name: str) -> None:
    """A page that lists what the code knows lists all of it."""
    said = set(_spans(ROOT / "docs" / name))
    said |= {word for span in said for word in re.findall(r"[\w./{}]+", span)}
    assert not {str(word) for word in WORDS[name]} - said
