"""Promote and verify, on real images, keys, log and policy."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

import nix_seed
from nix_seed.core.digests import Digest, NarHash
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError
from nix_seed.core.verdict import Fate
from nix_seed.formats.intoto.statement import Commit, PromotionPredicate
from nix_seed.formats.oci.manifest import About, Index, MediaType, fallback_tag
from nix_seed.formats.oci.reference import parse_reference
from nix_seed.registry.layout_store import LayoutStore
from nix_seed.release.load import load_policy, verifiers_of
from nix_seed.release.promote import Signing, promote
from nix_seed.release.records import find_proof, judge_ledger
from nix_seed.release.rules.answer import Verification
from nix_seed.release.rules.record import Shown, evaluate_promotion
from nix_seed.release.rules.tree import MemberProof
from nix_seed.release.verify import Query, ReleasePlace, verify_image
from nix_seed.trust.attestations import Listings
from nix_seed.trust.sign import open_logs
from support.audits import dangle, drop_record
from support.registries import docker_registry
from support.releases import ARM, ReleaseWorld
from support.trust import COMMIT, OTHER_COMMIT, SOURCE, SYSTEM


@pytest.fixture
def world(tmp_path: Path) -> ReleaseWorld:
    return ReleaseWorld.fresh(tmp_path)


def test_a_promoted_commit_verifies_by_commit_index_and_image(world: ReleaseWorld) -> None:
    world.attest_all()
    done = world.promote("rita", "latest")
    assert done.state == "promoted"
    assert done.tags == (str(COMMIT), "latest")
    for what in (
        [str(COMMIT), "--from", world.repository],
        [str(COMMIT), "--from", world.repository, "--system", ARM],
        [f"{world.repository}:latest"],
        [f"{world.repository}:latest", "--system", SYSTEM],
        [f"{world.repository}:seed"],
    ):
        ended = world.verify(*what)
        assert ended.code == 0, ended.printed
        assert "promoted by rita under root sha256:" in ended.printed


def test_promoting_again_is_a_no_op_that_says_so(world: ReleaseWorld) -> None:
    world.attest_all()
    first = world.promote("rita", "latest")
    size = world.log.checkpoint().head.size
    again = world.promote("rita", "latest")
    assert again.state == "already promoted"
    assert again.record.digest == first.record.digest
    other = world.promote("sam", "latest")
    assert other.state == "already promoted"
    assert world.log.checkpoint().head.size == size


def test_an_unpromoted_image_with_its_quorum_is_refused(world: ReleaseWorld) -> None:
    world.attest_all()
    ended = world.verify(f"{world.repository}:seed")
    assert ended.code == 1
    assert f"no promotion record of {COMMIT} was found" in ended.printed
    only = world.verify(f"{world.repository}:seed", "--quorum-only")
    assert only.code == 0
    assert "whether it was promoted was not checked" in only.printed


def verified(world: ReleaseWorld, state: str = "consumer") -> Verification:
    """Verify the image alone, as a job does that looks for a seed."""
    loaded = load_policy(world.write_policy(), datetime.now(UTC))
    by = verifiers_of(loaded, state=world.root / "state" / state)
    seed = parse_reference(f"{world.repository}:seed")
    return verify_image(by, seed, Query(system=SYSTEM))


def test_what_lacks_its_promotion_alone_awaits_it(world: ReleaseWorld) -> None:
    world.attest_all("alice")
    assert not verified(world).awaits_promotion, "its quorum is not met"
    world.attest_all("bob")
    found = verified(world)
    assert found.awaits_promotion
    assert found.exit_code == 1
    world.promote()
    found = verified(world)
    assert found
    assert not found.awaits_promotion


def test_what_is_dissented_from_awaits_nothing(world: ReleaseWorld) -> None:
    world.attest_all()
    world.publish("carol", image=world.other)
    found = verified(world)
    assert (found.exit_code, found.awaits_promotion) == (1, False)


@pytest.mark.parametrize("who", ["mallory", "alice"])
def test_where_a_record_is_refused_it_is_not_awaited(world: ReleaseWorld, who: str) -> None:
    """One by a stranger, or by who only builds, is not nothing."""
    world.attest_all()
    done = world.promote()
    world.attest_all(commit=OTHER_COMMIT)
    world.record(replace(done.record.predicate, commit=OTHER_COMMIT), who)
    drop_record(world.store, done.record.predicate, done.record.digest)  # type: ignore[arg-type]
    found = verified(world)
    assert (found.exit_code, found.awaits_promotion) == (1, False)


def test_what_two_roots_were_signed_for_awaits_nothing(world: ReleaseWorld) -> None:
    """Nor where the image is of another commit as well, of which nothing is said yet."""
    world.attest_all()
    done = world.promote()
    world.record(replace(done.record.predicate, root=Digest.of(b"another root")), "sam")
    world.attest_all(commit=Commit("0" * 39 + "1"))
    found = verified(world)
    assert (found.exit_code, found.awaits_promotion) == (1, False)
    assert "was promoted more than once" in found.reason


def test_what_was_seen_promoted_before_awaits_nothing(world: ReleaseWorld) -> None:
    world.attest_all()
    done = world.promote()
    assert verified(world)
    drop_record(world.store, done.record.predicate, done.record.digest)  # type: ignore[arg-type]
    found = verified(world)
    assert (found.exit_code, found.awaits_promotion) == (1, False)
    assert verified(world, "another machine").awaits_promotion


def test_two_of_two_promoters(world: ReleaseWorld) -> None:
    world.quorum["promoters"] = "2"
    world.attest_all()
    first = world.promote("rita", "latest")
    assert (first.state, first.missing, first.tags) == ("signed, not yet promoted", 1, ())
    assert world.store.head_manifest("latest") is None
    ended = world.verify(str(COMMIT), "--from", world.repository)
    assert ended.code == 1
    assert "1 of the 2 promoters that must sign the record did" in ended.printed
    second = world.promote("sam", "latest")
    assert second.state == "promoted"
    assert second.record.digest == first.record.digest
    assert [each.id for each in second.record.promoters] == ["rita", "sam"]
    assert world.verify(f"{world.repository}:latest").code == 0


def test_the_index_says_whose_commit_it_is_of(world: ReleaseWorld) -> None:
    world.attest_all()
    done = world.promote()
    fetched = world.store.get_manifest(str(COMMIT))
    assert fetched is not None
    assert Index.parse(fetched.body, "it").annotations == {
        "org.opencontainers.image.source": SOURCE.removeprefix("git+"),
        "org.opencontainers.image.revision": str(COMMIT),
        "org.opencontainers.image.title": SOURCE.rpartition("/")[2],
    }
    for beside in (COMMIT.key, fetched.descriptor.digest):
        listed = world.store.referrers(beside)
        said = [each.annotations.get("org.opencontainers.image.revision") for each in listed]
        assert said
        assert set(said) == {str(COMMIT)}
    assert done.record.predicate.index == fetched.descriptor.digest


@pytest.mark.parametrize("promoters", [1, 2])
def test_a_release_whose_index_says_nothing_of_itself_goes_on(
    world: ReleaseWorld, promoters: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As all were before: whoever comes to it later signs, publishes and verifies that one."""
    world.quorum["promoters"] = str(promoters)
    world.attest_all()
    with monkeypatch.context() as older:
        older.setattr(About, "annotations", lambda _: {})
        first = world.promote("rita")
    again = world.promote("sam", "latest")
    assert again.state == "promoted"
    assert again.record.digest == first.record.digest
    fetched = world.store.get_manifest("latest")
    assert fetched is not None
    assert fetched.descriptor.digest == first.record.predicate.index
    assert Index.parse(fetched.body, "it").annotations == {}
    assert world.verify(f"{world.repository}:latest").code == 0


