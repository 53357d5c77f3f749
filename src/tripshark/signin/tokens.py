"""Whose token this is: the operator's list of tokens, compared without telling how near a guess came."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256

from tripshark.model.role import Grant


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One token and who has it. Never printed."""

    grant: Grant
    value: str = field(repr=False)


class Tokens:
    """Keeps digests only, so that a dump of memory or a log of objects holds no token."""

    def __init__(self, tokens: Iterable[Token]) -> None:
        self._known = [(_digest(each.value), each.grant) for each in tokens]

    def __len__(self) -> int:
        return len(self._known)

    def of(self, token: str) -> Grant | None:
        """None: nobody's. Every known token is compared, whichever fits."""
        offered = _digest(token)
        found = None
        for digest, grant in self._known:
            if hmac.compare_digest(digest, offered):
                found = grant
        return found


def _digest(token: str) -> bytes:
    return sha256(b"token\0" + token.encode("utf-8", "surrogatepass")).digest()
