"""Starts a container as GitHub's runner starts a job's, and runs a step in it."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from nix_seed.clients.engines.containers import ask, extra
from nix_seed.ground.errors import CheckedFalse, CouldNotCheck

__all__ = ["run_step"]

_WORK = "/__w/project/project"
_PROBE = "cat /etc/*release | grep ^ID"
_SECONDS = 600
# The runner's own words (its ContainerOperationProvider and ScriptHandler); the network is left
# out, for a contract needs none, and /__e, for which there is a check of its own.
_CREATE = ["--workdir", _WORK, "--network", "none", "--entrypoint", "tail"]
_ENVIRONMENT = ["-e", "HOME=/github/home", "-e", "GITHUB_ACTIONS=true", "-e", "CI=true"]
_STEP = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail"]


def run_step(image_id: str, script: str) -> str:
    """Run *script* as a step of a job in the image that Docker has as *image_id*; its output.

    Raises ``CouldNotCheck`` where the container cannot be made, ``CheckedFalse`` where the image
    lacks what the runner starts. What goes wrong in the step itself is in the output.
    """
    with tempfile.TemporaryDirectory(prefix="nix-seed-") as name:
        host = Path(name)
        mounts = []
        for place in ("__w", "github/home", "github/workflow"):
            (host / place).mkdir(parents=True)
            mounts += ["-v", f"{host / place}:/{place}"]
        (host / "__w/project/project").mkdir(parents=True)
        (host / "__w/_temp").mkdir()
        (host / "__w/_temp/contract.sh").write_text(script)
        (host / "__w/_temp/step.sh").write_text("sh /__w/_temp/contract.sh\n")
        with _container(image_id, mounts) as container:
            probe = _execute(container, ["sh", "-c", _PROBE])
            step = _execute(container, [*_STEP, "/__w/_temp/step.sh"])
            # What was made inside belongs to the user there, and would stay behind.
            _execute(container, ["sh", "-c", "chmod -R a+rwX /__w /github 2>/dev/null"])
        return step.stdout + (probe.stderr + step.stderr if step.returncode else "")


@contextlib.contextmanager
def _container(image_id: str, mounts: list[str]) -> Iterator[str]:
    docker = ["docker", *extra("docker")]
    more = extra("docker", run=True)
    create = [*docker, "create", *_CREATE, *_ENVIRONMENT, *mounts, *more]
    container = ask([*create, image_id, "-f", "/dev/null"], "create a job's container").strip()
    try:
        started = subprocess.run(
            [*docker, "start", container], capture_output=True, text=True, check=False
        )
        if started.returncode != 0:
            raise _no_start(started.stderr.strip())
        yield container
    finally:
        subprocess.run([*docker, "rm", "--force", container], capture_output=True, check=False)


def _no_start(words: str) -> CheckedFalse | CouldNotCheck:
    if "executable file not found" in words or "no such file" in words:
        return CheckedFalse(
            "a job's container does not start, for the image has no `tail`",
            detail=words,
            hint="GitHub starts it with `tail -f /dev/null`: put one on PATH",
        )
    return CouldNotCheck(
        "Docker could not start a job's container", detail=words, hint="see Docker's own words"
    )


def _execute(container: str, argv: list[str]) -> subprocess.CompletedProcess[str]:
    command = ["docker", *extra("docker"), "exec", "-i", "--workdir", _WORK, container, *argv]
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CouldNotCheck(
            f"a step of a job did not end within {_SECONDS} s", hint="docker exec hangs"
        ) from error
