"""Verify, export and diff: the answer as a value, and evidence carried elsewhere."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

import nix_seed
from nix_seed.core.digests import Digest
from nix_seed.core.errors import CouldNotCheck, InputError
from nix_seed.core.verdict import Fate
from nix_seed.formats.intoto.statement import Source
from nix_seed.formats.oci.reference import parse_reference
from nix_seed.formats.tlog.merkle import TreeHead
from nix_seed.logs.log import CheckpointState
from nix_seed.registry.open import Stores
from nix_seed.release.export import export
from nix_seed.release.load import load_policy, verifiers_of
from nix_seed.release.verify import Query, verify_image
from nix_seed.report.page.parts import State
from nix_seed.report.page.trust import trust_section, verdict
from nix_seed.report.report import TrustAnswer
from nix_seed.trust.rules import claims
from nix_seed.trust.rules.policy import LogFindings
from support import warm
from support.logs import served
from support.trust import COMMIT, OTHER_COMMIT, SOURCE, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.fresh(tmp_path)


def answer(world: World, **how: object) -> nix_seed.Verification:
    return nix_seed.verify(world.reference, world.write_policy(), **how)  # type: ignore[arg-type]


def command(*arguments: str) -> tuple[int, str]:
    done = warm.run(arguments, os.environ)
    return done.returncode, done.stdout + done.stderr


def test_the_answer_is_frozen_and_true_only_when_verified(world: World) -> None:
    world.publish("alice", "bob")
    found = answer(world, commit=str(COMMIT))
    assert found
    assert found.fate is Fate.VERIFIED
    assert found.exit_code == 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.fate = Fate.FALSE  # type: ignore[misc]
    (image,) = found.images
    (quorum,) = image.quorums
    assert [builder.id for builder in quorum.counted] == ["alice", "bob"]
    assert [missing.builder.id for missing in quorum.missing] == ["carol"]


def test_a_dissent_is_false_and_names_the_store_path(world: World) -> None:
    world.publish("alice", "bob")
    world.publish("carol", image=world.other)
    found = answer(world)
    assert not found
    assert found.exit_code == 1
    (detail,) = found.images[0].dissents
    assert detail.builder == "carol"
    assert detail.difference is not None
    assert [path.path.name for path in detail.difference.paths] == ["gcc-12.2.0"]


def test_a_judge_that_breaks_is_no_yes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.publish("alice", "bob", "carol")

    def broken(*_: object) -> LogFindings:
        raise RuntimeError("a bug")

    monkeypatch.setattr(claims, "judge_logs", broken)
    by = verifiers_of(load_policy(world.write_policy(), datetime.now(UTC)))
    found = verify_image(by, parse_reference(world.reference), Query())
    assert found.exit_code == 3
    assert "an unexpected RuntimeError in judging its logs: a bug" in found.reason


@pytest.mark.slow
def test_a_store_out_of_reach_is_could_not_check(world: World) -> None:
    with pytest.raises(CouldNotCheck):
        nix_seed.verify("localhost:1/nothing/here:tag", world.write_policy())


def test_no_policy_is_wrong_input(world: World) -> None:
    with pytest.raises(InputError, match=r"there is no policy at .*: there is no such file"):
        nix_seed.verify(world.reference, world.root / "absent.toml")


def test_time_is_the_callers(world: World) -> None:
    world.publish("alice", "bob")
    with pytest.raises(InputError, match="the policy expired on 2126-01-01"):
        answer(world, now=datetime(2200, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize("dissenting", [False, True], ids=["agreement", "dissent"])
def test_an_export_gives_the_same_answer(world: World, tmp_path: Path, dissenting: bool) -> None:
    world.publish("alice", "bob")
    if dissenting:
        world.publish("carol", image=world.other)
    done = export(Stores(), parse_reference(world.reference), tmp_path / "export")
    assert done.digest == world.image.descriptor.digest
    online, offline = answer(world), answer(world, offline=tmp_path / "export")
    assert offline.fate is online.fate
    assert offline.reason == online.reason
    paths = [[d.difference and d.difference.paths for d in each.images[0].dissents]
             for each in (online, offline)]  # fmt: skip
    assert paths[0] == paths[1]


def test_an_export_holds_layers_only_if_asked(world: World, tmp_path: Path) -> None:
    world.publish("alice", "bob")
    export(Stores(), parse_reference(world.reference), tmp_path / "shallow")
    export(Stores(), parse_reference(world.reference), tmp_path / "deep", deep=True)
    shallow = answer(world, offline=tmp_path / "shallow", deep=True)
    assert answer(world, offline=tmp_path / "deep", deep=True)
    assert shallow.exit_code == 3
    assert "not everything could be checked: reading" in shallow.reason


def test_evidence_from_another_repository_counts(world: World, tmp_path: Path) -> None:
    """A builder that cannot write where the image lies publishes beside its own copy."""
    other = World(tmp_path / "elsewhere")
    other.keys, other.log = world.keys, world.log
    world.publish("alice")
    other.publish("bob")
    assert not answer(world)
    assert answer(world, evidence=[other.reference])


def test_json_holds_verdict_reason_and_exit_code(world: World) -> None:
    world.publish("alice")
    code, out = command("verify", world.reference, "--policy", str(world.write_policy()), "--json")
    value = json.loads(out)
    assert code == value["exitCode"] == 1
    assert value["verdict"] == "checked and false"
    (image,) = value["images"]
    assert image["attestations"][0]["standing"] == "agrees"
    assert {m["builder"] for m in image["quorums"][0]["missing"]} == {"bob", "carol"}


def test_json_and_lines_name_the_roots_that_builders_state(world: World) -> None:
    ours, other = Digest.of(b"roots"), Digest.of(b"other roots")
    world.publish("alice", "bob", roots_digest=ours)
    policy = str(world.write_policy())
    ask = ("verify", world.reference, "--policy", policy, "--json")
    code, out = command(*ask)
    (quorum,) = json.loads(out)["images"][0]["quorums"]
    assert code == 0, out
    assert quorum["roots"] == [{"digest": str(ours), "builders": ["alice", "bob"]}]
    world.publish("carol", roots_digest=other)
    code, out = command(*ask)
    image = json.loads(out)["images"][0]
    (quorum,) = image["quorums"]
    assert code == 1, out
    assert quorum["agreeing"] == ["alice", "bob"]
    assert [each["digest"] for each in quorum["roots"]] == [str(ours), str(other)]
    (dissent,) = quorum["dissents"]
    assert (dissent["builder"], dissent["differs"]) == ("carol", ["roots_digest"])
    assert (dissent["rootsDigest"], dissent["layers"]) == (str(other), [])
    assert image["dissents"] == []  # there is no other image to compare
    code, out = command(*ask[:-1])
    assert f"DISSENTS   carol: its trust roots are {other}\n      look     nix-seed roots ." in out


def heads(world: World, *arguments: str) -> tuple[int, list[str]]:
    """The exit code, and what stands above the first empty line."""
    policy = str(world.write_policy())
    code, out = command("verify", world.reference, "--policy", policy, "-q", *arguments)
    return code, out.split("\n\n")[0].splitlines()


def test_the_verdict_comes_first_and_says_of_which_commit(world: World) -> None:
    world.publish("alice", "bob")
    code, lines = heads(world)
    assert (code, lines) == (
        0,
        [
            f"verified for commit {COMMIT.hex[:12]} of {SOURCE}",
            "verdict: VERIFIED: 2 builders agree (alice, bob), 2 are wanted",
        ],
    )
    world.publish("carol", image=world.other)
    code, lines = heads(world)
    assert (code, lines[0]) == (1, f"not verified for commit {COMMIT.hex[:12]} of {SOURCE}")
    assert lines[1] == "verdict: CHECKED AND FALSE: carol built something else from this commit"


def two_commits(world: World) -> None:
    """Builders agree on the image for one commit, and not for the other."""
    world.publish("alice", "bob")
    other = Source(SOURCE, OTHER_COMMIT, Digest.of(b"flake.lock"))
    for name, image in (("alice", world.image), ("bob", world.image), ("carol", world.other)):
        signed = world.sign(world.says(name, image, source=other))
        world.attach(world.bundle(signed), image, OTHER_COMMIT)


def test_a_dissent_on_another_commit_is_said_of_that_commit(world: World) -> None:
    two_commits(world)
    code, lines = heads(world)
    assert (code, lines) == (
        0,
        [
            f"verified for commit {COMMIT.hex[:12]} of {SOURCE}",
            "verdict: VERIFIED: 2 builders agree (alice, bob), 2 are wanted",
            f"not for commit {OTHER_COMMIT.hex[:12]}: carol built something else from this commit",
        ],
    )
    code, lines = heads(world, "--commit", str(OTHER_COMMIT))
    assert (code, lines[0]) == (1, f"not verified for commit {OTHER_COMMIT.hex[:12]} of {SOURCE}")


def test_builders_stand_below_the_commit_that_they_speak_of(world: World) -> None:
    two_commits(world)
    _, out = command("verify", world.reference, "--policy", str(world.write_policy()), "-q")
    parts = out.split("  commit       ")[1:]
    by_commit = {part.split()[0]: part for part in parts}
    assert "carol  dissents" in by_commit[str(OTHER_COMMIT)]
    assert "carol  dissents" not in by_commit[str(COMMIT)]
    assert all("alice  agrees" in part for part in parts)


def test_the_page_shows_no_green_banner_over_a_dissent_unnamed(world: World) -> None:
    two_commits(world)
    loaded = load_policy(world.write_policy(), datetime.now(UTC))
    found = verify_image(verifiers_of(loaded), parse_reference(world.reference), Query())
    state, words = verdict(TrustAnswer(loaded.policy, found, datetime.now(UTC)))
    assert state is State.VERIFIED
    assert words == (
        f"for commit {COMMIT.hex[:12]} of {SOURCE}: 2 builders agree (alice, bob), 2 are wanted; "
        f"not for commit {OTHER_COMMIT.hex[:12]}: carol built something else from this commit"
    )
    text = str(trust_section(TrustAnswer(loaded.policy, found, datetime.now(UTC))).body)
    for each in (COMMIT, OTHER_COMMIT):
        assert f"Builders, and what each says of commit {each.hex[:12]}" in text


def test_diff_names_layer_path_and_file(world: World) -> None:
    one, two = (f"oci:{world.directory}:{tag}" for tag in ("seed", "tampered"))
    code, out = command("diff", one, two, "--no-diffoscope")
    assert code == 1
    expected: Sequence[str] = (
        "layer 2 (toolchain) differs",
        "-gcc-12.2.0",
        "bin/gcc",
        "program of 10 bytes",
    )
    assert all(text in out for text in expected), out
    assert command("diff", one, one)[0] == 0


def test_a_served_log_is_held_to_what_it_showed(world: World, tmp_path: Path) -> None:
    world.publish("alice", "bob")
    with served(world.log) as server:
        world.logs[0]["url"] = f'"{server.url}"'
        assert answer(world, state=tmp_path / "state")
        world.log.append_bodies([b"one", b"more"])
        assert answer(world, state=tmp_path / "state")
        kept = CheckpointState(tmp_path / "state/checkpoints").seen(world.log.trusted)
        assert kept == world.log.checkpoint()
        world.log._publish(TreeHead(4, b"\7" * 32))
        found = answer(world, state=tmp_path / "state")
    assert found.exit_code == 1
    assert found.reason.startswith("the log log shows a split view: it signed two roots for size 4")
    assert CheckpointState(tmp_path / "state/checkpoints").seen(world.log.trusted) == kept


def test_offline_asks_no_log(world: World, tmp_path: Path) -> None:
    world.publish("alice", "bob")
    export(Stores(), parse_reference(world.reference), tmp_path / "export")
    world.logs[0]["url"] = '"http://127.0.0.1:9"'
    state = tmp_path / "state"
    assert answer(world, offline=tmp_path / "export", state=state)
    assert CheckpointState(state / "checkpoints").seen(world.log.trusted) is not None
    assert answer(world, state=state).fate is Fate.UNCHECKED


def test_a_layout_is_verified_without_what_only_registries_and_building_need(
    world: World,
) -> None:
    """Their libraries would take a third of the time, and a fifth of the memory, of all of it."""
    world.publish("alice", "bob")
    code = (
        "import sys\n"
        "from nix_seed.cli.main import main\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    slow = {'urllib3', 'ssl', 'sqlite3', 'msgspec', 'zstandard', 'importlib.metadata'}\n"
        "    print('imported', *sorted(slow & sys.modules.keys()), file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", code, "verify", world.reference, "--commit", str(COMMIT)]
    done = subprocess.run(
        [*command, "--policy", str(world.write_policy()), "-q"],
        env=os.environ | {"NIX_SEED_STATE": str(world.root / "state")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr.splitlines()[-1] == "imported"
