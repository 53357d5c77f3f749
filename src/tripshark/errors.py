"""Every error Tripshark raises on purpose, and what the reader can do about it.

TripsharkError
├── BadInput        bytes or words from outside that are not what they should be  (HTTP 400, exit 2)
│   ├── TooLarge        a body longer than it may be                                  (HTTP 413)
│   ├── TooSlow         a body that did not come in time                              (HTTP 408)
│   └── Unsupported     a body that claims to be something else                       (HTTP 415)
├── NotFound        nothing by that name                                          (HTTP 404, exit 3)
├── NotVerified     evidence does not match its manifest                          (exit 3)
├── Refused         no capture for what was asked, and what would change that        (HTTP 409, exit 3)
├── Denied          the caller may not                                            (HTTP 401/403, exit 1)
├── Permanent       it did not work and trying again will not help                (HTTP 500, exit 1)
└── Transient       it did not work now; another try may, perhaps `after` seconds (HTTP 503, exit 1)
    └── TooMany         more under way than may be                                    (HTTP 429)

A refusal (budget spent, rule says dry-run) is no error but a value: `model.plan.Refusal`; only whoever asked by hand
and waits for the answer gets it as `Refused`.
"""

from __future__ import annotations


class TripsharkError(Exception):
    """What did not work, where, and what to do: the three parts every person is owed."""

    code = "error"
    exit_code = 1
    http_status = 500

    def __init__(self, message: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        parts = [self.message]
        if self.where:
            parts.append(f"at {self.where}")
        if self.hint:
            parts.append(f"→ {self.hint}")
        return " ".join(parts)

    def as_json(self) -> dict[str, dict[str, str]]:
        """The one error shape of every API answer and of `--json`."""
        return {
            "error": {
                "code": self.code,
                "message": self.message,
                "hint": self.hint,
                "where": self.where,
            }
        }


class BadInput(TripsharkError):
    """Foreign bytes or words that cannot be read as what they claim to be."""

    code = "bad_input"
    exit_code = 2
    http_status = 400


class TooLarge(BadInput):
    """A body longer than it may be."""

    code = "too_large"
    http_status = 413


class TooSlow(BadInput):
    """A body that did not come in time."""

    code = "too_slow"
    http_status = 408


class Unsupported(BadInput):
    """A body that claims to be something other than what is taken here."""

    code = "unsupported_media_type"
    http_status = 415


class NotFound(TripsharkError):
    """Nothing is known by that name."""

    code = "not_found"
    exit_code = 3
    http_status = 404


class NotVerified(TripsharkError):
    """Evidence and its manifest disagree."""

    code = "not_verified"
    exit_code = 3


class Refused(TripsharkError):
    """What was asked by hand will not be done; the hint says what would change that."""

    code = "refused"
    exit_code = 3
    http_status = 409


class Denied(TripsharkError):
    """Whoever asked may not."""

    code = "denied"
    http_status = 401


class Permanent(TripsharkError):
    """Another try would fail the same way."""

    code = "failed"


class Transient(TripsharkError):
    """Another try may work, best after `after` seconds."""

    code = "unavailable"
    http_status = 503

    def __init__(
        self, message: str, *, where: str = "", hint: str = "", after: float | None = None
    ) -> None:
        super().__init__(message, where=where, hint=hint)
        self.after = after


class TooMany(Transient):
    """More under way than this client or this machine may have."""

    code = "too_many"
    http_status = 429
