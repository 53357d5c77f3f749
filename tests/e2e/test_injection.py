"""Nothing is injected: whatever stands in an alert stays text, from the webhook to the evidence, the page and the terminal."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import unicodedata
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.e2e.conftest import requires_root
from tests.e2e.machine import Machine, Network, falco_event, wait_for
from tests.e2e.traffic import (
    NAMESPACE,
    Evidence,
    Flows,
    Pod,
    is_alert,
    make_pods,
    read,
    wait_all_recorded,
)
from tripshark.formats import pcapng
from tripshark.store.verify import verify

pytestmark = [pytest.mark.root, requires_root, pytest.mark.timeout(180)]

MARK = f"/tmp/ts-pwned-{os.getpid()}"

PAYLOADS: Mapping[str, str] = {
    "shell": f"$(touch {MARK})`touch {MARK}`; touch {MARK} | touch {MARK} && touch {MARK}\n touch {MARK}\n",
    "format": f"%s%n{{0}}${{IFS}}%(touch {MARK})s{{{{7*7}}}}",
    "path": f"../../../../../../..{MARK}",
    "absolute": MARK,
    "nul": f"{MARK}\0/../../x\0",
    "long": "A/../" * 13_000,
    "bpf": ") or (1 = 1",
    "host": "host evil.example or port 1",
    "journal": "x\nMESSAGE=forged\nPRIORITY=0\n__REALTIME_TIMESTAMP=1\n\nMESSAGE=another",
    "binary": "x\nMESSAGE\n\x06\0\0\0\0\0\0\0forged\n",
    "html": "<script>alert(1)</script>",
    "attribute": "\"'><img src=x onerror=alert(1)>",
    "terminal": "\x1b[2J\x1b]0;owned\x07\x9b31m\r\x08forged\x7f",
    "markup": "\\[link=https://evil.example]click[/link][/][blink]\\",
    "bidi": "\u202egpj.exe\u2066\u200b\u2028\u061c\ufeff",
    "csv": "=cmd|' /C calc'!A0\t\",\"",
    "yaml": "!!python/object/apply:os.system [id]\n- rule: forged\n",
    "sql": "'; drop table incidents; --",
    "json": '","rule":"forged","x":{"a":[',
}

Edit = Callable[[dict[str, object], str], None]


def top(name: str) -> Edit:
    return lambda event, payload: event.__setitem__(name, payload)


def inner(name: str) -> Edit:
    return lambda event, payload: event["output_fields"].__setitem__(name, payload)  # type: ignore[attr-defined]


FIELDS: Mapping[str, Edit] = {
    **{
        name: top(name)
        for name in ("rule", "output", "hostname", "source", "uuid", "time", "message")
    },
    "tags": lambda event, payload: event.__setitem__("tags", [payload, "network", payload]),
    "own": lambda event, payload: event.__setitem__(payload, payload),
    **{
        name: inner(name)
        for name in (
            "container.full_id",
            "container.id",
            "container.image.repository",
            "container.name",
            "evt.arg.data",
            "evt.type",
            "fd.l4proto",
            "fd.name",
            "fd.rip",
            "fd.type",
            "k8s.ns.name",
            "k8s.pod.name",
            "proc.cmdline",
            "proc.exepath",
            "proc.name",
            "proc.pid",
            "proc.pname",
            "user.name",
        )
    },
    "field name": lambda event, payload: event["output_fields"].__setitem__(payload, payload),  # type: ignore[attr-defined]
}

ODD = {
    "namespace": 'a"><script>alert(1)</script>',
    "pod": "../..\x1b[31m\u202e\nMESSAGE=forged;$(touch " + MARK + ")",
    "labels": {"<b>\n": "\x07`touch " + MARK + "`", "../x": "host evil"},
}


class Attack:
    """A Tripshark that has been sent every payload in every field, one pod per payload."""

    def __init__(self, flows: Flows, folder: Path) -> None:
        self.flows = flows
        self.folder = folder
        self.evidence: dict[str, Evidence] = {}
        self.times: dict[str, list[int]] = {}
        self.answers: dict[tuple[str, str], tuple[int, bytes]] = {}

    @property
    def machine(self) -> Machine:
        return self.flows.machine

    def post(self, body: bytes, **headers: str) -> tuple[int, bytes]:
        return post(self.machine.url + "/", body, **headers)

    def run(self, payload: str, pod: Pod, post: Callable[[bytes], tuple[int, bytes]]) -> None:
        """Every field once, each with a time of its own within the pod's flow."""
        port, t0_ns = pod.tcp(pod.netns, pod.far, pod.peer, 4444)
        t0_ns = t0_ns // 1000 * 1000
        self.times[payload] = [t0_ns + number * 1000 for number in range(len(FIELDS))]
        for at_ns, (field, edit) in zip(self.times[payload], FIELDS.items(), strict=True):
            event = falco_event(
                rule="Flow",
                time_ns=at_ns,
                namespace=NAMESPACE,
                pod=pod.name,
                connection=f"{pod.ip}:{port}->{pod.peer}:4444",
                **{"fd.cip": pod.ip, "fd.cport": port, "fd.sip": pod.peer, "fd.sport": 4444},
            )
            edit(event, PAYLOADS[payload])
            self.answers[payload, field] = post(json.dumps(event).encode())


