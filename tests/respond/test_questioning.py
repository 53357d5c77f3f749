"""The analyst is told what the evidence knows: alerts in a line each, the node's and the API server's addresses."""

from __future__ import annotations

from ipaddress import ip_address

from tripshark.model.alert import Accepted, Alert, AlertId, Connection, Endpoint, Priority
from tripshark.model.evidence import incident_id
from tripshark.model.incident import Incident, State
from tripshark.model.question import MAX_QUESTION_ALERTS
from tripshark.model.target import TargetKey
from tripshark.ports import AlertRow
from tripshark.respond.questioning import question

FLOW = Connection(client=Endpoint(), server=Endpoint(ip_address("203.0.113.66"), 4444))
NAMES = {
    "10.96.0.1": "default/svc/kubernetes",
    "10.0.0.7": "node/worker-2",
    "10.0.0.8": "node/worker-3",
    "10.244.1.7": "payments/checkout-7d9f",
}


def row(at: int, connection: Connection | None = None) -> AlertRow:
    alert = Alert(
        rule=f"Rule {at}",
        priority=Priority.CRITICAL,
        time_ns=at,
        tags=("network", "T1071"),
        connection=connection,
    )
    accepted = Accepted(
        id=AlertId(f"a-{at}"), seq=at, received_ns=at, alert=alert, body=b"{}", via="webhook"
    )
    return AlertRow(accepted=accepted, incident=None, refusal=None)


def test_the_question_holds_what_claims_need() -> None:
    """Every alert in a line, at most fifty; connections where an alert names one; addresses by their names."""
    incident = Incident(
        id=incident_id("i-1"),
        state=State.SEALED,
        target=TargetKey("payments/checkout-7d9f"),
        title="payments/checkout-7d9f",
        namespace="payments",
        pod="checkout-7d9f",
        rule="r",
        falco_rule="Rule 0",
        priority="Critical",
        t0_ns=5,
        opened_ns=6,
        manifest_sha256="ab",
    )
    rows = [row(0, FLOW), *(row(at) for at in range(1, 80))]
    asked = question(
        incident,
        rows,
        addresses=["10.244.1.7", "10.244.1.7"],
        names=NAMES,
        others=2,
        node="worker-2",
    )
    assert asked.connections == (FLOW,)
    assert len(asked.alerts) == MAX_QUESTION_ALERTS
    assert (asked.alerts[0].rule, asked.alerts[0].priority) == ("Rule 0", "Critical")
    assert asked.alerts[0].tags == ("network", "T1071")
    assert asked.api_server == ("10.96.0.1",)
    assert asked.node_addresses == ("10.0.0.7",)
    assert asked.addresses == ("10.244.1.7",)
    assert (asked.t0_ns, asked.others, asked.manifest_sha256) == (5, 2, "ab")
