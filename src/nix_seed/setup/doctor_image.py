"""Replays the image contract inside an image, by every engine."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from nix_seed.core.errors import CouldNotCheck
from nix_seed.core.events import Stage, tell
from nix_seed.core.files import has_program
from nix_seed.image.read.unpack import unpacked
from nix_seed.registry.layout import Image
from nix_seed.setup.rules import diagnosis as contract
from nix_seed.setup.rules.diagnosis import Diagnosis, Health, diagnose_error, diagnose_finding
from nix_seed.use.engines import ENGINES
from nix_seed.use.engines.base import EXCHANGE, Engine
from nix_seed.use.sandboxed import inside
from nix_seed.use.withheld import spec_of

_TRANSCRIPT = "transcript"
_NO_ENGINE = "install one: apt-get install bubblewrap mount util-linux; `nix-seed doctor` says more"


def kind_of(image: Image) -> contract.Kind:
    """Return what *image* is for, by its spec; an image of another maker is asked for all."""
    spec = spec_of(image)
    return "run" if spec is not None and spec.kind == "run" else "seed"


def check_image(image: Image, cache: Path, ways: Sequence[str] = ()) -> Iterator[Diagnosis]:
    """Replay the contract in *image*, by each engine of *ways* or, unnamed, all that work here."""
    if image.config.get("os", "linux") != "linux":
        said = f"the image is for {image.config.get('os')}, which has no containers"
        yield Diagnosis(
            "image", "contract", Health.UNCHECKED, said, "`nix-seed hydrate` unpacks it"
        )
        return
    kind = kind_of(image)
    if not has_program(unpacked(image, cache / "roots"), "/bin/sh"):
        # No engine could start it, and their words for that do not tell whose fault it is.
        yield _broken(
            "image", contract.checks_for(kind, image.architecture)[0], "there is no such program"
        )
        return
    reasons = []
    used = False
    for way in ways or ENGINES:
        engine = ENGINES[way](cache)
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


def _replay(way: str, engine: Engine, image: Image, kind: contract.Kind) -> Iterator[Diagnosis]:
    checks = contract.checks_for(kind, image.architecture)
    words = f"exec > {EXCHANGE}/{_TRANSCRIPT} 2>&1\n{contract.contract_script(checks)}"
    with inside(engine, image) as work:
        work.run(("/bin/sh", "-c", words), None)
        transcript = work.read(_TRANSCRIPT)
    findings = contract.read_findings(checks, transcript)
    if not any(finding.passed for finding in findings):
        # Said once, and not for each clause: nothing can be run in the image at all.
        yield _broken(way, findings[0].check, transcript.strip() or "nothing could be started")
        return
    yield from (diagnose_finding(way, finding) for finding in findings)


def _broken(way: str, check: contract.Clause, said: str) -> Diagnosis:
    return diagnose_finding(way, contract.ClauseResult(check, False, said))
