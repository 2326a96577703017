"""A mount of a seed, served by the test, and looked at from a child with mounts of its own."""

import os
import pickle
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from nix_seed.image.rules.contents import LayerContents
from nix_seed.image.rules.layer import FinishedLayer
from nix_seed.use.mount import linux
from nix_seed.use.mount.frame_file import MountedLayer
from nix_seed.use.mount.frames import FrameStore
from nix_seed.use.mount.fuse import FuseServer
from nix_seed.use.rules.tree import StoreTree

T = TypeVar("T")


def need_fuse() -> None:
    """Skip the test by name where no image can be mounted."""
    problem = linux.why_not_here()
    if problem is not None:
        pytest.skip(f"needs /dev/fuse: {problem}")
    if os.geteuid() != 0:
        pytest.skip("needs root, or /dev/fuse for everyone")


def mounted(layer: FinishedLayer) -> MountedLayer:
    """What a mount is told of *layer*."""
    return MountedLayer(layer.descriptor, LayerContents.parse(layer.contents, "a table"))


def look(
    frames: FrameStore,
    layers: list[MountedLayer],
    directory: Path,
    work: Callable[[Path], T],
    before: Callable[[], None] = lambda: None,
) -> T:
    """Mount *layers* at *directory* in a child, do *work* there, and return its result.

    *before* is done in the child before its namespace is made.
    """
    directory.mkdir(exist_ok=True)
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            before()
            linux.enter_mount_namespace()
            device = linux.open_device()
            linux.mount_fuse(device, directory)
            socket.send_fds(theirs, [b"+"], [device])
            os.close(device)
            theirs.recv(1)
            result = pickle.dumps(work(directory))
            theirs.sendall(len(result).to_bytes(8, "little") + result)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    theirs.close()
    with ours:
        _, descriptors, _, _ = socket.recv_fds(ours, 16, 1)
        assert descriptors, "the child could not mount"
        server = FuseServer(
            descriptors[0], StoreTree([a.contents for a in layers], None), frames.contents
        )
        server.start()
        ours.send(b"+")
        size = int.from_bytes(_exactly(ours, 8), "little")
        value: T = pickle.loads(_exactly(ours, size))
    os.waitpid(child, 0)
    assert server.wait(10)
    os.close(descriptors[0])
    return value


def _exactly(stream: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = stream.recv(size - len(data))
        assert part, "the child failed"
        data += part
    return data
