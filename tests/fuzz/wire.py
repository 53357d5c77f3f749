"""Fuzz target: what the recorder and its client read from the socket between them."""

from __future__ import annotations

import json
from dataclasses import replace

from tests.formats.making import copy_of
from tripshark.errors import BadInput
from tripshark.formats.wire import Chunk, Frozen, Joiner, from_json, pack, to_json
from tripshark.model.target import Target, TargetKey, TargetKind

BLOCK = bytes(256)
TARGET = Target(key=TargetKey("k"), kind=TargetKind.NETNS, name="netns:a", inode=1, since_ns=1)


def target(data: bytes) -> None:
    """A message and what it describes, or `BadInput`; line by line as packets of one connection."""
    joiner = Joiner()
    for packet in data.split(b"\n"):
        try:
            message = joiner.feed(packet)
        except BadInput:
            return
        if message is None:
            continue
        for kind, name in ((Frozen, "frozen"), (Chunk, "chunk"), (tuple[Target, ...], "targets")):
            try:
                read = from_json(kind, message.get(name), [memoryview(BLOCK)] * 3)  # type: ignore[type-var]
            except BadInput:
                continue
            for copy in getattr(read, "copies", ()):
                for block in copy.blocks:
                    assert 0 <= block.offset <= block.offset + block.length <= len(copy.data)


def seeds() -> list[bytes]:
    """Real messages of each kind."""
    copy = replace(copy_of(BLOCK, []), target=TARGET.key)
    frozen = Frozen(handle=1, target=TARGET, at_ns=1, copies=(copy,), expired_ns=0)
    chunk = Chunk(copies=(copy,), now_ns=1)
    found = [json.dumps({"part": 0, "of": 2, "text": '{"t":'}).encode()]
    for name, value in (("frozen", frozen), ("chunk", chunk), ("targets", (TARGET,))):
        found += pack({"t": name, "id": 1, name: to_json(value)})
    return found
