"""Which name an address gets."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.formats.making import make_packets
from tests.respond.worlds import ManualClock, an_alert
from tripshark.formats import pcapng
from tripshark.formats.ends import ends
from tripshark.formats.packets import Packets
from tripshark.model.addresses import AddressBook, Holder, HolderKind
from tripshark.model.alert import Accepted, AlertId, Connection, Endpoint
from tripshark.model.evidence import IncidentId, manifest_json
from tripshark.model.filter import Rung, Scope
from tripshark.model.incident import Incident, State
from tripshark.model.plan import Plan
from tripshark.model.target import (
    Identity,
    Interface,
    RingState,
    Target,
    TargetKey,
    TargetKind,
)
from tripshark.ports import AlertRow
from tripshark.programs import reporting
from tripshark.respond.details import Host
from tripshark.respond.names import MAX_NAME, Named, comments, joint, named, names
from tripshark.respond.seal import seal
from tripshark.respond.spool import PartState, RingNote, Spool
from tripshark.store.vault import FolderVault


def target(pod: str, *addresses: str, since_ns: int = 0, gone_ns: int = 0) -> Target:
    ring = RingState(
        ring=pod,
        interface=Interface(name="eth0", ifindex=2, hardware_type=1, addresses=addresses),
        live=not gone_ns,
        bytes=0,
        snaplen=0,
    )
    return Target(
        key=TargetKey(pod),
        kind=TargetKind.NETNS,
        name=pod,
        inode=1,
        since_ns=since_ns,
        gone_ns=gone_ns,
        identity=Identity(namespace="shop", pod=pod),
        rings=(ring,),
    )


def test_an_address_is_called_by_its_pod() -> None:
    """IPv4 and IPv6, without the prefix length; link-local and loopback addresses mean nothing to others."""
    got = names(
        [target("web", "10.0.0.1/24", "2001:db8::1/64", "fe80::1/64", "127.0.0.1/8")],
        since_ns=0,
        until_ns=10,
    )
    assert got == {"10.0.0.1": "shop/web", "2001:db8::1": "shop/web"}


def test_an_address_that_changed_hands_has_both_names() -> None:
    """Oldest owner first; who lived outside the window is left out."""
    people = [
        target("new", "10.0.0.1/24", since_ns=50),
        target("old", "10.0.0.1/24", since_ns=0, gone_ns=40),
        target("ancient", "10.0.0.1/24", since_ns=0, gone_ns=5),
        target("future", "10.0.0.1/24", since_ns=900),
    ]
    assert names(people, since_ns=10, until_ns=100) == {"10.0.0.1": "shop/old|shop/new"}


@given(st.lists(st.text(min_size=1, max_size=90), min_size=1, max_size=6, unique=True))
def test_a_joint_name_fits_what_wireshark_shows(owners: list[str]) -> None:
    """However many and however long, at most 63 bytes of whole characters."""
    assert len(joint(owners).encode(errors="strict")) <= MAX_NAME


# ------------------------------------------------------------------------------- valid when they were seen


S = 1_000_000_000
POD = HolderKind.POD


def frame(source: str, destination: str) -> bytes:
    """An Ethernet frame with an empty UDP datagram, IPv4."""
    head = struct.pack("!BBHHHBBH", 0x45, 0, 28, 0, 0, 64, 17, 0)
    both = ip_address(source).packed + ip_address(destination).packed
    total = sum(struct.unpack("!10H", head + both))
    check = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    ports = struct.pack("!HHHH", 1000, 2000, 8, 0)
    return bytes(12) + b"\x08\x00" + head[:10] + struct.pack("!H", check) + both + ports


def seen(*said: tuple[float, str, str], ring: int = 0) -> Packets:
    """Packets at these seconds, from and to these addresses."""
    return make_packets(
        [frame(a, b) for _, a, b in said],
        time_ns=[round(at * S) for at, _, _ in said],
        seq=[1] * len(said),
        pos=list(range(len(said))),
        source=[ring] * len(said),
    )


def called(
    packets: Packets,
    *people: Target,
    book: AddressBook | None = None,
    rings: tuple[Target, ...] = (),
    mentioned: tuple[str, ...] = (),
    window: tuple[float, float] = (0, 100),
) -> tuple[dict[str, Named], dict[int, list[str]]]:
    both = ends(packets, [1] * 8)
    found = named(
        people,
        book,
        packets=packets,
        ends=both,
        rings=rings,
        since_ns=round(window[0] * S),
        until_ns=round(window[1] * S),
        mentioned=mentioned,
    )
    return found, comments(found, packets=packets, ends=both, rings=rings)


OLD = target("old", "10.0.0.1/24", since_ns=10 * S, gone_ns=40 * S)
NEW = target("new", "10.0.0.1/24", since_ns=50 * S)
FOE = "203.0.113.66"


@pytest.mark.parametrize(
    ("at", "name", "said"),
    [
        ((60, 70), "shop/new", []),
        ((20, 30), "shop/old", []),
        ((30, 60), "shop/old|shop/new", ["shop/old", "shop/new"]),
        ((30, 45, 60), "shop/old|shop/new", ["shop/old", "nobody that is known", "shop/new"]),
    ],
)
def test_a_name_is_valid_when_its_packets_were_seen(
    at: tuple[float, ...], name: str, said: list[str]
) -> None:
    """After the hand-over only the second name, before it only the first; across it both, and each packet says whose."""
    packets = seen(*((each, "10.0.0.1", FOE) for each in at))
    found, notes = called(packets, OLD, NEW)
    assert found["10.0.0.1"].name == name
    assert FOE not in found
    assert [notes[each] for each in sorted(notes)] == [
        [f"10.0.0.1 then belonged to {each}"] for each in said
    ]
    assert found["10.0.0.1"].changed_hands == bool(said)


def test_packets_of_others_do_not_decide_for_an_address() -> None:
    """The evidence spans the hand-over, the address' own packets do not: only who sent them is named."""
    packets = seen((20, "10.0.0.9", FOE), (60, "10.0.0.1", FOE), (70, "10.0.0.1", FOE))
    found, notes = called(packets, OLD, NEW)
    assert found["10.0.0.1"].name == "shop/new"
    assert notes == {}
    silent, _ = called(seen((20, "10.0.0.9", FOE), (60, "10.0.0.9", FOE)), OLD, NEW)
    assert silent["10.0.0.1"].name == "shop/old|shop/new"


