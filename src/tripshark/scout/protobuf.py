"""Reads and writes the few protobuf messages that runtimes speak, without generated code; every byte may be hostile."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tripshark.errors import BadInput

MAX_FIELDS = 500_000  # of one message; the longest list that is believed
_MAX_TEXT = 1 << 20
_SHORT = "a protobuf message that ends too early"

Value = int | str | bytes | Mapping[str, str] | Iterable[str | bytes]


class Message:
    """The fields of one message by number. What lies inside them is read only when it is asked for.

    A field of another type than asked counts as absent, as a newer runtime may say things differently.
    Raises `BadInput` for bytes that are no message.
    """

    __slots__ = ("_fields",)

    def __init__(self, data: bytes) -> None:
        self._fields = _read(data)

    def number(self, field: int) -> int:
        """An int32, int64, uint64, bool or enum; 0 when it is not said. Signed, as Go's int64 is."""
        for value in reversed(self._fields.get(field, ())):
            if isinstance(value, int):
                return value - (1 << 64) if value >> 63 else value
        return 0

    def raw(self, field: int) -> bytes:
        for value in reversed(self._fields.get(field, ())):
            if isinstance(value, bytes):
                return value
        return b""

    def text(self, field: int) -> str:
        """A string; "" when it is not said. Raises `BadInput` for what is no UTF-8."""
        return _text(self.raw(field))

    def message(self, *path: int) -> Message:
        """The message in a field of a field of …; one without fields when it is not said."""
        found = self
        for field in path:
            found = Message(found.raw(field))
        return found

    def messages(self, field: int) -> list[bytes]:
        """Every message of a repeated field, unread, so that a bad one spoils no other."""
        return [value for value in self._fields.get(field, ()) if isinstance(value, bytes)]

    def pairs(self, field: int) -> dict[str, str]:
        """A map of strings."""
        found = {}
        for each in self.messages(field):
            entry = Message(each)
            found[entry.text(1)] = entry.text(2)
        return found


def peek(data: bytes, text: int, number: int) -> tuple[str, int]:
    """A string and a number of a message by field, without keeping the rest: most of a list is known already."""
    found, value = b"", 0
    at, end = 0, len(data)
    while at < end:
        key = data[at]
        if (
            key < 128
        ):  # nearly all keys and lengths are one byte: this runs for every pod every few seconds
            at += 1
        else:
            key, at = _varint(data, at)
        kind = key & 7
        if kind == 2 and at < end and (size := data[at]) < 128:
            start = at + 1
            at = start + size
            if at > end:
                raise BadInput(_SHORT)
        elif kind == 0:
            read, at = _varint(data, at)
            if key >> 3 == number:
                value = read
            continue
        else:
            start, size = _span(data, at, kind)
            at = start + size
        if kind == 2 and key >> 3 == text:
            found = data[start:at]
    return _text(found), value


def encode(fields: Mapping[int, Value]) -> bytes:
    """A message from its fields: numbers, strings, messages (bytes), maps of strings, lists of strings or messages.

    Zero and "" are left out, as proto3 does.
    """
    out = bytearray()
    for field, value in fields.items():
        if isinstance(value, int):
            if value:
                out += _write(field << 3) + _write(value & (1 << 64) - 1)
        elif isinstance(value, str | bytes):
            data = value.encode() if isinstance(value, str) else value
            if data:
                out += _write(field << 3 | 2) + _write(len(data)) + data
        else:
            items: Iterable[str | bytes] = (
                [encode({1: name, 2: each}) for name, each in value.items()]
                if isinstance(value, Mapping)
                else value
            )
            for item in items:
                data = item.encode() if isinstance(item, str) else item
                out += _write(field << 3 | 2) + _write(len(data)) + data
    return bytes(out)


def _read(data: bytes) -> dict[int, list[int | bytes]]:
    fields: dict[int, list[int | bytes]] = {}
    at, end, count = 0, len(data), 0
    while at < end:
        key, at = _varint(data, at)
        field, kind = key >> 3, key & 7
        count += 1
        if not 0 < field < 1 << 29 or count > MAX_FIELDS:
            raise BadInput("a protobuf message with a field that cannot be")
        value: int | bytes
        if kind == 0:
            value, at = _varint(data, at)
        else:
            start, size = _span(data, at, kind)
            at = start + size
            value = data[start:at] if kind == 2 else int.from_bytes(data[start:at], "little")
        fields.setdefault(field, []).append(value)
    return fields


def _span(data: bytes, at: int, kind: int) -> tuple[int, int]:
    """Where a value that is no varint begins, and its size."""
    if kind == 2:
        size, at = _varint(data, at)
    elif kind == 1:
        size = 8
    elif kind == 5:
        size = 4
    else:  # groups are older than every runtime
        raise BadInput("a protobuf message with a field of an unknown kind")
    if size > len(data) - at:
        raise BadInput(_SHORT)
    return at, size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    result = shift = 0
    try:
        while True:
            byte = data[at]
            at += 1
            if byte < 128:
                return (result | byte << shift) & (1 << 64) - 1, at
            result |= (byte & 127) << shift
            shift += 7
            if shift > 63:
                raise BadInput("a protobuf number that is too long")
    except IndexError as problem:
        raise BadInput(_SHORT) from problem


def _write(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _text(data: bytes) -> str:
    if len(data) > _MAX_TEXT:
        raise BadInput("a protobuf text that is too long")
    try:
        return data.decode()
    except UnicodeDecodeError as problem:
        raise BadInput("a protobuf text that is no UTF-8") from problem
