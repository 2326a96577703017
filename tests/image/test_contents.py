import io
import struct
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from image.golden.make_layers import TREES
from nix_seed.core.errors import InputError
from nix_seed.formats.oci import tar
from nix_seed.image.assemble import StoreFiles
from nix_seed.image.read.tar import EntryKind, read_entries
from nix_seed.image.rules.contents import (
    EXECUTABLE,
    FOLDER,
    LINK,
    PLAIN,
    ContentsWriter,
    HashedFrame,
    LayerContents,
    dump_contents,
    parse_contents,
)
from nix_seed.image.rules.frames import FRAME_SIZE, Compressor
from nix_seed.image.rules.layer import write_layer
from support.blobs import decompress
from support.trees import put_all

HEADER = 512
Added = tuple[int, int, bytes, int]
TREE: list[Added] = [
    (FOLDER, 0, b"a-path", 0),
    (EXECUTABLE, 1, b"bin", 700),
    (FOLDER, 1, b"share", 0),
    (PLAIN, 2, b"empty", 0),
    (PLAIN, 0, b"b-path", 1),
]
TAR_SIZE = 1024 + 5 * HEADER + 1024 + 512 + 1024


def table(
    nodes: list[Added], size: int = TAR_SIZE, frames: list[HashedFrame] | None = None
) -> bytes:
    writer = ContentsWriter()
    for kind, depth, name, length in nodes:
        if kind == LINK:
            writer.add_link(depth, name, b"t" * length, HEADER)
        else:
            writer.add(kind, depth, name, length, HEADER)
    return writer.finish([HashedFrame.of(b"x", size)] if frames is None else frames)


def read(data: bytes) -> LayerContents:
    return LayerContents.parse(data, "a table")


def tree_of(layer: LayerContents) -> dict[bytes, int]:
    """Every node by its whole name, found from the roots down."""
    found: dict[bytes, int] = {}
    waiting = [(node, layer.names[node]) for node in layer.roots()]
    while waiting:
        node, name = waiting.pop()
        found[name] = node
        if layer.kinds[node] == FOLDER:
            waiting += [(e, name + b"/" + layer.names[e]) for e in layer.entries(node)]
    return found


def test_it_lists_what_the_tar_holds(tmp_path: Path) -> None:
    infos, sink = put_all(tmp_path, TREES), io.BytesIO()
    made = write_layer(infos, Compressor.at_hand(), StoreFiles(tmp_path), sink)
    layer = read(made.contents)
    archive = decompress(made, sink.getvalue())
    nodes = tree_of(layer)
    stream = io.BytesIO(archive)
    count = 0
    for entry in read_entries(stream, "the layer"):
        name = entry.name.removeprefix(b"nix/store/")
        if entry.name in (b"nix", b"nix/store"):
            continue
        count += 1
        node = nodes[name]
        if entry.kind is EntryKind.FILE:
            assert layer.kinds[node] == (EXECUTABLE if entry.mode == 0o555 else PLAIN)
            assert layer.sizes[node] == entry.size
            assert layer.offsets[node] == stream.tell()
        elif entry.kind is EntryKind.SYMLINK:
            assert layer.targets[node] == entry.target
        else:
            assert layer.kinds[node] == FOLDER
    assert count == len(nodes) == len(layer.kinds)
    assert layer.blob_size == made.descriptor.size
    assert layer.starts[-1] == made.tar_size
    for number, frame in enumerate(layer.frames):
        data = sink.getvalue()[layer.places[number] : layer.places[number + 1]]
        assert HashedFrame.of(data, frame.size) == frame
    assert parse_contents(dump_contents([made.contents] * 2), "x") == (layer, layer)


def test_a_small_tree_reads_back() -> None:
    layer = read(table(TREE))
    assert tree_of(layer) == {
        b"a-path": 0,
        b"a-path/bin": 1,
        b"a-path/share": 2,
        b"a-path/share/empty": 3,
        b"b-path": 4,
    }
    assert layer.offsets == (1536, 2048, 3584, 4096, 4608)


