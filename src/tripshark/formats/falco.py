"""What one HTTP body or line says happened: Falco's JSON, in each of its wrappings, as an Alert.

Wrappings: Falco's own http_output, Falcosidekick's webhook and its Talon output (the same body,
re-encoded by Go), CloudEvents in binary (`ce-*` headers) and structured mode. Everything in them is
hostile. Which fields can be trusted was measured with Falco 0.44.1:

- `fd.lip/lport/rip/rport` are swapped for every process outside Falco's own namespace: never used,
  except that `fd.rip` may widen a filter as a hint.
- `fd.name` reads `client:port->server:port`, IPv6 without brackets, hence the last colon of each side;
  it may as well be a path, empty or null. Listening sockets are one `address:port`.
- null, "" and "<NA>" all mean missing; a rule's typo can put `fd.l4proto` where `tcp` belongs.
- `evt.time` is nanoseconds as an integer, also where it is called `evt.time.iso8601`.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from types import MappingProxyType

import msgspec

from tripshark.errors import BadInput
from tripshark.model.alert import (
    Address,
    Alert,
    Connection,
    Endpoint,
    Heartbeat,
    Json,
    Priority,
    Proto,
    missing,
)

MAX_DEPTH = 32  # nesting of objects and arrays; Falco needs 3
MAX_HINTS = 16
MAX_CMDLINE = 8192  # characters searched for hints; Falco itself cuts at 4096

_JSON_OUTPUT = "Falco must send JSON: set json_output: true in falco.yaml"
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_LATEST_NS = 2**63 - 1


def decode(body: bytes, headers: Mapping[str, str] = _NO_HEADERS) -> Alert:
    """Read one event.

    `headers` are those of the HTTP request, names in lower case; none for lines of a file.
    Raises `BadInput` for everything that is not one Falco event. The caller bounds `body`'s size.
    """
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type == "application/cloudevents-batch+json":
        raise BadInput(
            "this is a batch of CloudEvents",
            where="content-type",
            hint="send one event per request",
        )
    envelope = _object(_json(body, content_type), where="body")
    attributes: dict[str, str] = {}
    if content_type == "application/cloudevents+json" or (
        "specversion" in envelope and ("data" in envelope or "data_base64" in envelope)
    ):
        attributes = {key: text for key, text in envelope.items() if isinstance(text, str)}
        envelope = _cloudevent_data(envelope)
    elif "ce-specversion" in headers or "ce-type" in headers:
        attributes = {
            key.removeprefix("ce-"): text for key, text in headers.items() if key.startswith("ce-")
        }
    return _alert(_lower_keys(envelope), attributes)


def heartbeat(alert: Alert) -> Heartbeat | None:
    """What Falco says about itself; None for an ordinary alert."""
    if not alert.is_internal:
        return None
    fields = alert.fields
    kind = "other"
    if "metrics" in alert.rule:
        kind = "metrics"
    elif "drop" in alert.rule:
        kind = "drops"
    version = _text(fields, "falco.version")
    return Heartbeat(
        kind=kind,
        time_ns=alert.time_ns,
        hostname=_text(fields, "evt.hostname") or alert.hostname,
        version=version,
        start_ns=_first_integer(fields, "falco.start_ts"),
        duration_s=_first_integer(fields, "falco.duration_sec"),
        events=_first_integer(fields, "scap.n_evts", "n_evts", "falco.num_evts"),
        drops=_first_integer(fields, "scap.n_drops", "n_drops"),
        output_drops=_first_integer(fields, "falco.outputs_queue_num_drops"),
    )


# ---------------------------------------------------------------------------------- wrappings


def _json(body: bytes, content_type: str) -> Json:
    """Any JSON text, bounded in depth."""
    try:
        value: Json = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        plain = content_type == "text/plain" or not body.lstrip().startswith((b"{", b"["))
        raise BadInput(
            f"the body is not JSON: {problem}",
            where="body",
            hint=_JSON_OUTPUT if plain else "send one JSON object per request",
        ) from problem
    except RecursionError as problem:
        raise _too_deep() from problem
    level: list[Json] = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _nested(outer)]
        if not level:
            return value
    raise _too_deep()


def _nested(value: Json) -> Iterator[Json]:
    if isinstance(value, dict):
        yield from (inner for inner in value.values() if isinstance(inner, dict | list))
    elif isinstance(value, list):
        yield from (inner for inner in value if isinstance(inner, dict | list))


def _too_deep() -> BadInput:
    return BadInput(
        f"the body nests more than {MAX_DEPTH} levels", where="body", hint="this is no Falco event"
    )


def _object(value: Json, *, where: str) -> dict[str, Json]:
    if isinstance(value, dict):
        return value
    what = "a JSON array" if isinstance(value, list) else "no JSON object"
    raise BadInput(f"one event is expected, this is {what}", where=where, hint=_JSON_OUTPUT)


def _cloudevent_data(envelope: Mapping[str, Json]) -> dict[str, Json]:
    data = envelope.get("data")
    encoded = envelope.get("data_base64")
    if isinstance(encoded, str):
        try:
            raw = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError) as problem:
            raise BadInput(
                f"not base64: {problem}", where="data_base64", hint="encode the event as base64"
            ) from problem
        return _object(_json(raw, ""), where="data_base64")
    if isinstance(data, str):  # datacontenttype was not JSON: the event as JSON text
        return _object(_json(data.encode(), ""), where="data")
    return _object(data, where="data")


def _lower_keys(envelope: Mapping[str, Json]) -> dict[str, Json]:
    """Go decodes keys in any case, so senders written for Talon may use any; lower case wins."""
    lowered = {key.lower(): value for key, value in envelope.items()}
    return lowered | {key: value for key, value in envelope.items() if key.islower()}


# ---------------------------------------------------------------------------------- the event


def _alert(event: Mapping[str, Json], attributes: Mapping[str, str]) -> Alert:
    said = event.get("output_fields")
    fields = {} if said is None else said
    if not isinstance(fields, dict):
        raise BadInput(
            "output_fields is no JSON object",
            where="output_fields",
            hint="set json_include_output_fields_property: true in falco.yaml",
        )
    rule = _text(event, "rule") or attributes.get("rule", "")
    if not rule:
        raise BadInput("the event names no rule", where="rule", hint=_is_falco_event(event))
    connection = _connection(fields)
    container = _text(fields, "container.full_id") or _text(fields, "container.id") or ""
    namespace, pod = _pod(fields)
    tags = event.get("tags")
    return Alert(
        rule=rule,
        priority=_priority(event, attributes),
        time_ns=_event_time(fields, event, attributes),
        source=_text(event, "source") or attributes.get("eventsource") or "syscall",
        output=_text(event, "output") or _text(event, "message") or "",
        hostname=_text(event, "hostname") or attributes.get("hostname") or None,
        tags=tuple(tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else (),
        uuid=_text(event, "uuid") or attributes.get("id") or None,
        fields=fields,
        connection=connection,
        hints=_hints(fields, named=connection is not None),
        container_id=container if _CONTAINER_ID.fullmatch(container) else None,
        on_host=container == "host",
        pid=_positive(fields, "proc.pid"),
        namespace=namespace,
        pod=pod,
        process=_text(fields, "proc.name"),
        cmdline=_text(fields, "proc.cmdline"),
    )


_CONTAINER_ID = re.compile(r"[0-9a-f]{12,64}")


def _is_falco_event(event: Mapping[str, Json]) -> str:
    if "alerts" in event:
        return "this looks like Alertmanager; point Falco's http_output here"
    return "point Falco's http_output, or Falcosidekick's webhook or talon output, here"


def _priority(event: Mapping[str, Json], attributes: Mapping[str, str]) -> Priority:
    word = _text(event, "priority") or attributes.get("priority", "")
    priority = Priority.named(word)
    if priority is None:
        raise BadInput(
            f"the priority is {word[:40]!r}" if word else "the event has no priority",
            where="priority",
            hint="one of " + ", ".join(each.title for each in Priority),
        )
    return priority


def _event_time(
    fields: Mapping[str, Json], event: Mapping[str, Json], attributes: Mapping[str, str]
) -> int:
    """T0, the event's own time in nanoseconds since 1970; never the time of its arrival."""
    for key in ("evt.time", "evt.time.iso8601"):
        nanoseconds = _integer(fields.get(key))
        # A custom format can print other things under these keys; 10**17 ns is the year 1973.
        if nanoseconds is not None and 10**17 < nanoseconds < _LATEST_NS:
            return nanoseconds
    for text in (_text(event, "time"), attributes.get("time")):
        if text and (nanoseconds := _rfc3339(text)) is not None:
            return nanoseconds
    raise BadInput(
        "the event says no time that can be read",
        where="time",
        hint="`time` as RFC 3339 (2026-01-21T12:53:20.123456789Z), or evt.time in nanoseconds",
    )


