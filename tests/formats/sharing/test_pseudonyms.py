"""Pseudonyms keep prefixes, hide addresses, and are the same only under the same key."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripshark.errors import BadInput
from tripshark.formats.sharing.pseudonyms import Pseudonyms

KEY = bytes([21, 34, 23, 141, 51, 164, 207, 128, 19, 10, 91, 22, 73, 144, 125, 16]) + bytes(
    [216, 152, 143, 131, 121, 121, 101, 39, 98, 87, 76, 45, 42, 132, 34, 2]
)
"""The key of the authors' own sample program."""


@pytest.mark.parametrize(
    ("address", "pseudonym"),
    [
        ("128.11.68.132", "135.242.180.132"),
        ("129.118.74.4", "134.136.186.123"),
        ("130.132.252.244", "133.68.164.234"),
        ("141.223.7.43", "141.167.8.160"),
        ("152.163.225.39", "151.140.114.167"),
    ],
)
def test_it_is_crypto_pan(address: str, pseudonym: str) -> None:
    """The sample trace that the authors of Crypto-PAn publish comes out as theirs."""
    assert str(ip_address(Pseudonyms(KEY).ip(ip_address(address).packed))) == pseudonym


def _shared(one: bytes, other: bytes) -> int:
    """How many leading bits are the same."""
    bits = len(one) * 8
    different = int.from_bytes(one, "big") ^ int.from_bytes(other, "big")
    return bits - different.bit_length()


@given(st.data())
def test_prefixes_stay(data: st.DataObject) -> None:
    """Two addresses share as many leading bits as their pseudonyms do."""
    size = data.draw(st.sampled_from([4, 16]))
    # not of the ranges that stay as they are
    pair = [b"\x20" + data.draw(st.binary(min_size=size - 1, max_size=size - 1)) for _ in "12"]
    names = Pseudonyms(KEY)
    assert _shared(*pair) == _shared(*(names.ip(each) for each in pair))


@pytest.mark.parametrize(
    "address", ["0.0.0.0", "127.0.0.1", "255.255.255.255", "224.0.0.251", "::", "::1", "ff02::fb"]
)
def test_nobodys_addresses_stay(address: str) -> None:
    """They tell of no one, and without them the file cannot be read."""
    packed = ip_address(address).packed
    assert Pseudonyms(KEY).ip(packed) == packed


def test_what_ends_in_an_address_is_hidden_to_its_end() -> None:
    """Solicited-node groups, mapped addresses and link-local ones keep what says which they are, no more."""
    names = Pseudonyms(KEY)
    group, mapped, link = (
        ip_address(each).packed
        for each in ("ff02::1:ff12:3456", "::ffff:203.0.113.66", "fe80::1234:5678:9abc:def0")
    )
    assert names.ip(group)[:13] == group[:13]
    assert names.ip(group) != group
    assert names.ip(mapped) == mapped[:12] + names.ip(mapped[12:])
    assert names.ip(link)[:8] == link[:8]
    assert names.ip(link) != link


def test_hardware_addresses_become_nobodys() -> None:
    """Of no vendor, of one station; groups and the empty one stay; the same is the same."""
    names = Pseudonyms(KEY)
    made = names.mac(bytes.fromhex("525400123456"))
    assert made == names.mac(bytes.fromhex("525400123456"))
    assert made[0] & 3 == 2
    assert names.mac(b"\xff" * 6) == b"\xff" * 6
    assert names.mac(bytes(6)) == bytes(6)
    assert len(names) == 1


def test_another_key_is_another_name() -> None:
    """So two files are not joined by whoever has both; a short key is refused."""
    packed = ip_address("203.0.113.66").packed
    assert Pseudonyms(KEY).ip(packed) != Pseudonyms(KEY[::-1]).ip(packed)
    with pytest.raises(BadInput, match="32 bytes"):
        Pseudonyms(b"short")
