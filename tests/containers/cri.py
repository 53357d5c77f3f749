"""A blocking CRI client for tests, with nothing but h2 below it; it shares no code with the scout's own."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Mapping, Sequence

import h2.config
import h2.connection
import h2.events

Value = str | bytes | int | Mapping[str, str] | Sequence[str | bytes]


class CriError(Exception):
    """The runtime's own words."""

    def __init__(self, method: str, status: str, words: str) -> None:
        super().__init__(f"{method}: {status} {words}")
        self.status = status


def message(**fields: Value) -> bytes:
    """A protobuf message: `message(f1="name", f2=3, f6={"label": "value"}, f3=["a", "b"], f8=message(…))`."""
    out = bytearray()
    for name, value in fields.items():
        number = int(name[1:])
        if isinstance(value, int):
            out += _varint(number << 3) + _varint(value)
        elif isinstance(value, str | bytes):
            data = value.encode() if isinstance(value, str) else value
            out += _varint(number << 3 | 2) + _varint(len(data)) + data
        elif isinstance(value, Mapping):
            for key, text in value.items():
                out += message(**{name: message(f1=key, f2=text)})
        else:
            for each in value:
                out += message(**{name: each})
    return bytes(out)


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) of every field of a message, in order."""
    at = 0

    def number() -> int:
        nonlocal at
        result = shift = 0
        while True:
            byte = data[at]
            at += 1
            result |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return result

    while at < len(data):
        key = number()
        if key & 7 == 0:
            yield key >> 3, number()
        else:
            size = number() if key & 7 == 2 else 8 if key & 7 == 1 else 4
            yield key >> 3, data[at : at + size]
            at += size


def one(data: bytes, *path: int) -> bytes:
    """The bytes of a field of a field of …; b"" when there are none."""
    for number in path:
        found = [
            value for key, value in fields(data) if key == number and isinstance(value, bytes)
        ]
        data = found[-1] if found else b""
    return data


def many(data: bytes, number: int) -> list[bytes]:
    return [value for key, value in fields(data) if key == number and isinstance(value, bytes)]


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def call(path: str, method: str, request: bytes = b"", *, timeout: float = 60.0) -> bytes:
    """One call of runtime.v1.RuntimeService over the socket at `path`. Raises `CriError`, `OSError`."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(timeout)
        sock.connect(path)
        link = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        link.initiate_connection()
        link.send_headers(
            1,
            [
                (":method", "POST"),
                (":scheme", "http"),
                (":authority", "localhost"),
                (":path", f"/runtime.v1.RuntimeService/{method}"),
                ("te", "trailers"),
                ("content-type", "application/grpc"),
            ],
        )
        link.send_data(1, struct.pack(">BI", 0, len(request)) + request, end_stream=True)
        sock.sendall(link.data_to_send())
        body, said = bytearray(), {}
        while True:
            received = sock.recv(65536)
            if not received:
                raise ConnectionResetError(f"{method}: the runtime hung up")
            for event in link.receive_data(received):
                if isinstance(event, h2.events.DataReceived):
                    body += event.data
                    link.acknowledge_received_data(event.flow_controlled_length, 1)
                elif isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                    said |= dict(event.headers)
                elif isinstance(event, h2.events.StreamEnded):
                    if said.get("grpc-status") != "0":
                        status, words = said.get("grpc-status", "?"), said.get("grpc-message", "")
                        raise CriError(method, str(status), str(words))
                    return bytes(body[5:])
            sock.sendall(link.data_to_send())
