"""A source tree, an image and an engine: one script run inside, what it wrote read back."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import field
from pathlib import Path

from nix_seed.core.errors import InputError, of_store
from nix_seed.core.files import explained, list_planted, read_if_there
from nix_seed.core.values import dataclass
from nix_seed.flake.checkout import copy_history
from nix_seed.formats.nix.store_path import STORE_DIR, StorePath
from nix_seed.image.read.safe_root import scratch_directory
from nix_seed.registry.layout import Image
from nix_seed.use.engines.base import HISTORY, SOURCE, Engine, Job

_LONGEST = 1 << 28  # bytes of a list of store paths


@dataclass(frozen=True, slots=True)
class Tree:
    """The tree to mount (*root*, the whole repository) and the directory in it to work in.

    *linked*: it is a Git worktree or submodule, whose history lies outside of it.
    """

    root: Path
    workdir: str
    linked: bool = False


def find_tree(source: Path, known_root: Path | None = None) -> Tree:
    """Return the repository that *source* lies in, or *source* itself where it is in none.

    A flake in a subdirectory is part of its repository, and Nix looks upwards for ``.git``. Where
    the tree's root is known, nothing is looked for.
    """
    path = source.resolve()
    if known_root is not None:
        return _tree(known_root.resolve(), path)
    if not path.is_dir():
        raise InputError(
            f"{source} is not a directory", hint="name the project's directory with --flake"
        )
    for root in (path, *path.parents):
        if (root / ".git").exists():
            return _tree(root, path)
    return _tree(path, path)


def _tree(root: Path, path: Path) -> Tree:
    below = path.relative_to(root)
    workdir = f"{SOURCE}/{below}" if below.parts else SOURCE
    return Tree(root, workdir, (root / ".git").is_file())


@dataclass(frozen=True, slots=True)
class Inside:
    """A prepared image: ``run`` starts a fresh copy each time. *seconds* is what preparing took."""

    engine: Engine
    image: Image
    prepared: str
    exchange: Path
    seconds: float
    env: Mapping[str, str] = field(default_factory=dict)
    network: bool = False

    def run(self, argv: tuple[str, ...], tree: Tree | None) -> int:
        """Run *argv* in *tree*, return its exit code; files it leaves are in ``exchange``."""
        if tree is not None and tree.linked and not (self.exchange / HISTORY).exists():
            copy_history(tree.root, self.exchange / HISTORY)
        job = Job(
            argv=argv,
            exchange=self.exchange,
            source=None if tree is None else tree.root,
            workdir="/" if tree is None else tree.workdir,
            env=self.env,
            network=self.network,
        )
        return self.engine.run(self.prepared, self.image, job)

    def read(self, name: str) -> str:
        """Return the text of a file the script left, or nothing where it left none.

        What ran inside may have put a link there: that would be one to a file of the host's.
        """
        text = read_if_there(self.exchange / name, _LONGEST)
        return (text or b"").decode("utf-8", "surrogateescape")

    def listed(self, *below: str) -> tuple[StorePath, ...]:
        """Return the store paths that the script left in the directory *below*, none without it."""
        where = "/".join(below)
        with explained(f"listing what {self.image} left in {where}"), of_store():
            names = list_planted(self.exchange, *below)
            return tuple(StorePath.parse(f"{STORE_DIR}/{name}") for name in names)


@contextmanager
def inside(
    engine: Engine, image: Image, *, env: Mapping[str, str] | None = None, network: bool = False
) -> Iterator[Inside]:
    """Prepare *image* and yield it, with an exchange directory that lasts as long."""
    start = time.monotonic()
    prepared = engine.prepare(image)
    seconds = time.monotonic() - start
    with scratch_directory("nix-seed-") as directory:
        yield Inside(engine, image, prepared, directory, seconds, env or {}, network)
