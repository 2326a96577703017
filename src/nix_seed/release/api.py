"""What a program calls, without the command line: for policy engines and admission controllers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

from nix_seed.core.errors import InputError
from nix_seed.formats.intoto.statement import Commit
from nix_seed.formats.oci.reference import parse_reference
from nix_seed.registry.open import Stores
from nix_seed.release.export import exported
from nix_seed.release.load import earlier_of, load_policy, verifiers_of
from nix_seed.release.rules.answer import Verification
from nix_seed.release.verify import Query, ReleasePlace, verify_image

if TYPE_CHECKING:
    from nix_seed.release.attest import Attested
    from nix_seed.release.promote import Promoted
    from nix_seed.trust.sign import Signer


class VerifyOptions(TypedDict, total=False):
    """What ``verify`` may be told besides; ``verify`` says what each means."""

    commit: str | None
    system: str | None
    deep: bool
    promotion: bool | None
    offline: str | Path | None
    evidence: Sequence[str]
    ledgers: bool
    state: str | Path | None
    now: datetime | None
    stores: Stores | None


def verify(
    reference: str, policy: str | Path = "trust.toml", **options: Unpack[VerifyOptions]
) -> Verification:
    """Verify an image as ``nix-seed verify`` does; return the whole answer, frozen.

    *reference* is ``host/name:tag``, ``host/name@sha256:…`` or ``oci:DIR``; *policy* the path of a
    ``trust.toml``. *commit* is the one the image must be of (else any that builders name),
    *system* picks an image of an index, *deep* recomputes all from the layers, *promotion* asks
    whether the commit was promoted as this (None: if the policy knows promoters), *offline* is a
    directory that ``nix-seed export`` made, *evidence* names further repositories to look in.
    Without *ledgers* the policy's are not asked, as they cannot be *offline*, where nothing that
    needs their word is verified else.
    *state* is a directory in which the checkpoints of logs are kept and held against them (None:
    nothing is kept, and no log is asked). *now* is the time to judge by, aware of its zone (the
    clock's). *stores* carries credentials and connections over several calls.

    The answer is true only if the image is verified; its ``fate`` tells *checked and false* from
    *could not check*. Raises, from ``nix_seed.core.errors``: ``InputError`` for a wrong
    reference or policy, ``CouldNotCheck`` where the image itself is out of reach, ``CheckedFalse``
    where its store contradicts itself.
    """
    loaded = load_policy(Path(policy), options.get("now"))
    image, offline = parse_reference(reference), options.get("offline")
    commit, state = options.get("commit"), options.get("state")
    by = verifiers_of(
        loaded,
        options.get("stores"),
        None if state is None else Path(state),
        ask=offline is None,
        ledgers=options.get("ledgers", True),
    )
    query = Query(
        None if commit is None else Commit(commit),
        options.get("system"),
        options.get("deep", False),
        options.get("promotion"),
        tuple(parse_reference(each) for each in options.get("evidence", ())),
    )
    return verify_image(by, image if offline is None else exported(image, Path(offline)), query)


class AttestOptions(TypedDict, total=False):
    """What ``attest`` may be told besides; ``attest`` says what each means."""

    key: str | Path | None
    passphrase: str | None
    attr: str | None
    source: str | None
    store: str | Path | None
    stores: Stores | None


def attest(
    reference: str,
    checkout: str | Path,
    cache: str | Path,
    policy: str | Path = "trust.toml",
    **options: Unpack[AttestOptions],
) -> Attested:
    """State, signed, that this machine built *reference* from a commit, as ``nix-seed attest``.

    *checkout* is the directory of the flake at that commit, *cache* one for layers, *policy* the
    path of a ``trust.toml`` that knows the builder and the logs. *key* is the file of a private
    key, with its *passphrase* (None: the identity of the CI job signs). *attr* names the attribute
    that makes the image, *source* is where the flake is published (the remote called origin),
    *store* another Nix store. *stores* carries credentials and connections over several calls.

    Raises ``InputError`` for a signer that the policy does not know and for a tree with changes,
    ``CheckedFalse`` where image, store and commit do not belong together, ``CouldNotCheck`` where
    a log, a service or the registry is out of reach.
    """
    from nix_seed.flake.nix import Nix
    from nix_seed.image.layer_cache import LayerCache
    from nix_seed.release.attest import Workshop
    from nix_seed.release.attest import attest as attest_image
    from nix_seed.release.attester import Attester, SourceTree, builder_of
    from nix_seed.trust.sign import open_logs

    loaded = load_policy(Path(policy))
    signer, store = _signer(options.get("key"), options.get("passphrase")), options.get("store")
    builder = builder_of(loaded.policy, signer)
    shop = Workshop(
        options.get("stores") or Stores(),
        Nix(store=None if store is None else Path(store).absolute()),
        LayerCache(Path(cache)),
    )
    tree = SourceTree(Path(checkout), options.get("source"), options.get("attr"))
    logs = open_logs(loaded.policy, loaded.directory)
    return attest_image(shop, parse_reference(reference), tree, Attester(builder, signer, logs))


class PromoteOptions(TypedDict, total=False):
    """What ``promote`` may be told besides; ``promote`` says what each means."""

    key: str | Path | None
    passphrase: str | None
    tags: Sequence[str]
    evidence: Sequence[str]
    history: Sequence[str | Path]
    state: str | Path | None
    stores: Stores | None


def promote(
    commit: str,
    repository: str,
    policy: str | Path = "trust.toml",
    **options: Unpack[PromoteOptions],
) -> Promoted:
    """Release *commit* in *repository* as ``nix-seed promote`` does; return how far it is.

    *key* is the file of a private key, with its *passphrase* (None: the identity of the CI job
    signs). *tags* name the release besides the commit, *evidence* names further repositories to
    look in, *history* the files of earlier policies. *state* is a directory in which what logs
    and ledgers showed is kept and held against them (None: nothing is kept). *stores* carries
    credentials and connections over several calls.

    Nothing is published before every system has its quorum and enough promoters have signed.
    Raises ``CheckedFalse`` where that cannot come to be, ``CouldNotCheck`` where it cannot be told,
    ``InputError`` for a signer who is no promoter, or a tag that says something else.
    """
    from nix_seed.release.promote import Signing
    from nix_seed.release.promote import promote as promote_commit
    from nix_seed.trust.sign import open_logs

    loaded = load_policy(Path(policy))
    state = options.get("state")
    by = verifiers_of(loaded, options.get("stores"), None if state is None else Path(state))
    target = parse_reference(repository)
    if target.tag is not None or target.digest is not None:
        raise InputError(f"{repository} names an image, not a repository", hint="use tags=(…)")
    place = ReleasePlace(
        target,
        tuple(parse_reference(each) for each in options.get("evidence", ())),
        tuple(options.get("tags", ())),
    )
    signer = _signer(options.get("key"), options.get("passphrase"))
    signing = Signing(signer, open_logs(loaded.policy, loaded.directory, spare=True))
    history = [Path(each) for each in options.get("history", ())]
    return promote_commit(by, Commit(commit), place, signing, earlier_of(loaded, history))


def _signer(key: str | Path | None, passphrase: str | None) -> Signer:
    if key is not None:
        from nix_seed.trust.sign import KeySigner

        return KeySigner.open(Path(key), passphrase)
    from nix_seed.trust.sigstore import KeylessSigner

    return KeylessSigner()
