"""The chart and the manifests made of it: fresh, complete, and asking for no more than the code declares."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.pods import ROOT, Document, documents, find
from tripshark import settings
from tripshark.model.evidence import Word
from tripshark.recorder.capabilities import KEPT
from tripshark.store.outbox import OutboxState
from tripshark.web.metrics import Metrics, Now

CHART = ROOT / "deploy/helm/tripshark"
MANIFESTS = sorted((ROOT / "deploy/manifests").glob("*.yaml"))


def _name(path: object) -> str:
    return path.stem if isinstance(path, Path) else str(path)


def containers(manifest: Path) -> Iterator[Document]:
    for document in documents(manifest.read_text()):
        pod = document.get("spec", {}).get("template", {}).get("spec", {})
        yield from [*pod.get("initContainers", ()), *pod.get("containers", ())]


# ---------------------------------------------------------------------------------------------- freshness


def test_what_the_chart_takes_from_the_code_is_fresh(generate: dict[str, Any]) -> None:
    """Capabilities, permissions, dashboard and custom resources are what the code says today: `make manifests`."""
    for path, text in generate["files"]().items():
        assert path.read_text() == text, f"{path.relative_to(ROOT)} is stale: make manifests"


def test_the_manifests_are_of_this_chart(generate: dict[str, Any]) -> None:
    """The chart has not changed since the manifests were made of it (told without Helm)."""
    said = (ROOT / "deploy/manifests/SOURCE").read_text().strip()
    assert said == generate["source"](), "deploy/manifests is stale: make manifests"
    assert {path.stem for path in MANIFESTS} == set(generate["PLATFORMS"])


def test_helm_makes_exactly_these_manifests(helm: str, generate: dict[str, Any]) -> None:
    """Nobody edited a manifest by hand."""
    for path, text in generate["manifests"](helm).items():
        assert path.read_text() == text, f"{path.relative_to(ROOT)}: make manifests"


# -------------------------------------------------------------------------------------------------- Helm


def test_helm_finds_nothing_to_remark_upon(helm: str) -> None:
    """`helm lint --strict`, also with each of the values files."""
    for values in [None, *sorted(CHART.glob("values-*.yaml"))]:
        more = [] if values is None else ["--values", str(values)]
        done = subprocess.run(
            [helm, "lint", "--strict", "--quiet", str(CHART), *more],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "wrong",
    [
        "imgae.tag=1",
        "data.type=nfs",
        "image.digest=1234",
        "runtime.sockets[0]=containerd.sock",
        "priorityClass.value=2000000000",
    ],
)
def test_a_wrong_value_is_refused(helm: str, wrong: str) -> None:
    """The schema knows every value: a misspelt one does not pass in silence."""
    done = subprocess.run(
        [helm, "template", str(CHART), "--set", wrong], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "schema" in done.stderr, done.stderr


def test_secrets_are_random_and_long(helm: str) -> None:
    """Two installations share nothing, and the path passes the settings' own check."""
    found = set()
    for _ in range(2):
        done = subprocess.run(
            [helm, "template", "tripshark", str(CHART)], capture_output=True, text=True, check=True
        )
        data = find(documents(done.stdout), "Secret")["data"]
        found |= {data["token"], data["path"]}
    assert len(found) == 4
    assert all(len(each) >= 48 for each in found)


