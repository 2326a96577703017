"""What a program calls, without the command line: for policy engines and admission controllers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from nix_seed.formats.intoto.statement import Commit
from nix_seed.formats.oci.reference import parse_reference
from nix_seed.registry.open import Stores
from nix_seed.release.export import exported
from nix_seed.release.load import judges_of, load_policy
from nix_seed.release.rules.answer import Verification
from nix_seed.release.verify import Asked, verify_image


def verify(
    reference: str,
    policy: str | Path = "trust.toml",
    *,
    commit: str | None = None,
    system: str | None = None,
    deep: bool = False,
    promotion: bool | None = None,
    offline: str | Path | None = None,
    evidence: Sequence[str] = (),
    ledgers: bool = True,
    state: str | Path | None = None,
    now: datetime | None = None,
    stores: Stores | None = None,
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
    moment = now or datetime.now(UTC)
    loaded = load_policy(Path(policy), moment)
    parsed = parse_reference(reference)
    return verify_image(
        stores or Stores(),
        parsed if offline is None else exported(parsed, Path(offline)),
        loaded.policy,
        Asked(None if commit is None else Commit(commit), system, deep, promotion),
        judges_of(
            loaded,
            None if state is None else Path(state),
            ask=offline is None,
            ledgers=ledgers,
        ),
        moment,
        evidence=[parse_reference(each) for each in evidence],
    )
