"""Prove that a seed is complete: plan every output of the flake inside it, with no network."""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from nix_seed.clients.engines import EXCHANGE, Engine, choose_engine
from nix_seed.clients.image_layout import Image, open_image
from nix_seed.clients.layer_cache import LayerCache
from nix_seed.clients.nix import Nix
from nix_seed.flows.build import Built, Destination, store_image
from nix_seed.flows.events import OnEvent, Stage, ignore
from nix_seed.flows.sandboxed import Inside, Tree, find_tree, inside
from nix_seed.formats.nix.derivation import Derivation
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.formats.oci.reference import LayoutReference
from nix_seed.ground.digests import Digest
from nix_seed.ground.errors import CheckedFalse, CouldNotCheck
from nix_seed.rules.completeness import Gap, Planned, find_gaps, parse_outputs, parse_plan

__all__ = ["Proof", "check_proof", "prove", "prove_built"]

_KINDS = ("packages", "apps", "checks", "devShells")

# One line per derivation that makes an output; seeds among the packages are none of the project's.
_OUTPUTS = """
{ ref, system, kinds }:
let
  flake = builtins.getFlake ref;
  of = kind: (flake.${kind} or { }).${system} or { };
  isDrv = path: builtins.match ".*[.]drv" path != null;
  drvs = value:
    if value ? nixSeed then [ ]
    else if value ? program
    then builtins.filter isDrv (builtins.attrNames (builtins.getContext value.program))
    else if value ? drvPath then [ value.drvPath ]
    else [ ];
  line = kind: name: map
    (drv: "${kind}.${name}\\t${builtins.unsafeDiscardStringContext drv}\\n")
    (drvs (of kind).${name});
  lines = kind: builtins.concatMap (line kind) (builtins.attrNames (of kind));
in
builtins.concatStringsSep "" (builtins.concatMap lines kinds)
"""

# $1 is the expression. Whatever Nix plans to build is copied out, to be judged on the host.
_SCRIPT = rf"""
x={EXCHANGE}
nix --offline --extra-experimental-features 'nix-command flakes' \
  eval --impure --raw --expr "$1" > $x/outputs 2> $x/problem || exit 1
cut -f 2 $x/outputs | LC_ALL=C sort -u > $x/wanted
: > $x/plan
test ! -s $x/wanted || nix-store --realise --dry-run $(cat $x/wanted) \
  > /dev/null 2> $x/plan || {{ cat $x/plan > $x/problem; exit 1; }}
mkdir -p $x/drv
while read -r path _; do
  case $path in /nix/store/*.drv) cp "$path" $x/drv/ ;; esac
done < $x/plan
: > $x/done
"""


@dataclass(frozen=True, slots=True)
class Proof:
    """What was planned, the *gaps*, and Nix's own words (*problem*) where it cannot evaluate."""

    image: Digest
    system: str
    outputs: tuple[str, ...]
    gaps: tuple[Gap, ...]
    problem: str | None = None

    @property
    def missing(self) -> tuple[str, ...]:
        """A line for people for each gap: what it is, who needs it, how to add it."""
        if self.problem is not None:
            return (f"what evaluation needs: {self.problem.splitlines()[-1]}",)
        return tuple(f"{gap.name} ({gap.kind}{_who(gap)}); {gap.hint}" for gap in self.gaps)

    def to_json(self) -> dict[str, Any]:
        """Return the proof as programs read it."""
        return {
            "complete": self.complete,
            "image": str(self.image),
            "system": self.system,
            "outputs": list(self.outputs),
            "missing": [
                {"path": str(gap.path), "kind": gap.kind, "neededBy": list(gap.needed_by)}
                for gap in self.gaps
            ],
            "problem": self.problem,
        }

    @property
    def complete(self) -> bool:
        """Whether every output can be built inside with no network."""
        return not self.gaps and self.problem is None


