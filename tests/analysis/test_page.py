"""The page on findings says the numbers that the code has."""

from __future__ import annotations

import re
from pathlib import Path

from tripshark.analysis import claims, resolved, said
from tripshark.analysis.claims import contents, flows, names, places

PAGE = (Path(__file__).parents[2] / "docs" / "findings.md").read_text()


def test_every_threshold_stands_on_the_page_with_its_value() -> None:
    """A constant that decides whether something is claimed, by name and value, and no other."""
    told = set(re.findall(r"^\| `([A-Z_]+)`[^|]*\| ([\d.]+) \|$", PAGE, re.M))
    known = {
        (name, f"{value}")
        for module in (claims, flows, names, contents, said, resolved)
        for name, value in vars(module).items()
        if re.fullmatch(r"[A-Z][A-Z_]+", name)
        and type(value) in (int, float)
        and not re.match(r"MAX_(PENDING|DOMAINS|CLIENTS|NAMES|ROWS|FINDINGS)", name)
    }
    assert told == known


def test_every_metadata_address_stands_on_the_page() -> None:
    """The places that count as a cloud's metadata service."""
    assert all(address in PAGE for address in places.METADATA)
