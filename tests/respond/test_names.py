"""Which name an address gets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tripshark.model.target import (
    Identity,
    Interface,
    RingState,
    Target,
    TargetKey,
    TargetKind,
)
from tripshark.respond.names import MAX_NAME, joint, names


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