def test_what_is_missing_is_named_and_nothing_published(world: ReleaseWorld) -> None:
    world.publish("alice", "bob")
    with pytest.raises(CheckedFalse, match="no image of it was found for aarch64-linux") as error:
        world.promote()
    assert error.value.detail == "aarch64-linux: no image of this commit was found"
    assert "--evidence REF" in (error.value.hint or "")
    world.publish("alice", image=world.arm)
    with pytest.raises(CheckedFalse, match="is not promoted: aarch64-linux has no quorum") as error:
        world.promote()
    arm = world.arm.descriptor.digest
    assert error.value.detail == f"aarch64-linux: {arm}: 1 of the 2 builders wanted agree"
    assert world.store.head_manifest(str(COMMIT)) is None


def test_a_target_is_made_only_when_something_is_put_there(world: ReleaseWorld) -> None:
    world.attest_all()
    target = world.root / "typo"
    ended = world.promote_by_command(f"oci:{target}")
    assert ended.code == 1
    assert f"no image of it was found for {ARM}, {SYSTEM}" in ended.printed
    assert not target.exists()
    world.publish("carol", image=world.other)
    ended = world.promote_by_command(f"oci:{target}", "--evidence", world.repository)
    assert (ended.code, target.exists()) == (1, False), ended.printed
    ended = world.promote_by_command(f"oci:{target}", "--evidence", f"oci:{world.root / 'nowhere'}")
    assert (ended.code, target.exists()) == (2, False), ended.printed


