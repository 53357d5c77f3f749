"""Real pods of a real containerd: an alert that knows a container's id alone becomes evidence with every name in it."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from tests.containers.runtime import Containerd, Pod
from tests.e2e.conftest import requires_root
from tests.e2e.machine import Machine, evidence_files, falco_event, manifest, tshark, wait_for

pytestmark = [requires_root, pytest.mark.root]

RULES = """
- rule: Everything
  match: {priority: ">=Debug"}
  capture: {before: 30s, after: 1s}
"""
WEB = ("/bin/httpd", "-f", "-p", "8080", "-h", "/www")
C2_NAME = "c2.evil.example"


@pytest.fixture
def outside(containerd: Containerd) -> Iterator[int]:
    """What pods find outside: a resolver that knows the C2, and the C2 itself, on the machine's own address.

    Gives the C2's port.
    """
    with (
        containerd.pod("anchor"),  # the bridge is there from the first pod on
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as resolver,
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as control,
    ):
        wait_for(lambda: _bound(resolver, containerd.gateway, 53), "the bridge's address")
        control.bind((containerd.gateway, 0))
        control.listen()
        with _serving(containerd.gateway, resolver, control):
            yield control.getsockname()[1]


@contextlib.contextmanager
def _serving(address: str, resolver: socket.socket, control: socket.socket) -> Iterator[None]:
    done = threading.Event()

    def resolve() -> None:
        while not done.is_set():
            try:
                asked, sender = resolver.recvfrom(512)
            except OSError:
                return
            if done.is_set():
                return
            end = asked.index(b"\0", 12) + 5
            wants_a = asked[end - 4 : end - 2] == b"\0\1"
            head = asked[:2] + b"\x81\x80\0\1" + (b"\0\1" if wants_a else b"\0\0") + b"\0" * 4
            answer = b"\xc0\x0c\0\1\0\1\0\0\0\x1e\0\4" + socket.inet_aton(address)
            resolver.sendto(head + asked[12:end] + (answer if wants_a else b""), sender)

    def serve() -> None:
        while not done.is_set():
            try:
                client, _ = control.accept()
            except OSError:
                return
            with client:
                client.recv(100)
                client.sendall(b"orders\n")

    threads = [threading.Thread(target=each, daemon=True) for each in (resolve, serve)]
    for each in threads:
        each.start()
    try:
        yield
    finally:
        done.set()
        control.shutdown(socket.SHUT_RDWR)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nudge:
            nudge.sendto(b"end", (address, 53))
        for each in threads:
            each.join(60)


def _bound(sock: socket.socket, address: str, port: int) -> bool:
    try:
        sock.bind((address, port))
    except OSError:
        return False
    return True


def start(machine: Callable[..., Machine], containerd: Containerd, **config: object) -> Machine:
    return machine(
        rules_text=RULES,
        containers={"enabled": "on", "sockets": [containerd.socket]},
        **config,
    )


def details(incident: Mapping[str, object]) -> dict[str, Any]:
    return dict(manifest(incident)["details"])  # type: ignore[call-overload]


def alert(pod: Pod, connection: str) -> dict[str, object]:
    """As Falco says it in practice: container.id is there, everything of Kubernetes is null."""
    event = falco_event(connection=connection)
    fields = dict(event["output_fields"])  # type: ignore[call-overload]
    for name in list(fields):
        if name.startswith("k8s."):
            fields[name] = None
    fields["container.id"] = pod.container_ids[0][:12]
    return {**event, "output_fields": fields, "hostname": "falco-7x2ls"}


def recorded(tripshark: Machine, pod: Pod) -> dict[str, object]:
    """Its ring, by its name."""

    def found() -> dict[str, object] | None:
        for each in tripshark.get("/v1/targets")["targets"]:  # type: ignore[union-attr]
            if each["title"] == f"{pod.namespace}/{pod.name}" and each["alive"] and each["rings"]:  # type: ignore[index]
                return dict(each)  # type: ignore[call-overload]
        return None

    return wait_for(found, f"{pod.name} to be recorded by name", seconds=60)


def test_a_pod_speaks_with_another_and_with_the_outside(
    machine: Callable[..., Machine], containerd: Containerd, outside: int
) -> None:
    """One incident, the right pod with labels and images, names of both ends, the look-up before; also after its death."""
    tripshark = start(machine, containerd)
    labels = {"app": "checkout", "pod-template-hash": "7d9f6c5b4"}
    with (
        containerd.pod("ledger-0", "payments", labels={"app": "ledger"}, argv=WEB) as ledger,
        containerd.pod("checkout-7d9f6c5b4-x2x4z", "payments", labels=labels) as checkout,
    ):
        recorded(tripshark, checkout)
        recorded(tripshark, ledger)
        looked = containerd.exec(checkout, ["/bin/nslookup", C2_NAME, containerd.gateway])
        assert containerd.gateway in looked.stdout, looked
        said = containerd.exec(
            checkout,
            ["/bin/sh", "-c", f"echo hello | /bin/nc -w 5 {containerd.gateway} {outside}"],
        )
        assert "orders" in said.stdout, said
        page = containerd.exec(
            checkout, ["/bin/wget", "-q", "-O", "-", f"http://{ledger.ip}:8080/"]
        )
        assert "hello" in page.stdout, page
        tripshark.post(alert(checkout, f"{checkout.ip}:40000->{containerd.gateway}:{outside}"))
        (incident,) = tripshark.wait_sealed()
        told = details(incident)
        who = told["who"]
        assert (who["namespace"], who["pod"]) == ("payments", checkout.name)  # type: ignore[index]
        assert who["labels"]["app"] == "checkout"  # type: ignore[index]
        assert checkout.container_ids[0] in who["containers"]  # type: ignore[index]
        assert who["owner"] == "Deployment/checkout"  # type: ignore[index]
        assert who["uid"] == checkout.uid  # type: ignore[index]
        (file,) = evidence_files(incident)
        names = tshark(file, "-N", "n", "-Y", "tcp", "-T", "fields", "-e", "ip.src_host")
        assert "payments/" + checkout.name in names
        asked = tshark(file, "-Y", f'dns.qry.name == "{C2_NAME}"')
        assert len(asked) >= 2

        # both ends, for a pod that another one spoke with
        tripshark.post(alert(checkout, f"{checkout.ip}:40001->{ledger.ip}:8080"))
        wait_for(lambda: len(tripshark.incidents()) == 2, "a second incident")
        both = tripshark.wait_sealed(2)[0]
        captures = details(both)["what"]["captures"]  # type: ignore[index]
        assert {each["target"] for each in captures} == {
            f"payments/{checkout.name}",
            f"payments/{ledger.name}",
        }
    # after its death: nothing of it is there any more, and the alert comes only now
    wait_for(
        lambda: all(
            each["title"] != f"payments/{checkout.name}" or not each["alive"]  # type: ignore[index]
            for each in tripshark.get("/v1/targets")["targets"]  # type: ignore[union-attr]
        ),
        "the pod's death to be noticed",
    )
    event = alert(checkout, f"{checkout.ip}:40002->{containerd.gateway}:{outside}")
    event["rule"] = "Another rule"
    tripshark.post(event)
    wait_for(lambda: len(tripshark.incidents()) == 3, "a third incident")
    late = next(each for each in tripshark.wait_sealed(3) if each["falco_rule"] == "Another rule")
    assert details(late)["who"]["pod"] == checkout.name  # type: ignore[index]
    assert any(
        C2_NAME in line
        for file in evidence_files(late)
        for line in tshark(file, "-Y", "dns", "-T", "fields", "-e", "dns.qry.name")
    )


def test_a_pod_that_lived_300_ms_is_captured(
    machine: Callable[..., Machine], containerd: Containerd, outside: int
) -> None:
    """Its packets are there although it was gone before anybody could have looked."""
    tripshark = start(machine, containerd)
    script = f"/bin/nc -w 1 {containerd.gateway} {outside} </dev/null; exit 0"
    pod = containerd.run_pod("job-1", "batch", argv=("/bin/sh", "-c", script))
    containerd.remove_pod(pod)
    tripshark.post(alert(pod, f"{pod.ip}:40000->{containerd.gateway}:{outside}"))
    (incident,) = tripshark.wait_sealed()
    assert details(incident)["who"]["pod"] == "job-1"  # type: ignore[index]
    (file,) = evidence_files(incident)
    opened = tshark(file, "-Y", f"tcp.flags.syn == 1 && tcp.port == {outside}")
    assert len(opened) >= 2, json.dumps(incident)


def test_annotations_and_selectors_decide_who_is_recorded(
    machine: Callable[..., Machine], containerd: Containerd
) -> None:
    """Off: nothing of it is kept, and an alert about it is refused with the reason. Headers: no payload is kept."""
    tripshark = start(
        machine,
        containerd,
        record={"privacy": {"hr": "headers"}},
    )
    off = {"tripshark.dev/record": "off"}
    with (
        containerd.pod("secret", "shop", annotations=off) as secret,
        containerd.pod("people", "hr", argv=WEB) as people,
    ):
        recorded(tripshark, people)

        def silent() -> bool:
            targets = tripshark.get("/v1/targets")["targets"]
            return any(
                each["title"] == "shop/secret" and not each["rings"]  # type: ignore[index]
                for each in targets  # type: ignore[union-attr]
            )

        wait_for(silent, "the annotated pod to be recorded no more")
        tripshark.post(alert(secret, f"{secret.ip}:40000->{people.ip}:8080"))
        wait_for(
            lambda: any(
                "not recorded" in str(each)
                for each in tripshark.get("/v1/refusals")["refusals"]  # type: ignore[union-attr]
            ),
            "the refusal",
        )
        page = subprocess.run(
            ["curl", "-s", f"http://{people.ip}:8080/"], capture_output=True, text=True, check=True
        )
        assert page.stdout
        tripshark.post(alert(people, f"{containerd.gateway}:40000->{people.ip}:8080"))
        (incident,) = tripshark.wait_sealed()
        (file,) = evidence_files(incident)
        sizes = [
            int(each) for each in tshark(file, "-Y", "eth", "-T", "fields", "-e", "frame.cap_len")
        ]
        assert sizes
        assert max(sizes) <= 128