@contextmanager
def keeping(url: str) -> Iterator[Callable[[bytes], tuple[int, bytes]]]:
    """Posts over one connection, as Falco does."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=60)

    def send(body: bytes) -> tuple[int, bytes]:
        connection.request("POST", "/", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()

    try:
        yield send
    finally:
        connection.close()


def post(url: str, body: bytes, **headers: str) -> tuple[int, bytes]:
    sent = {"Content-Type": "application/json"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    request = urllib.request.Request(url, data=body, headers=sent)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status), answer.read()
    except urllib.error.HTTPError as problem:
        with problem:
            return problem.code, problem.read()


def fetch(url: str) -> tuple[Mapping[str, str], bytes]:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return {name.lower(): value for name, value in answer.headers.items()}, answer.read()


@pytest.fixture(scope="module")
def attack() -> Iterator[Attack]:
    names = [*PAYLOADS, "odd", "future", "huge", "packets"]
    network = Network(f"in{os.getpid():x}")
    with tempfile.TemporaryDirectory(prefix="ts-machine-") as base:
        os.chmod(base, 0o755)
        rules = Path(base) / "rules.yaml"
        rules.write_text("- rule: all\n  capture: {before: 2s, after: 4s}\n")
        machine = Machine(
            Path(base),
            rules=[str(rules)],
            recorder={
                "include": [f"ts-{network.prefix}-*"],
                "exclude": ["*-far"],
                "per_target": "4MB",
            },
            targets={
                "static": [
                    {"netns": f"ts-{network.prefix}-{name}"}
                    | (ODD if name == "odd" else {"namespace": NAMESPACE, "pod": name})
                    for name in names
                ]
            },
            bounds={
                "cooldown": "0s",
                "rate": {"refill": "0s"},
                "concurrent": 64,
                "parts_per_target": 64,
            },
        )
        pods: dict[str, Pod] = {}
        try:
            machine.start()
            pods = make_pods(network, names)
            wait_all_recorded(machine, pods)
            made = Attack(Flows(machine, pods), Path(base))
            with keeping(machine.url) as send:
                for payload in PAYLOADS:
                    made.run(payload, pods[payload], send)
            for payload in PAYLOADS:
                made.evidence[payload] = made.flows.sealed(pods[payload])
            wait_for(lambda: all_analysed(made), "every incident to be analysed", seconds=60)
            yield made
        finally:
            machine.stop()
            for each in pods.values():
                each.close()
            network.close()


def all_analysed(attack: Attack) -> bool:
    return all(
        (Path(str(each.incident["folder"])) / "findings.json").exists()
        for each in attack.evidence.values()
    )


# ---------------------------------------------------------------------------------- at the door


def test_every_payload_is_taken_as_text(attack: Attack) -> None:
    """202 for each: hostile text is no reason to lose an alert."""
    wrong = {where: answer for where, answer in attack.answers.items() if answer[0] != 202}
    assert not wrong


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"", {}, 400),
        (b"null", {}, 400),
        (b"[]", {}, 400),
        (b"{}", {}, 400),
        (b'{"rule":"x"', {}, 400),
        (b'{"rule":"' + b"\xff\xfe" + b'"}', {}, 400),
        (b'{"rule":"\\ud800","priority":"Error"}', {}, 400),
        (b'{"a":' * 40 + b"1" + b"}" * 40, {}, 400),
        (b"[" * 200_000, {}, 400),
        (b'{"rule":"x","priority":"$(id)","output_fields":{}}', {}, 400),
        (b'{"rule":"x","priority":"Error","output_fields":"no"}', {}, 400),
        (b'{"rule":"x","priority":"Error","output_fields":{"evt.time":1e400}}', {}, 400),
        (b'{"rule":"x","priority":"Error","time":"<script>"}', {}, 400),
        (b"x" * (2 << 20), {}, 413),
        (b"{}", {"content_type": "text/plain"}, 415),
        (b"{}", {"content_encoding": "gzip"}, 415),
        (b"<html>", {"content_type": "text/html<script>"}, 415),
    ],
)
def test_what_is_no_event_gets_the_one_error_shape(
    attack: Attack, body: bytes, headers: Mapping[str, str], status: int
) -> None:
    """Refused with the documented code and the documented shape, whatever it was."""
    code, answer = attack.post(body, **headers)
    assert code == status, answer
    error = json.loads(answer)
    assert set(error) == {"error"}
    assert {"code", "message"} <= set(error["error"]) <= {"code", "message", "hint", "where"}


def test_huge_numbers_are_text_like_any_other(attack: Attack) -> None:
    """Integers of any size in any field are taken, stored and shown."""
    pod = attack.flows.pods["huge"]
    _, t0_ns = pod.tcp(pod.netns, pod.far, pod.peer, 4444)
    for number in (2**63, 2**64, -(2**70), 10**400, 1e308, True):
        event = falco_event(time_ns=t0_ns, namespace=NAMESPACE, pod=pod.name)
        for field in ("proc.pid", "fd.cport", "fd.sport", "fd.sip", "evt.num", "proc.cmdline"):
            event["output_fields"][field] = number  # type: ignore[index]
        code, answer = attack.post(json.dumps(event).encode())
        assert code == 202, answer
    evidence = attack.flows.sealed(pod)
    assert evidence.incident["packets"]


@pytest.mark.parametrize(
    "asked",
    [
        {"target": "../../etc"},
        {"target": f"pid:1; touch {MARK}"},
        {"target": "netns:\0"},
        {"target": "flows/huge", "filter": "host evil.example"},
        {"target": "flows/huge", "filter": ") or (1 = 1"},
        {"target": "flows/huge", "peer": "<script>"},
        {"target": "flows/huge", "scope": "$(id)"},
        {"target": "flows/huge", "before": "1s; reboot"},
    ],
)
def test_a_capture_by_hand_is_refused_in_the_one_error_shape(
    attack: Attack, asked: Mapping[str, str]
) -> None:
    """What a person asks for is as hostile as an alert."""
    code, answer = post(attack.machine.url + "/v1/captures", json.dumps(asked).encode())
    assert code in (400, 403, 404), answer
    assert set(json.loads(answer)) == {"error"}


def test_hostile_packets_are_shown_as_text(attack: Attack) -> None:
    """Names that the packets themselves carry reach summary, page and terminal without a control character."""
    pod = attack.flows.pods["packets"]
    label = b"\x1b[2J<script>\n\x07"
    question = (
        bytes.fromhex("000701000001000000000000") + bytes([len(label)]) + label + b"\0\0\1\0\1"
    )
    _, t0_ns = pod.udp(pod.netns, pod.far, pod.peer, 53, question)
    answering, asking = pod.socket(pod.far), pod.socket(pod.netns)
    answering.bind((pod.peer, 80))
    answering.listen()
    asking.connect((pod.peer, 80))
    asking.sendall(b"GET /<script> HTTP/1.1\r\nHost: <img src=x>\x1b]0;owned\x07\r\n\r\n")
    evidence = attack.flows.sealed(
        pod,
        falco_event(time_ns=t0_ns, namespace=NAMESPACE, pod=pod.name, **{"proc.cmdline": "sh"}),
    )
    assert evidence.incident["packets"]
    id = str(evidence.incident["id"])

    def summary() -> str:
        return str(attack.machine.get(f"/v1/incidents/{id}")["summary"] or "")

    assert not invisible(wait_for(summary, "the summary"))
    done = attack.machine.tripshark("show", id, "--config", str(attack.machine.config))
    assert not invisible(done.stdout)
    assert_harmless_page(attack)


def test_an_event_of_the_far_future_does_not_capture_for_ever(attack: Attack) -> None:
    """A capture ends by its own budget, whatever time the alert claims."""
    pod = attack.flows.pods["future"]
    port, t0_ns = pod.tcp(pod.netns, pod.far, pod.peer, 4444)
    events = [
        falco_event(
            time_ns=at_ns,
            namespace=NAMESPACE,
            pod=pod.name,
            connection=f"{pod.ip}:{port}->{pod.peer}:4444",
        )
        for at_ns in (2**63 - 2, t0_ns + 86_400_000_000_000, 10**17 + 1)
    ]
    evidence = attack.flows.sealed(pod, *events)
    assert frozenset((port, 4444)) in evidence.ports()


# ---------------------------------------------------------------------------------- on the disk


def test_nothing_ran_and_nothing_was_written_elsewhere(attack: Attack) -> None:
    """No payload was executed, and every name below the data folder is one of ours."""
    assert not list(Path("/tmp").glob("ts-pwned-*"))
    assert sorted(path.name for path in attack.folder.iterdir()) == [
        "data",
        "log",
        "rules.yaml",
        "tripshark.yaml",
    ]
    ours = re.compile(
        r"(drafts|evidence|journal|keys|run|scratch|followed|witnesses"
        r"|\d{4}|\d{2}|\d{8}t\d{6}-[0-9a-f]{6}"
        r"|evidence(-raw)?\.pcapng|manifest\.json|[a-z]+\.json|custody\.jsonl|timeline\.jsonl|report\.(html|md)"
        r"|catalogue\.sqlite(-shm|-wal)?|signing\.(key|pub)|listening|heartbeat\.json"
        r"|[a-z]+\.(sock|lock)|manifest\.sig|[a-z0-9]+\.(journal|log|seg)|[0-9]+(\.[a-z]+)?|lock)"
    )
    names = {path.name for path in (attack.folder / "data").rglob("*")}
    assert not [name for name in names if not ours.fullmatch(name)]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_each_alert_is_one_row_at_its_own_time(attack: Attack, payload: str) -> None:
    """One MESSAGE each, at the true time, with the true priority; nothing of the payload became a field."""
    evidence = attack.evidence[payload]
    rows = occurrences(evidence.path)
    assert len(rows) == len(FIELDS)
    for row in rows:
        assert row["MESSAGE"] == 1
        assert row["PRIORITY"] == 1
        assert row["__REALTIME_TIMESTAMP"] == 1
    alerts = [row for row in evidence.rows if is_alert(row)]
    times = [round(float(row["frame.time_epoch"]) * 1e6) for row in alerts]
    assert times == [at_ns // 1000 for at_ns in attack.times[payload]]
    assert {row["systemd_journal.priority"] for row in alerts} == {"2"}
    assert not invisible("".join(row["systemd_journal.message"] for row in alerts))
    assert len(evidence.packets) == 10  # one connection, SYN to FIN: no payload widened the filter


def occurrences(path: Path) -> list[dict[str, int]]:
    """Of each alert row in the file, how often each field is there: read by the rules of the journal's own format."""
    rows = []
    raw = path.read_bytes()
    at = 0
    while at < len(raw):
        kind, length = (int.from_bytes(raw[at + n : at + n + 4], "little") for n in (0, 4))
        if kind == 9:
            rows.append(journal_fields(raw[at + 8 : at + length - 4]))
        at += length
    return rows


