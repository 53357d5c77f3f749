"""The schemas of what `shapes` writes: incidents, parts, alerts and targets, as OpenAPI says them."""

from __future__ import annotations

from typing import Final

from tripshark.model.evidence import Word
from tripshark.model.filter import Scope
from tripshark.model.incident import State
from tripshark.web.schema import (
    ANYTHING,
    FLAG,
    NUMBER,
    TEXT,
    TIME,
    WHOLE,
    Schema,
    mapping,
    maybe,
    named,
    obj,
    one_of,
    rows,
    text,
)

MAX_ALERTS: Final = 500  # with one incident

_WHEN: Final = {"t0": maybe(TIME), "opened": maybe(TIME), "sealed": maybe(TIME)}
_INCIDENT: Final[dict[str, Schema]] = {
    "id": TEXT,
    "state": one_of(*(each.value for each in State)),
    "ledger": one_of(*(each.value for each in Word)),
    **dict.fromkeys(("target", "target_key", "namespace", "pod", "rule", "falco_rule", "priority", "folder", "summary", "manifest_sha256", "problem"), TEXT),
    **_WHEN,
    **dict.fromkeys(("t0_ns", "opened_ns", "sealed_ns", "alerts", "packets", "bytes"), WHOLE),
    "namespaces": rows(TEXT),
}  # fmt: skip
INCIDENT: Final = named("Incident", obj(_INCIDENT))

_REFUSAL: Final = obj(dict.fromkeys(("reason", "message", "hint", "rule"), TEXT))
ALERT: Final = named(
    "Alert",
    obj(
        {
            **dict.fromkeys(("id", "rule", "priority", "source", "output", "via", "target"), TEXT),
            "time": maybe(TIME),
            "time_ns": WHOLE,
            "received_ns": WHOLE,
            "incident": maybe(TEXT),
            "refusal": maybe(_REFUSAL),
            "repeats": WHOLE,
            "last_ns": WHOLE,
        }
    ),
)
WHOLE_INCIDENT: Final = named(
    "WholeIncident",
    obj({**_INCIDENT, "plan": mapping(), "alert_list": rows(ALERT, most=MAX_ALERTS)}),
)
PART: Final = named(
    "Part",
    obj(
        {
            "node": TEXT,
            "incident": TEXT,
            "signed_by": TEXT,
            "files": rows(obj({"name": TEXT, "sha256": TEXT, "bytes": WHOLE})),
            **{name: each for name, each in _INCIDENT.items() if name not in ("id", "plan")},
        }
    ),
)
_RING: Final = obj(
    {
        "ring": TEXT,
        "interface": TEXT,
        "live": FLAG,
        **dict.fromkeys(("bytes", "snaplen", "flow_cut", "packets", "drops", "blocks", "oldest_ns", "newest_ns"), WHOLE),
    }
)  # fmt: skip
TARGET: Final = named(
    "Target",
    obj(
        {
            **dict.fromkeys(("key", "name", "title", "kind", "mode", "note"), TEXT),
            "alive": FLAG,
            "seen_born": FLAG,
            "since": maybe(TIME),
            "gone": maybe(TIME),
            **dict.fromkeys(("since_ns", "gone_ns", "oldest_ns", "newest_ns", "packets", "drops", "bytes", "weight"), WHOLE),
            "history_seconds": NUMBER,
            "identity": mapping(),
            "addresses": rows(TEXT),
            "rings": rows(_RING),
        }
    ),
)  # fmt: skip

RULES: Final = obj({"rules": rows(mapping())})
REFUSALS: Final = obj({"refusals": rows(ALERT), "counts": mapping(WHOLE)})
_CHECKS: Final = mapping(obj({"ok": FLAG, "problem": TEXT}, optional=("problem",)))
READY: Final = obj(
    {"ready": FLAG, "checks": _CHECKS, "upstream": ANYTHING, "warnings": rows(TEXT)},
    optional=("upstream", "warnings"),
)
_LONG: Final[Schema] = {
    "description": "such as 30s, or seconds",
    "anyOf": [
        {"type": "string", "pattern": "^[0-9]{1,3}(\\.[0-9]{1,3})?(ms|s|m)?$"},
        {"type": "number", "minimum": 0, "maximum": 86_400},
        {"type": "null"},
    ],
}
_PLAIN: Final = text(most=1024, pattern="^[^\\u0000-\\u001f]*$")
CAPTURE: Final = obj(
    {
        "target": text(least=1, most=1024, pattern="^[^\\u0000-\\u001f]+$"),
        "before": _LONG,
        "after": _LONG,
        "scope": one_of("", *(each.value for each in Scope)),
        "peer": _PLAIN,
        "filter": _PLAIN,
        "max_bytes": {
            "description": "such as 50MB, or bytes",
            "anyOf": [
                {"type": "string", "pattern": "^[1-9][0-9]{0,5}(kB|MB)$"},
                {"type": "integer", "minimum": 1, "maximum": 2**50 - 1},
                {"type": "null"},
            ],
        },
    },
    optional=("before", "after", "scope", "peer", "filter", "max_bytes"),
)
FILES: Final = (
    "application/octet-stream",
    "application/x-pcapng",
    "application/vnd.tcpdump.pcap",
    "application/json",
    "application/jsonl",
    "text/html",
    "text/markdown",
)
