"""What an image had to leave out comes from its vendor, to a user who has accepted its licence.

The user's own evaluation of the flake makes the derivations, and the user's own Nix, still online,
downloads and builds what they say. A flake input's source tree has no derivation: that evaluation
fetches it. A container gets it as an export and registers it, together
with what refers to it, before its command starts.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from nix_seed.core.errors import CouldNotCheck, InputError
from nix_seed.core.events import Stage, tell
from nix_seed.flake.nix import Nix
from nix_seed.formats.nix.database import format_registration
from nix_seed.formats.nix.store_path import PathInfo, StorePath
from nix_seed.image.read.spec import read_spec
from nix_seed.image.rules.partition.assign import references_first
from nix_seed.image.rules.spec import Spec
from nix_seed.licences.rules.judge import Withheld, check_accepted
from nix_seed.registry.layout import Image
from nix_seed.use.engines.base import EXCHANGE

# Run inside before anything else; exits as an engine does that could not start the command.
TAKE_IN = rf"""
if test -e {EXCHANGE}/withheld; then
  nix-store --import < {EXCHANGE}/withheld > /dev/null &&
  nix-store --load-db < {EXCHANGE}/withheld-db || exit 125
fi
"""


def spec_of(image: Image) -> Spec | None:
    """Return the spec of *image*; None for one that is no seed, which withholds nothing."""
    try:
        return read_spec(image)
    except InputError:
        return None


def dependents(spec: Spec, there: Collection[StorePath]) -> tuple[PathInfo, ...]:
    """Return what of *spec* refers to something withheld, with its references to what is *there*.

    *there* are paths besides those of the image: the withheld ones that were got, and registered.
    """
    withheld = {item.path for item in spec.withheld}
    known = spec.paths.keys() | set(there)
    return tuple(
        replace(info, references=tuple(path for path in info.references if path in known))
        for info in spec.paths.values()
        if withheld & set(info.references)
    )


def needed_to_evaluate(spec: Spec) -> Spec:
    """Return *spec* with only that of what it withholds which evaluation reads: no derivation's."""
    return replace(spec, withheld=tuple(each for each in spec.withheld if not each.derivation))


def obtain_withheld(
    nix: Nix, spec: Spec, accepted: Sequence[str], flake: str, attr: str | None = None
) -> tuple[StorePath, ...]:
    """Have all that *spec* withholds valid in the store of *nix*; return it.

    *flake*, whose attribute *attr* the seed was built for, is evaluated for the derivations; that
    fetches its inputs. Raises ``InputError`` where a licence is not *accepted*, ``NixFailed`` with
    the vendor's or Nix's words, ``CouldNotCheck`` where the flake is not the one that the seed was
    made for.
    """
    check_accepted(spec.name, spec.withheld, accepted)
    if not spec.withheld:
        return ()
    from nix_seed.flake.evaluate import evaluate_flake

    names = ", ".join(item.name for item in spec.withheld)
    tell(Stage("withheld", f"getting from their vendors: {names}"))
    evaluate_flake(nix, flake, spec.choice(attr))
    _check_fetched(nix, needed_to_evaluate(spec).withheld, flake)
    nix.realise(_outputs(nix, spec, flake), ())
    return tuple(item.path for item in spec.withheld)


def _check_fetched(nix: Nix, trees: Sequence[Withheld], flake: str) -> None:
    """See that the *trees*, inputs of the flake and files of theirs, came with its evaluation."""
    paths = [item.path for item in trees]
    if nix.invalid_paths(paths):
        # A Nix that evaluates lazily leaves out of the store what no derivation refers to.
        nix.fetch_inputs(flake)
    lacking = nix.invalid_paths(paths)
    for item in trees:
        if item.path in lacking:
            raise _not_of(flake, f"{item.path}, a source tree")


def _outputs(nix: Nix, spec: Spec, flake: str) -> dict[StorePath, set[str]]:
    wanted: dict[StorePath, set[str]] = {}
    for item in spec.withheld:
        if not item.derivation:
            continue
        try:
            derivation = StorePath.parse(item.derivation)
            outputs = nix.read_derivation(derivation).outputs
        except (InputError, CouldNotCheck) as error:
            raise _not_of(flake, item.name) from error
        names = {name for name, output in outputs.items() if output.path == item.path}
        if not names:
            raise _not_of(flake, item.name)
        wanted.setdefault(derivation, set()).update(names)
    return wanted


def _not_of(flake: str, label: str) -> CouldNotCheck:
    return CouldNotCheck(
        f"{flake} does not say how to get {label}, which the seed must not pass on",
        hint="name the project that the seed was built for, with the same flake.lock;"
        " and with --attr the seed's own attribute, where it is not the default one",
    )


def offer_withheld(nix: Nix, spec: Spec, paths: Sequence[StorePath], exchange: Path) -> None:
    """Export *paths*, with what the image lacks of their closure, to *exchange* for ``TAKE_IN``."""
    if not paths:
        return
    closure = nix.closure(paths)
    lacking = {path: info.references for path, info in closure.items() if path not in spec.paths}
    ordered = references_first(
        {path: [e for e in names if e in lacking and e != path] for path, names in lacking.items()}
    )
    with (exchange / "withheld").open("wb") as file:
        nix.export_paths(ordered, file)
    (exchange / "withheld-db").write_text(format_registration(dependents(spec, paths)))
