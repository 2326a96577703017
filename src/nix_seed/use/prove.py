"""Prove that a seed is complete: plan every output of the flake inside it, with no network."""

import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, CouldNotCheck
from nix_seed.core.events import Stage, tell
from nix_seed.core.files import read_regular
from nix_seed.core.values import dataclass
from nix_seed.core.words import members
from nix_seed.flake.checkout import tracked_files
from nix_seed.flake.experiment import (
    REVISION,
    TWINS,
    altered,
    answered_otherwise,
    choose_asked,
    is_empty,
    read_questions,
    reason_of,
)
from nix_seed.flake.needed import read_lock
from nix_seed.flake.nix import Nix
from nix_seed.flake.nix_code import CODE, flake_code, nix_string
from nix_seed.flake.own_source import OwnSource
from nix_seed.flake.rules.existence import find_built_from, find_moved
from nix_seed.flake.rules.nix_version import find_misread, find_too_old
from nix_seed.flake.rules.recipe import Recipe
from nix_seed.formats.nix.store_path import Derivation, StorePath
from nix_seed.formats.oci.reference import LayoutReference
from nix_seed.image.build import Built, Destination, store_image
from nix_seed.image.layer_cache import LayerCache
from nix_seed.licences.rules.judge import Withheld
from nix_seed.registry.layout import Image
from nix_seed.registry.open import Stores
from nix_seed.use.engines.base import EXCHANGE, Engine
from nix_seed.use.rules import completeness as rules
from nix_seed.use.runnable import Runnable
from nix_seed.use.sandboxed import Inside, Tree, find_tree, inside
from nix_seed.use.withheld import TAKE_IN, needed_to_evaluate, offer_withheld, spec_of

# $1 is the expression. Those of the altered flake, which has none of the project's own, are in
# twin-1, twin-2 and so on, of which the first that evaluates counts. So are those, if there are
# any, of the flake with files added and removed (``flake/rules/existence.py``), in other-1 and on.
# Whatever Nix plans to build is copied out, to be judged on the host, with those sources of it that
# evaluation has just put into the store.
_LARGEST = 1 << 28  # bytes of a derivation

_SCRIPT = rf"""
x={EXCHANGE}
nix --version > $x/nix-version 2> /dev/null
ls /nix/store | sed 's,^,/nix/store/,' | LC_ALL=C sort > $x/before
# Nix gives up where another that starts beside it holds the database for a moment.
evaluate() {{
  for _ in 1 2 3 4 5; do
    nix --offline --extra-experimental-features 'nix-command flakes' eval --impure --raw \
      --expr "$1" > $x/$2 2> $x/$3 && return
    grep -q 'SQLite database .* is busy' $x/$3 || return 1
    sleep 1
  done
  return 1
}}
nix-store --init > /dev/null 2>&1
derivations() {{ grep -o '/nix/store/[^/]*\.drv$' "$1" | LC_ALL=C sort -u; }}
first() {{
  for each in 1 2 3 4 5 6; do
    test ! -e $x/$1-$each || ! evaluate "$(cat $x/$1-$each)" $1-outputs $1-problem || {{
      echo $each > $x/$1-taken
      return
    }}
  done
  return 1
}}
first twin & twin=$!
first other & other=$!
evaluate "$1" outputs problem || {{ wait; exit 1; }}
if wait $twin && test -s $x/twin-outputs; then
  nix-store --query --requisites $(derivations $x/twin-outputs) > $x/unowned || exit 1
fi
derivations $x/outputs > $x/wanted
all_of() {{ nix-store --query --requisites $(derivations "$1") | grep '\.drv$' | LC_ALL=C sort; }}
if wait $other && test -s $x/unowned; then
  mkdir $x/moved && all_of $x/outputs > $x/all && all_of $x/other-outputs > $x/others || exit 1
  LC_ALL=C comm -23 $x/all $x/others > $x/gone
  LC_ALL=C comm -13 $x/all $x/others > $x/come
  cat $x/gone $x/come | while read -r path; do cp "$path" $x/moved/ || exit 1; done
fi
: > $x/plan
test ! -s $x/wanted || nix-store --realise --dry-run $(cat $x/wanted) \
  > /dev/null 2> $x/plan || {{ cat $x/plan > $x/problem; exit 1; }}
mkdir -p $x/drv $x/nix/store
while read -r path _; do
  case $path in /nix/store/*.drv) cp "$path" $x/drv/ && echo "$path" ;; esac
done < $x/plan > $x/planned
if test -s $x/planned; then
  nix-store --query --references $(cat $x/planned) | grep -v '\.drv$' | LC_ALL=C sort -u > $x/used
  for path in $(LC_ALL=C comm -23 $x/used $x/before); do
    cp -R -P "$path" $x/nix/store/ || exit 1
  done
fi
: > $x/done
"""


