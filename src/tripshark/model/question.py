"""What the analyst is told about the incident: plain values, nothing it could use elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address

from tripshark.errors import BadInput
from tripshark.model.alert import Address, Connection, Endpoint, Json, Proto
from tripshark.model.reading import Reader

MAX_QUESTION_NAMES = 20_000
MAX_QUESTION_ALERTS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertLine:
    """One of the incident's alerts, in a line."""

    rule: str
    priority: str  # as Falco writes it: "Critical"
    time_ns: int
    tags: tuple[str, ...] = ()  # of the rule: "network", "mitre_command_and_control", "T1071"

    def as_json(self) -> dict[str, Json]:
        """Plain JSON; `from_json` reads it back unchanged."""
        return {
            "rule": self.rule,
            "priority": self.priority,
            "time_ns": self.time_ns,
            "tags": list(self.tags),
        }

    @classmethod
    def from_json(cls, document: Json) -> AlertLine:
        """Raises `BadInput`."""
        of = Reader(document, "alert")
        return cls(
            rule=of.text("rule"),
            priority=of.text("priority"),
            time_ns=of.number("time_ns"),
            tags=of.texts("tags"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What the analyst is told about the alerts and the world around the target."""

    t0_ns: int
    target: str  # "payments/checkout-7d9f"
    addresses: tuple[str, ...]  # the target's own
    connections: tuple[Connection, ...]  # named by the incident's alerts
    names: Mapping[str, str] = field(default_factory=dict)  # address → name, as in the file
    manifest_sha256: str = ""
    others: int = 0  # pods beside the target whose packets are in the same file
    alerts: tuple[AlertLine, ...] = ()  # the first `MAX_QUESTION_ALERTS`
    node_addresses: tuple[str, ...] = ()  # of the node the target ran on
    api_server: tuple[str, ...] = ()  # addresses of the Kubernetes API, where they are known

    def as_json(self) -> dict[str, Json]:
        """Plain JSON; `from_json` reads it back unchanged."""
        return {
            "t0_ns": self.t0_ns,
            "target": self.target,
            "addresses": list(self.addresses),
            "connections": [_connection_as_json(each) for each in self.connections],
            "names": dict(self.names),
            "manifest_sha256": self.manifest_sha256,
            "others": self.others,
            "alerts": [each.as_json() for each in self.alerts],
            "node_addresses": list(self.node_addresses),
            "api_server": list(self.api_server),
        }

    @classmethod
    def from_json(cls, document: Json) -> Question:
        """Raises `BadInput`."""
        of = Reader(document, "question")
        return cls(
            t0_ns=of.number("t0_ns"),
            target=of.text("target"),
            addresses=of.texts("addresses"),
            connections=tuple(_connection_from_json(each) for each in of.rows("connections")),
            names=of.pairs("names", MAX_QUESTION_NAMES),
            manifest_sha256=of.text("manifest_sha256"),
            others=of.number("others"),
            alerts=tuple(
                AlertLine.from_json(each) for each in of.rows("alerts")[:MAX_QUESTION_ALERTS]
            ),
            node_addresses=of.texts("node_addresses"),
            api_server=of.texts("api_server"),
        )


def _connection_as_json(connection: Connection) -> dict[str, Json]:
    return {
        "client": _endpoint_as_json(connection.client),
        "server": _endpoint_as_json(connection.server),
        "proto": connection.proto.value if connection.proto else None,
        "listening": connection.listening,
    }


def _endpoint_as_json(endpoint: Endpoint) -> dict[str, Json]:
    address = None if endpoint.address is None else str(endpoint.address)
    return {"address": address, "port": endpoint.port}


def _connection_from_json(document: Json) -> Connection:
    of = Reader(document, "connection")
    proto = of.value("proto")
    try:
        return Connection(
            client=_endpoint_from_json(of.value("client")),
            server=_endpoint_from_json(of.value("server")),
            proto=None if proto is None else Proto(str(proto)),
            listening=of.flag("listening"),
        )
    except ValueError as problem:
        raise BadInput("not a protocol", where="connection.proto") from problem


def _endpoint_from_json(document: Json) -> Endpoint:
    of = Reader(document, "endpoint")
    address: Address | None = None
    if of.value("address") is not None:
        try:
            address = ip_address(of.text("address"))
        except ValueError as problem:
            raise BadInput("not an IP address", where="endpoint.address") from problem
    port = None if of.value("port") is None else of.number("port")
    return Endpoint(address=address, port=port)
