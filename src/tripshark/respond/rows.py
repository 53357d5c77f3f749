"""The alert as a row of Wireshark's packet list: journal fields, each value as hostile as it came."""

from __future__ import annotations

from collections.abc import Mapping

from tripshark.model.incident import Incident
from tripshark.model.target import Target
from tripshark.model.text import visible
from tripshark.ports import AlertRow

MAX_VALUE = (
    4096  # bytes of one field; the alert itself stands whole in FALCO_JSON and the manifest
)
MAX_BODY = 200_000


def alert_fields(
    row: AlertRow, incident: Incident | None, target: Target | None
) -> Mapping[str, str | bytes]:
    """Fields of one systemd journal entry; names that journald knows become typed in Wireshark.

    Without an incident it led to no capture.
    """
    alert = row.accepted.alert
    title = target.title if target else incident.title if incident else ""
    about = alert.cmdline or alert.process or ""
    message = f"FALCO {alert.priority.title}: {alert.rule} | {title}"
    if about:
        message += f" | {about}"
    if row.repeats:
        message += f" | seen {row.repeats + 1} times"
    if row.refusal is not None:
        message += f" | not captured: {row.refusal.reason.value}"
    told: dict[str, object] = {
        # for people, in lists and on terminals; the other fields are as they came
        "MESSAGE": visible(message),
        "PRIORITY": str(int(alert.priority)),
        "SYSLOG_IDENTIFIER": "falco",
        "_HOSTNAME": alert.hostname,
        "_PID": alert.pid,
        "_COMM": alert.process,
        "_EXE": alert.fields.get("proc.exepath"),
        "_CMDLINE": alert.cmdline,
        "FALCO_RULE": alert.rule,
        "FALCO_SOURCE": alert.source,
        "FALCO_TAGS": ",".join(alert.tags),
        "K8S_NAMESPACE": target.identity.namespace if target else alert.namespace,
        "K8S_POD": target.identity.pod if target else alert.pod,
        "CONTAINER_ID": alert.container_id,
        "TRIPSHARK_INCIDENT": incident.id if incident else "",
        "TRIPSHARK_ALERT": row.accepted.id,
    }
    fields: dict[str, str | bytes] = {
        name: str(value).encode()[:MAX_VALUE].decode(errors="ignore")
        for name, value in told.items()
        if value not in (None, "")
    }
    fields["FALCO_JSON"] = row.accepted.body[:MAX_BODY]
    return fields