def journal_fields(entry: bytes) -> dict[str, int]:
    found: dict[str, int] = {}
    while entry.rstrip(b"\0"):
        line, _, rest = entry.partition(b"\n")
        name, equals, _ = line.partition(b"=")
        if not equals:
            size = int.from_bytes(rest[:8], "little")
            assert rest[8 + size : 9 + size] == b"\n"
            rest = rest[9 + size :]
        assert re.fullmatch(rb"[A-Z_][A-Z0-9_]*", name), name
        found[name.decode()] = found.get(name.decode(), 0) + 1
        entry = rest
    return found


def test_the_manifest_tells_every_alert_verbatim(attack: Attack) -> None:
    """What was sent is what is kept, byte for byte, and the filter is made of our own words alone."""
    for payload, evidence in attack.evidence.items():
        told = evidence.manifest["details"]["why"]["alerts"]  # type: ignore[index]
        assert len(told) == len(FIELDS)
        for alert in told:
            assert json.loads(alert["verbatim"])
            assert (PAYLOADS[payload] in alert["verbatim"]) or json.dumps(PAYLOADS[payload])[1:-1] in alert["verbatim"]  # fmt: skip
        for part in evidence.manifest["details"]["what"]["captures"]:  # type: ignore[index]
            assert re.fullmatch(r"[ -~]*", part["filter"] + part["beside"])
            assert "evil" not in part["filter"]
            assert "1 = 1" not in part["filter"]