def prove(
    *,
    engine: Engine,
    image: Image,
    source: Path,
    system: str,
    root: Path | None = None,
    on_event: OnEvent = ignore,
) -> Proof:
    """Plan all outputs of the flake in *source* for *system* inside *image*, and judge the plan.

    *root* is the tree that *source* is part of, where it is not the repository around it. Raises
    ``CouldNotCheck`` where the engine or the image's own Nix cannot run at all.
    """
    tree = find_tree(source, root)
    on_event(Stage("unpack", f"making {image.name} ready for {engine.name}"))
    with inside(engine, image) as work:
        on_event(Stage("prove", "planning every output with no network"))
        script = ("/bin/sh", "-c", _SCRIPT, "nix-seed", _expression(tree, system))
        code = work.run(script, tree)
        if code == 127 or not (work.exchange / "problem").exists():
            raise CouldNotCheck(
                f"Nix could not be run inside {image.name} (exit code {code})",
                hint="is it a seed? `nix-seed doctor` says what the image lacks",
                detail=work.read("problem").strip() or None,
            )
        outputs = parse_outputs(work.read("outputs"))
        names = tuple(dict.fromkeys(each.output for each in outputs))
        if not (work.exchange / "done").exists():
            problem = work.read("problem").strip() or f"exit code {code}"
            return Proof(image.digest, system, names, (), problem)
        return Proof(image.digest, system, names, _gaps(work, outputs))


def prove_built(
    nix: Nix, built: Built, destination: Destination, cache: Path, on_event: OnEvent = ignore
) -> Proof:
    """Prove a seed that was just built, by the source it was built for, with whatever engine works.

    *cache* is where layers and unpacked images are kept.
    """
    flake = built.plan.evaluated.evaluation.flake
    source = nix.root / str(flake.source).lstrip("/")
    below = re.search(r"[?&]dir=([^&]+)", flake.url)
    with tempfile.TemporaryDirectory(prefix="nix-seed-") as directory:
        if destination.format != "oci":
            destination = Destination("oci", Path(directory), "proof")
            store_image(built, LayerCache(cache), destination)
        reference = LayoutReference(str(destination.path), tag=destination.tag)
        return prove(
            engine=choose_engine(None, cache),
            image=open_image(reference),
            source=source / unquote(below[1]) if below else source,
            root=source,
            system=built.plan.spec.system,
            on_event=on_event,
        )


def check_proof(proof: Proof) -> None:
    """Raise ``CheckedFalse`` unless the seed is complete."""
    if proof.problem is not None:
        raise CheckedFalse(
            "the flake cannot be evaluated inside the seed with no network",
            detail=proof.problem,
            hint="a flake input that is missing in the seed can be added with mkSeed's inputs;"
            " a source that changed flake.lock needs a new seed",
        )
    if proof.gaps:
        raise CheckedFalse(
            f"the seed lacks {len(proof.gaps)} of the things its flake's outputs are built from",
            hint="\n".join(proof.missing),
        )


def _who(gap: Gap) -> str:
    return f" for {', '.join(gap.needed_by)}" if gap.needed_by else ""


def _gaps(work: Inside, outputs: tuple[Planned, ...]) -> tuple[Gap, ...]:
    derivations = {}
    for path in (work.exchange / "drv").iterdir():
        text = path.read_text("utf-8", "surrogateescape")
        derivations[StorePath(path.name)] = Derivation.parse(text, path.name)
    return find_gaps(outputs, parse_plan(work.read("plan")), derivations)


def _expression(tree: Tree, system: str) -> str:
    subdirectory = tree.workdir.removeprefix("/src").lstrip("/")
    git = (tree.root / ".git").is_dir()
    reference = ("git+file:///src" if git else "path:/src") + (
        f"?dir={subdirectory}" if subdirectory else ""
    )
    kinds = " ".join(json.dumps(kind) for kind in _KINDS)
    return (
        f"({_OUTPUTS}) {{ ref = {_string(reference)}; system = {_string(system)};"
        f" kinds = [ {kinds} ]; }}"
    )


def _string(text: str) -> str:
    return json.dumps(text).replace("${", "\\${")
