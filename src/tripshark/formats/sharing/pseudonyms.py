"""Addresses replaced so that those which shared a prefix still do, and nobody without the key can go back.

Crypto-PAn (Xu, Fan, Ammar, Moon: "Prefix-Preserving IP Address Anonymization", 2002): bit n of a pseudonym is bit n of
the address, flipped or not by a bit that AES makes of the n bits before it. IPv6 addresses are done the same way.
"""

from __future__ import annotations

import hmac
from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from tripshark.errors import BadInput

KEY_BYTES: Final = 32
_BROADCAST: Final = b"\xff\xff\xff\xff"
_SOLICITED_NODE: Final = IPv6Address("ff02::1:ff00:0").packed[:13]


class Pseudonyms:
    """One key's pseudonyms, remembered: the same address is the same pseudonym throughout."""

    def __init__(self, key: bytes) -> None:
        """`key` is 32 random bytes. Raises `BadInput` for another number."""
        if len(key) != KEY_BYTES:
            raise BadInput(f"a key for pseudonyms has {KEY_BYTES} bytes", where="key")
        self._encrypt = Cipher(algorithms.AES(key[:16]), modes.ECB()).encryptor()  # noqa: S305 - as the paper has it: a pseudorandom function of single blocks
        self._pad = self._encrypt.update(key[16:])
        self._mac_key = key
        self._known: dict[bytes, bytes] = {}

    def __len__(self) -> int:
        """Addresses that have been asked for."""
        return len(self._known)

    def ip(self, packed: bytes) -> bytes:
        """Of 4 or 16 bytes. What says nothing about anybody stays: unspecified, loopback, broadcast, multicast."""
        known = self._known.get(packed)
        if known is None:
            known = self._known[packed] = self._made(packed)
        return known

    def mac(self, packed: bytes) -> bytes:
        """Of 6 bytes: another that belongs to no vendor; groups and nobody stay."""
        if packed[0] & 1 or not any(packed):
            return packed
        known = self._known.get(packed)
        if known is None:
            digest = hmac.new(self._mac_key, packed, sha256).digest()
            known = self._known[packed] = bytes([digest[0] & 0xFC | 2]) + digest[1:6]
        return known

    def _made(self, packed: bytes) -> bytes:
        if len(packed) == 4:
            four = IPv4Address(packed)
            stays = four.is_unspecified or four.is_loopback or four.is_multicast
            return packed if stays or packed == _BROADCAST else self._mapped(packed)
        six = IPv6Address(packed)
        if packed.startswith(_SOLICITED_NODE):  # the end of somebody's address
            return packed[:13] + self._mapped(packed)[13:]
        if six.is_unspecified or six.is_loopback or six.is_multicast:
            return packed
        if six.ipv4_mapped is not None:
            return packed[:12] + self.ip(packed[12:])
        if six.is_link_local:
            return packed[:8] + self._mapped(packed)[8:]
        return self._mapped(packed)

    def _mapped(self, packed: bytes) -> bytes:
        bits = len(packed) * 8
        address = int.from_bytes(packed, "big") << (128 - bits)
        pad = int.from_bytes(self._pad, "big")
        ones = (1 << 128) - 1
        inputs = bytearray()
        for n in range(bits):
            below = ones >> n
            inputs += (address & (ones ^ below) | pad & below).to_bytes(16, "big")
        made = self._encrypt.update(bytes(inputs))
        flips = 0
        for n in range(bits):
            flips = flips << 1 | made[n * 16] >> 7
        return (int.from_bytes(packed, "big") ^ flips).to_bytes(len(packed), "big")
