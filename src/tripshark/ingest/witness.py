"""Whether an event is known already by another way: Falco often posts an event and writes it to a file too.

A file is how alerts are back-filled after an outage. What the webhook delivered must then not count twice, and what
the webhook delivers again (a repeated POST) must still count: so an event is set aside only when it comes by
another way than the first time, or a second time by a file.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections import OrderedDict
from hashlib import sha256
from pathlib import Path

import msgspec

from tripshark.model.alert import Alert, AlertId, Json

SLOTS = 65_536
_MAGIC = b"TSWITN1\n"
_HEAD = struct.Struct("<8sQ")  # magic, next slot (only ever rises)
_SLOT = struct.Struct("<16s1s63p")  # key, way, alert id

# Falco's own field classes: what Falcosidekick adds (customfields, templatedfields) is not among them.
_CLASSES = ("proc.", "fd.", "container.", "k8s.", "user.", "group.", "thread.", "fs.", "evt.")
_CUT = 507  # Falcosidekick cuts longer strings here and appends "[...]"


def event_key(alert: Alert) -> str:
    """A name for the event behind an alert: 64 hex digits, the same by whichever way the event came.

    SHA-256 over rule, event time in nanoseconds, source and fields in one spelling. Falcosidekick changes
    events on their way (adds fields, cuts long strings, spells `proc.aname[2]` as `proc.aname_2`, gives a `uuid`):
    none of it changes the key. A missing source counts as `syscall`.
    """
    source = "syscall" if alert.source in ("syscall", "syscalls", "") else alert.source
    fields = {
        name.replace("[", "_").replace("]", ""): _spell(value)
        for name, value in alert.fields.items()
        if value not in (None, "", "<NA>")
        and not name.startswith("evt.time")
        and (source != "syscall" or name.startswith(_CLASSES))
    }
    text = msgspec.json.encode([alert.rule, alert.time_ns, source, fields], order="sorted")
    return sha256(text).hexdigest()


def _spell(value: Json) -> Json:
    if isinstance(value, str):
        return value[:_CUT]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


class Witnesses:
    """The last 65,536 events with the way they first came and their alert id; survives a killed process.

    A ring of fixed slots in a mapped file: a slot is written once an alert is durable, without a flush. A power cut may
    lose the last slots; such events are then folded by meaning, as every repeat is.
    """

    def __init__(self, path: Path) -> None:
        size = _HEAD.size + SLOTS * _SLOT.size
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if os.fstat(descriptor).st_size != size:
                os.ftruncate(descriptor, 0)
                os.ftruncate(descriptor, size)
            self._map = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
        magic, self._next = _HEAD.unpack_from(self._map)
        self._known: OrderedDict[bytes, tuple[str, AlertId]] = OrderedDict()
        if magic == _MAGIC:
            for slot in range(max(0, self._next - SLOTS), self._next):
                key, way, id = _SLOT.unpack_from(self._map, _HEAD.size + slot % SLOTS * _SLOT.size)
                self._known[key] = (
                    way.decode("ascii", "replace"),
                    AlertId(id.decode("ascii", "replace")),
                )
        else:
            self._next = 0

    def first(self, key: str) -> tuple[str, AlertId] | None:
        """By which way ("w" webhook, "f" file, "s" stdin) this event first came, and as which alert."""
        return self._known.get(bytes.fromhex(key)[:16])

    def remember(self, key: str, way: str, id: AlertId) -> None:
        """This event is durable."""
        short, name = bytes.fromhex(key)[:16], id.encode("ascii", "replace")
        if short in self._known or len(name) > 62:
            return
        self._known[short] = (way, id)
        if len(self._known) > SLOTS:
            self._known.popitem(last=False)
        _SLOT.pack_into(
            self._map,
            _HEAD.size + self._next % SLOTS * _SLOT.size,
            short,
            way.encode("ascii")[:1],
            name,
        )
        self._next += 1
        _HEAD.pack_into(self._map, 0, _MAGIC, self._next)

    def close(self) -> None:
        self._map.close()