def test_peers_services_and_nodes_are_named_from_the_history() -> None:
    """Both ends of each flow, whatever an alert mentions; nobody who is not there."""
    book = AddressBook()
    for address, holder in (
        ("10.0.0.5", Holder(kind=POD, name="shop/peer", uid="p")),
        ("10.96.0.1", Holder(kind=HolderKind.SERVICE, name="shop/web")),
        ("192.0.2.9", Holder(kind=HolderKind.NODE, name="worker")),
        ("10.0.0.77", Holder(kind=POD, name="shop/absent", uid="a")),
    ):
        book.holds(address, holder, 0)
    packets = seen((60, "10.0.0.1", "10.0.0.5"), (61, "192.0.2.9", "10.0.0.1"))
    found, _ = called(packets, NEW, book=book, mentioned=("10.96.0.1", "127.0.0.1", "224.0.0.1"))
    assert {address: each.name for address, each in found.items()} == {
        "10.0.0.1": "shop/new",
        "10.0.0.5": "shop/peer",
        "192.0.2.9": "node/worker",
        "10.96.0.1": "shop/svc/web",
    }


def test_what_the_recorder_saw_is_believed_before_what_was_told_later() -> None:
    """The API tells of a pod's address late: where the recorder knows who was there, that is who it was."""
    book = AddressBook()
    book.holds("10.0.0.1", Holder(kind=POD, name="shop/other", uid="o"), 0)
    book.holds("10.0.0.1", Holder(kind=POD, name="shop/old", uid="1"), 12 * S)
    book.holds("10.0.0.1", Holder(kind=POD, name="shop/new", uid="2"), 52 * S)
    packets = seen(*((each, FOE, "10.0.0.1") for each in (5, 11, 45, 51, 60)))
    found, notes = called(packets, OLD, NEW, book=book)
    assert [notes[each][0].rpartition("/")[2] for each in range(5)] == [
        "other",
        "old",
        "old",
        "new",
        "new",
    ]
    assert found["10.0.0.1"].name == "shop/other|shop/old|shop/new"


def test_the_same_address_at_once_is_told_apart_by_where_it_was_seen() -> None:
    """Two namespaces that do not know of each other: each one's own packets are its own."""
    one, other = (target(name, "10.0.0.1/24", since_ns=S) for name in ("one", "two"))
    packets = seen((60, "10.0.0.1", FOE))
    for ring, name in ((0, "shop/one"), (1, "shop/two")):
        here = replace(packets, source=packets.source + ring)
        found, _ = called(here, one, other, rings=(one, other))
        assert found["10.0.0.1"].name == name


def test_a_hosts_addresses_are_the_nodes() -> None:
    """Also where its rings stand for a pod in its network; without a node's name they have none."""
    host = replace(
        target("proxy", "192.0.2.1/24"),
        kind=TargetKind.HOST,
        identity=Identity(namespace="shop", pod="proxy", node="n1"),
    )
    found, _ = called(seen((1, "192.0.2.1", FOE)), host)
    assert found["192.0.2.1"].name == "node/n1"
    found, _ = called(seen(), replace(host, identity=Identity(pod="proxy")))
    assert found == {}


def test_of_many_owners_the_first_and_the_last_are_named() -> None:
    """A busy node gives its addresses away again and again."""
    assert joint([f"shop/pod-{each}" for each in range(40)]) == "shop/pod-0|+38|shop/pod-39"


# ------------------------------------------------------------------------------- as tshark reads them


