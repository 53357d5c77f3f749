"""A real API server accepts what the chart makes, for every platform."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.control import Plane
from tests.deploy.pods import ROOT, documents

OTHERS = {"ServiceMonitor", "SecurityContextConstraints"}  # kinds that come with other products


def kubectl(plane: Plane, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["kubectl", "--kubeconfig", str(plane.kubeconfig), *argv],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )


def version(plane: Plane) -> tuple[int, int]:
    told = plane.call("GET", "/version")
    return int(told["major"]), int(told["minor"].rstrip("+"))


@pytest.mark.timeout(180)
def test_the_server_takes_every_platforms_manifests(
    real_api: Plane, helm: str, generate: dict[str, Any], tmp_path: Path
) -> None:
    """Server-side dry run of the chart's output for this server's version, with no field that it does not know."""
    major, minor = version(real_api)
    kinds = set()
    arguments = []
    for platform in generate["PLATFORMS"]:
        text = generate["render"](helm, platform, kube_version=f"{major}.{minor}.0")
        made = [each for each in documents(text) if each["kind"] not in OTHERS]
        kinds |= {each["kind"] for each in made}
        path = tmp_path / f"{platform}.yaml"
        path.write_text(yaml.safe_dump_all(made))
        arguments += ["--filename", str(path)]
    assert kinds >= {"DaemonSet", "Deployment", "ClusterRole", "NetworkPolicy", "PriorityClass"}
    kubectl(real_api, "create", "namespace", "tripshark", "--save-config")
    done = kubectl(real_api, "apply", "--dry-run=server", "--validate=true", *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("(server dry run)") > 8 * 10
    remarks = [e for e in done.stderr.splitlines() if "last-applied-configuration" not in e]
    assert not remarks  # no field that is deprecated or unknown


def test_the_plain_manifests_are_taken_too(real_api: Plane) -> None:
    """What a user applies without Helm; fields that are newer than the server are dropped by it."""
    kubectl(real_api, "create", "namespace", "tripshark", "--save-config")
    new = version(real_api) >= (1, 30)
    validate = "--validate=true" if new else "--validate=false"
    path = ROOT / "deploy/manifests/generic.yaml"
    done = kubectl(real_api, "apply", "--dry-run=server", validate, "--filename", str(path))
    assert done.returncode == 0, done.stderr


def test_the_service_account_may_what_it_must(
    real_api: Plane, roles: Callable[[], None], generate: dict[str, Any]
) -> None:
    """With the roles applied for real the server says yes to each declared verb, and no to another."""
    roles()
    who = "system:serviceaccount:tripshark:tripshark"

    def may(verb: str, group: str, resource: str) -> bool:
        name, _, below = resource.partition("/")
        asked = {"verb": verb, "group": group, "resource": name, "subresource": below}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": who, "resourceAttributes": {**asked, "namespace": "shop"}},
        }
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        return bool(
            real_api.call("POST", path, json.loads(json.dumps(review)))["status"]["allowed"]
        )

    for each in generate["permissions"]():
        if "node" in each["programs"]:
            for verb in each["verbs"]:
                assert may(verb, each["group"], each["resource"]), (verb, each)
    for verb, resource in (("get", "secrets"), ("create", "pods/exec"), ("delete", "pods")):
        assert not may(verb, "", resource)
