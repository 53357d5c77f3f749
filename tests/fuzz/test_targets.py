"""Every fuzz target holds on its seeds, on mangled seeds and on any bytes, for a second each."""

from __future__ import annotations

import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import corpus


@pytest.mark.parametrize("name", corpus.names())
def test_parsers_parse_or_refuse(name: str) -> None:
    """Nothing but the documented error leaves a parser."""
    target, seeds = corpus.load(name), corpus.seeds(name)
    for seed in seeds:
        target(seed)
    until = time.monotonic() + 1

    @settings(database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        seed=st.sampled_from(seeds),
        changes=st.lists(st.tuples(st.integers(0, 4096), st.binary(max_size=8)), max_size=4),
    )
    def mangled(seed: bytes, changes: list[tuple[int, bytes]]) -> None:
        if time.monotonic() > until:
            return
        for at, value in changes:
            at %= len(seed) + 1
            seed = seed[:at] + value + seed[at + len(value) :]
        target(seed)

    mangled()
    settings(database=None, deadline=None, max_examples=30)(given(data=st.binary())(target))()
