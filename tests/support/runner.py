"""A runner for the steps of one repository: its events, its registry, and its machines."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support import built, warm
from support.distribution import NIX_SETTINGS
from support.engines import need, need_root
from support.registries import Running
from support.seeds import remove_tree
from support.steps import Result, run_action, runner_env

__all__ = ["REPOSITORY", "Runner", "as_origin"]

REPOSITORY = "Owner/Project"
_WRITES = ("POST", "PUT", "PATCH", "DELETE")
# What a fresh runner has without Nix; links of these are all of its PATH.
_PROGRAMS = (
    "sh bash env git cat grep ls mkdir mount unshare dirname sed id sudo python3 nproc sleep rm mv"
)


@dataclass
class Runner:
    """Runs our actions on *project*, with *registry* in the place of ghcr.io."""

    root: Path
    project: Path
    registry: Running
    runs: int = 0
    prefix: tuple[str, ...] = ()
    more: dict[str, str] = field(default_factory=dict)
    machines: list[Path] = field(default_factory=list)
    holders: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def seeds(self) -> str:
        """The repository of the project's seeds."""
        return f"{self.registry.host}/{REPOSITORY.lower()}-seed"

    def run(
        self,
        name: str,
        inputs: Mapping[str, str] | None = None,
        *,
        event: str = "push",
        payload: Any = None,
        env: Mapping[str, str] | None = None,
        sha: str | None = None,
    ) -> Result:
        """Run the action *name* (``.``, ``use``, ``promote``) for an event on ``main``."""
        self.runs += 1
        work = self.root / f"run-{self.runs}"
        work.mkdir(parents=True)
        said = {"repository": {"default_branch": "main"}} if payload is None else payload
        (work / "event.json").write_text(json.dumps(said))
        job = {
            "GITHUB_EVENT_NAME": event,
            "GITHUB_EVENT_PATH": str(work / "event.json"),
            "GITHUB_REPOSITORY": REPOSITORY,
            "GITHUB_ACTOR": "someone",
            "GITHUB_REF": "refs/heads/main",
            "GITHUB_SHA": sha or self.commit,
            "NIX_CONFIG": "".join(f"{key} = {value}\n" for key, value in NIX_SETTINGS.items()),
            "NIX_USER_CONF_FILES": "/dev/null",
            "NIX_SEED_BIN": str(command(self.root)),
            "NIX_SEED_CACHE": str(built.layers(self.root / "cache")),
            "NIX_SEED_STATE": str(self.root / "state"),
            **as_origin(self.project, f"https://github.com/{REPOSITORY}"),
        }
        return run_action(
            name,
            {"registry": self.registry.host, **(inputs or {})},
            work / "steps",
            workspace=self.project,
            env=runner_env(work, job) | self.more | dict(env or {}),
            prefix=self.prefix,
        )

    @property
    def commit(self) -> str:
        """The project's commit."""
        return git(self.project, "rev-parse", "HEAD")

    def writes(self) -> list[str]:
        """The requests to write that the registry has had."""
        lines = self.registry.log.read_text().splitlines()
        return [line for line in lines if any(f'] "{verb} ' in line for verb in _WRITES)]

    def tags(self, image: str | None = None) -> dict[str, str]:
        """The tags of the project's seeds, or of *image*, each with its digest."""
        data = self.registry.log.parent / "data/docker/registry/v2"
        name = image or f"{REPOSITORY.lower()}-seed"
        links = data.glob(f"repositories/{name}/_manifests/tags/*/current/link")
        return {link.parents[1].name: link.read_text() for link in links}

    def fresh(self) -> Runner:
        """The same job on another machine: an empty ``/nix``, an empty cache, and no Nix."""
        need_root()
        place = Path(tempfile.mkdtemp(prefix="machine-", dir=self.root))
        self.machines.append(place)
        (place / "nix").mkdir()
        # Programs may use their own store path in it: it is mounted where Nix's is. What a step
        # mounts is there in the next.
        spaces = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
        script = f'mount --bind "{place}/nix" /nix && echo && exec sleep 3600'
        holder = subprocess.Popen([*spaces, script], stdout=subprocess.PIPE)
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"\n"
        self.holders.append(holder)
        prefix = (need("nsenter", "util-linux"), f"--mount=/proc/{holder.pid}/ns/mnt", "--wd=.")
        more = {"PATH": str(programs(place)), "NIX_SEED_CACHE": str(place / "cache")}
        return Runner(place, self.project, self.registry, 0, prefix, self.more | more)

    def clean(self) -> None:
        """Throw the machines away: each has a store of half a gigabyte."""
        while self.holders:
            holder = self.holders.pop()
            for process in inhabitants(holder.pid):
                os.kill(process, signal.SIGKILL)
            holder.wait()
        while self.machines:
            remove_tree(self.machines.pop())

    def shell(
        self, result: Result, script: str, *, prefix: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Run a later step of the same job: with the variables and the PATH that *result* left."""
        env = runner_env(self.root, {}) | self.more | result.variables
        env["PATH"] = os.pathsep.join([*reversed(result.path), env["PATH"]])
        return subprocess.run(
            [*self.prefix, *prefix, "bash", "--noprofile", "--norc", "-e", "-c", script],
            cwd=self.project,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )


def inhabitants(process: int) -> list[int]:
    """Return every process that sees the mounts that *process* sees: those that serve one, too."""
    wanted = os.readlink(f"/proc/{process}/ns/mnt")
    found = []
    for place in Path("/proc").glob("[0-9]*/ns/mnt"):
        with contextlib.suppress(OSError):
            if os.readlink(place) == wanted:
                found.append(int(place.parts[2]))
    return found


def as_origin(project: Path, url: str) -> dict[str, str]:
    """Return what has Git find *project* where a remote is said to be at *url*."""
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{project}.insteadOf",
        "GIT_CONFIG_VALUE_0": url,
    }


def command(root: Path) -> Path:
    """Return a program that runs this checkout's command with this Python, spared as tests are."""
    return warm.program(root)


def programs(place: Path) -> Path:
    """Make a directory of just the programs that a machine without Nix has."""
    into = place / "bin"
    into.mkdir()
    for name in _PROGRAMS.split():
        found = shutil.which(name)
        if found is not None:
            (into / name).symlink_to(Path(found).resolve())
    return into


def git(directory: Path, *arguments: str) -> str:
    """Run Git there and return what it prints."""
    done = subprocess.run(
        ["git", "-C", str(directory), *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()
