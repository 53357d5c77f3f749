"""The rules and the Falco snippets that come with Tripshark work as they stand."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tripshark.formats import bpf, falco, rulefile
from tripshark.formats.rulefile import Loaded
from tripshark.model.rule import evaluate

HERE = Path(__file__).parent
ROOT = HERE.parent
EVENTS = HERE / "falco-events"

# Falco's own rules that involve the network: file of the rule, name.
NETWORK_RULES = [
    "Contact K8S API Server From Container",
    "Redirect STDOUT/STDIN to Network Connection in Container",
    "Packet socket created in container",
    "Disallowed SSH Connection Non Standard Port",
    "Netcat Remote Code Execution in Container",
    "System procs network activity",
    "Unexpected UDP Traffic",
    "Contact EC2 Instance Metadata Service From Container",
    "Contact cloud metadata service from container",
    "Network Connection outside Local Subnet",
    "Launch Suspicious Network Tool in Container",
    "Launch Suspicious Network Tool on Host",
    "Launch Remote File Copy Tools in Container",
    "Launch Ingress Remote File Copy Tools in Container",
    "Program run with disallowed http proxy env",
    "Exfiltrating Artifacts via Kubernetes Control Plane",
    "Backdoored library loaded into SSHD (CVE-2024-3094)",
    "Unexpected inbound connection source",
    "Interpreted procs inbound network activity",
    "Interpreted procs outbound network activity",
    "Unexpected K8s NodePort Connection",
    "Detect outbound connections to common miner pool ports",
    "Detect crypto miners using the Stratum protocol",
    "Java Process Class File Download",
    "Netcat/Socat Remote Code Execution on Host",
    "Network Tool Executed During NPM Package Install",
    "Reverse Shell from Web Server",
    "Kubernetes Client Tool Launched in Container",
    "Disallowed SSH Connection",
    "Unexpected outbound connection destination",
    "Outbound or Inbound Traffic not to Authorized Server Process and Port",
    "Outbound Connection to C2 Servers",
]


@pytest.fixture(scope="module")
def shipped() -> Loaded:
    files = [(path.name, path.read_text()) for path in sorted((ROOT / "rules").glob("*.yaml"))]
    return rulefile.load(files, check_filter=lambda text: bpf.compile(text, 1))


def test_the_shipped_rules_load_without_a_single_problem(shipped: Loaded) -> None:
    """Not even a warning."""
    assert shipped.problems == ()
    assert len(shipped.rules) > 5


@pytest.mark.parametrize("name", NETWORK_RULES)
def test_every_network_rule_of_falco_is_covered(shipped: Loaded, name: str) -> None:
    """An alert of that rule, with nothing but what every alert has, leads to a capture."""
    body = (
        f'{{"rule":"{name}","priority":"Debug","source":"syscall","time":"2026-01-21T12:53:20Z"}}'
    )
    verdict = evaluate(shipped.rules, falco.decode(body.encode()), None)
    assert verdict.capture is not None


def test_every_recorded_network_alert_matches_a_shipped_rule(shipped: Loaded) -> None:
    """What matches none is a shell without network, Falco about itself, or a rule made for a test."""
    unmatched = {
        alert.rule
        for path in EVENTS.glob("*.json")
        if not evaluate(shipped.rules, alert := falco.decode(path.read_bytes()), None).matched
    }
    assert unmatched == {
        "Terminal shell in container",
        "Falco internal: metrics snapshot",
        "Falco internal: syscall event drop",
        "UDP any",
        "any connect",
    }


def test_the_falco_configuration_sends_json_with_the_fields_that_can_be_trusted() -> None:
    """http_output on our port, connection fields on every system call alert, and a heartbeat."""
    settings = yaml.safe_load((ROOT / "deploy/falco/falco.tripshark.yaml").read_text())
    assert settings["json_output"] is True
    assert settings["json_include_output_fields_property"] is True
    assert settings["http_output"]["enabled"] is True
    assert ":2803/" in settings["http_output"]["url"]
    (append,) = settings["append_output"]
    assert append["match"] == {"source": "syscall"}
    trusted = {"proc.pid", "fd.cip", "fd.cport", "fd.sip", "fd.sport", "fd.l4proto"}
    assert trusted <= set(append["extra_fields"])
    assert not {"fd.lip", "fd.lport", "fd.rip", "fd.rport"} & set(append["extra_fields"])
    assert settings["metrics"]["enabled"] is True
    assert settings["metrics"]["output_rule"] is True
    assert "alert" in settings["syscall_event_drops"]["actions"]


@pytest.mark.parametrize(
    ("file", "rules"),
    [
        ("tripshark-exceptions.yaml", {"Packet socket created in container"}),
        (
            "tripshark-exceptions-incubating.yaml",
            {
                "Launch Suspicious Network Tool in Container",
                "Launch Suspicious Network Tool on Host",
            },
        ),
    ],
)
def test_the_falco_exceptions_extend_the_rules_that_fire_on_capture_tools(
    file: str, rules: set[str]
) -> None:
    """Each appends `and not tripshark_own_process` and replaces nothing."""
    documents = yaml.safe_load((ROOT / "deploy/falco" / file).read_text())
    extended = [each for each in documents if "rule" in each]
    assert {each["rule"] for each in extended} == rules
    for each in extended:
        assert each["condition"] == "and not tripshark_own_process"
        assert each["override"] == {"condition": "append"}


def test_the_exception_macro_is_defined_where_it_is_first_used() -> None:
    """Falco refuses a file that uses an unknown macro."""
    documents = yaml.safe_load((ROOT / "deploy/falco/tripshark-exceptions.yaml").read_text())
    assert documents[0]["macro"] == "tripshark_own_process"
