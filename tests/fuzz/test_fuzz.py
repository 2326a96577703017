"""A bounded run over every reader of foreign bytes; ``tools/fuzz`` is the long one."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from fuzz.inputs import change_json, mutate
from fuzz.readers import READERS

SLOW = (HealthCheck.too_slow, HealthCheck.function_scoped_fixture)


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=60, deadline=None, suppress_health_check=SLOW)
@given(
    raw=st.binary(max_size=200), of=st.integers(0, 1 << 16), made=st.randoms(use_true_random=False)
)
def test_a_reader_gives_a_value_or_an_error_of_ours(
    name: str, raw: bytes, of: int, made: random.Random
) -> None:
    reader = READERS[name]
    if of % max(1, 50 // reader.per):
        return  # what takes long is given less
    seed = reader.samples[of % len(reader.samples)]
    for data in (raw, mutate(seed, made), change_json(seed, made)):
        start = time.process_time()  # of this process alone: the machine may be busy
        reader.holds(data)
        assert time.process_time() - start < 2


@pytest.mark.parametrize("name", READERS)
def test_a_reader_takes_what_the_corpus_holds_or_refuses_it(name: str) -> None:
    for data in READERS[name].samples:
        READERS[name].holds(data)
