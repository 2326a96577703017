"""How many builders are independent of one another.

Two builders that share an attribute named by the policy (one operator, one provider) are one voice.
What counts is the largest set in which no two share any: adding a builder's word can then only
raise the number, which grouping them would not grant (a third that shares something with both of
two independent builders would merge them into one).
"""

from __future__ import annotations

from collections.abc import Sequence

from nix_seed.trust.rules.policy import Attribute, Builder


def independent_builders(
    builders: Sequence[Builder], distinct: Sequence[Attribute]
) -> tuple[Builder, ...]:
    """Return a largest set of *builders* of which no two share a value of any of *distinct*.

    Ties go to those that come first. A value that is absent is shared by all that lack it.
    """
    ordered = tuple(dict.fromkeys(builders))
    chosen = _largest((1 << len(ordered)) - 1, [_rivals(ordered, one, distinct) for one in ordered])
    return tuple(builder for number, builder in enumerate(ordered) if chosen >> number & 1)


def _rivals(builders: Sequence[Builder], one: Builder, distinct: Sequence[Attribute]) -> int:
    """Return, as bits, which *builders* share something with *one*."""
    return sum(
        1 << number
        for number, other in enumerate(builders)
        if other is not one
        and any(one.attribute(name) == other.attribute(name) for name in distinct)
    )


def _largest(left: int, rivals: Sequence[int]) -> int:
    """Return a largest subset of the bits *left* no two of which are rivals."""
    chosen = 0
    while left:
        members = [bit for bit in range(left.bit_length()) if left >> bit & 1]
        # Whoever has at most one rival left belongs to some largest set: taking it is safe.
        easy = next((bit for bit in members if (rivals[bit] & left).bit_count() <= 1), None)
        if easy is None:
            hardest = max(members, key=lambda bit: (rivals[bit] & left).bit_count())
            if _is_clique(left, members, rivals):
                easy = members[0]
            else:
                with_it = 1 << hardest | _largest(left & ~rivals[hardest] & ~(1 << hardest), rivals)
                without = _largest(left & ~(1 << hardest), rivals)
                best = with_it if with_it.bit_count() > without.bit_count() else without
                return chosen | best
        chosen |= 1 << easy
        left &= ~rivals[easy] & ~(1 << easy)
    return chosen


def _is_clique(left: int, members: Sequence[int], rivals: Sequence[int]) -> bool:
    return all((rivals[bit] | 1 << bit) & left == left for bit in members)