def sealed(folder: Path, packets: Packets, *, book: AddressBook | None = None) -> Path:
    """Evidence of a pod, `OLD` and `NEW` having had its peer's address; the folder."""
    watcher = target("watcher", "10.0.0.2/24", since_ns=S)
    vault = FolderVault(folder, clock=ManualClock(200 * S))
    draft = vault.begin(IncidentId("i-1"), 60 * S)
    plan = Plan(
        rule="R",
        rule_hash="",
        target=watcher.key,
        t0_ns=65 * S,
        before_ns=60 * S,
        after_ns=S,
        idle_ns=0,
        scope=Scope.POD,
        rungs=(Rung(scope=Scope.POD, core=""),),
        snaplen=262_144,
    )
    ring = RingNote(
        ring="r", interface=watcher.rings[0].interface, snaplen=262_144, opened_ns=S, seen=3
    )
    spool = Spool(
        draft, PartState(number=0, plan=plan, target=watcher, until_ns=100 * S, rings=[ring])
    )
    spool._file.write(_interface_block())
    spool.add(packets)
    spool.close()
    incident = Incident(
        id=IncidentId("i-1"),
        state=State.OPEN,
        target=watcher.key,
        title="shop/watcher",
        namespace="shop",
        pod="watcher",
        rule="R",
        falco_rule="F",
        priority="Notice",
        t0_ns=65 * S,
        opened_ns=66 * S,
    )
    connection = Connection(client=Endpoint(ip_address("10.0.0.2"), 1), server=Endpoint())
    alert = replace(an_alert(time_ns=65 * S), connection=connection)
    row = AlertRow(
        accepted=Accepted(
            id=AlertId("a-1"), seq=1, received_ns=66 * S, alert=alert, body=b"{}", via="test"
        ),
        incident=incident.id,
        refusal=None,
    )
    done = seal(
        draft,
        incident,
        alerts=[row],
        host=Host(name="h", kernel="k", clock_source="tsc"),
        neighbours=[OLD, NEW],
        addresses=book,
        now_ns=150 * S,
    )
    evidence = Path(vault.folder(incident.id))
    told = reporting.told(evidence)
    lines = reporting.Reports().write("timeline", [told]).content.splitlines()
    (folder / "timeline").write_text("\n".join(json.loads(each)["message"] for each in lines))
    assert manifest_json(done.manifest)
    return evidence


def _interface_block() -> bytes:

    return pcapng.Interface(name="eth0", description="r", linktype=1, snaplen=262_144).block()


def read_by_tshark(evidence: Path) -> list[list[str]]:
    fields = ("ip.src_host", "ip.dst_host", "frame.comment")
    options = [part for field in fields for part in ("-e", field)]
    run = ["tshark", "-n", "-N", "n", "-r", str(evidence / "evidence.pcapng"), "-Y", "ip"]
    done = subprocess.run(
        [*run, "-T", "fields", *options], capture_output=True, text=True, check=True
    )
    return [line.split("\t") for line in done.stdout.splitlines()]


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_tshark_shows_both_names_and_whose_each_packet_was(tmp_path: Path) -> None:
    """Across the hand-over: the joint name, the owner in each packet's comment, in the timeline, in the manifest."""
    packets = seen(
        (30, "10.0.0.2", "10.0.0.1"), (60, "10.0.0.1", "10.0.0.2"), (61, "10.0.0.2", FOE)
    )
    evidence = sealed(tmp_path, packets)
    assert read_by_tshark(evidence) == [
        ["shop/watcher", "shop/old|shop/new", "10.0.0.1 then belonged to shop/old"],
        ["shop/old|shop/new", "shop/watcher", "10.0.0.1 then belonged to shop/new"],
        ["shop/watcher", FOE, ""],
    ]
    told = json.loads((evidence / "manifest.json").read_bytes())["details"]
    assert told["where"]["names"]["10.0.0.1"] == "shop/old|shop/new"
    assert [
        (each["name"], each["from_ns"], each["to_ns"])
        for each in told["names"]["10.0.0.1"]["holders"]
    ] == [("shop/old", 10 * S, 40 * S), ("shop/new", 50 * S, 0)]
    lines = (tmp_path / "timeline").read_text().splitlines()
    assert [each for each in lines if each.startswith("10.0.0.1")] == [
        "10.0.0.1 belongs to shop/old",
        "10.0.0.1 no longer belongs to shop/old",
        "10.0.0.1 belongs to shop/new",
    ]


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_tshark_shows_only_the_second_name_after_the_hand_over(tmp_path: Path) -> None:
    """No comment, no trace of the first owner, although the window reaches back to him."""
    evidence = sealed(tmp_path, seen((60, "10.0.0.2", "10.0.0.1"), (70, "10.0.0.1", "10.0.0.2")))
    assert read_by_tshark(evidence) == [
        ["shop/watcher", "shop/new", ""],
        ["shop/new", "shop/watcher", ""],
    ]
    assert "shop/old" not in (evidence / "manifest.json").read_text()
    assert "10.0.0.1" not in (tmp_path / "timeline").read_text()
