"""Parameters that several routes take, described once."""

from __future__ import annotations

from typing import Final

from tripshark.web.openapi import Parameter
from tripshark.web.query import MAX_LIMIT
from tripshark.web.schema import whole

INCIDENT_ID: Final = Parameter("id", "path", "Id of the incident.")
NODE: Final = Parameter("node", "path", "Name of the node.")
FILE: Final = Parameter(
    "file",
    "query",
    "The capture file: evidence.pcapng (what is meant when nothing is given), NODE/evidence.pcapng, merged.pcapng.",
)
SINCE: Final = Parameter(
    "since", "query", "Only what is not older than this: 2h, or an RFC 3339 time."
)
LIMIT: Final = Parameter(
    "limit", "query", "At most this many, 1 to 500; default 50.", whole(1, MAX_LIMIT, default=50)
)
