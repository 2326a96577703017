import pytest
from hypothesis import given, strategies as st

from nix_seed.core.errors import InputError
from nix_seed.use.rules.prefetch import dump_prefetch, parse_prefetch

frames = st.lists(st.tuples(st.integers(0, 120), st.integers(0, 5000)), max_size=60)


@given(frames)
def test_a_list_reads_back(listed: list[tuple[int, int]]) -> None:
    found = parse_prefetch(dump_prefetch(listed))
    assert found == tuple(dict.fromkeys(listed))


def test_runs_of_frames_are_joined() -> None:
    assert dump_prefetch([(3, 0), (3, 2), (3, 1), (0, 9), (3, 7)]) == "3:0,2,1;0:9;3:7"


@pytest.mark.parametrize(
    "text",
    [
        *("x", "1", "1:", ":1", "1:2-", "1:2,,3", "1:2;", "1:2;;3:4", "-1:2", "1:1 "),
        *("1:99999999", "1:0-9999999", "0:0-150000;1:0-150000", "1:1," * 300_000),
    ],
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_prefetch(text)


@given(st.text(alphabet="0123456789:;,-", max_size=40))
def test_any_text_is_a_list_or_refused(text: str) -> None:
    try:
        assert len(parse_prefetch(text)) <= 200_000
    except InputError:
        return
