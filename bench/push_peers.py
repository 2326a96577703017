"""The ways a closure gets into a registry without us; each as its users do it.

Two are not in any package registry: nixpkgs' script and nix2container. Who has them says where:
``NIX_SEED_BENCH_STREAM_LAYERED_IMAGE`` is the path of ``stream_layered_image.py``,
``NIX_SEED_BENCH_NIX2CONTAINER`` a checkout of nix2container.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.baselines import by_popularity
from nix_seed.image.plan import Plan
from support.goprograms import installed
from support.programs import need as need_program

__all__ = ["LAYERS", "PEERS", "Peer", "Setting", "run"]

LAYERS = 100
_LONGEST = 900
_STREAM = "NIX_SEED_BENCH_STREAM_LAYERED_IMAGE"
_NIX2CONTAINER = "NIX_SEED_BENCH_NIX2CONTAINER"
_SKOPEO = ["skopeo", "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"]


@dataclass(frozen=True, slots=True)
class Setting:
    """What a peer sends where: to *reference*, working in *work*, which it keeps between turns."""

    plan: Plan
    reference: str
    work: Path

    @property
    def paths(self) -> list[str]:
        return [str(path) for path in sorted(self.plan.spec.paths)]


Push = Callable[[Setting], None]


@dataclass(frozen=True, slots=True)
class Peer:
    """*prepare* skips, by name, where the peer is not at hand; it is not timed."""

    name: str
    prepare: Callable[[Path], Push]


def run(*command: str | Path, env: dict[str, str] | None = None) -> str:
    """Run a peer's command, which must succeed; return what it printed."""
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=_LONGEST,
        env=None if env is None else os.environ | env,
        check=False,
    )
    if done.returncode != 0:
        raise AssertionError(f"{command[0]} failed: {done.stderr[-2000:]}")
    return done.stdout.strip()