def test_everything_verifies(attack: Attack) -> None:
    """Hashes, signatures and custody of all evidence hold."""
    day = Path(str(next(iter(attack.evidence.values())).incident["folder"])).parent
    for folder in day.iterdir():
        if folder.is_dir():
            verify(folder, data=attack.machine.data).require()


def test_names_from_the_configuration_break_nothing(attack: Attack) -> None:
    """A namespace, a pod and labels with every odd character still give files that everybody reads."""
    pod = attack.flows.pods["odd"]
    port, t0_ns = pod.tcp(pod.netns, pod.far, pod.peer, 4444)
    attack.machine.post(
        falco_event(
            time_ns=t0_ns, namespace="", pod="", connection=f"{pod.ip}:{port}->{pod.peer}:4444"
        )
    )

    def sealed() -> list[dict[str, object]]:
        found = attack.machine.get("/v1/incidents?limit=500")["incidents"]
        return [each for each in found if "script" in each["target"] and each["state"] == "sealed"]  # type: ignore[attr-defined]

    (incident,) = wait_for(sealed, "the odd pod's incident")
    path = Path(str(incident["folder"])) / "evidence.pcapng"
    rows = read(path)
    assert len([row for row in rows if not is_alert(row)]) == 10
    (row,) = occurrences(path)
    assert row["MESSAGE"] == 1
    for interface in pcapng.read(path.read_bytes()).interfaces:
        assert interface.description.startswith("pod ")
        assert not invisible(interface.description)
    verify(Path(str(incident["folder"])), data=attack.machine.data).require()
    assert_harmless_page(attack)


