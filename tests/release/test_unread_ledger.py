"""What cannot be read, or lies where it does not belong, is nothing to go on from."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from attacks.promoted import PromotedWorld
from nix_seed.core.errors import CouldNotCheck
from nix_seed.formats.intoto.statement import Commit, first_key
from nix_seed.release.ledger import LoggedLedger
from nix_seed.release.load import load_policy, verifiers_of
from nix_seed.release.records import record_subject
from support.trust import SOURCE

ONE, TWO = (Commit(f"{number:040x}") for number in (1, 2))


def test_a_record_listed_where_it_does_not_belong_is_not_followed(tmp_path: Path) -> None:
    """Under the beginning lies what says that it comes after something else."""
    world = PromotedWorld.fresh(tmp_path)
    hidden = world.planned(commit=ONE)
    stray = world.planned(commit=TWO, previous=(hidden.digest,))
    world.list_under(record_subject(first_key(SOURCE)), stray, "rita")
    loaded = load_policy(world.write_policy(), datetime.now(UTC))
    found = LoggedLedger([verifiers_of(loaded)], [world.store], SOURCE).walk()
    assert found.records == ()


def test_nothing_is_promoted_while_the_ledger_cannot_be_read(tmp_path: Path) -> None:
    world = PromotedWorld.fresh(tmp_path)
    world.honest(commit=ONE)
    [item] = world.listed(first_key(SOURCE)).manifests
    (world.directory / "blobs/sha256" / item.digest.hex).unlink()
    world.attest_all(commit=TWO)
    with pytest.raises(CouldNotCheck, match="what the ledger holds before") as error:
        world.promote(commit=TWO)
    assert error.value.hint == "nothing was published; run the same command again"
    assert world.store.head_manifest(str(TWO)) is None