_RFC3339 = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})"
    r"(?:[.,]([0-9]{1,30}))?(?:[Zz]|([+-])([0-9]{2}):?([0-9]{2}))?"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _rfc3339(text: str) -> int | None:
    """Nanoseconds since 1970 of an RFC 3339 time of any precision; without an offset it is UTC."""
    match = _RFC3339.fullmatch(text.strip())
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(part) for part in match.group(1, 2, 3, 4, 5, 6))
    try:
        moment = datetime(year, month, day, hour, minute, min(second, 59), tzinfo=UTC)
    except ValueError:
        return None
    seconds = (moment - _EPOCH) // timedelta(seconds=1) + max(0, second - 59)  # a leap second
    offset = int(match[9] or 0) * 3600 + int(match[10] or 0) * 60
    seconds -= -offset if match[8] == "-" else offset
    nanoseconds = seconds * 1_000_000_000 + int((match[7] or "0")[:9].ljust(9, "0"))
    return nanoseconds if 0 < nanoseconds < _LATEST_NS else None


def _pod(fields: Mapping[str, Json]) -> tuple[str | None, str | None]:
    """Namespace and pod, from the container's metadata or from a Kubernetes audit event."""
    namespace, pod = _text(fields, "k8s.ns.name"), _text(fields, "k8s.pod.name")
    if pod is None and _text(fields, "ka.target.resource") == "pods":
        # For exec, attach and port-forward the target's name is the pod; a creation answered by
        # the API server names it in the response alone.
        pod = (
            _text(fields, "ka.target.pod.name")
            or _text(fields, "ka.target.name")
            or _text(fields, "ka.resp.name")
        )
        namespace = namespace or _text(fields, "ka.target.namespace")
    return namespace, pod


