"""Who has a session: in memory, by digests of random ids, ended by time, by signing out and by a restart.

A session is made at sign-in and at no other time, always under a new id, so an id that somebody planted in a browser
opens nothing. They do not outlive the process: a restart asks everybody to sign in again, which an identity provider
mostly answers by itself.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Final

from tripshark.model.role import Grant

_SECOND = 1_000_000_000
_MAX_ID: Final = 64  # characters; ours have 43
_PER_PERSON: Final = 20  # sessions of one name; the oldest gives way


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One browser of one person. `grant` None: whoever the Kubernetes `token` is of, asked anew each time."""

    key: str  # digest of the id: for records, opens nothing
    name: str
    grant: Grant | None
    csrf: str = field(repr=False)
    began_ns: int
    seen_ns: int
    token: str = field(default="", repr=False)  # the Kubernetes token
    id_token: str = field(default="", repr=False)  # for signing out at the identity provider


class Sessions:
    """At most `most` at once. `idle_s` since the last request or `absolute_s` since sign-in end one."""

    def __init__(self, *, idle_s: float, absolute_s: float, most: int) -> None:
        self._idle_ns = round(idle_s * _SECOND)
        self._absolute_ns = round(absolute_s * _SECOND)
        self._most = most
        self._by_key: dict[str, Session] = {}  # the one that was seen longest ago first

    def __len__(self) -> int:
        return len(self._by_key)

    def begin(
        self,
        name: str,
        now_ns: int,
        *,
        grant: Grant | None = None,
        token: str = "",
        id_token: str = "",
    ) -> tuple[str, Session]:
        """A new session and its id, which is told once. Where there are too many, the one seen longest ago ends."""
        id = secrets.token_urlsafe(32)
        session = Session(
            key=_key(id),
            name=name,
            grant=grant,
            csrf=secrets.token_urlsafe(32),
            began_ns=now_ns,
            seen_ns=now_ns,
            token=token,
            id_token=id_token,
        )
        self._forget_old(now_ns)
        own = [each.key for each in self._by_key.values() if each.name == name]
        for key in own[: max(0, len(own) - _PER_PERSON + 1)]:
            del self._by_key[key]
        while len(self._by_key) >= self._most:
            del self._by_key[next(iter(self._by_key))]
        self._by_key[session.key] = session
        return id, session

    def of(self, id: str, now_ns: int) -> Session | None:
        """The session of this id, which is thereby seen; None: it never was, or is over."""
        if not id or len(id) > _MAX_ID:
            return None
        key = _key(id)
        known = self._by_key.pop(key, None)
        if known is None or self._is_over(known, now_ns):
            return None
        seen = replace(known, seen_ns=max(now_ns, known.seen_ns))
        self._by_key[key] = seen
        return seen

    def end(self, id: str) -> Session | None:
        """Signed out: the id opens nothing any more."""
        return self._by_key.pop(_key(id), None)

    def _is_over(self, it: Session, now_ns: int) -> bool:
        return now_ns - it.seen_ns >= self._idle_ns or now_ns - it.began_ns >= self._absolute_ns

    def _forget_old(self, now_ns: int) -> None:
        over = [key for key, each in self._by_key.items() if self._is_over(each, now_ns)]
        for key in over:
            del self._by_key[key]


def _key(id: str) -> str:
    return sha256(b"session\0" + id.encode("utf-8", "surrogatepass")).hexdigest()[:32]