def test_an_option_can_be_taken_out_again(helm: str) -> None:
    """`--set config.store=null` with a platform's values and a hub: neither is told of a store."""
    values = ["--values", str(CHART / "values-eks.yaml"), "--set", "hub.enabled=true"]
    done = subprocess.run(
        [helm, "template", "tripshark", str(CHART), *values, "--set", "config.store=null"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "s3://" not in done.stdout


def test_a_config_that_the_user_gives_is_merged(helm: str) -> None:
    """`config` says what Tripshark is told beyond what the chart decides; recorder and analyst learn no secret of it."""
    given = ["--set", "config.recorder.total=1GB", "--set", "config.store.options.key=hunter2"]
    done = subprocess.run(
        [helm, "template", "tripshark", str(CHART), *given],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    made = documents(done.stdout)
    whole = yaml.safe_load(find(made, "ConfigMap", "tripshark")["data"]["tripshark.yaml"])
    local = yaml.safe_load(find(made, "ConfigMap", "tripshark-local")["data"]["tripshark.yaml"])
    assert whole["recorder"]["total"] == local["recorder"]["total"] == "1GB"
    assert whole["recorder"]["socket"] == local["recorder"]["socket"]
    assert "hunter2" not in yaml.safe_dump(local)


def test_who_may_read_is_told_to_responder_and_hub_alone(helm: str) -> None:
    """Keys of sign-in and lists of indicators are files where they are read, and settings lead there."""
    given = ["hub.enabled=true", "signin.existingSecret=doors", "indicators.existingConfigMap=lists",
             "config.signin.oidc.client_secret_file=/etc/tripshark/signin/oidc", "config.reading.sessions=2"]  # fmt: skip
    done = subprocess.run(
        [helm, "template", "tripshark", str(CHART), *(f"--set={each}" for each in given)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    made = documents(done.stdout)
    told = {}
    for name in ("tripshark", "tripshark-local", "tripshark-hub", "tripshark-hub-local"):
        told[name] = yaml.safe_load(find(made, "ConfigMap", name)["data"]["tripshark.yaml"])
        assert told[name]["reading"] == {"sessions": 2}
    assert [name for name in told if "signin" in told[name]] == ["tripshark", "tripshark-hub"]
    assert [name for name in told if "indicators" in told[name]] == ["tripshark"]
    mounted = {
        (each["name"], mount["mountPath"])
        for kind in ("DaemonSet", "Deployment")
        for each in find(made, kind)["spec"]["template"]["spec"]["containers"]
        for mount in each["volumeMounts"]
        if mount["name"] in ("signin", "indicators")
    }
    assert mounted == {
        ("node", "/etc/tripshark/signin"),
        ("node", "/etc/tripshark/indicators"),
        ("hub", "/etc/tripshark/signin"),
    }


# ------------------------------------------------------------------------------------------ what they ask


@pytest.mark.parametrize("manifest", MANIFESTS, ids=_name)
def test_the_recorder_asks_for_the_declared_capabilities_alone(manifest: Path) -> None:
    """Drop all, add exactly recorder/capabilities.py's list; nobody is privileged, every root is read-only."""
    declared = {words.split()[0].removeprefix("CAP_") for words in KEPT.values()}
    found = {each["name"]: each["securityContext"] for each in containers(manifest)}
    for name, security in found.items():
        assert security["readOnlyRootFilesystem"] is True, name
        assert "privileged" not in security, name
        assert security["capabilities"]["drop"] == ["ALL"], name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        added = set(security["capabilities"].get("add", ()))
        assert added == {"recorder": declared, "own-data": {"CHOWN", "FOWNER"}}.get(name, set())
        if name not in ("recorder", "own-data"):
            assert security["runAsNonRoot"] is True, name
            assert security["allowPrivilegeEscalation"] is False, name
    assert found["analyst"]["runAsUser"] != found["node"]["runAsUser"]


@pytest.mark.parametrize("manifest", MANIFESTS, ids=_name)
def test_each_container_sees_only_what_is_its_own(manifest: Path) -> None:
    """The runtime's socket and the namespaces: the recorder. Token, data and secrets: the responder. The analyst: neither."""
    pod = find(documents(manifest.read_text()), "DaemonSet")["spec"]["template"]["spec"]
    seen = {each["name"]: {m["name"] for m in each["volumeMounts"]} for each in pod["containers"]}
    assert seen["recorder"] == {"local-config", "meet-recorder", "netns", "runtime"}
    assert seen["analyst"] == {"local-config", "meet-analyst"}
    assert {"token", "secret", "config", "data"} < seen["node"]
    assert not {"netns", "runtime"} & seen["node"]
    assert pod["automountServiceAccountToken"] is False
    (netns,) = (m for m in pod["containers"][0]["volumeMounts"] if m["name"] == "netns")
    assert netns["mountPropagation"] == "HostToContainer"
    assert pod["hostPID"] is True
    assert "hostNetwork" not in pod


@pytest.mark.parametrize("manifest", MANIFESTS, ids=_name)
def test_the_settings_in_the_manifests_are_settings(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each tripshark.yaml loads as its program would load it, with sockets where the volumes are."""
    token = tmp_path / "token"
    token.write_text("a-token-that-is-long-enough-0123456789")
    monkeypatch.setenv("TRIPSHARK_INGEST__AUTH__SECRET_PATH", "a-secret-path-0123456789")
    for document in documents(manifest.read_text()):
        if document["kind"] == "ConfigMap" and "tripshark.yaml" in document["data"]:
            path = tmp_path / "tripshark.yaml"
            text = document["data"]["tripshark.yaml"].replace(
                "/etc/tripshark/secret/token", str(token)
            )
            path.write_text(text)
            loaded = settings.load(path)
            if "hub" not in document["metadata"]["name"]:
                assert str(loaded.recorder_socket) == "/run/tripshark/recorder/recorder.sock"
                assert str(loaded.scout_socket) == "/run/tripshark/recorder/scout.sock"
                assert str(loaded.analyst_socket) == "/run/tripshark/analyst/analyst.sock"


def test_alerts_reach_the_node_they_come_from() -> None:
    """Falco's Service stays on the node; the one for readers does not."""
    made = documents((ROOT / "deploy/manifests/generic.yaml").read_text())
    assert find(made, "Service", "tripshark")["spec"]["internalTrafficPolicy"] == "Local"
    assert "internalTrafficPolicy" not in find(made, "Service", "tripshark-any")["spec"]


def test_every_permission_is_in_the_role() -> None:
    """The roles hold what the code declares, verb by verb, and nothing else; no wildcard anywhere."""
    asked = yaml.safe_load((CHART / "files/permissions.yaml").read_text())["permissions"]
    made = documents((ROOT / "deploy/manifests/fleet.yaml").read_text())
    for program, name in (("node", "tripshark"), ("hub", "tripshark-hub")):
        declared = [
            ([each["group"]], [each["resource"]], each["verbs"])
            for each in asked
            if program in each["programs"]
        ]
        rules = find(made, "ClusterRole", name)["rules"] or []
        assert [(r["apiGroups"], r["resources"], r["verbs"]) for r in rules] == declared
        assert "*" not in json.dumps(rules)


def test_openshift_allows_what_is_asked_for() -> None:
    """The security context constraints grant the capabilities of the containers, and no privileged one."""
    made = documents((ROOT / "deploy/manifests/openshift.yaml").read_text())
    constraints = find(made, "SecurityContextConstraints")
    added = {
        each
        for container in containers(ROOT / "deploy/manifests/openshift.yaml")
        for each in container["securityContext"]["capabilities"].get("add", ())
    }
    assert set(constraints["allowedCapabilities"]) == added
    assert constraints["allowPrivilegedContainer"] is False
    kinds = find(made, "DaemonSet")["spec"]["template"]["spec"]["volumes"]
    used = {next(key for key in each if key != "name") for each in kinds}
    assert used <= {
        {"configMap": "configMap", "hostPath": "hostPath"}.get(each, each)
        for each in constraints["volumes"]
    }


# ---------------------------------------------------------------------------------------------- dashboard


def test_the_dashboard_asks_for_metrics_that_exist() -> None:
    """Every series in the panels is one that a responder exposes, with the labels that it has."""
    now = Now(
        targets=(), refusals={}, journal_waiting=0, journal_bytes=0, falco_gaps=0, falco_late=0,
        falco_kernel_drops=0, falco_queue_drops=0, falco_unheard=0, evidence_bytes=0,
        outbox=OutboxState(),
    )  # fmt: skip
    metrics = Metrics()
    metrics.alert("webhook", "accepted", 0.001)
    metrics.frozen(0.001)
    metrics.sealed(Word.COMPLETE)
    told = metrics.exposition(now).decode()
    exposed = set(re.findall(r"^(tripshark_\w+)", told, re.MULTILINE))
    labels = set(re.findall(r"[{,](\w+)=", told)) | {"node", "le"}
    board = json.loads((CHART / "files/dashboard.json").read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    assert len(queries) > 10
    for query in queries:
        assert set(re.findall(r"tripshark_\w+", query)) <= exposed, query
        grouped = re.findall(r"by \(([\w, ]+)\)", query)
        assert {each.strip() for group in grouped for each in group.split(",")} <= labels, query
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
