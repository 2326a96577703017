"""Replays the image contract inside an image: by every engine, and as GitHub's runner does."""

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from nix_seed.core.errors import CheckedFalse, CouldNotCheck
from nix_seed.core.events import Stage, tell
from nix_seed.core.files import has_program
from nix_seed.image.read.unpack import unpacked
from nix_seed.registry.layout import Image
from nix_seed.setup.rules import diagnosis as contract
from nix_seed.setup.rules.diagnosis import Diagnosis, Health, diagnose_clause, diagnose_error
from nix_seed.use.engines import ENGINES
from nix_seed.use.engines.base import EXCHANGE, Engine
from nix_seed.use.engines.containers import ask, extra
from nix_seed.use.sandboxed import inside
from nix_seed.use.withheld import spec_of

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


GITHUB = "github"
_TRANSCRIPT = "transcript"
_NO_ENGINE = "install one: apt-get install bubblewrap mount util-linux; `nix-seed doctor` says more"


def kind_of(image: Image) -> contract.Kind:
    """Return what *image* is for, by its spec; an image of another maker is asked for all."""
    spec = spec_of(image)
    return "run" if spec is not None and spec.kind == "run" else "seed"


def check_image(image: Image, cache: Path, ways: Sequence[str] = ()) -> Iterator[Diagnosis]:
    """Replay the contract in *image*, in each of *ways* or, unnamed, in all that work here.

    A way is an engine's name, or ``github``, which takes Docker. A seed is a job's container; an
    image to ship need not be one, so that it is asked only by engines.
    """
    if image.config.get("os", "linux") != "linux":
        said = f"the image is for {image.config.get('os')}, which has no containers"
        yield Diagnosis(
            "image", "contract", Health.UNCHECKED, said, "`nix-seed hydrate` unpacks it"
        )
        return
    kind = kind_of(image)
    if not _has_shell(image, cache):
        # No engine could start it, and their words for that do not tell whose fault it is.
        shell, *_ = contract.checks_for(kind, image.architecture)
        yield diagnose_clause("image", shell, "there is no such program", passed=False)
        return
    reasons = []
    used = False
    for way in ways or _all_ways(kind):
        engine = ENGINES["docker" if way == GITHUB else way](cache)
        tell(Stage("contract", f"replaying the contract by {way}"))
        try:
            reason = engine.unavailable()
            if reason is None:
                used = True
                yield from _replay(way, engine, image, kind)
            elif way in ways:
                raise CouldNotCheck(f"{way} cannot be used here", hint=reason)
            else:
                reasons.append(f"{way}: {reason}")
        except Exception as error:
            yield diagnose_error(way, "contract", error)
    if not used and not ways:
        said = "\n".join(["no engine can run the image here", *reasons])
        yield Diagnosis("image", "contract", Health.UNCHECKED, said, _NO_ENGINE)


def _all_ways(kind: contract.Kind) -> list[str]:
    return [*ENGINES, GITHUB] if kind == "seed" else list(ENGINES)


def _replay(way: str, engine: Engine, image: Image, kind: contract.Kind) -> Iterator[Diagnosis]:
    checks = contract.checks_for(kind, image.architecture)
    script = contract.contract_script(checks)
    if way == GITHUB:
        transcript = run_step(engine.prepare(image), script)
    else:
        transcript = _transcript(engine, image, script)
    findings = contract.read_findings(way, checks, transcript)
    if any(each.outcome is Health.FINE for each in findings):
        yield from findings
    else:
        # Said once, and not for each clause: nothing can be run in the image at all.
        said = transcript.strip() or "nothing could be started"
        yield diagnose_clause(way, checks[0], said, passed=False)


def _transcript(engine: Engine, image: Image, script: str) -> str:
    words = f"exec > {EXCHANGE}/{_TRANSCRIPT} 2>&1\n{script}"
    with inside(engine, image) as work:
        work.run(("/bin/sh", "-c", words), None)
        return work.read(_TRANSCRIPT)


def _has_shell(image: Image, cache: Path) -> bool:
    return has_program(unpacked(image, cache / "roots"), "/bin/sh")
