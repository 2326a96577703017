"""What a CI job does for a seed that nobody has: make, prove, push and attest it.

For its report it says what of the seed before is used again.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from nix_seed.cli.setup.ci_find import LastSeed, SeedJob, SeedResult
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, NixSeedError
from nix_seed.formats.oci.reference import Reference
from nix_seed.image import plan as planning
from nix_seed.image.build import Assembly, Built, Destination, store_image
from nix_seed.image.layer_cache import LayerCache, LayerRecords
from nix_seed.image.push import check_publishable, push_image
from nix_seed.image.read.spec import RemoteSeed, open_seed_image
from nix_seed.image.read.unpack import private_cache
from nix_seed.image.request import Evaluated, name_image, tags_of
from nix_seed.registry.open import AnyReference
from nix_seed.registry.rules.lock import LOCK_NAME, SeedLock
from nix_seed.release.attest import Workshop, attest
from nix_seed.release.preflight import prepare_attest
from nix_seed.use.prove import Proof, check_proof, prove_built

_LATEST = "latest"
_SHOWN = 10  # store paths that a notice names


def make_seed(job: SeedJob, evaluated: Evaluated) -> SeedResult:
    """Make the seed that *evaluated* is of, and publish it where the job does.

    An image is given its tags only when all that is said of it lies beside it. Raises as the build,
    the registry and the signer do; ``CheckedFalse`` where the seed lacks what its flake needs.
    """
    lock = planning.read_lock(job.nix, evaluated.evaluation.flake)
    system = evaluated.evaluation.recipe.outline.system
    if job.publication is not None:
        if job.publication.attester is not None:
            tree, attester = job.publication.tree, job.publication.attester
            prepare_attest(tree, attester, system)
        job.remote.check_writable()
    base, last = _base(job, lock, system), _last(job, lock, system)
    plan = planning.plan_image(job.nix, job.request, base, evaluated)
    if job.publication is not None:
        # Before any work: what may not be passed on is not made either.
        check_publishable(plan.spec, job.repository, plan.licences.problem)
    else:
        job.notices.extend(_why_refused(plan, job.repository))
    # What this job pushes, this job has made.
    how = Assembly(job.nix, LayerCache(job.cache), reuse=False)
    built = how.assemble(plan)
    destination = Destination("oci", job.cache / "images", plan.input_key)
    here = store_image(built, how.cache, destination)
    proof, unproved = _prove(job, built, destination)
    made = SeedResult(
        system=plan.spec.system,
        digest=built.digest,
        nar_hash=str(plan.spec.nar_hash),
        input_key=plan.input_key,
        reference=here,
        built=True,
        published=False,
        layers=len(built.layers),
        size=sum(each.layer.descriptor.size for each in built.layers),
        proof=proof,
        unproved=unproved,
        last=None if last is None else _compare(last, built),
        notices=tuple(job.notices),
    )
    return made if job.publication is None else _publish(job, made, plan, how)


def _base(job: SeedJob, lock: SeedLock | None, system: str) -> planning.Base | None:
    """Return the seed that *lock* names, whose layers are kept.

    What is published must be what everyone makes, and needs it. Who only builds, a fork that
    may not read it for one, does without.
    """
    try:
        return None if lock is None else planning.locked_base(job.stores, lock, system)
    except CouldNotCheck as error:
        if job.publication is not None:
            raise
        job.notices.append(
            f"{LOCK_NAME} names a seed that could not be read, so the layers are divided as if "
            f"there were none: {error.message}"
        )
        return None


def _last(job: SeedJob, lock: SeedLock | None, system: str) -> RemoteSeed | None:
    """Return the seed before this one: the lock's, or what was promoted last; None without.

    There may be none yet, it may be private or foreign: no reason for a job to fail.
    """
    locked = None if lock is None else lock.reference(system)
    reference: AnyReference = locked or job.repository.at(_LATEST)
    try:
        return open_seed_image(job.stores, reference, system)
    except NixSeedError:
        return None


def _prove(job: SeedJob, built: Built, place: Destination) -> tuple[Proof | None, str | None]:
    """Prove the seed, or return why it could not be tried: macOS has no engine, for one."""
    if not job.want_proof or built.plan.spec.kind != "seed":
        return None, None
    try:
        proof = prove_built(job.nix, built, place, private_cache(job.cache))
    except CouldNotCheck as error:
        return None, f"{error.message}: {error.hint}" if error.hint else error.message
    check_proof(proof)
    return proof, None


def _publish(job: SeedJob, made: SeedResult, plan: planning.Plan, how: Assembly) -> SeedResult:
    """Send what the registry lacks of the layers just made, attest the image, and name it."""
    publication, remote = job.publication, job.remote
    assert publication is not None
    with tempfile.TemporaryDirectory(prefix="nix-seed-") as name:
        records = LayerRecords(Path(name))
        # The cache holds what was just made, and each blob is hashed anew before it is sent.
        ours = replace(how, reuse=True)
        pushed = push_image(ours, plan, remote, job.repository, records, tags=None)
    image, attested = job.repository.at(pushed.built.digest), None
    if publication.attester is not None:
        shop = Workshop(job.stores, job.nix, how.cache)
        attested = attest(shop, image, publication.tree, publication.attester)
    # Last: whoever finds the image by a name finds its builder's word as well.
    tags = name_image(remote, image, (*tags_of(plan.evaluated), *publication.tags))
    made = replace(made, reference=pushed.reference, published=True, sent=pushed.sent)
    return replace(made, attested=attested, tags=tags)


def _compare(last: RemoteSeed, built: Built) -> LastSeed:
    """Say what of *built* who has the seed *last* has already, and who changed the rest."""
    at_hand = {layer.digest for layer in last.manifest.layers}
    made = [layer.layer.descriptor for layer in built.layers]
    kept = [layer.size for layer in made if layer.digest in at_hand]
    diff = planning.compare_with_base(built.plan.spec, last.spec)
    return LastSeed(last.name, len(kept), sum(kept), diff)


def _why_refused(plan: planning.Plan, repository: Reference) -> Iterator[str]:
    """Yield why *repository* would not be sent this seed: a pull request is the time to know."""
    try:
        check_publishable(plan.spec, repository, plan.licences.problem)
    except CheckedFalse as error:
        lines = (error.detail or "").splitlines()
        shown = [*lines[:_SHOWN], *([f"and {len(lines) - _SHOWN} more"] if lines[_SHOWN:] else [])]
        yield f"publishing would be refused: {error.message}: {'; '.join(shown)} ({error.hint})"
