"""The image's recipe and what it is made of: pinned, without a compiler, an ordinary user; the SBOM is the lock."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from tests.deploy.pods import ROOT

RECIPE = (ROOT / "deploy/Dockerfile").read_text()
LOCK = (ROOT / "deploy/requirements.lock").read_text()
SBOM = ROOT / "deploy/sbom.py"


def instructions() -> list[list[str]]:
    """Stages, each a list of instructions in one line."""
    joined = re.sub(r"\\\n\s*", " ", RECIPE)
    lines = [each for each in joined.splitlines() if each and not each.startswith("#")]
    stages: list[list[str]] = [[]]
    for line in lines:
        if line.startswith("FROM"):
            stages.append([])
        stages[-1].append(line)
    return stages


def pins(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9.-]+)(?:\[[^]]*\])?==([^\s;\\]+)", lock, re.MULTILINE))


def test_the_final_stage_has_neither_compiler_nor_pip_nor_root() -> None:
    """What is not there cannot be used against us."""
    _, build, final = instructions()
    text = " ".join(final)
    assert not re.search(
        r"\b(gcc|g\+\+|make|libc6-dev|python3-dev|python3-pip|python3-venv|curl)\b", text
    )
    assert "USER 61803:61803" in final
    assert 'ENTRYPOINT ["tripshark"]' in final
    assert "chmod a-s" in text
    assert build[0] == "FROM ${BASE} AS build"
    assert final[0] == "FROM ${BASE}"


def test_python_packages_come_as_wheels_with_hashes() -> None:
    """Every pip install checks hashes, takes wheels only and resolves nothing."""
    for line in re.findall(r"pip[^&\n]* install[^&]*", re.sub(r"\\\n\s*", " ", RECIPE)):
        assert "--no-deps" in line
        assert "--no-index" in line or {"--require-hashes", "--only-binary"} <= set(line.split())


def test_everything_that_is_copied_is_there_and_not_ignored() -> None:
    """The build context holds exactly what the recipe takes."""
    ignored = (ROOT / "deploy/Dockerfile.dockerignore").read_text()
    wanted = [
        path
        for stage in instructions()
        for line in stage
        if line.startswith("COPY") and "--from" not in line
        for path in line.split()[1:-1]
    ]
    wanted += re.findall(r"source=([^,]+),", RECIPE)
    for path in wanted:
        assert (ROOT / path).exists(), path
        assert f"!{path}\n" in ignored, path


def test_the_images_lock_is_part_of_the_developers() -> None:
    """The same versions and hashes that the tests ran with, and no tool of the developers."""
    whole, image = pins((ROOT / "requirements.lock").read_text()), pins(LOCK)
    assert {name: whole.get(name) for name in image} == image
    assert not {"pytest", "ruff", "mypy", "hypothesis", "hatchling"} & image.keys()
    hashes = set(re.findall(r"sha256:[0-9a-f]{64}", (ROOT / "requirements.lock").read_text()))
    assert set(re.findall(r"sha256:[0-9a-f]{64}", LOCK)) <= hashes


def test_the_images_lock_is_complete() -> None:
    """Whatever an installed package needs is pinned too: nothing would be missing at run time."""
    pinned = pins(LOCK)
    project = importlib.metadata.requires("tripshark") or []
    waiting = [(Requirement(each), "") for each in project]
    seen = set()
    while waiting:
        needed, extra = waiting.pop()
        name = re.sub(r"[-_.]+", "-", needed.name).lower()
        if needed.marker and not needed.marker.evaluate({"extra": extra}):
            continue
        assert name in pinned, f"{name} is not in deploy/requirements.lock: make lock"
        for more in ("", *needed.extras):
            if (name, more) not in seen:
                seen.add((name, more))
                below = importlib.metadata.requires(name) or []
                waiting += [(Requirement(each), more) for each in below]


def sbom(*argv: str, listing: str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-I", str(SBOM), str(ROOT / "deploy/requirements.lock"), *argv],
        input=listing, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_sbom_names_every_package_once() -> None:
    """Python's packages are those of the lock, Debian's those of dpkg, with versions and package URLs."""
    listing = "tshark\t4.0.17-0+deb12u3\tamd64\nlibstdc++6\t12.2.0-14\tamd64\n"
    told = json.loads(sbom("--debian", "-", "--time", "1", listing=listing))
    assert (told["bomFormat"], told["specVersion"]) == ("CycloneDX", "1.5")
    found = {each["name"]: each["version"] for each in told["components"]}
    assert found == {**pins(LOCK), "tshark": "4.0.17-0+deb12u3", "libstdc++6": "12.2.0-14"}
    urls = [each["purl"] for each in told["components"]]
    assert len(set(urls)) == len(urls)
    assert "pkg:deb/debian/libstdc%2B%2B6@12.2.0-14?arch=amd64" in urls
    assert told["metadata"]["timestamp"] == "1970-01-01T00:00:01Z"


def test_the_same_input_gives_the_same_sbom() -> None:
    """Byte by byte; other packages give another serial number."""
    assert sbom() == sbom()
    other = sbom("--debian", "-", listing="tshark\t1\tamd64\n")
    assert json.loads(other)["serialNumber"] != json.loads(sbom())["serialNumber"]


def test_a_lock_without_hashes_is_refused(tmp_path: Path) -> None:
    """An SBOM of something that is not pinned would be a lie."""
    (tmp_path / "lock").write_text("numpy==2.1.0\n")
    done = subprocess.run(
        [sys.executable, str(SBOM), str(tmp_path / "lock")], capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode != 0
    assert "not pinned" in done.stderr


# ---------------------------------------------------------------------------------------------- Falco's side


@pytest.mark.parametrize("name", ["helm-falco.yaml", "helm-falcosidekick.yaml"])
def test_falco_is_sent_to_services_that_exist(name: str) -> None:
    """Names and port are the chart's; Falco's own way stays on the node."""
    text = (ROOT / "deploy/falco" / name).read_text()
    made = (ROOT / "deploy/manifests/generic.yaml").read_text()
    services = {
        f"{each['metadata']['name']}.{each['metadata']['namespace']}.svc:{each['spec']['ports'][0]['port']}"
        for each in yaml.safe_load_all(made)
        if each and each["kind"] == "Service"
    }
    named = set(re.findall(r"http://([\w.:-]+)/", text))
    assert named
    assert named <= services


def test_the_charts_values_for_falco_say_what_the_snippet_for_hosts_says() -> None:
    """The same fields and the same exceptions, so that both behave alike; the chart's own fields are kept.

    Files below config.d add to lists, values of a chart replace them.
    """
    chart = yaml.safe_load((ROOT / "deploy/falco/helm-falco.yaml").read_text())
    host = yaml.safe_load((ROOT / "deploy/falco/falco.tripshark.yaml").read_text())
    own, *ours = chart["falco"]["append_output"]
    assert own == {"suggested_output": True}
    assert ours == host["append_output"]
    assert chart["metrics"]["interval"] == host["metrics"]["interval"]
    given = yaml.safe_load(chart["customRules"]["tripshark-exceptions.yaml"])
    file = yaml.safe_load((ROOT / "deploy/falco/tripshark-exceptions.yaml").read_text())
    assert given == file
