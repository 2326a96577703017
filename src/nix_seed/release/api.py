"""What a program calls, without the command line: for policy engines and admission controllers."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TypedDict, Unpack

from nix_seed.formats.intoto.statement import Commit
from nix_seed.formats.oci.reference import parse_reference
from nix_seed.registry.open import Stores
from nix_seed.release.export import exported
from nix_seed.release.load import load_policy, verifiers_of
from nix_seed.release.rules.answer import Verification
from nix_seed.release.verify import Query, verify_image


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
