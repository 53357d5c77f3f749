"""TLS greetings of one packet: what a client offers, with its fingerprints, and what a server chose."""

from __future__ import annotations

import re

import msgspec

from tripshark.formats.ja4 import ja4
from tripshark.formats.tls_names import cipher_name, version_name
from tripshark.formats.tshark_fields import Layers, Values, number

_CLIENT_HELLO, _SERVER_HELLO = 1, 2
_MAX_VALUES = 64  # of one field in one packet
_SIGNATURE_ALGORITHMS = 13
_WITH_SIGNATURES = frozenset({_SIGNATURE_ALGORITHMS, 34, 50})
"""Extensions whose contents tshark writes to the same field: delegated credentials, and those for certificates."""
_MD5 = re.compile(r"[0-9a-f]{32}")


class Hello(msgspec.Struct, frozen=True, gc=False):
    """A TLS client hello, over TCP or in a QUIC packet."""

    names: tuple[str, ...]  # SNI
    alpn: tuple[str, ...]
    ja3: str = ""  # MD5 in hexadecimal
    ja4: str = ""


class Chosen(msgspec.Struct, frozen=True, gc=False):
    """A TLS server hello: `TLS 1.3`, `TLS_AES_128_GCM_SHA256`."""

    version: str
    cipher: str


def client_hello(of: Layers, *, quic: bool) -> Hello | None:
    """None where the packet holds none. Fingerprints are told only where it is the packet's one handshake message,
    since tshark's flat lists would mix the extensions of several.
    """
    kinds = [number(each) for each in of.tls_handshake_type[:_MAX_VALUES]]
    if _CLIENT_HELLO not in kinds:
        return None
    alone = len(of.tls_handshake_type) == 1
    alpn = tuple(map(str, of.tls_handshake_extensions_alpn_str[:_MAX_VALUES]))
    ja3 = str(of.tls_handshake_ja3[0]) if alone and of.tls_handshake_ja3 else ""
    return Hello(
        names=tuple(map(str, of.tls_handshake_extensions_server_name[:_MAX_VALUES])),
        alpn=alpn,
        ja3=ja3 if _MD5.fullmatch(ja3) else "",
        ja4=_fingerprint(of, alpn, quic=quic) if alone else "",
    )


def server_hello(of: Layers) -> Chosen | None:
    """None where the packet holds none, or more than one greeting. A retry request chooses nothing yet."""
    kinds = [number(each) for each in of.tls_handshake_type[:_MAX_VALUES]]
    if kinds.count(_SERVER_HELLO) != 1 or _CLIENT_HELLO in kinds:
        return None
    versions = of.tls_handshake_extensions_supported_version or of.tls_handshake_version
    if not versions or len(of.tls_handshake_ciphersuite) != 1:
        return None
    return Chosen(
        version=version_name(number(versions[0])),
        cipher=cipher_name(number(of.tls_handshake_ciphersuite[0])),
    )


def _fingerprint(of: Layers, alpn: tuple[str, ...], *, quic: bool) -> str:
    extensions = _numbers(of.tls_handshake_extension_type)
    signatures = _signatures(of, extensions)
    if not of.tls_handshake_version or signatures is None:
        return ""
    return ja4(
        quic=quic,
        version=number(of.tls_handshake_version[0]),
        versions=_numbers(of.tls_handshake_extensions_supported_version),
        ciphers=_numbers(of.tls_handshake_ciphersuite),
        extensions=extensions,
        alpn=alpn[0] if alpn else None,
        signatures=signatures,
    )


def _signatures(of: Layers, extensions: list[int]) -> list[int] | None:
    """Those of the signature_algorithms extension, dealt out by tshark's own lengths; None where they do not add up."""
    having = [each for each in extensions if each in _WITH_SIGNATURES]
    lengths, told = _numbers(of.tls_handshake_sig_hash_alg_len), of.tls_handshake_sig_hash_alg
    if len(having) != len(lengths) or sum(lengths) != 2 * len(told):
        return None
    at = 0
    for kind, length in zip(having, lengths, strict=True):
        if kind == _SIGNATURE_ALGORITHMS:
            return _numbers(told[at : at + length // 2])
        at += length // 2
    return []


def _numbers(values: Values) -> list[int]:
    return [number(each) for each in values]