# ---------------------------------------------------------------------------------- the connection


def _connection(fields: Mapping[str, Json]) -> Connection | None:
    """The connection, from fields that tell client and server apart."""
    name = _text(fields, "fd.name") or ""
    if not _is_socket(fields):
        name = ""  # a file may be called anything, also `1.2.3.4:5->6.7.8.9:10`
    client_text, arrow, server_text = name.partition("->")
    named_client, named_server = _endpoint(client_text), _endpoint(server_text)
    if not arrow:
        named_client, named_server = None, named_client
    elif named_client is None or named_server is None:
        named_client = named_server = None
    client_address, server_address = _address(fields.get("fd.cip")), _address(fields.get("fd.sip"))
    client_port, server_port = _port(fields.get("fd.cport")), _port(fields.get("fd.sport"))
    if named_server is None and (server_address is None or server_port is None):
        return None  # what remains can only be a hint
    client = Endpoint(
        client_address or (named_client.address if named_client else None),
        client_port or (named_client.port if named_client else None),
    )
    server = Endpoint(
        server_address or (named_server.address if named_server else None),
        server_port or (named_server.port if named_server else None),
    )
    if server == Endpoint() and client == Endpoint():
        return None  # 0.0.0.0:0, a socket that is not bound yet
    proto = _text(fields, "fd.l4proto") or ""
    return Connection(
        client=client,
        server=server,
        proto=Proto(proto) if proto in set(Proto) else None,  # also `raw`, `fd.l4proto`, `<NA>`
        listening=bool(name) and not arrow and client == Endpoint(),
    )


def _is_socket(fields: Mapping[str, Json]) -> bool:
    """Whether the descriptor can be a network socket: unknown counts as yes."""
    kind, character = _text(fields, "fd.type"), _text(fields, "fd.typechar")
    return (kind is None or kind.startswith("ip")) and character in (None, "4", "6")


