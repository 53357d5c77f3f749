"""Which parsers are fuzzed, and what each is given to begin with.

A target is a file of this folder with a function `target(data: bytes) -> None`: parse, or the one documented
error. It may have a function `seeds() -> list[bytes]`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
CAPTURES = HERE.parent / "captures"
_NOT_TARGETS = {"__main__", "__init__", "corpus"}


def names() -> list[str]:
    """Every target, by its file."""
    files = (path.stem for path in HERE.glob("*.py"))
    return sorted(
        name for name in files if name not in _NOT_TARGETS and not name.startswith("test_")
    )


def load(name: str) -> Callable[[bytes], None]:
    """The function to call with any bytes."""
    target: Callable[[bytes], None] = importlib.import_module(f"tests.fuzz.{name}").target
    return target


def seeds(name: str) -> list[bytes]:
    """What to begin with; at least an empty input."""
    own = getattr(importlib.import_module(f"tests.fuzz.{name}"), "seeds", None)
    return [b"", *(own() if own else [])]
