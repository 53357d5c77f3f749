"""The signature beside a manifest: a DSSE envelope around an in-toto statement, Ed25519.

The statement names `manifest.json` with its SHA-256, so any tool that knows in-toto attestations can read it. A key's
id is the SHA-256 of its public half in DER, as `openssl pkey -pubin -in signing.pub -outform DER | sha256sum` prints it.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
import secrets
import stat
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from tripshark.errors import BadInput, NotFound, NotVerified, Permanent
from tripshark.model.alert import Json
from tripshark.model.evidence import FORMAT, canonical, read_json
from tripshark.store.disk import make_folders, refused, sync_folder

NAME: Final = "manifest.sig"
PRIVATE: Final = "signing.key"
PUBLIC: Final = "signing.pub"
MAX_BYTES: Final = 64 << 10

_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = f"urn:{FORMAT.replace('/', ':')}"


class Signer:
    """The key this data folder signs with."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.key_id = key_id(key.public_key())
        self.public_key = base64.b64encode(key.public_key().public_bytes_raw()).decode()

    @classmethod
    def of(cls, folder: Path) -> Signer:
        """The key in this folder, made at first use (0600, its public half beside it).

        Raises `Permanent` when there is a key that cannot be used, `Transient` when the disk refuses.
        """
        try:
            make_folders(folder)
            path = folder / PRIVATE
            if not path.exists():
                pem = Ed25519PrivateKey.generate().private_bytes(
                    Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
                )
                _create(path, pem, 0o600)
            key = _private(path)
            public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            if not (folder / PUBLIC).exists():
                _create(folder / PUBLIC, public, 0o644)
            if (folder / PUBLIC).read_bytes() != public:
                raise Permanent(
                    "the public key beside the signing key is another's",
                    where=str(folder / PUBLIC),
                    hint=f"restore both from a backup, or remove {PUBLIC} to have it written anew",
                )
        except OSError as error:
            raise refused(error, folder) from error
        return cls(key)

    def envelope(self, incident: str, manifest: bytes) -> bytes:
        """`manifest.sig` for these bytes of a manifest."""
        payload = canonical(_statement(incident, manifest))
        signature = self._key.sign(_pae(payload))
        return (
            canonical(
                {
                    "payloadType": _PAYLOAD_TYPE,
                    "payload": base64.b64encode(payload).decode(),
                    "signatures": [
                        {"keyid": self.key_id, "sig": base64.b64encode(signature).decode()}
                    ],
                },
                indent=2,
            )
            + b"\n"
        )


def key_id(key: Ed25519PublicKey) -> str:
    """SHA-256 of the key in DER, hexadecimal."""
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def public_key(path: Path) -> Ed25519PublicKey:
    """The Ed25519 public key of a PEM file. Raises `NotFound`, `BadInput`."""
    try:
        with path.open("rb") as file:
            pem = file.read(MAX_BYTES)
    except FileNotFoundError:
        raise NotFound("there is no such key", where=str(path)) from None
    except OSError as error:
        raise BadInput(f"the key cannot be read: {error.strerror}", where=str(path)) from error
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise BadInput(
            "not an Ed25519 public key in PEM",
            where=str(path),
            hint=f"the public half is <data>/keys/{PUBLIC} of the machine that sealed",
        )
    return key


def public_key_of(text: str) -> Ed25519PublicKey:
    """The key that a manifest names: 32 bytes in base64. Raises `NotVerified`."""
    try:
        return Ed25519PublicKey.from_public_bytes(base64.b64decode(text, validate=True))
    except ValueError as error:
        raise _not("the manifest names a public key that is none") from error


def check(envelope: bytes, *, incident: str, manifest: bytes, key: Ed25519PublicKey) -> None:
    """The envelope is this key's signature over exactly this manifest, or `NotVerified`."""
    payload, signatures = _opened(envelope)
    ours = [sig for name, sig in signatures if name == key_id(key)]
    if not ours:
        named = ", ".join(name[:16] for name, _ in signatures[:4])
        raise _not(f"signed by key {named or '(none)'}, not by {key_id(key)[:16]}")
    try:
        key.verify(ours[0], _pae(payload))
    except InvalidSignature:
        raise _not("the signature is not this key's") from None
    if payload != canonical(_statement(incident, manifest)):
        raise _not("the signature is over another manifest")


def signers(envelope: bytes) -> tuple[str, ...]:
    """Ids of the keys that claim to have signed; nothing is checked but the form. Raises `NotVerified`."""
    return tuple(name for name, _ in _opened(envelope)[1])


def _opened(envelope: bytes) -> tuple[bytes, list[tuple[str, bytes]]]:
    try:
        told = read_json(envelope, NAME)
    except BadInput as error:
        raise _not(error.message) from None
    match told:
        case {"payloadType": str(kind), "payload": str(payload), "signatures": list(signatures)}:
            pass
        case _:
            raise _not("it is no DSSE envelope")
    if kind != _PAYLOAD_TYPE:
        raise _not(f"its payload is {kind[:60]!r}")
    try:
        return base64.b64decode(payload, validate=True), [_signature(each) for each in signatures]
    except (binascii.Error, ValueError):
        raise _not("it is not base64") from None


def _signature(told: Json) -> tuple[str, bytes]:
    match told:
        case {"keyid": str(name), "sig": str(text)}:
            return name, base64.b64decode(text, validate=True)
        case _:
            raise _not("it is no DSSE envelope")


def _statement(incident: str, manifest: bytes) -> dict[str, Json]:
    return {
        "_type": _STATEMENT,
        "subject": [
            {"name": "manifest.json", "digest": {"sha256": hashlib.sha256(manifest).hexdigest()}}
        ],
        "predicateType": _PREDICATE,
        "predicate": {"incident": incident},
    }


def _pae(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: type and length are signed along."""
    kind = _PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def _private(path: Path) -> Ed25519PrivateKey:
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise Permanent(
            "others may read the signing key",
            where=str(path),
            hint="chmod 600 if nobody has; otherwise make a new key and say so to whoever trusts it",
        )
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise Permanent(
            "the signing key cannot be read",
            where=str(path),
            hint="restore it from a backup, or move it away to have a new one made",
        )
    return key


def _create(path: Path, content: bytes, mode: int) -> None:
    """Complete or not at all, and never over another's: two processes that start together agree on one key."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        os.fchmod(fd, mode)
        os.write(fd, content)
        os.fsync(fd)
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)
    finally:
        os.close(fd)
        fresh.unlink()
    sync_folder(path.parent)


def _not(why: str) -> NotVerified:
    return NotVerified(f"the signature does not hold: {why}", where=NAME)