def test_a_target_that_is_not_there_is_made_for_a_release(world: ReleaseWorld) -> None:
    world.attest_all()
    target = world.root / "new"
    target.mkdir()
    ended = world.promote_by_command(f"oci:{target}", "--evidence", world.repository)
    assert ended.code == 0, ended.printed
    ended = world.verify(str(COMMIT), "--from", f"oci:{target}", "--evidence", world.repository)
    assert ended.code == 0, ended.printed


def test_a_target_that_is_no_layout_is_refused(world: ReleaseWorld) -> None:
    world.attest_all()
    ended = world.promote_by_command(f"oci:{world.root / 'log'}", "--evidence", world.repository)
    assert ended.code == 2, ended.printed


def test_a_tag_of_one_system_may_name_the_index(world: ReleaseWorld) -> None:
    """The image is then that of the index, whatever else names it."""
    world.attest_all()
    index = world.promote().record.predicate.index
    fetched = world.store.get_manifest(index)
    assert fetched is not None
    world.store.put_manifest(fetched.body, MediaType.INDEX, f"{COMMIT}-{SYSTEM}")
    done = world.promote("sam", "latest")
    assert (done.state, done.record.predicate.index) == ("promoted", index)


def test_a_tag_of_one_system_that_cannot_be_read_is_told_of_where_it_matters(
    world: ReleaseWorld,
) -> None:
    assert isinstance(world.store, LayoutStore)
    dangle(world.store, f"{COMMIT}-{ARM}")
    world.publish("alice", "bob")
    with pytest.raises(CouldNotCheck, match=f"{ARM} could not be checked") as error:
        world.promote()
    assert (error.value.detail or "").startswith(
        f"{ARM}: the tag {COMMIT}-{ARM} of {world.repository}: reading "
    )
    world.attest_all()
    assert world.promote().state == "promoted"


def test_an_image_that_cannot_be_read_is_told_of_where_it_matters(world: ReleaseWorld) -> None:
    world.publish("alice", "bob")
    world.publish("alice", "bob", image=world.arm)
    path = world.directory / "blobs" / "sha256" / world.arm.descriptor.digest.hex
    path.unlink()
    path.mkdir()
    with pytest.raises(CouldNotCheck, match=f"{ARM} could not be checked") as error:
        world.promote()
    said = error.value.detail or ""
    assert said.startswith(f"{ARM}: {world.arm.descriptor.digest}: {path} is a link")


def test_a_dissent_stands_in_the_way(world: ReleaseWorld) -> None:
    world.attest_all()
    world.publish("carol", image=world.other)
    with pytest.raises(CheckedFalse, match="x86_64-linux has no quorum") as error:
        world.promote()
    assert "carol built something else" in (error.value.detail or "")


def test_who_is_no_promoter_is_told_so(world: ReleaseWorld) -> None:
    world.attest_all()
    with pytest.raises(InputError, match="may not promote: by the policy rita, sam may"):
        world.promote("mallory")


@pytest.mark.parametrize(
    ("tag", "why"),
    [
        (fallback_tag(COMMIT.key), "it names what is listed beside a digest"),
        (f"{fallback_tag(COMMIT.key)}.att", "it names what is listed beside a digest"),
        (str(OTHER_COMMIT), "it names the release of another commit"),
        (f"{COMMIT}-{SYSTEM}", "it names one system's image"),
        (f"{OTHER_COMMIT}-armv7l-linux", "it names one system's image"),
    ],
)
def test_a_tag_that_says_something_else_is_refused(world: ReleaseWorld, tag: str, why: str) -> None:
    world.attest_all()
    before, size = world.store.list_tags(), world.log.checkpoint().head.size
    for target, *more in ([world.repository, "--tag", tag], [f"{world.repository}:{tag}"]):
        ended = world.promote_by_command(target, *more)
        assert ended.code == 2, ended.printed
        assert f"a release cannot be given the tag {tag}: {why}" in ended.printed
    assert (world.store.list_tags(), world.log.checkpoint().head.size) == (before, size)


