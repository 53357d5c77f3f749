"""What the pages say of Kubernetes is true: resources, values of the chart, kubectl's and Helm's words, metrics, settings."""

from __future__ import annotations

import functools
import json
import re
import runpy
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.test_docs import BLOCKS, PAGES, ROOT, Block, _marked, _page_id, _spans
from tripshark import settings
from tripshark.formats.capture_resource import read
from tripshark.formats.capture_schema import GROUP, PLURALS
from tripshark.model.fleet import Phase
from tripshark.model.recording import ANNOTATION, WEIGHT_ANNOTATION, Mode
from tripshark.web.access import CAPTURES, EVIDENCE, INCIDENTS
from tripshark.web.derived import EXPORTS
from tripshark.web.notes import NOTES
from tripshark.web.search import HUNTS

Json = dict[str, Any]

CHART = ROOT / "deploy/helm/tripshark"
SCHEMA: Json = json.loads((CHART / "values.schema.json").read_text())
MADE: list[Json] = [
    each
    for each in yaml.safe_load_all((ROOT / "deploy/manifests/generic.yaml").read_text())
    if each is not None
]
OTHERS = {
    "TRIPSHARK_CONFIG",
    "TRIPSHARK_TOKEN",
    "TRIPSHARK_TOOLS",
    "TRIPSHARK_NODES",
    "TRIPSHARK_KUBE_BIN",
}
"""Names in the environment, and fields of alert rows, that are no settings."""


# ------------------------------------------------------------------------------------------ values of the chart


