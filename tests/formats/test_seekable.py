from __future__ import annotations

import pytest
import zstandard
from hypothesis import given, strategies as st

from nix_seed.core.errors import InputError
from nix_seed.formats.zstd import FOOTER_SIZE, Frame, SeekTable
from support.programs import need, run

sizes = st.integers(0, (1 << 32) - 1)
tables = st.lists(st.builds(Frame, sizes, sizes), max_size=20).map(
    lambda frames: SeekTable(tuple(frames))
)


@given(tables)
def test_a_table_reads_back(table: SeekTable) -> None:
    text = table.dump()
    assert SeekTable.parse(text, "blob") == table
    assert SeekTable.size_from_footer(text[-FOOTER_SIZE:], "blob") == len(text)


@given(tables.filter(lambda table: bool(table.frames)), st.data())
def test_a_damaged_table_never_reads_as_the_same(table: SeekTable, data: st.DataObject) -> None:
    text = bytearray(table.dump())
    position = data.draw(st.integers(0, len(text) - 1))
    text[position] ^= 1 << data.draw(st.integers(0, 7))
    try:
        assert SeekTable.parse(bytes(text), "blob") != table
    except InputError as error:
        assert "blob" in error.message  # noqa: PT017


@pytest.mark.parametrize("cut", [slice(1, None), slice(None, -1), slice(0, 0), slice(-9, None)])
def test_a_table_cut_short_is_refused(cut: slice) -> None:
    text = SeekTable((Frame(1, 2), Frame(3, 4))).dump()
    with pytest.raises(InputError, match="blob"):
        SeekTable.parse(text[cut], "blob")


def test_checksums_and_absurd_counts_are_refused() -> None:
    footer = bytearray(SeekTable(()).dump()[-FOOTER_SIZE:])
    footer[4] = 0x80
    with pytest.raises(InputError, match="descriptor 0x80 is not 0"):
        SeekTable.size_from_footer(bytes(footer), "blob")
    footer[:5] = b"\xff\xff\xff\xff\0"
    with pytest.raises(InputError, match="claims 4294967295 frames"):
        SeekTable.size_from_footer(bytes(footer), "blob")


def test_zstd_itself_passes_over_the_table() -> None:
    parts = [b"one" * 1000, b"", b"three" * 5000]
    frames = [zstandard.compress(part) for part in parts]
    table = SeekTable(tuple(Frame(len(f), len(p)) for f, p in zip(frames, parts, strict=True)))
    blob = b"".join(frames) + table.dump()
    assert run(need("zstd"), "-dc", stdin=blob) == b"".join(parts)
    table.check_blob(len(blob), "blob")
    start, end = table.offsets()[2:4]
    assert zstandard.decompress(blob[start:end]) == parts[2]
    with pytest.raises(InputError, match="blob: its frames and its size of 7 bytes disagree"):
        table.check_blob(7, "blob")
