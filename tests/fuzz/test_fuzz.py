"""A bounded run over every reader of foreign bytes; ``tools/fuzz`` is the long one."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.readers import READERS, change_json, mutate

SLOW = (HealthCheck.too_slow, HealthCheck.function_scoped_fixture)


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=60, deadline=2000, suppress_health_check=SLOW)
@given(
    raw=st.binary(max_size=200), of=st.integers(0, 1 << 16), made=st.randoms(use_true_random=False)
)
def test_a_reader_gives_a_value_or_an_error_of_ours(
    name: str, raw: bytes, of: int, made: random.Random
) -> None:
    reader = READERS[name]
    seed = reader.corpus[of % len(reader.corpus)]
    for data in (raw, mutate(seed, made), change_json(seed, made)):
        reader.holds(data)


@pytest.mark.parametrize("name", READERS)
def test_a_reader_takes_what_the_corpus_holds_or_refuses_it(name: str) -> None:
    for data in READERS[name].corpus:
        READERS[name].holds(data)