def _below(schema: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    """The schema of one value; {} below a map that takes anything, None where there is none."""
    if reference := schema.get("$ref"):
        schema = SCHEMA["definitions"][reference.rpartition("/")[2]]
    known = schema.get("properties", {})
    if name in known:
        return dict(known[name])
    more = schema.get("additionalProperties", True)
    return None if more is False or known else {}


def _unknown(
    values: Mapping[str, Any], schema: Mapping[str, Any], where: str = ""
) -> Iterator[str]:
    for name, value in values.items():
        below = _below(schema, name)
        if below is None:
            yield f"{where}{name}"
        elif isinstance(value, Mapping) and below:
            yield from _unknown(value, below, f"{where}{name}.")


def _is_value(path: str) -> bool:
    schema: Mapping[str, Any] | None = SCHEMA
    for name in re.sub(r"\[\d+\]", "", path).split("."):
        schema = _below(schema, name) if schema is not None else None
    return schema is not None


def _config(values: Mapping[str, Any], folder: Path) -> None:
    """`config` of the chart is Tripshark's own configuration."""
    for number, each in enumerate((values, values.get("hub", {}))):
        path = folder / f"{number}.yaml"
        path.write_text(json.dumps(each.get("config") or {}))
        settings.load(path)


@pytest.mark.parametrize("block", _marked("yaml", "values"), ids=str)
def test_every_example_of_values_is_known_to_the_chart(block: Block, tmp_path: Path) -> None:
    """A block marked `yaml values` names values of the chart alone; its `config` loads as settings."""
    values = yaml.safe_load(block.text)
    assert not list(_unknown(values, SCHEMA)), f"{block}: unknown"
    _config(values, tmp_path)
    for each in (value for value in values.values() if isinstance(value, dict)):
        resources = each.get("resources", {})
        if "limits" in resources:  # the API server takes no limit below the request
            asked, most = (resources[name]["memory"] for name in ("requests", "limits"))
            assert int(asked.removesuffix("Mi")) <= int(most.removesuffix("Mi"))


@pytest.mark.parametrize("path", sorted(CHART.glob("values-*.yaml")), ids=_page_id)
def test_every_platforms_config_loads(path: Path, tmp_path: Path) -> None:
    """What the values files tell Tripshark are settings of it."""
    _config(yaml.safe_load(path.read_text()), tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=_page_id)
def test_every_value_that_is_named_exists(page: Path) -> None:
    """`networkPolicy.from` in backticks is a value of the chart, unless it is a setting or a field of Kubernetes."""
    known = {each.name for each in settings.reference()}
    groups = {name.rpartition(".")[0] for name in known}
    for span in _spans(page):
        path = span.partition(":")[0]
        first = path.partition(".")[0]
        if not re.fullmatch(r"[a-z]\w*(\.\w+)+", path) or first not in SCHEMA["properties"]:
            continue
        if path in known | groups or Path(path).suffix in (
            ".sock",
            ".pcapng",
            ".py",
            ".json",
            ".yaml",
        ):
            continue
        assert _is_value(path), f"{page.name}: {span}"


# --------------------------------------------------------------------------------------- resources of Kubernetes


@pytest.mark.parametrize(
    "block", [b for b in BLOCKS if b.info[0] == "yaml" and "apiVersion:" in b.text], ids=str
)
def test_every_example_of_a_resource_means_something(block: Block) -> None:
    """Captures pass their schema, roles name rights that are asked for, annotations have words that are understood."""
    for each in yaml.safe_load_all(block.text):
        assert {"apiVersion", "kind", "metadata"} <= set(each)
        group = each["apiVersion"].rpartition("/")[0]
        if group == GROUP:
            told = {
                "uid": "u",
                "resourceVersion": "1",
                "creationTimestamp": "2026-11-24T10:15:02Z",
            }
            found = read({**each, "metadata": {**told, **each["metadata"]}})
            assert found.problem is None, found.problem
        for rule in each.get("rules", ()):
            if GROUP in rule["apiGroups"]:
                rights = {INCIDENTS, EVIDENCE, CAPTURES, EXPORTS, HUNTS, NOTES}
                assert set(rule["resources"]) <= rights | {*PLURALS.values()}
        annotations = each["metadata"].get("annotations", {})
        assert annotations.get(ANNOTATION, "full") in [*Mode]
        assert annotations.get(WEIGHT_ANNOTATION, "1").isdigit()
        assert {name for name in annotations if name.startswith(GROUP)} <= {
            ANNOTATION,
            WEIGHT_ANNOTATION,
        }


# ----------------------------------------------------------------------------------------- kubectl, Helm, plug-in


def _lines() -> Iterator[tuple[str, list[str]]]:
    """Every command of kubectl, Helm and the plug-in: from blocks and from sentences."""
    for block in BLOCKS:
        if block.info[0] == "sh":
            for line in block.text.replace("\\\n", " ").splitlines():
                yield from _calls(str(block), line)
    for page in PAGES:
        for span in _spans(page):
            if re.match(r"(kubectl|helm|deploy/kubectl/\S+) \S", span):
                yield from _calls(page.name, span)


def _calls(where: str, line: str) -> Iterator[tuple[str, list[str]]]:
    inner = re.findall(r"\$\(((?:kubectl|helm) [^)|]*)", line)
    line = re.sub(r"\$\([^)]*\)", "x", line)
    for part in [*inner, *re.split(r"\s\|\s|&&", line)]:
        try:
            words = shlex.split(part, comments=True)
        except ValueError:  # a quote that another part closes
            continue
        while words and ("=" in words[0] or words[0] == "sudo"):
            words = words[1:]
        if words and words[0] in ("kubectl", "helm", "deploy/kubectl/kubectl-tripshark"):
            yield f"{where}: {part}", words


LINES = list(_lines())


@functools.cache
def _kubectl_knows(*verb: str) -> frozenset[str]:
    """Every option of one of kubectl's commands."""
    told = ""
    for argv in (("kubectl", *verb, "--help"), ("kubectl", "options")):
        told += subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    return frozenset(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*(?=[=,:])", told)) | {"--help"}


def _options(words: Sequence[str]) -> list[str]:
    own = list(words[: words.index("--")]) if "--" in words else list(words)
    return [word.partition("=")[0] for word in own if re.match(r"--?[a-zA-Z]", word)]


def _plugin() -> Any:
    return runpy.run_path(str(ROOT / "deploy/kubectl/kubectl-tripshark"))["parser"]()


def test_there_are_commands_to_look_at() -> None:
    """The tests below are about something."""
    assert len(LINES) > 40


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")
def test_kubectl_understands_its_commands() -> None:
    """Verb and options are kubectl's own, without asking a cluster."""
    for where, words in LINES:
        if words[0] != "kubectl" or words[1] in ("tripshark", "krew"):
            continue
        rest = [each for each in words[1:] if not each.startswith("-")]
        if words[1] in ("-n", "--namespace"):
            rest = rest[1:]
        verb = tuple(rest[: 2 if rest[0] in ("rollout", "config", "auth") else 1])
        known = _kubectl_knows(*verb)
        if verb == ("create",) and len(rest) > 1:
            made = rest[1:3] if rest[1] == "secret" else rest[1:2]
            known |= _kubectl_knows("create", *made)
        for option in _options(words[1:]):
            assert option in known, f"{where}: {option}"


def test_the_plugin_understands_its_commands() -> None:
    """`kubectl tripshark …` parses, as in the pages."""
    parser = _plugin()
    said = [
        (where, words[2:] if words[0] == "kubectl" else words[1:])
        for where, words in LINES
        if words[:2] == ["kubectl", "tripshark"] or words[0].endswith("kubectl-tripshark")
    ]
    assert len(said) > 3
    for where, words in [each for each in said if each[1]]:  # a sentence may name it alone
        try:
            parser.parse_args(words)
        except SystemExit as problem:
            raise AssertionError(where) from problem


def test_what_commands_name_is_there() -> None:
    """Files, the chart, its values, and containers, workloads and Secrets of the manifests."""
    containers = {
        each["name"]
        for made in MADE
        if made["kind"] == "DaemonSet"
        for each in made["spec"]["template"]["spec"]["containers"]
    }
    for where, words in LINES:
        for option, value in zip(words, [*words[1:], ""], strict=True):
            if option in ("-f", "--filename", "--values") and value.startswith(
                ("deploy/", "examples/")
            ):
                assert (ROOT / value).is_file(), where
            if words[0] == "helm" and option == "--set":
                assert _is_value(value.partition("=")[0]), f"{where}: no value {value}"
            if "exec" in words and option == "-c":
                assert value in containers, where
        for word in words:
            if word.startswith(("deploy/", "examples/")):
                assert (ROOT / word).exists(), where
            if word.startswith("daemonset/"):
                assert word == "daemonset/tripshark", where


def test_what_stands_in_tables_is_there_too() -> None:
    """`-f FILE`, `--set VALUE` in a table's cell."""
    found = 0
    for page in PAGES:
        for span in _spans(page):
            for option, value in re.findall(r"(?<!\S)(-f|--set) (\S+)", span):
                if span.startswith(("-f ", "--set ")):
                    found += 1
                    there = (
                        (ROOT / value).is_file()
                        if option == "-f"
                        else _is_value(value.partition("=")[0])
                    )
                    assert there, f"{page.name}: {span}"
    assert found > 8


# ------------------------------------------------------------------------------------------------------ words


def test_every_variable_of_the_environment_is_a_setting() -> None:
    """TRIPSHARK_A__B in a page, a value or a manifest is the setting `a.b`."""
    known = {
        "TRIPSHARK_" + each.name.upper().replace(".", "__")
        for each in settings.reference()
        if "[" not in each.name
    }
    places = [*PAGES, *(ROOT / "deploy").rglob("*.yaml"), *(ROOT / "deploy").rglob("*.service")]
    for path in places:
        for name in re.findall(r"TRIPSHARK_[A-Z][A-Z_]*[A-Z]", path.read_text()):
            assert name in known | OTHERS or name == "TRIPSHARK_URL", f"{path.name}: {name}"


@functools.cache
def _sources() -> str:
    return "\n".join(path.read_text() for path in (ROOT / "src/tripshark").rglob("*.py"))


@pytest.mark.parametrize("page", PAGES, ids=_page_id)
def test_every_metric_that_is_named_exists(page: Path) -> None:
    """`tripshark_kubernetes_up` in backticks is exposed by the code."""
    for span in _spans(page):
        if re.fullmatch(r"tripshark_[a-z_]+", span) and not span.startswith("tripshark_own"):
            assert f'"{span.removesuffix("_total")}"' in _sources(), f"{page.name}: {span}"


def test_phases_and_reasons_of_captures_are_the_codes() -> None:
    """The page on captures has every phase, and no reason that the code does not give."""
    spans = set(_spans(ROOT / "docs/captures.md"))
    assert {str(each) for each in Phase} <= spans
    table = (
        (ROOT / "docs/captures.md")
        .read_text()
        .partition("| reason | says |")[2]
        .partition("\n\n")[0]
    )
    reasons = re.findall(
        r"`([A-Z]\w+)`", "\n".join(line.split("|")[1] for line in table.splitlines()[2:])
    )
    assert len(reasons) > 5
    for each in reasons:
        made = f'f"{"NoSuch"}{{kind}}"' if each.startswith("NoSuch") else f'"{each}"'
        assert made in _sources(), each