@dataclass(frozen=True, slots=True)
class Proof:
    """What was planned, the *gaps*, and Nix's own words (*problem*) where it cannot evaluate.

    *left_out* are outputs that the seed is not meant for (mkSeed's ``include`` and ``exclude``).
    *too_old* says that the seed's Nix is older than the flake wants.
    """

    image: Digest
    system: str
    outputs: tuple[str, ...]
    gaps: tuple[rules.Gap, ...]
    problem: str | None = None
    left_out: tuple[str, ...] = ()
    too_old: str | None = None

    @property
    def missing(self) -> tuple[str, ...]:
        """A line for people for each gap: what it is, who needs it, how to add it."""
        if self.problem is not None:
            return (f"what evaluation needs: {reason_of(self.problem)}",)
        return tuple(f"{gap.name} ({gap.kind}{_who(gap)}); {gap.hint}" for gap in self.gaps)

    @property
    def remedy(self) -> str:
        """What to do about an incomplete seed."""
        if self.problem is None:
            return "add them with mkSeed { contents.packages = [ … ]; }"
        if self.too_old is not None:
            return f"{self.too_old}; name a newer one in the flake's seed: mkSeed {{ nix = …; }}"
        return (
            "an input that the seed lacks can be added: mkSeed { contents.inputs = [ … ]; };"
            " a source that changed flake.lock needs a new seed"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the proof as programs read it."""
        names = ("complete", "image", "system", "outputs", "left_out", "problem")
        missing = [members(gap, "path", "kind", "needed_by") for gap in self.gaps]
        return members(self, *names) | {"missing": missing}

    @property
    def complete(self) -> bool:
        """Whether every output can be built inside with no network."""
        return not self.gaps and self.problem is None


@dataclass(frozen=True, slots=True)
class Scope:
    """What a seed is meant for: the *outputs* by name, and the project's known *derivations*."""

    outputs: tuple[str, ...]
    derivations: frozenset[StorePath] = frozenset()


@dataclass(frozen=True, slots=True)
class ProvedFlake:
    """The flake in *source*, of which every output for *system* is to be planned.

    Without a *scope*, the flake's own seed *attr* says which outputs are meant; if it has none, all
    are. *root* is the tree that *source* is part of, where it is not the repository around it.
    """

    source: Path
    system: str
    attr: str = "seed"
    scope: Scope | None = None
    root: Path | None = None


def prove(
    engine: Engine,
    image: Image,
    flake: ProvedFlake,
    *,
    nix: Nix | None = None,
    obtained: Sequence[StorePath] = (),
) -> Proof:
    """Plan the outputs of *flake* inside *image*, and judge the plan.

    *obtained* is what the image withholds of what evaluation reads, got into the store of *nix*.
    Raises ``CouldNotCheck`` where the engine or the image's own Nix cannot run at all.
    """
    nix = nix or Nix()
    tree, system, scope = find_tree(flake.source, flake.root), flake.system, flake.scope
    tell(Stage("unpack", f"making {image.name} ready for {engine.name}"))
    with inside(engine, image) as work:
        spec = spec_of(image)
        excluded = () if spec is None else spec.excluded
        if spec is not None:
            offer_withheld(nix, spec, obtained, work.exchange)
        tell(Stage("prove", "planning every output with no network"))
        shutil.copytree(CODE, work.exchange / "code")
        for name, reference in _lay_twins(tree, work.exchange):
            (work.exchange / name).write_text(_expression(reference, flake, excluded))
        expression = _expression(_reference(tree), flake, excluded)
        script = ("/bin/sh", "-c", TAKE_IN + _SCRIPT, "nix-seed", expression)
        code = work.run(script, tree)
        if code == 127 or not (work.exchange / "problem").exists():
            raise CouldNotCheck(
                f"Nix could not be run inside {image.name} (exit code {code})",
                hint="is it a seed? `nix-seed doctor` says what the image lacks",
                detail=work.read("problem").strip() or None,
            )
        lines = work.read("outputs")
        outputs, left_out = rules.parse_outputs(lines), rules.parse_left_out(lines)
        names = tuple(dict.fromkeys(each.output for each in outputs))
        if not (work.exchange / "done").exists():
            problem = work.read("problem").strip() or f"exit code {code}"
            lock = read_lock(tree.root / _subdirectory(tree))
            here = nix.version() if nix.is_at_hand() else ""
            version = work.read("nix-version")
            if misread := find_misread(version, problem):
                raise CouldNotCheck(
                    f"whether the seed is complete: its {version.strip()} reads {misread} only when"
                    " pure, as `nix build` is and a proof is not",
                    hint="name a newer one in the flake's seed: mkSeed { nix = …; }",
                    detail=problem,
                )
            too_old = find_too_old(version, problem, lock, here)
            return Proof(image.digest, system, names, (), problem, left_out, too_old)
        gaps = _gaps(work, tree, outputs, scope, () if spec is None else spec.withheld)
        return Proof(image.digest, system, names, gaps, left_out=left_out)


def prove_built(nix: Nix, built: Built, destination: Destination, cache: Path) -> Proof:
    """Prove a seed that was just built, by the source it was built for, with whatever engine works.

    *cache* is where layers and unpacked images are kept.
    """
    flake = built.plan.evaluated.evaluation.flake
    source = nix.at(flake.source)
    below = re.search(r"[?&]dir=([^&]+)", flake.url)
    with tempfile.TemporaryDirectory(prefix="nix-seed-") as directory:
        if destination.format != "oci":
            destination = Destination("oci", Path(directory), "proof")
            store_image(built, LayerCache(cache), destination)
        reference = LayoutReference(str(destination.path), tag=destination.tag)
        proved = ProvedFlake(
            source / unquote(below[1]) if below else source,
            built.plan.spec.system,
            scope=_scope(built.plan.evaluated.evaluation.recipe),
            root=source,
        )
        # To build the seed was to evaluate the flake, with all that this reads.
        obtained = [item.path for item in needed_to_evaluate(built.plan.spec).withheld]
        # A proof reads little of the image: unpacking it would take longer.
        layout, system = Path(reference.directory), proved.system
        seed = Runnable(Stores(), reference, system, cache, layout, fills=False)
        return seed.use(
            lambda image, engine: prove(engine, image, proved, nix=nix, obtained=obtained)
        )


def check_proof(proof: Proof) -> None:
    """Raise ``CheckedFalse`` unless the seed is complete."""
    if proof.problem is not None:
        reason = reason_of(proof.problem)
        raise CheckedFalse(
            f"the flake cannot be evaluated inside the seed with no network: {reason}",
            detail=proof.problem,
            hint=proof.remedy,
        )
    if proof.gaps:
        raise CheckedFalse(
            f"the seed lacks {len(proof.gaps)} of the things its flake's outputs are built from",
            hint="\n".join(proof.missing),
        )


def _who(gap: rules.Gap) -> str:
    return f" for {', '.join(gap.needed_by)}" if gap.needed_by else ""


def _scope(recipe: Recipe) -> Scope:
    project = recipe.outline.project
    kinds = (project.packages, project.apps, project.checks, project.dev_shells)
    outputs = tuple(entry.output for kind in kinds for entry in kind)
    return Scope(outputs, recipe.project)


def _gaps(
    work: Inside,
    tree: Tree,
    outputs: tuple[rules.Planned, ...],
    scope: Scope | None,
    withheld: Sequence[Withheld],
) -> tuple[rules.Gap, ...]:
    read = partial(_read_derivation, work.exchange / "drv")
    derivations = {path: read(path) for path in work.listed("drv")}
    own = rules.parse_extra(work.read("outputs"))
    own |= frozenset() if scope is None else scope.derivations
    unowned = _paths(work, "unowned")
    if unowned:
        there = set(work.listed("moved"))
        gone, come = _paths(work, "gone") & there, _paths(work, "come") & there
        read = partial(_read_derivation, work.exchange / "moved")
        unowned -= find_moved(read, gone, come, gone - unowned)
        used = {source for item in derivations.values() for source in item.input_srcs}
        empty = {source for source in used if is_empty(work.exchange, source)}
        unowned -= find_built_from(derivations.__getitem__, derivations, empty)
        changed = derivations.keys() - unowned
        own |= {path for path in changed if not derivations[path].is_fixed_output}
    careful = work.read("twin-taken").strip() == str(len(TWINS))
    sources = frozenset() if unowned and not careful else _own_sources(work, tree)
    plan = rules.parse_plan(work.read("plan"))
    derivations_withheld = {item.derivation for item in withheld}
    left_out = [path for path in plan.build if str(path) in derivations_withheld]
    return rules.find_gaps(outputs, plan, derivations, sources, own, left_out)


def _paths(work: Inside, name: str) -> frozenset[StorePath]:
    return frozenset(map(StorePath.parse, work.read(name).split()))


def _read_derivation(directory: Path, path: StorePath) -> Derivation:
    data = read_regular(directory / path.base_name, _LARGEST)
    return Derivation.parse(data.decode("utf-8", "surrogateescape"), path.name)


def _own_sources(work: Inside, tree: Tree) -> frozenset[StorePath]:
    """Tell which of the sources that came out hold the project's own files."""
    is_own = OwnSource(tree.root, work.exchange)
    return frozenset(filter(is_own, work.listed("nix", "store")))


def _lay_twins(tree: Tree, exchange: Path) -> Iterator[tuple[str, str]]:
    """Put the altered flakes where a container sees them; yield a file's name and each reference.

    Others have files added and removed; there are none where no code of the flake can tell.
    """
    tracked = tracked_files(tree.root)
    for number, (further, change) in enumerate(TWINS, 1):
        with altered(tree.root, further=further, tracked=tracked, change=change) as twin:
            yield f"twin-{number}", _lay(twin, exchange / f"twin{number}", tree, revision=True)
    for number, asked in enumerate(choose_asked(read_questions(tree.root, tracked)), 1):
        with answered_otherwise(tree.root, asked, tracked) as other:
            revision = not asked.revision
            yield f"other-{number}", _lay(other, exchange / f"other{number}", tree, revision)


def _lay(altered_tree: Path, place: Path, tree: Tree, revision: bool) -> str:
    shutil.copytree(altered_tree, place, symlinks=True)
    below = _subdirectory(tree)
    query = [*([f"rev={REVISION}"] if revision else []), *([f"dir={below}"] if below else [])]
    return f"path:{EXCHANGE}/{place.name}?{'&'.join(query)}"


def _subdirectory(tree: Tree) -> str:
    return tree.workdir.removeprefix("/src").lstrip("/")


def _reference(tree: Tree) -> str:
    subdirectory = _subdirectory(tree)
    git = tree.root / ".git"
    query = [f"dir={subdirectory}"] if subdirectory else []
    # A clone that CI made has its history cut off, which Nix refuses unless told.
    query += ["shallow=1"] if (git / "shallow").exists() else []
    reference = "git+file:///src" if git.is_dir() else "path:/src"
    return reference + (f"?{'&'.join(query)}" if query else "")


def _expression(reference: str, flake: ProvedFlake, excluded: Sequence[str]) -> str:
    code, known = f"{EXCHANGE}/code", "null"
    if flake.scope is not None:
        known = _list(flake.scope.outputs)
    return (
        f"import {code}/outputs.nix {{ flake = {flake_code(code, reference)};"
        f" system = {nix_string(flake.system)}; attr = {nix_string(flake.attr)};"
        f" known = {known}; exclude = {_list(excluded)}; }}"
    )


def _list(names: Iterable[str]) -> str:
    return f"[ {' '.join(map(nix_string, names))} ]"
