from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from nix_seed.core.digests import NarHash
from nix_seed.core.errors import InputError
from nix_seed.formats.nix.database import format_registration, parse_registration
from nix_seed.formats.nix.store_path import PathInfo, StorePath
from support.distribution import nix_env
from support.programs import need, run

HASH = "0123456789abcdfghijklmnpqrsvwxyz"
NAMES = st.text("abcxyz+_", min_size=1, max_size=9)
PATHS = st.builds(
    lambda name, digit: StorePath(f"{digit * 32}-{name}"), NAMES, st.sampled_from(HASH)
)
INFOS = st.builds(
    PathInfo,
    PATHS,
    st.builds(NarHash.of, st.binary()),
    st.integers(0, 2**63 - 1),
    st.sets(PATHS, max_size=4).map(lambda paths: tuple(sorted(paths))),
)
TEXT = format_registration(
    [PathInfo(StorePath(f"{HASH}-a"), NarHash.of(b""), 120, (StorePath(f"{HASH}-b"),))]
)


@given(st.lists(INFOS, max_size=5))
def test_what_is_written_is_read(infos: list[PathInfo]) -> None:
    assert parse_registration(format_registration(infos)) == tuple(infos)


@given(st.text(), st.integers(0, len(TEXT)))
def test_any_text_is_read_or_refused(text: str, at: int) -> None:
    for damaged in (text, TEXT[:at] + text, TEXT[:at] + text + TEXT[at:]):
        try:
            parse_registration(damaged)
        except InputError as error:
            start = "this is not what nix-store --dump-db prints: "
            assert str(error).startswith(start)  # noqa: PT017


@pytest.mark.parametrize("lines", range(1, 6))
def test_a_record_cut_short_is_refused(lines: int) -> None:
    cut = "".join(TEXT.splitlines(keepends=True)[:lines])
    with pytest.raises(InputError, match="a record is cut short"):
        parse_registration(cut)


@pytest.mark.parametrize("number", ["-1", "1_0", " 1", "+1", "0x1", "", "1.0", "²"])
def test_only_digits_are_a_number(number: str) -> None:
    with pytest.raises(InputError, match="is not a number"):
        parse_registration(TEXT.replace("\n120\n", f"\n{number}\n"))
    with pytest.raises(InputError, match="is not a number"):
        parse_registration(TEXT.replace("\n1\n", f"\n{number}\n"))


def test_nix_reads_and_writes_the_same(tmp_path: Path) -> None:
    at, env = ("--store", str(tmp_path / "root")), nix_env()
    names = ["one", "two"]
    for name in names:
        (tmp_path / name).write_text(name)
    added = [
        run(need("nix-store"), *at, "--add", str(tmp_path / name), env=env).decode().strip()
        for name in names
    ]
    dumped = run("nix-store", *at, "--dump-db", *added, env=env).decode()
    infos = parse_registration(dumped)
    assert [str(info.path) for info in infos] == added
    assert [info.references for info in infos] == [(), ()]
    # Into another store of Nix's, and out again.
    other = ("--store", str(tmp_path / "other"))
    run("nix-store", *other, "--load-db", stdin=format_registration(infos).encode(), env=env)
    again = run("nix-store", *other, "--dump-db", *added, env=env).decode()
    assert parse_registration(again) == infos
