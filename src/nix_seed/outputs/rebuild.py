"""Builds a commit's outputs again as another builder would: in its seed, from nothing else.

The commit is taken from a clone of its own, the seed fills a store of its own, and the build has
neither a network nor any output that somebody made before.
"""

from collections.abc import Collection, Sequence
from pathlib import Path

from nix_seed.core.errors import InputError, NixFailed
from nix_seed.core.events import Stage, tell
from nix_seed.core.values import dataclass
from nix_seed.flake.checkout import clone_commit
from nix_seed.flake.nix import Nix
from nix_seed.formats.intoto.statement import Commit
from nix_seed.image.read.safe_root import scratch_directory
from nix_seed.image.read.spec import read_seed
from nix_seed.outputs import push
from nix_seed.outputs.open import built_in
from nix_seed.registry.open import AnyReference, fetch, fetch_if_there
from nix_seed.release.attester import Attester, SourceTree
from nix_seed.release.verifiers import Verifiers
from nix_seed.release.verify import Query, verify_commit, verify_image
from nix_seed.use.engines.base import Job
from nix_seed.use.engines.host import Host
from nix_seed.use.hydrate import hydrate


@dataclass(frozen=True, slots=True)
class RebuildRequest:
    """Of which *commit* of the checkout *directory*, for which *system*; where its *seed* is.

    *accepted* are the licences of what the seed withholds.
    """

    commit: Commit
    system: str
    seed: AnyReference
    directory: Path
    source: str | None = None
    accepted: Sequence[str] = ()


def find_seed(by: Verifiers, request: RebuildRequest) -> AnyReference:
    """Return the image that the commit was promoted as or, before that, has a quorum for.

    Outputs are promoted with their seed, so builders rebuild before anyone promotes.
    ``CheckedFalse`` where there is none, ``CouldNotCheck`` where that cannot be told.
    """
    query = Query(request.commit, request.system)
    found = verify_commit(by, request.seed, query) if by.policy.promoters else None
    if found is None or (found.promotion is not None and found.promotion.absent):
        tagged = request.seed.at(f"{request.commit}-{request.system}")
        there = fetch_if_there(by.stores, tagged)
        if there is None:
            raise InputError(
                f"{request.commit} is not promoted, and its seed {tagged} does not exist",
                hint="builders attest the commit's seed before they rebuild; --from says where",
            )
        digest = there.descriptor.digest
        found = verify_image(by, request.seed.at(digest), query)
    if not (found or found.awaits_promotion):
        raise found.fate.error(f"{request.commit} has no seed to rebuild in: {found.reason}")
    return request.seed.at(found.images[0].digest)


def rebuild(
    by: Verifiers, request: RebuildRequest, target: AnyReference, attester: Attester
) -> push.PushedOutputs:
    """Build all packages and checks of the commit in its seed, offline; sign and push them.

    ``NixFailed`` where something does not build: what does is not signed, either.
    """
    seed = find_seed(by, request)
    store = by.stores.open(seed)
    image = fetch(store, seed)
    spec = read_seed(str(seed), image, store).spec
    with scratch_directory("nix-seed-rebuild-") as scratch:
        root, clone = scratch / "store", scratch / "source"
        tell(Stage("clone", f"taking {request.commit} from {request.directory}"))
        clone_commit(request.directory, request.commit, clone)
        hydrate(
            by.stores,
            seed,
            root,
            system=request.system,
            accepted=request.accepted,
            project=str(clone),
        )
        nix = Nix(store=root, settings={"substituters": "", "flake-registry": ""})
        named = _build(nix, request, clone, spec.excluded)
        return push.push_outputs(
            push.OutputsTarget(by.stores, target, nix),
            built_in(spec, image.descriptor.digest),
            SourceTree(clone, request.source),
            attester,
            push.OutputChoice(named=named),
        )


def _build(
    nix: Nix, request: RebuildRequest, clone: Path, excluded: Collection[str]
) -> push.NamedOutputs:
    """Build the packages and checks that are not *excluded*, and return which they are."""
    flake = f"git+file://{clone}?rev={request.commit}"
    named = push.named_outputs(nix, flake, request.system, excluded)
    wanted = named.installables(flake, request.system)
    if not wanted:
        raise InputError(f"{request.commit} has no packages and checks for {request.system}")
    tell(Stage("command", f"building {len(wanted)} outputs, with no network"))
    argv = ("nix", "build", "--store", str(nix.root), "--no-link", "--keep-going", "-L", *wanted)
    code = Host(nix.root).run(str(nix.root), None, Job(argv, exchange=clone, source=clone))
    if code != 0:
        raise NixFailed(
            f"{request.commit} does not build in its seed, offline: nix exited with {code}",
            hint="nothing was signed; `nix-seed prove` says what a seed lacks",
        )
    return named
