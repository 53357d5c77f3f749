"""Commands that need no running service: help, usage, exit codes, streams."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.cli.running import inside, on_terminal, tripshark

COMMANDS = (
    *(
        f"{each}"
        for each in ("run", "demo", "recorder", "node", "capture", "targets", "incidents")
    ),
    *(f"{each}" for each in ("show", "export", "live", "verify", "analyse", "doctor", "settings")),
    "share",
    *("rules check", "rules print", "rules test"),
)
NO_DATA = {"demo", "rules check", "rules print"}  # which read none
NO_CONFIG = {"demo"}
NO_JSON = {"live"}  # it writes pcapng


def test_every_command_shows_an_example_that_can_be_copied() -> None:
    """`--help` exits 0, has the example on a line of its own, and the promised options."""
    for name in COMMANDS:
        done = inside(*name.split(), "--help")
        assert done.code == 0, name
        assert re.search(rf"^  Example:\n    tripshark {name}\b.*$", done.out, re.MULTILINE), name
        assert ("--config" in done.out) is (name not in NO_CONFIG), name
        assert ("--data" in done.out) is (name not in NO_DATA), name
        assert ("--json" in done.out) is (name not in NO_JSON), name


def test_the_list_of_commands_tells_whole_sentences() -> None:
    """No summary is cut off."""
    shown = inside("--help").out
    assert "..." not in shown.replace("[ARGS]...", "")
    assert "arrives. The evidence is complete." in " ".join(shown.split())


def test_wrong_usage_is_exit_2_and_names_the_help() -> None:
    """An unknown option and a missing argument say where the help is, on standard error."""
    for argv in (["incidents", "--nix"], ["show"], ["nix"], ["rules", "test"]):
        done = inside(*argv)
        assert (done.code, done.out) == (2, "")
        assert "--help" in done.err


def test_errors_have_three_parts_and_json_has_the_one_shape(tmp_path: Path) -> None:
    """What, where, do; with `--json` one document on standard output, and the exit code is 3 for "not found"."""
    done = tripshark("show", "last", "--data", str(tmp_path), "--json")
    assert done.code == 3
    error = json.loads(done.out)["error"]
    assert set(error) == {"code", "message", "where", "hint"}
    assert error["code"] == "not_found"
    for part in (error["message"], error["where"], error["hint"]):
        assert part
        assert part in done.err
    assert "\x1b" not in done.err


def test_a_file_that_is_no_configuration_is_wrong_usage(tmp_path: Path) -> None:
    """Every problem at once, each with its line."""
    config = tmp_path / "c.yaml"
    config.write_text("listen: nowhere\nrecorder:\n  totl: 1GB\n")
    done = tripshark("settings", "--config", str(config))
    assert done.code == 2
    assert f"{config}:1" in done.err
    assert f"{config}:3" in done.err
    assert "recorder.total" in done.err


def test_listening_for_everyone_needs_credentials(tmp_path: Path) -> None:
    """Off loopback without authentication nothing is started."""
    done = tripshark("run", "--data", str(tmp_path / "d"), "--listen", "0.0.0.0:0")
    assert done.code == 2
    assert "alerts would be taken from anyone" in done.err
    assert not (tmp_path / "d").exists()


def test_settings_are_told_with_value_and_origin(tmp_path: Path) -> None:
    """One JSON line a setting; the environment and the command line are named as sources."""
    done = tripshark(
        "settings", "--json", "--data", str(tmp_path), TRIPSHARK_RECORDER__TOTAL="1GB"
    )
    lines = {each["name"]: each for each in map(json.loads, done.out.splitlines())}
    assert lines["recorder.total"]["value"] == "1GB"
    assert "TRIPSHARK_RECORDER__TOTAL" in lines["recorder.total"]["source"]
    assert "command line" in lines["data"]["source"]
    assert all(each["meaning"] for each in lines.values())


def test_settings_fit_80_columns() -> None:
    """No line is wider than the terminal, and colours are for terminals only."""
    shown = on_terminal(80, "settings")
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in shown.splitlines()]
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("recorder.per_target ") for line in lines)
    assert "\x1b[" in shown
    assert "\x1b[" not in tripshark("settings").out


RULES = """\
- rule: Beacons
  match:
    rules: ["Outbound Connection to C2 Servers"]
    output_fields: ["k8s.ns.name!=kube-system"]
  capture: {scope: peer, before: 7s, after: 3s}