def _pipe(first: Sequence[str], then: Sequence[str]) -> None:
    with subprocess.Popen(first, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as source:
        done = subprocess.run(
            then, stdin=source.stdout, capture_output=True, timeout=_LONGEST, check=False
        )
        if source.stdout is not None:
            source.stdout.close()  # else a reader that failed leaves the writer waiting
    assert done.returncode == 0 == source.returncode, (then[:3], done.stderr.decode()[-2000:])


def _stream_layered_image(work: Path) -> Push:
    need_program("skopeo")
    script = os.environ.get(_STREAM)
    if script is None:
        pytest.skip(f"needs nixpkgs' stream_layered_image.py: name it in {_STREAM}")
    last = work / "customisation"
    last.mkdir()
    (last / "layer.tar").write_bytes(bytes(10240))
    (last / "checksum").write_text(
        "84ff92691f909a05b224e1c56abb4864f01b4f8e3c854e4bb4c7baf1d3f6d652"
    )

    def push(setting: Setting) -> None:
        groups = by_popularity(setting.plan.spec.paths, LAYERS - 1)
        conf = {
            "architecture": "amd64",
            "config": {},
            "os": "linux",
            "created": "1970-01-01T00:00:01+00:00",
            "mtime": "1970-01-01T00:00:01+00:00",
            "uid": 0,
            "gid": 0,
            "uname": "root",
            "gname": "root",
            "store_dir": "/nix/store",
            "from_image": None,
            "repo_tag": "bench:latest",
            "store_layers": [[str(path) for path in group.paths] for group in groups],
            "customisation_layer": str(last),
        }
        config = setting.work / "conf.json"
        config.write_text(json.dumps(conf))
        # To a file: skopeo reads a pipe only if it is compressed, and then writes a file itself.
        archive = setting.work / "image.tar"
        with archive.open("wb") as sink:
            command = [sys.executable, script, str(config)]
            subprocess.run(command, stdout=sink, stderr=subprocess.DEVNULL, check=True)
        run(*_SKOPEO, f"docker-archive:{archive}", f"docker://{setting.reference}")

    return push


def _nix2container(work: Path) -> Push:
    source = os.environ.get(_NIX2CONTAINER)
    if source is None:
        pytest.skip(f"needs nix2container: name a checkout of it in {_NIX2CONTAINER}")
    if shutil.which("go") is None:
        pytest.skip("needs nix2container, built by Go: install go")
    planner, pusher = work / "nix2container", work / "push"
    subprocess.run(["go", "build", "-o", str(planner), "."], cwd=source, check=True)
    driver = work / "driver"
    shutil.copytree(Path(__file__).with_name("nix2container"), driver)
    edit = ["go", "mod", "edit", "-replace", f"github.com/nlewo/nix2container={source}"]
    subprocess.run(edit, cwd=driver, check=True)
    env = os.environ | {"GOFLAGS": "-mod=mod -buildvcs=false"}
    built = subprocess.run(
        ["go", "build", "-o", str(pusher), "."],
        cwd=driver, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if built.returncode != 0:
        pytest.skip(f"needs nix2container's modules: {built.stderr[-200:]}")

    def push(setting: Setting) -> None:
        at = setting.work
        graph = [
            {
                "path": str(info.path),
                "narSize": info.nar_size,
                "references": [str(path) for path in info.references],
            }
            for info in setting.plan.spec.paths.values()
        ]
        (at / "graph.json").write_text(json.dumps(graph))
        (at / "config.json").write_text("{}")
        arguments = ["--max-layers", f"{LAYERS}", f"{at}/layers.json", f"{at}/graph.json"]
        run(planner, "layers-from-reproducible-storepaths", *arguments)
        run(planner, "image", at / "image.json", at / "config.json", at / "layers.json")
        run(pusher, at / "image.json", setting.reference, at / "sent.json")

    return push


def _crane(work: Path) -> Push:
    crane = installed("crane")

    def push(setting: Setting) -> None:
        layer = work / "layer.tar"
        run("tar", "-cf", layer, "-C", "/", *(path[1:] for path in setting.paths))
        arguments = ["--oci-empty-base", "-f", str(layer), "-t", setting.reference]
        run(crane, "append", "--insecure", *arguments)

    return push


def _storage(work: Path) -> list[str]:
    """A store of their own for buildah and podman."""
    return ["--root", f"{work}/storage", "--runroot", f"{work}/run", "--storage-driver", "vfs"]


def _buildah(work: Path) -> Push:
    buildah = need_program("buildah")
    storage = _storage(work)

    def push(setting: Setting) -> None:
        container = run(buildah, *storage, "from", "scratch")
        mounted = Path(run(buildah, *storage, "mount", container))
        (mounted / "nix/store").mkdir(parents=True)
        run("cp", "-a", *setting.paths, mounted / "nix/store")
        run(buildah, *storage, "commit", "--quiet", container, "bench")
        run(buildah, *storage, "rm", container)
        run(buildah, *storage, "push", "--tls-verify=false", "bench", setting.reference)

    return push


def _podman(work: Path) -> Push:
    podman = need_program("podman")
    storage = _storage(work)

    def push(setting: Setting) -> None:
        base = [podman, *storage]
        tar = ["tar", "-cf", "-", "-C", "/", *(path[1:] for path in setting.paths)]
        _pipe(tar, [*base, "import", "--quiet", "-", "bench"])
        run(*base, "push", "--tls-verify=false", "bench", setting.reference)

    return push


PEERS = (
    Peer(f"stream_layered_image, {LAYERS} layers, and skopeo", _stream_layered_image),
    Peer(f"nix2container, {LAYERS} layers", _nix2container),
    Peer("tar and crane append, one layer", _crane),
    Peer("buildah commit and push, one layer", _buildah),
    Peer("tar, podman import and push, one layer", _podman),
)


def forget(work: Path) -> None:
    """Remove what a peer kept, mounts of its storage included."""
    with suppress(OSError):
        shutil.rmtree(work)
