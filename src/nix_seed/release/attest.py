"""image + store + Git -> a signed statement: this builder got this image from this commit.

What is stated is looked up, never taken from the command line: the flake, evaluated at the commit,
must ask for just what the image holds, and this store must yield the image, bit for bit.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from nix_seed.core.declared import time_text
from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, InputError
from nix_seed.core.events import Stage, tell
from nix_seed.core.values import dataclass
from nix_seed.flake.checkout import Checkout
from nix_seed.flake.nix import Nix
from nix_seed.flake.provenance import count_origins, nix_facts
from nix_seed.formats.intoto import statement as intoto
from nix_seed.formats.intoto.bundle import Bundle
from nix_seed.formats.oci.manifest import Descriptor
from nix_seed.image.build import assemble_image
from nix_seed.image.inspect import InspectedImage, inspect
from nix_seed.image.layer_cache import LayerCache
from nix_seed.image.plan import Plan, plan_image
from nix_seed.image.read.spec import seed_image
from nix_seed.image.request import Request
from nix_seed.image.rules.changes import compare_specs
from nix_seed.image.rules.partition import DEFAULT_BUDGET
from nix_seed.image.rules.spec import Spec
from nix_seed.registry.open import AnyReference, Stores, check_writable, fetch
from nix_seed.registry.store import ImageStore
from nix_seed.release.attester import Attester, SourceTree
from nix_seed.release.preflight import prepare_attest
from nix_seed.roots.rules.roots import roots_digest
from nix_seed.sbom.sbom import MEDIA_TYPES, attach_sboms, sbom_of
from nix_seed.trust.attestations import agreement_of, attach_bundle, commit_subject, list_bundle
from nix_seed.trust.rules.policy_checks import check_counts
from nix_seed.trust.sign import log_signed


@dataclass(frozen=True, slots=True)
class Attested:
    """What was said of *image*, and where it lies: one referrer for each log, or one in all.

    *sboms* are the manifests of the bills of materials attached beside.
    """

    image: Digest
    predicate: intoto.BuildPredicate
    signer: str
    logs: tuple[str, ...]
    bundles: tuple[bytes, ...]
    referrers: tuple[Descriptor, ...]
    sboms: tuple[Descriptor, ...] = ()


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where images are made: the store of *nix*, the *cache* of layers, and *stores* of images."""

    stores: Stores
    nix: Nix
    cache: LayerCache


def attest(
    shop: Workshop, reference: AnyReference, tree: SourceTree, attester: Attester
) -> Attested:
    """State, sign, log and attach; return what was stated.

    Raises ``CheckedFalse`` where image, store and commit do not belong together, ``InputError`` for
    a tree with changes, and as the signer, the logs and the registry do.
    """
    started = _now()
    stores, nix, signer = shop.stores, shop.nix, attester.signer
    ready = prepare_attest(tree, attester)
    check_writable(stores, reference)
    store = stores.open(reference)
    root = fetch(store, reference)
    image = inspect(stores, reference.at(root.descriptor.digest))
    if not isinstance(image, InspectedImage):
        raise InputError(
            f"{reference} is an index of images", hint="attest the image of one system, by its tag"
        )
    seed = seed_image(store, root, str(reference))
    spec = seed.spec
    if attester.policy is not None:
        check_counts(attester.policy, attester.builder, ready.source.uri, spec.system, _clock())
    tell(Stage("compare", "comparing the image with the commit and the store"))
    plan = _check_flake(nix, spec, tree, ready.checkout)
    _check_store(nix, spec)
    _check_bytes(shop, replace(plan, spec=spec), image.digest)
    predicate = replace(
        _predicate(nix, image, spec, ready.source, attester.builder, started),
        roots_digest=roots_digest(plan.licences.roots),
    )
    wanted = tuple(MEDIA_TYPES) if attester.sboms is None else attester.sboms
    bills = attach_sboms(seed, sbom_of(seed, nix, plan.licences), wanted)
    store.check_attachable(root.descriptor.digest)
    store.check_attachable(commit_subject(predicate.source.commit).digest)
    tell(Stage("sign", f"signing as {signer.identity}"))
    statement = intoto.build_statement(predicate, str(reference).partition("@")[0])
    signed = signer.sign(intoto.PAYLOAD_TYPE, statement.dump())
    bundles = log_signed(signed, attester.logs)
    tell(Stage("attach", f"attaching to {root.descriptor.digest}"))
    referrers = _attach(store, root.descriptor, bundles, predicate.source.commit)
    names = tuple(log.trusted.id for log in attester.logs)
    return Attested(
        image.digest,
        predicate,
        signer.identity,
        names,
        tuple(bundle.dump() for bundle in bundles),
        referrers,
        bills,
    )