FRAME = HashedFrame.of(b"x", TAR_SIZE)
HOSTILE = {
    "a slash": [(PLAIN, 0, b"../x", 1)],
    "its own directory": [(FOLDER, 0, b"a", 0), (PLAIN, 1, b".", 1)],
    "its parent": [(FOLDER, 0, b"a", 0), (PLAIN, 1, b"..", 1)],
    "no name": [(FOLDER, 0, b"a", 0), (PLAIN, 1, b"", 1)],
    "a long name": [(PLAIN, 0, b"n" * 256, 1)],
    "a name twice": [(FOLDER, 0, b"a", 0), (PLAIN, 1, b"x", 1), (PLAIN, 1, b"x", 1)],
    "a path twice": [(PLAIN, 0, b"a", 1), (PLAIN, 0, b"a", 1)],
    "out of order": [(FOLDER, 0, b"a", 0), (PLAIN, 1, b"y", 1), (PLAIN, 1, b"x", 1)],
    "a NUL": [(PLAIN, 0, b"a\0b", 1)],
    "an empty target": [(LINK, 0, b"a", 0)],
    "a long target": [(LINK, 0, b"a", 4096)],
    "another kind": [(4, 0, b"a", 1)],
    "no files": [],
    "a file beyond the end": [(PLAIN, 0, b"a", 1 << 40)],
    "a file shorter than its place": [(PLAIN, 0, b"a", 1)],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_no_layer_can_be_is_refused(name: str) -> None:
    nodes = HOSTILE[name]
    # The size is right, where there is one: what is refused is the matter at hand.
    size = 1024 + sum(HEADER + (n + 511 & ~511 if k < LINK else 0) for k, _, _, n in nodes) + 1024
    if "file" in name:
        size = TAR_SIZE
    with pytest.raises(InputError):
        read(table(nodes, size=size & 0xFFFFFFFF))


_SIZE = "a frame of a size that no frame has"
_FILL = "its files fill"
FRAMES = {
    "none": ([], "lists no frames"),
    "too large": ([HashedFrame(1, FRAME_SIZE + 1, bytes(32))], _SIZE),
    "empty": ([FRAME, HashedFrame(1, 0, bytes(32))], _SIZE),
    "swollen": ([HashedFrame(FRAME_SIZE * 2, TAR_SIZE, bytes(32))], _SIZE),
    "too many": ([FRAME, FRAME], _FILL),
    "too short": ([HashedFrame(1, TAR_SIZE - 1, bytes(32))], _FILL),
}


@pytest.mark.parametrize("name", FRAMES)
def test_frames_that_cannot_be_are_refused(name: str) -> None:
    frames, why = FRAMES[name]
    with pytest.raises(InputError, match=why):
        read(table(TREE, frames=frames))


def test_nothing_follows_the_end() -> None:
    whole = dump_contents([table(TREE)])
    assert len(parse_contents(whole, "x")) == 1
    for text, reader in ((whole, lambda it: parse_contents(it, "x")), (table(TREE), read)):
        with pytest.raises(InputError, match="does not end where it should"):
            reader(text + b"\0")


def test_every_target_is_a_links() -> None:
    """One byte more in the column of targets, which its length counts, is nobody's."""
    text = table([(LINK, 0, b"a", 3)], size=1024 + HEADER + 1024)
    assert read(text).targets == {0: b"ttt"}
    head = struct.Struct("<IIII")
    frames, nodes, names, targets = head.unpack(text[: head.size])
    more = head.pack(frames, nodes, names, targets + 1) + text[head.size :] + b"t"
    with pytest.raises(InputError, match="do not belong together"):
        read(more)


def patched(at: int, value: int) -> bytes:
    """The small tree's table with another size for node *at*."""
    data = bytearray(table(TREE))
    sizes = 16 + 8 + 32 + 5 + 10
    struct.pack_into("<Q", data, sizes + 8 * at, value)
    return bytes(data)


@pytest.mark.parametrize("count", [3, 4, 1 << 20, (1 << 64) - 1])
def test_a_directory_cannot_claim_what_is_not_there(count: int) -> None:
    assert patched(0, 2) == table(TREE)
    with pytest.raises(InputError, match="director"):
        read(patched(2, count))


def test_a_directory_that_claims_less_gives_the_rest_away() -> None:
    """The count is all that says where a directory ends; a path out of order shows it here."""
    with pytest.raises(InputError, match="out of order"):
        read(patched(2, 0))


@pytest.mark.parametrize("cut", [0, 3, 8, 12, -1])
def test_a_cut_table_is_refused(cut: int) -> None:
    with pytest.raises(InputError):
        parse_contents(dump_contents([table(TREE)])[:cut], "x")


@pytest.mark.parametrize(
    "text", [b"", b"NSTABLE\x02" + bytes(4), b"NSTABLE\x01\xff\xff\xff\xff", b"\0" * 40]
)
def test_another_file_is_refused(text: bytes) -> None:
    with pytest.raises(InputError):
        parse_contents(text, "x")


@given(st.data())
def test_whatever_is_read_lies_inside_and_apart(data: st.DataObject) -> None:
    text = bytearray(table(TREE))
    for _ in range(data.draw(st.integers(1, 3))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    try:
        layer = read(bytes(text))
    except InputError:
        return
    before = 2 * tar.BLOCK
    for node, offset in enumerate(layer.offsets):
        assert offset > before or node == 0
        before = offset + (layer.sizes[node] if layer.kinds[node] <= EXECUTABLE else 0)
    assert before <= layer.starts[-1]
    assert len(tree_of(layer)) == len(layer.kinds)