def test_tags_of_ones_own_are_given(world: ReleaseWorld) -> None:
    world.attest_all()
    tags = (str(COMMIT), "latest", "v1.2", "sha256-short", f"{COMMIT}-signed")
    assert world.promote("rita", *tags).tags == tags


def test_another_root_for_a_promoted_commit_is_refused(world: ReleaseWorld) -> None:
    world.attest_all()
    done = world.promote()
    forged = _with_root(done.record.predicate, Digest.of(b"another"))
    world.record(forged, "rita")
    ended = world.verify(str(COMMIT), "--from", world.repository)
    assert ended.code == 1
    assert "was promoted more than once, as different things" in ended.printed
    with pytest.raises(CheckedFalse, match="was promoted before, by rita, under another root"):
        world.promote("sam")


def test_records_follow_one_another(world: ReleaseWorld) -> None:
    from nix_seed.formats.intoto.statement import Commit

    commits = [Commit(f"{number:040x}") for number in (1, 2, 3)]
    records = []
    for commit in commits:
        world.attest_all(commit=commit)
        records.append(world.promote(commit=commit).record)
    assert records[0].predicate.previous == ()
    assert records[1].predicate.previous == (records[0].digest,)
    assert records[2].predicate.previous == (records[1].digest,)


@pytest.mark.parametrize("system", [SYSTEM, ARM])
def test_an_export_of_one_system_verifies_offline_without_the_others(
    world: ReleaseWorld, system: str, tmp_path: Path
) -> None:
    world.attest_all()
    world.promote("rita", "latest")
    image = world.images[system].descriptor.digest
    out = tmp_path / "out"
    assert world.run("export", f"{world.repository}@{image}", str(out)).code == 0
    shutil.rmtree(world.directory)
    ended = world.verify(f"{world.repository}@{image}", "--offline", str(out))
    assert ended.code == 0, ended.printed
    assert f"member {system}" in ended.printed
    ended = world.verify(str(COMMIT), "--system", system, "--offline", str(out))
    assert ended.code == 0, ended.printed
    # It cannot tell of the other one, which is promoted all the same.
    (other,) = {SYSTEM, ARM} - {system}
    ended = world.verify(str(COMMIT), "--system", other, "--offline", str(out))
    assert ended.code == 3, ended.printed
    assert f"and for {other}: none lies beside the record" in ended.printed
    held = b"".join(path.read_bytes() for path in (out / "blobs").rglob("*") if path.is_file())
    assert other.encode() not in held


def test_an_export_of_the_index_verifies_offline(world: ReleaseWorld, tmp_path: Path) -> None:
    world.attest_all()
    world.promote("rita", "latest")
    out = tmp_path / "out"
    assert world.run("export", f"{world.repository}:latest", str(out)).code == 0
    shutil.rmtree(world.directory)
    for what in ([f"{world.repository}:latest"], [str(COMMIT)]):
        ended = world.verify(*what, "--offline", str(out))
        assert ended.code == 0, ended.printed


def test_an_export_carries_a_release_into_a_registry(world: ReleaseWorld, tmp_path: Path) -> None:
    """Into a room with no way out: there it verifies as where it was released."""
    world.attest_all()
    world.promote("rita", "latest")
    out = tmp_path / "out"
    assert world.run("export", f"{world.repository}:latest", str(out), "--deep").code == 0
    shutil.rmtree(world.directory)
    with docker_registry(tmp_path / "inside", password=False) as inside:
        there, alone = f"{inside.host}/inside/seed", f"{inside.host}/inside/alone"
        image = f"oci:{out}:exported"
        assert world.run("push", image, f"{there}:latest", "--evidence").code == 0
        for what in (
            [f"{there}:latest"],
            [str(COMMIT), "--from", there],
            [f"{there}:latest", "--deep"],
        ):
            ended = world.verify(*what)
            assert ended.code == 0, ended.printed
        assert world.run("push", image, f"{alone}:latest").code == 0
        ended = world.verify(f"{alone}:latest")
        assert (ended.code, "attestations none" in ended.printed) == (1, True), ended.printed
        ended = world.run("push", f"{there}:latest", f"{alone}:more", "--evidence")
        assert (ended.code, "nix-seed export" in ended.printed) == (2, True), ended.printed


