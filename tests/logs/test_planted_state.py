"""What is kept between runs is opened as plain files only: a planted name leads nowhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from nix_seed.audit.audit import AuditFiles
from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, NixSeedError
from nix_seed.formats.intoto.statement import Commit
from nix_seed.image.layer_cache import LayerCache
from nix_seed.logs.embedded import EmbeddedLog
from nix_seed.logs.log import CheckpointState
from nix_seed.release.verifiers import RootPins
from nix_seed.use.sandboxed import Inside
from support.logs import cheap_body

COMMIT = Commit("ab" * 20)
REPOSITORY = "registry.example/x"


def log_in(directory: Path) -> EmbeddedLog:
    return EmbeddedLog.create(directory / "log")


def append(directory: Path) -> None:
    log_in(directory).append_bodies([cheap_body(2)])


def see(directory: Path) -> None:
    trusted = EmbeddedLog.create(directory / "another").trusted
    CheckpointState(directory / "state").seen(trusted)


def advance(directory: Path) -> None:
    log = EmbeddedLog.create(directory / "another")
    CheckpointState(directory / "state").advance(log.trusted, log.checkpoint(), log.consistency)


def load_audit(directory: Path) -> None:
    AuditFiles(directory / "state").load(REPOSITORY)


def lock_audit(directory: Path) -> None:
    with AuditFiles(directory / "state").alone(REPOSITORY):
        pass


def pinned(directory: Path) -> None:
    RootPins(directory / "state").seen(REPOSITORY, COMMIT)


def left_inside(directory: Path) -> None:
    Inside(None, None, "", directory / "exchange", 0).read("export-list")  # type: ignore[arg-type]


READERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a log's lock": (append, "log/lock"),
    "a log's key": (append, "log/private/key.pem"),
    "a log's verifier key": (append, "log/log.vkey"),
    "a log's checkpoint": (append, "log/public/checkpoint"),
    "the checkpoints seen": (see, "state/*.checkpoint"),
    "the lock of the checkpoints seen": (advance, "state/lock"),
    "an audit's state": (load_audit, "state/*.json"),
    "an audit's lock": (lock_audit, "state/*.lock"),
    "a root seen": (pinned, "state/*.root"),
    "what a command left inside": (left_inside, "exchange/export-list"),
}


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A directory in which all of it lies."""
    log_in(tmp_path).append_bodies([cheap_body(1)])
    another = EmbeddedLog.create(tmp_path / "another")
    state = tmp_path / "state"
    CheckpointState(state).advance(another.trusted, another.checkpoint(), another.consistency)
    RootPins(state).keep(REPOSITORY, COMMIT, Digest("ab" * 32))
    lock_audit(tmp_path)
    (lock,) = state.glob("*.lock")
    lock.with_suffix(".json").write_bytes(b"{}")
    (tmp_path / "exchange").mkdir()
    (tmp_path / "exchange/export-list").write_text("")
    return tmp_path


@contextmanager
def planted(path: Path, kind: str) -> Iterator[Path]:
    victim = path.parent / "victim"
    victim.write_bytes(b"precious")
    path.unlink()
    match kind:
        case "link":
            path.symlink_to(victim)
        case "pipe":
            os.mkfifo(path)
        case _:
            path.symlink_to("/dev/zero")
    yield victim
    assert victim.read_bytes() == b"precious"


@pytest.mark.parametrize("kind", ["link", "pipe", "device"])
@pytest.mark.parametrize("name", READERS)
def test_what_was_planted_is_refused_by_name(name: str, kind: str, made: Path) -> None:
    use, where = READERS[name]
    with suppress(NixSeedError):
        use(made)  # nothing is amiss yet but an audit's state of no format
    (path,) = made.glob(where)
    with planted(path, kind), pytest.raises(CouldNotCheck, match="must be a plain file"):
        use(made)


def test_a_planted_layer_is_none_of_the_cache(tmp_path: Path) -> None:
    cache = LayerCache(tmp_path)
    (tmp_path / "layers").mkdir()
    (tmp_path / "layers/key.json").symlink_to("/dev/zero")
    assert cache.find("key") is None
    cache.prune(0)
    assert not (tmp_path / "layers/key.json").is_symlink()


@pytest.mark.parametrize("below", [("drv",), ("nix", "store")])
def test_a_planted_directory_is_not_listed(below: tuple[str, ...], tmp_path: Path) -> None:
    """What ran in an image may leave a link where a proof looks for derivations."""
    exchange, elsewhere = tmp_path / "exchange", tmp_path / "elsewhere"
    (elsewhere / "store").mkdir(parents=True)
    (elsewhere / "secret").touch()
    (elsewhere / "store/secret").touch()
    exchange.mkdir()
    left = Inside(None, None, "", exchange, 0)  # type: ignore[arg-type]
    assert left.listed(*below) == ()
    (exchange / below[0]).symlink_to(elsewhere)
    with pytest.raises(CouldNotCheck, match="must be a directory of its own"):
        left.listed(*below)
    (exchange / below[0]).unlink()
    (exchange / below[0]).write_text("a file")
    with pytest.raises(CouldNotCheck, match="must be a directory of its own"):
        left.listed(*below)


def test_what_is_no_store_path_is_the_images_fault(tmp_path: Path) -> None:
    (tmp_path / "drv/..x").mkdir(parents=True)
    with pytest.raises(CheckedFalse, match="is not a path in /nix/store"):
        Inside(None, None, "", tmp_path, 0).listed("drv")  # type: ignore[arg-type]
