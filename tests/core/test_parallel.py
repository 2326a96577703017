"""What a thread makes comes in order, with its errors; who takes no more is not waited for."""

import threading
from collections.abc import Callable, Iterator

import pytest

from nix_seed.core.parallel import handed_over


class _Panic(BaseException):
    """As what stops the layers beside one that failed."""


@pytest.mark.parametrize("count", [0, 1, 2, 100])
def test_all_of_it_comes_in_order(count: int) -> None:
    def make(give: Callable[[int], None]) -> None:
        for number in range(count):
            give(number)

    assert list(handed_over(make, 2)) == list(range(count))


@pytest.mark.parametrize("kind", [ValueError, _Panic])
def test_an_error_comes_after_what_was_made_before_it(kind: type[BaseException]) -> None:
    def make(give: Callable[[int], None]) -> None:
        give(1)
        raise kind("no more")

    taken: list[int] = []
    with pytest.raises(kind, match="no more"):
        taken.extend(handed_over(make, 2))
    assert taken == [1]


def _begun(ended: threading.Event) -> Callable[[Callable[[int], None]], None]:
    def make(give: Callable[[int], None]) -> None:
        try:
            for number in range(1_000_000):
                give(number)
        finally:
            ended.set()

    return make


def test_who_takes_no_more_ends_what_makes_it() -> None:
    ended = threading.Event()
    given: Iterator[int] = (found := handed_over(_begun(ended), 1))
    assert [next(given), next(given)] == [0, 1]
    assert not ended.is_set()
    found.close()
    assert ended.is_set()


def test_nothing_is_made_before_it_is_asked_for() -> None:
    ended = threading.Event()
    handed_over(_begun(ended), 1).close()
    assert not ended.is_set()