# ---------------------------------------------------------------------------------- shown to people


def assert_harmless_page(attack: Attack) -> None:
    headers, body = fetch(attack.machine.url + "/")
    text = body.decode()
    assert headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in headers["content-security-policy"]
    for bad in ("<script>", "<img src=x", "<b>", "onerror=alert(1)>"):
        assert bad not in text
    for script in re.findall("<script[^>]*>", text):
        assert re.fullmatch('<script type="module" src="/static/[^"]+">', script), script
    assert not invisible(text)


def invisible(text: str) -> set[str]:
    """Characters that control a terminal or the direction of reading, line ends left out."""
    return {
        each
        for each in text
        if each != "\n" and unicodedata.category(each) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    }


def test_the_page_shows_text_as_text(attack: Attack) -> None:
    """No markup but our own, nothing invisible, and a policy that would run nothing anyway."""
    assert_harmless_page(attack)


def test_every_answer_is_what_it_says(attack: Attack) -> None:
    """JSON is JSON, is never sniffed as anything else, and files of evidence are downloads in a sandbox."""
    paths = [
        "/v1/incidents?limit=500",
        "/v1/targets",
        "/v1/refusals",
        "/v1/rules",
        "/readyz",
        "/metrics",
    ]
    for evidence in attack.evidence.values():
        base = f"/v1/incidents/{evidence.incident['id']}"
        paths += [
            base,
            f"{base}/manifest.json",
            f"{base}/findings.json",
            f"{base}/evidence.pcapng",
        ]
    for path in paths:
        headers, body = fetch(attack.machine.url + path)
        assert headers["x-content-type-options"] == "nosniff", path
        kind = headers["content-type"]
        assert not kind.startswith("text/html")
        if "json" in kind:
            json.loads(body)
        if path.endswith((".json", ".pcapng")) and "/incidents/" in path:
            assert headers["content-disposition"].startswith("attachment")
            assert "sandbox" in headers["content-security-policy"]
    assert not invisible(fetch(attack.machine.url + "/metrics")[1].decode())