"""
EVENT = {
    "rule": "Outbound Connection to C2 Servers",
    "priority": "Critical",
    "time": "2026-11-24T10:00:00.000000000Z",
    "source": "syscall",
    "output": "x",
    "hostname": "n1",
    "tags": ["network"],
    "output_fields": {
        "k8s.ns.name": "payments",
        "k8s.pod.name": "checkout-7d9f",
        "fd.name": "10.77.1.23:40000->203.0.113.66:4444",
        "fd.l4proto": "tcp",
        "proc.name": "nc\x1b[2J",
    },
}
STATIC = {"targets": {"static": [{"netns": "x", "namespace": "payments", "pod": "checkout-7d9f"}]}}


def test_rules_test_tells_rule_target_window_and_filter(tmp_path: Path) -> None:
    """Before anything is installed: from a file, or standard input; exit 3 when nothing would be captured."""
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    config = tmp_path / "c.yaml"
    config.write_text(json.dumps({**STATIC, "data": str(tmp_path), "rules": [str(rules)]}))
    event = json.dumps(EVENT).encode()
    asked = ("rules", "test", "-", "--config", str(config))
    done = tripshark(*asked, "--json", stdin=event)
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["target"] == "payments/checkout-7d9f"
    assert told["plan"]["before_ns"] == 7_000_000_000
    assert told["plan"]["rungs"][0]["core"] == "ip host 203.0.113.66"
    shown = tripshark(*asked, stdin=event)
    for words in ("payments/checkout-7d9f", "7 s before to 3 s after", "ip host 203.0.113.66"):
        assert words in shown.out
    elsewhere = {
        **EVENT,
        "output_fields": {**EVENT["output_fields"], "k8s.ns.name": "kube-system"},
    }
    refused = tripshark(*asked, "--json", stdin=json.dumps(elsewhere).encode())
    assert refused.code == 3
    assert "kube-system" in json.loads(refused.out)["rules"][0]["why_not"][0]
    nowhere = tripshark(*asked, "--json", stdin=event.replace(b"checkout-7d9f", b"nobody-0"))
    assert nowhere.code == 3
    assert json.loads(nowhere.out)["refusal"]["reason"] == "no_target"
    assert json.loads(nowhere.out)["where_it_is_recorded"]["after_ns"] == 3_000_000_000


def test_rules_are_checked_with_file_and_line(tmp_path: Path) -> None:
    """All problems at once, exit 3; `print` gives the merged rules back as YAML."""
    good, bad = tmp_path / "a.yaml", tmp_path / "b.yaml"
    good.write_text(RULES)
    assert tripshark("rules", "check", str(good)).code == 0
    assert "Beacons" in tripshark("rules", "print", str(good)).out
    bad.write_text("- rule: B\n  match: {rules: [x]}\n  capture: {scope: galaxy, before: soon}\n")
    done = tripshark("rules", "check", str(good), str(bad), "--json")
    assert done.code == 3
    problems = json.loads(done.out)["problems"]
    assert len(problems) >= 2
    assert all(each["line"] == 3 for each in problems)
    assert f"{bad}:3" in tripshark("rules", "check", str(bad)).err


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    """`tripshark settings --json | head -1` prints no trace."""
    import subprocess

    from tests.cli.running import COMMAND, clean

    process = subprocess.Popen(
        [*COMMAND, "settings", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean(),
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    told = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) in (0, 1)
    assert told == b""


def test_pseudonyms_that_cannot_be_had_are_refused(tmp_path: Path) -> None:
    """Payloads name addresses too; whoever asks for pseudonyms beside them is told, not served without."""
    for payloads in ("blanked", "full"):
        done = inside(
            "share", "last", "--payloads", payloads, "--pseudonyms", "--data", f"{tmp_path}"
        )
        assert done.code == 2
        assert "pseudonyms" in done.err
