"""What things lead to: circles end, what is passed over leads nowhere, and depth costs no stack."""

from nix_seed.core.reach import reach

_LINKS = {"a": ["b", "c"], "b": ["a"], "c": ["d"], "d": []}


def test_starts_and_all_that_they_lead_to() -> None:
    assert reach("a", _LINKS.get) == {"a", "b", "c", "d"}
    assert reach("cb", {**_LINKS, "b": []}.get) == {"b", "c", "d"}
    assert reach("", _LINKS.get) == set()


def test_what_is_passed_over_leads_nowhere() -> None:
    assert reach("a", {**_LINKS, "c": None}.get) == {"a", "b"}
    assert reach(["x"], _LINKS.get) == set()


def test_each_is_asked_once_however_deep() -> None:
    asked: list[int] = []

    def further(number: int) -> list[int]:
        asked.append(number)
        return [number + 1, number + 1, 0] if number < 20_000 else []

    assert len(reach([0], further)) == len(asked) == 20_001