@pytest.mark.parametrize("path", ["/<script>alert(1)</script>", "/v1/incidents/..%2f..%2fetc", "/v1/incidents/%00",
                                  "/v1/incidents/last/evidence.pcapng%0d%0aX-Forged:1", "/v1/incidents?since=<b>"])  # fmt: skip
def test_hostile_paths_get_the_one_error_shape(attack: Attack, path: str) -> None:
    """Whatever is asked for, the answer is JSON with an error, and no header is forged."""
    with pytest.raises(urllib.error.HTTPError) as caught:
        fetch(attack.machine.url + path)
    with caught.value as answer:
        assert answer.code in (400, 404)
        assert answer.headers["content-type"].startswith("application/json")
        assert "x-forged" not in answer.headers
        assert set(json.load(answer)) == {"error"}


@pytest.mark.parametrize("force_colour", [False, True])
def test_the_terminal_gets_nothing_but_text(attack: Attack, force_colour: bool) -> None:
    """`incidents` and `show` print no control character and no line or link of the alert's own making."""
    commands = [["incidents", "--refused"]] if force_colour else [["incidents", "--limit", "500"]]
    chosen = ("markup",) if force_colour else ("terminal",)
    commands += [["show", str(attack.evidence[name].incident["id"])] for name in chosen]
    # given in full: readline, once something imports it, tells children a width behind Python's back
    environment = {name: each for name, each in os.environ.items() if name != "COLUMNS"}
    if force_colour:
        environment |= {"COLUMNS": "200", "FORCE_COLOR": "1"}
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-m", "tripshark", *command, "--config", str(attack.machine.config)],
            capture_output=True, text=True, check=True, timeout=60, env=environment,
        )  # fmt: skip
        own = re.compile(r"\x1b\[[0-9;]*m") if force_colour else re.compile(r"(?!)")
        shown = own.sub("", done.stdout)
        assert not invisible(shown), command
        assert "]8;" not in done.stdout
        assert not [
            line
            for line in shown.splitlines()
            if re.match(r"\s*(MESSAGE|PRIORITY|__REALTIME|forged)", line)
        ]
        assert not done.stderr


def test_logs_are_one_json_object_a_line(attack: Attack) -> None:
    """No payload starts a line of its own; requests that are no HTTP are logged in the same way."""
    parts = urlsplit(attack.machine.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=5) as broken:
        broken.sendall(b"\x16\x03\x01\0\n{forged}\r\n\r\n")
        broken.recv(1000)
    lines = (attack.folder / "log").read_text().splitlines()
    bad = []
    for line in lines:
        try:
            assert isinstance(json.loads(line), dict)
        except (ValueError, AssertionError):
            bad.append(line)
    assert not bad
    assert not [each for each in attack.machine.seen if each.get("event") == "died"]