def _check_flake(nix: Nix, spec: Spec, tree: SourceTree, checkout: Checkout) -> Plan:
    """See that the flake, at its commit, asks for just what the image holds; return its plan."""
    flake = str(tree.directory.absolute()) if checkout.dirty else checkout.flake
    budget = max(DEFAULT_BUDGET, len(spec.layers))
    request = Request(flake, spec.choice(tree.attr), spec.compressor, budget)
    plan = plan_image(nix, request)
    found = compare_specs(plan.spec, spec)
    # How paths are divided into layers is the builder's choice (its base, its budget).
    members = sorted(set(found.members) - {"layers", "compressor", "withheld"})
    if found.paths:
        first = found.paths[0]
        raise CheckedFalse(
            f"the image is not what {checkout.commit} asks for: {len(found.paths)} store paths "
            f"differ, first {first.path}",
            hint="build the image of this commit first: nix-seed build",
        )
    if members:
        raise CheckedFalse(
            f"the image is not what {checkout.commit} asks for: its {', '.join(members)} differ",
            hint="build the image of this commit first: nix-seed build",
        )
    return plan


def _check_bytes(shop: Workshop, plan: Plan, image: Digest) -> None:
    """Make every layer from this store (or take those made of it before), and compare the digest.

    A registry's image may have the right spec over other bytes: nobody attests what he has not
    made himself.
    """
    made = assemble_image(shop.nix, plan, shop.cache).digest
    if made != image:
        raise CheckedFalse(
            f"this store makes {made} of the image's own spec, and the image is {image}",
            hint="the image holds other bytes than its spec says: `nix-seed verify --deep` shows "
            "where; do not attest it",
        )


def _check_store(nix: Nix, spec: Spec) -> None:
    """See that this machine's store, not only the image, holds each path with that NAR hash."""
    infos = {info.path: info for info in nix.path_infos(spec.paths)}
    for path, info in spec.paths.items():
        if path not in infos or infos[path].nar_hash != info.nar_hash:
            here = infos[path].nar_hash if path in infos else "nothing"
            raise CheckedFalse(
                f"{path} has NAR hash {info.nar_hash} in the image, and {here} in this store",
                hint="attest what was built here: build the image with this store",
            )


def _predicate(
    nix: Nix, image: InspectedImage, spec: Spec, source: intoto.Source, builder: str, started: str
) -> intoto.BuildPredicate:
    agreed = agreement_of(image, source.commit)
    return intoto.BuildPredicate(
        source=source,
        system=spec.system,
        nar_hash=agreed.nar_hash,
        layers=agreed.layers,
        image_digest=agreed.image_digest,
        builder=builder,
        nix=nix_facts(nix),
        paths=count_origins(nix, spec.paths),
        started_on=started,
        finished_on=_now(),
    )


def _attach(
    store: ImageStore, subject: Descriptor, bundles: Sequence[Bundle], commit: intoto.Commit
) -> tuple[Descriptor, ...]:
    """Attach each bundle to the image, and list it under the commit as well."""
    found = []
    for bundle in bundles:
        text = bundle.dump()
        found.append(attach_bundle(store, subject, text, intoto.BUILD_TYPE))
        attach_to_commit(store, commit, text)
    return tuple(found)


def attach_to_commit(store: ImageStore, commit: intoto.Commit, bundle: bytes) -> Descriptor:
    """List *bundle*, which is in *store* already, among the referrers of *commit*."""
    return list_bundle(store, commit_subject(commit), bundle, intoto.BUILD_TYPE)


def _clock() -> datetime:
    return datetime.now(UTC)


def _now() -> str:
    return time_text(_clock())
