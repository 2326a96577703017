"""What flows tell reaches whoever listens, from threads as well, and nobody else."""

from typing import Any

import pytest

from nix_seed.core.events import listener, listening, tell
from nix_seed.core.parallel import in_parallel


def test_threads_tell_whoever_listens_where_they_were_started() -> None:
    told: list[Any] = []
    with listening(told.append):
        in_parallel(tell, range(20), jobs=4)
        mine = listener()
    assert sorted(told) == list(range(20))
    tell("nobody listens any more")
    mine("but whoever took the listener along")
    assert told[20:] == ["but whoever took the listener along"]


def test_each_listens_to_what_was_begun_under_it() -> None:
    outer: list[Any] = []
    inner: list[list[Any]] = [[], []]

    def work(number: int) -> None:
        tell("begun")
        with listening(inner[number].append):
            in_parallel(tell, [number] * 3, jobs=2)

    with listening(outer.append):
        in_parallel(work, (0, 1), jobs=2)
        with pytest.raises(ZeroDivisionError), listening(inner[0].append):
            raise ZeroDivisionError
        tell("done")
    assert outer == ["begun", "begun", "done"]
    assert inner == [[0] * 3, [1] * 3]