def test_an_export_answers_for_nothing_else(world: ReleaseWorld, tmp_path: Path) -> None:
    world.attest_all()
    index = world.promote("rita", "latest").record.predicate.index
    out = tmp_path / "out"
    assert world.run("export", f"{world.repository}:latest", str(out)).code == 0
    for other in ("ghcr.io/evil/other:v9", f"{world.repository}:seed", world.repository):
        ended = world.verify(other, "--offline", str(out))
        assert ended.code == 2, ended.printed
        assert f"holds the export of {world.repository}:latest, not of {other}" in ended.printed
    # A digest names one thing, wherever it lies.
    ended = world.verify(f"mirror.example/seed@{index}", "--offline", str(out))
    assert ended.code == 0, ended.printed
    ended = world.verify(str(COMMIT), "--from", "HTTP://BAD REF", "--offline", str(out))
    assert (ended.code, "--offline DIR says where to look" in ended.printed) == (2, True)
    ended = world.verify("ghcr.io/a/b:v9", "--offline", str(world.directory))
    assert (ended.code, "is no export" in ended.printed) == (2, True)


def test_offline_the_word_of_a_ledger_is_missed_or_done_without(
    world: ReleaseWorld, tmp_path: Path
) -> None:
    where = f'address = "0x{40 * "1"}", rpc = ["http://127.0.0.1:9/"]'
    world.head["ledgers"] = f'[{{id = "main", kind = "evm", chainId = 1, {where}}}]'
    world.attest_all()
    image = f"{world.repository}@{_promoted_without_ledgers(world).index}"
    out = tmp_path / "out"
    assert world.run("export", image, str(out)).code == 0
    for what in ([image], [str(COMMIT)]):
        ended = world.verify(*what, "--offline", str(out))
        assert ended.code == 3, ended.printed
        assert f"whether the ledger main holds {COMMIT}: offline it is not read" in ended.printed
        ended = world.verify(*what, "--offline", str(out), "--no-ledgers")
        assert ended.code == 0, ended.printed
        assert "notice: --no-ledgers: whether main holds it was not checked" in ended.printed
    policy = world.write_policy()
    assert nix_seed.verify(image, policy, offline=out).exit_code == 3
    assert nix_seed.verify(image, policy, offline=out, ledgers=False).exit_code == 0


def _promoted_without_ledgers(world: ReleaseWorld) -> PromotionPredicate:
    """Publish what ``promote`` does once a ledger holds the release."""
    loaded = load_policy(world.write_policy(), datetime.now(UTC))
    done = promote(
        verifiers_of(loaded, ledgers=False),
        COMMIT,
        ReleasePlace(parse_reference(world.repository)),
        Signing(world.keys["rita"], open_logs(loaded.policy, loaded.directory)),
    )
    assert done.state == "promoted"
    return done.record.predicate


def _with_root(said: PromotionPredicate, root: Digest) -> PromotionPredicate:
    return replace(said, root=root)


def test_a_proof_is_of_one_image(world: ReleaseWorld) -> None:
    world.attest_all()
    world.promote("rita")
    by = verifiers_of(load_policy(world.write_policy(), datetime.now(UTC)))
    store = by.stores.open(parse_reference(world.repository))
    found = judge_ledger(Listings((store,)).of(COMMIT.key), by)
    proof = find_proof([store], found.records, ARM)
    assert isinstance(proof, MemberProof)
    for leaf, fate in (
        (proof.leaf, Fate.VERIFIED),
        (replace(proof.leaf, image_digest=Digest.of(b"another")), Fate.FALSE),
        (replace(proof.leaf, nar_hash=NarHash.of(b"another")), Fate.FALSE),
    ):
        judged = evaluate_promotion(by.policy, COMMIT, found, Shown((leaf,), {ARM: proof}))
        assert judged.fate is fate, judged.checks
