"""How many builders are independent of one another.

Two builders that share an attribute named by the policy (one operator, one provider) are one voice.
What counts is the largest set in which no two share any: adding a builder's word can then only
raise the number, which grouping them would not grant (a third that shares something with both of
two independent builders would merge them into one).

The largest set is exact for one attribute and for two. For three it is wherever ``_MOST_STEPS``
steps find it, as they do for 40 builders and more. Beyond, the set found is independent all the
same and may be smaller: the count then errs towards refusing.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations
from typing import Final

from nix_seed.trust.rules.policy import Attribute, Builder

_MOST_STEPS: Final = 1_000


def independent_builders(
    builders: Sequence[Builder], distinct: Sequence[Attribute]
) -> tuple[Builder, ...]:
    """Return a largest set of *builders* of which no two share a value of any of *distinct*.

    Ties go to those that come first. A value that is absent is shared by all that lack it.
    """
    return _independent(tuple(dict.fromkeys(builders)), tuple(distinct))


@lru_cache(maxsize=256)
def _independent(
    builders: tuple[Builder, ...], distinct: tuple[Attribute, ...]
) -> tuple[Builder, ...]:
    chosen = _Search(builders, distinct).largest((1 << len(builders)) - 1)
    return tuple(builder for number, builder in enumerate(builders) if chosen >> number & 1)


class _Search:
    """Sets of builders are bits. *rivals* has those that share something with each."""

    def __init__(self, builders: Sequence[Builder], distinct: Sequence[Attribute]) -> None:
        by_value: list[dict[str | None, int]] = [{} for _ in distinct]
        for number, builder in enumerate(builders):
            for found, name in zip(by_value, distinct, strict=True):
                value = builder.attribute(name)
                found[value] = found.get(value, 0) | 1 << number
        # Of those that share one value at most one is chosen.
        self._groups = [list(found.values()) for found in by_value]
        self._rivals = [0] * len(builders)
        for number in range(len(builders)):
            for group in (g for groups in self._groups for g in groups if g >> number & 1):
                self._rivals[number] |= group & ~(1 << number)
        self._steps = 0
        self._known: dict[int, int] = {}

    def largest(self, left: int) -> int:
        """Return a largest subset of *left* no two of which are rivals."""
        if left in self._known:
            return self._known[left]
        begun, chosen = left, 0
        while left:
            members = _bits(left)
            number = {bit: (self._rivals[bit] & left).bit_count() for bit in members}
            # Whoever has at most one rival left belongs to some largest set: taking it is safe.
            easy = next((bit for bit in members if number[bit] <= 1), None)
            if easy is None and all(each == len(members) - 1 for each in number.values()):
                easy = members[0]
            if easy is None:
                hardest = max(members, key=lambda bit: number[bit])
                chosen |= self._better(left & ~(1 << hardest), hardest)
                break
            chosen |= 1 << easy
            left &= ~self._rivals[easy] & ~(1 << easy)
        self._known[begun] = chosen
        return chosen

    def _better(self, others: int, one: int) -> int:
        """Return a largest set with *one* or, only where that has more, of the *others* alone."""
        self._steps += 1
        rest = others & ~self._rivals[one]
        most = self._bound(others)
        if len(self._groups) <= 2 or self._steps > _MOST_STEPS:
            # The bound is the number itself, or all that is left to go by.
            return (
                1 << one | self.largest(rest)
                if self._bound(rest) + 1 >= most
                else self.largest(others)
            )
        with_it = 1 << one | self.largest(rest)
        if most <= with_it.bit_count():
            return with_it
        without = self.largest(others)
        return without if without.bit_count() > with_it.bit_count() else with_it

    def _bound(self, left: int) -> int:
        """Return what no independent subset of *left* exceeds, by each two attributes together.

        Builders join values of one attribute to values of the other: no more are independent than
        can be matched, so that by two attributes the bound is the number itself.
        """
        counts = [sum(1 for group in groups if group & left) for groups in self._groups]
        pairs = combinations(self._groups, 2)
        return min((*counts, *(_matched(*pair, left) for pair in pairs)), default=left.bit_count())


def _matched(one: Sequence[int], other: Sequence[int], left: int) -> int:
    """Return how many groups of *one* have, each, another group of *other* in common in *left*."""
    beside = [[n for n, group in enumerate(other) if group & mine & left] for mine in one]
    taken: dict[int, int] = {}

    def place(mine: int, seen: set[int]) -> bool:
        for each in beside[mine]:
            if each not in seen:
                seen.add(each)
                if each not in taken or place(taken[each], seen):
                    taken[each] = mine
                    return True
        return False

    return sum(place(mine, set()) for mine in range(len(one)))


def _bits(left: int) -> list[int]:
    return [bit for bit in range(left.bit_length()) if left >> bit & 1]
