"""What a query string asks for: checked, with every unknown word refused instead of ignored."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from datetime import datetime

from starlette.datastructures import QueryParams
from starlette.requests import Request

from tripshark.errors import BadInput
from tripshark.model.evidence import incident_id
from tripshark.model.incident import State
from tripshark.model.units import ns_of
from tripshark.ports import Query

MAX_LIMIT = 500
MAX_TEXT = 253
MAX_ADDRESS = 2048


def incidents(params: QueryParams, now_ns: int) -> Query:
    """The filters of the incident list. Raises `BadInput`."""
    known(params, ("since", "namespace", "pod", "rule", "state", "text", "before", "limit"))
    state = text(params, "state")
    if state and state not in {each.value for each in State}:
        raise BadInput(
            f"no incident is ever {state!r}",
            where="state",
            hint="one of " + ", ".join(each.value for each in State),
        )
    before = text(params, "before")
    return Query(
        since_ns=since(params, now_ns),
        namespace=text(params, "namespace"),
        pod=text(params, "pod"),
        rule=text(params, "rule"),
        state=state,
        text=text(params, "text"),
        before=incident_id(before) if before else None,
        limit=limit(params),
    )


def caller(request: Request) -> str:
    """Where a request comes from, for custody and manifests."""
    return f"api:{request.client.host}" if request.client else "command line"


def known(params: QueryParams, names: Iterable[str]) -> None:
    """Raises `BadInput` for a parameter that is not among `names`, or given twice."""
    names = tuple(names)
    for name in params:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            raise BadInput(
                f"no parameter {name[:60]!r} here",
                where=name[:60],
                hint=f"did you mean {near[0]}?" if near else "known are: " + ", ".join(names),
            )
        if len(params.getlist(name)) > 1:
            raise BadInput(f"{name} is given more than once", where=name)


def text(params: QueryParams, name: str) -> str:
    """A short text, empty when it is not given."""
    value = params.get(name, "")
    if len(value) > MAX_TEXT or "\0" in value:
        raise BadInput(f"{name} is not a name", where=name, hint=f"at most {MAX_TEXT} characters")
    return value


def address(params: QueryParams, name: str) -> str:
    """A path with its query, empty when it is not given; what it says is not checked."""
    value = params.get(name, "")
    if len(value) > MAX_ADDRESS:
        raise BadInput(f"{name} is too long", where=name)
    return value


def limit(params: QueryParams) -> int:
    """How many rows, 1 to 500."""
    value = params.get("limit", "50")
    if not (
        value.isascii() and value.isdigit() and len(value) < 6 and 0 < int(value) <= MAX_LIMIT
    ):
        raise BadInput(f"limit is 1 to {MAX_LIMIT}", where="limit")
    return int(value)


def since(params: QueryParams, now_ns: int) -> int:
    """`2h` (ago) or an RFC 3339 time, as nanoseconds; 0 when it is not given."""
    value = text(params, "since")
    if not value:
        return 0
    try:
        return max(0, now_ns - ns_of(value))
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise ValueError("no zone")  # noqa: TRY301  # handled as every other wrong spelling
        return max(0, int(moment.timestamp() * 1_000_000)) * 1000
    except (ValueError, OverflowError) as error:
        raise BadInput(
            f"{value[:60]!r} is not a time", where="since", hint="2h, or 2026-11-24T12:00:00Z"
        ) from error