def _endpoint(text: str) -> Endpoint | None:
    """`10.0.0.1:80`, `2001:db8::1:80`, `:::80`; None when it is anything else."""
    address_text, colon, port_text = text.strip().rpartition(":")
    if not colon or not _DIGITS.fullmatch(port_text) or int(port_text) > 65535:
        return None
    if _literal(address_text) is None:
        return None
    return Endpoint(_address(address_text), int(port_text) or None)


_DIGITS = re.compile(r"[0-9]{1,5}")


def _literal(text: str) -> Address | None:
    """An address as written; an IPv4 address mapped into IPv6 is IPv4 on the wire."""
    return _parsed(text[:_LONGEST_ADDRESS])


_LONGEST_ADDRESS = (
    64  # the longest IPv6 text has 45 characters; hostile text must not fill the cache
)


@lru_cache(
    maxsize=4096
)  # the same few peers come again and again, and reading one costs as much as the JSON
def _parsed(text: str) -> Address | None:
    try:
        address = ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _address(value: Json) -> Address | None:
    """An address that packets can carry; the unspecified address says nothing."""
    address = _literal(value) if isinstance(value, str) else None
    return None if address is None or address.is_unspecified else address


# ---------------------------------------------------------------------------------- hints

_IPV4 = r"(?<![0-9.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![0-9]|\.[0-9])"
_IPV6 = r"(?<![0-9A-Za-z:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?:(?:[0-9]{1,3}\.){3}[0-9]{1,3})?(?![0-9A-Za-z:])"
_LITERAL = re.compile(
    rf"(?:(?P<v4>{_IPV4})|(?P<v6>{_IPV6}))"
    r"(?:/(?P<length>[0-9]{1,5})(?![0-9./]))?"
    # how a port may follow: `:80`, `]:80`, ` 80`, `/80` of /dev/tcp, `", 80` of a tuple in a script
    r"(?:(?:\]?:|[\"']?\]?[ ,/]{1,3}[\"']?)(?P<port>[0-9]{1,5})(?![0-9A-Za-z.:]))?"
)


def _hints(fields: Mapping[str, Json], *, named: bool) -> tuple[Endpoint, ...]:
    """Addresses the alert mentions without saying what they are; at most `MAX_HINTS`.

    A command that names a whole network (`nmap 10.0.0.0/8`) talks to more than any list of
    addresses says: it gives no hint at all, so that nothing is narrowed wrongly.
    """
    found: dict[Endpoint, None] = {}
    if not named:
        for key in ("fd.sip", "fd.rip"):
            if (address := _address(fields.get(key))) is not None:
                found[Endpoint(address)] = None
    cmdline = (_text(fields, "proc.cmdline") or "")[:MAX_CMDLINE]
    if cmdline.endswith("[...]"):  # cut by Falcosidekick, perhaps within an address
        cmdline = cmdline.rpartition(" ")[0]
    for match in _LITERAL.finditer(cmdline):
        address = _address(match["v4"] or match["v6"])
        if address is None:
            continue
        length, port = match["length"], match["port"]
        word = cmdline[: match.start()].rpartition(" ")[2]
        if length and word.endswith(("/dev/tcp/", "/dev/udp/")):
            length, port = None, length
        if length and int(length) < address.max_prefixlen and "://" not in word:
            return ()
        found[Endpoint(address, _port(port))] = None
        if len(found) >= MAX_HINTS:
            break
    return tuple(found)


# ---------------------------------------------------------------------------------- single values


def _text(values: Mapping[str, Json], key: str) -> str | None:
    value = values.get(key)
    return value if isinstance(value, str) and not missing(value) else None


def _integer(value: Json) -> int | None:
    """A whole number, also as text or as the float some JSON encoders make of it."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str):
        return int(value) if _WHOLE.fullmatch(value) else None
    return value if isinstance(value, int) else None


_WHOLE = re.compile(r"-?[0-9]{1,20}")


def _first_integer(values: Mapping[str, Json], *keys: str) -> int | None:
    numbers = (_integer(values.get(key)) for key in keys)
    return next((number for number in numbers if number is not None), None)


def _positive(values: Mapping[str, Json], key: str) -> int | None:
    number = _integer(values.get(key))
    return number if number is not None and 0 < number < 2**31 else None


def _port(value: Json) -> int | None:
    number = _integer(value)
    return number if number is not None and 0 < number < 65536 else None
