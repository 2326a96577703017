"""Replays the image contract inside an image, by every engine there is and as GitHub's runner."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from nix_seed.clients.engines import ENGINES, EXCHANGE, Engine
from nix_seed.clients.github_job import run_step
from nix_seed.clients.image_layout import Image
from nix_seed.clients.inside_root import has_program
from nix_seed.clients.unpack import unpacked
from nix_seed.flows.events import OnEvent, Stage, ignore
from nix_seed.flows.sandboxed import inside
from nix_seed.flows.withheld import spec_of
from nix_seed.ground.errors import CouldNotCheck
from nix_seed.rules.contract import Check, Finding, Kind, checks_for, contract_script, read_findings
from nix_seed.rules.diagnosis import Diagnosis, Outcome, diagnose_error, diagnose_finding

__all__ = ["GITHUB", "check_image", "kind_of"]

GITHUB = "github"
_TRANSCRIPT = "transcript"
_NO_ENGINE = "install one: apt-get install bubblewrap util-linux; `nix-seed doctor` says more"


def kind_of(image: Image) -> Kind:
    """Return what *image* is for, by its spec; an image of another maker is asked for all."""
    spec = spec_of(image)
    return "run" if spec is not None and spec.kind == "run" else "seed"


def check_image(
    image: Image, cache: Path, ways: Sequence[str] = (), on_event: OnEvent = ignore
) -> Iterator[Diagnosis]:
    """Replay the contract in *image*, in each of *ways* or, unnamed, in all that work here.

    A way is an engine's name, or ``github``, which takes Docker. A seed is a job's container; an
    image to ship need not be one, so that it is asked only by engines.
    """
    if image.config.get("os", "linux") != "linux":
        said = f"the image is for {image.config.get('os')}, which has no containers"
        yield Diagnosis(
            "image", "contract", Outcome.UNCHECKED, said, "`nix-seed hydrate` unpacks it"
        )
        return
    kind = kind_of(image)
    if not _has_shell(image, cache):
        # No engine could start it, and their words for that do not tell whose fault it is.
        yield _broken("image", checks_for(kind, image.architecture)[0], "there is no such program")
        return
    reasons = []
    used = False
    for way in ways or _all_ways(kind):
        engine = ENGINES["docker" if way == GITHUB else way](cache)
        on_event(Stage("contract", f"replaying the contract by {way}"))
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
        yield Diagnosis("image", "contract", Outcome.UNCHECKED, said, _NO_ENGINE)


def _all_ways(kind: Kind) -> list[str]:
    return [*ENGINES, GITHUB] if kind == "seed" else list(ENGINES)


def _replay(way: str, engine: Engine, image: Image, kind: Kind) -> Iterator[Diagnosis]:
    checks = checks_for(kind, image.architecture)
    script = contract_script(checks)
    if way == GITHUB:
        transcript = run_step(engine.prepare(image), script)
    else:
        transcript = _transcript(engine, image, script)
    findings = read_findings(checks, transcript)
    if not any(finding.passed for finding in findings):
        # Said once, and not for each clause: nothing can be run in the image at all.
        yield _broken(way, findings[0].check, transcript.strip() or "nothing could be started")
        return
    yield from (diagnose_finding(way, finding) for finding in findings)


def _transcript(engine: Engine, image: Image, script: str) -> str:
    words = f"exec > {EXCHANGE}/{_TRANSCRIPT} 2>&1\n{script}"
    with inside(engine, image) as work:
        work.run(("/bin/sh", "-c", words), None)
        return work.read(_TRANSCRIPT)


def _has_shell(image: Image, cache: Path) -> bool:
    return has_program(unpacked(image, cache / "roots"), "/bin/sh")


def _broken(way: str, check: Check, said: str) -> Diagnosis:
    return diagnose_finding(way, Finding(check, False, said))
