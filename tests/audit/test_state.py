"""What an audit keeps, what the next one reads, and all that it can be told to do."""

from __future__ import annotations

import base64
import json
import re
import shutil
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from nix_seed.audit.audit import AuditFiles
from nix_seed.audit.rules.state import AuditState
from nix_seed.core import canonical_json
from nix_seed.core.digests import Digest
from nix_seed.formats.intoto.bundle import Bundle
from nix_seed.formats.intoto.statement import Statement, check_promotion
from nix_seed.formats.oci.manifest import About, MediaType
from nix_seed.registry.layout_store import LayoutStore
from nix_seed.release.records import attach_record
from nix_seed.trust.attestations import gather
from support.audits import Ledger, commit, drop_record, untag
from support.bulk import bulk
from support.trust import SOURCE


def kept(ledger: Ledger) -> Path:
    (path,) = (ledger.root / "state/auditor/audit").glob("*.json")
    return path


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count what the store is asked for, and pass it on."""
    counted: Counter[str] = Counter()

    def count(name: str) -> None:
        real: Callable[..., object] = getattr(LayoutStore, name)

        def counting(self: LayoutStore, *arguments: object) -> object:
            counted[name] += 1
            return real(self, *arguments)

        monkeypatch.setattr(LayoutStore, name, counting)

    count("referrers")
    count("open_blob")
    return counted


def test_the_next_audit_reads_only_what_is_new(tmp_path: Path, reads: Counter[str]) -> None:
    ledger = Ledger.fresh(tmp_path, releases=0)
    bulk(ledger, 20)
    reads.clear()
    first = ledger.audit()
    assert (first.code, first.report["before"]) == (0, 0)
    # The first key, and for each release its commit and its record.
    assert first.report["copies"][0]["listsRead"] == 41
    assert reads["referrers"] == 41
    whole = reads["open_blob"]
    reads.clear()
    again = ledger.audit()
    assert (again.code, again.report["before"], len(again.report["records"])) == (0, 20, 20)
    # The head, and its commit: is it there still, and does anything follow?
    assert reads["referrers"] == 2
    assert again.report["logs"][0]["read"] == 0
    reads.clear()
    bulk(ledger, 1)
    reads.clear()
    third = ledger.audit()
    assert (third.report["before"], len(third.report["records"])) == (20, 21)
    assert (third.report["logs"][0]["read"], third.report["logs"][0]["since"]) == (5, 100)
    assert reads["referrers"] == 4
    assert reads["open_blob"] < whole / 4


def test_a_layout_is_audited_without_what_only_registries_need(ledger: Ledger) -> None:
    code = (
        "import sys\n"
        "from nix_seed.cli.main import main\n"
        "try: main()\n"
        "finally: print('imported', *{'urllib3', 'ssl'} & sys.modules.keys(), file=sys.stderr)\n"
    )
    where = ["--from", ledger.repository, "--policy", str(ledger.write_policy()), "--no-state"]
    done = subprocess.run(
        [sys.executable, "-c", code, "audit", *where, "-q"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.splitlines()[-1] == "imported"


def test_only_a_clean_audit_is_kept(ledger: Ledger) -> None:
    ledger.forge(2, images=[ledger.other, ledger.arm], previous=(ledger.digest(3),))
    assert ledger.audit().code == 1
    assert not list((ledger.root / "state/auditor/audit").glob("*.json"))


def test_whole_begins_anew(ledger: Ledger) -> None:
    ledger.audit()
    again = ledger.audit("--whole")
    assert (again.report["before"], again.report["logs"][0]["read"]) == (0, 15)


def test_another_policy_begins_anew(ledger: Ledger) -> None:
    ledger.audit()
    ledger.built["requireSandbox"] = "true"
    again = ledger.audit()
    assert (again.report["before"], again.code) == (0, 1)
    assert ("policy", "alarm") in again.found()


def test_a_record_that_has_gone_is_missed(ledger: Ledger) -> None:
    assert ledger.audit().code == 0
    drop_record(ledger.layout, ledger.said(3), ledger.digest(3))
    found = ledger.audit()
    assert (found.code, found.found("alarm")) == (1, [("vanished", "alarm")])
    whole = ledger.audit("--whole")
    assert ("vanished", "alarm") in whole.found("alarm")
    assert ("withheld", "alarm") in whole.found("alarm")


def test_a_damaged_state_is_no_answer(ledger: Ledger) -> None:
    ledger.audit()
    path = kept(ledger)
    value = json.loads(path.read_bytes())
    value["records"][0]["root"] = str(Digest.of(b"another"))
    path.write_bytes(json.dumps(value).encode())
    ended = ledger.run(
        *["audit", "--from", ledger.repository, "--policy", str(ledger.write_policy())],
        *["--state", str(ledger.root / "state/auditor")],
    )
    assert ended.code == 3
    assert "what the last audit kept is damaged" in ended.printed
    assert "is not what an audit writes" in ended.printed


def test_a_root_that_differs_from_the_one_kept(ledger: Ledger) -> None:
    """Whoever could rewrite registry and log alike meets what this machine saw."""
    ledger.audit()
    files = AuditFiles(ledger.root / "state/auditor/audit")
    state = files.load(SOURCE)
    assert state is not None
    text = state.dump().replace(ledger.said(1).root.hex.encode(), b"0" * 64)
    files.save(AuditState.parse(text, "it"))
    found = ledger.audit("--whole")
    assert ("conflict", "alarm") in found.found("alarm")
    assert (
        f"{commit(1)} was seen promoted under the root sha256:{'0' * 64}"
        in (found.words("conflict")[0])
    )


def test_two_audits_of_one_state_exclude_each_other(ledger: Ledger) -> None:
    with AuditFiles(ledger.root / "state/auditor/audit").alone(SOURCE):
        ended = ledger.run(
            *["audit", "--from", ledger.repository, "--policy", str(ledger.write_policy())],
            *["--state", str(ledger.root / "state/auditor")],
        )
    assert ended.code == 3
    assert f"another audit of {SOURCE} is at work" in ended.printed


def test_a_finding_that_was_looked_into_is_accepted(ledger: Ledger) -> None:
    ledger.forge(7, listed=False, documents=False)
    found = ledger.audit()
    (finding,) = found.report["findings"]
    accepted = ledger.audit("--accept", finding["id"])
    assert (accepted.code, accepted.found("notice")) == (0, [("withheld", "notice")])
    assert accepted.report["findings"][0]["words"].startswith("accepted: entry 15 of")


def test_what_was_accepted_is_not_kept_as_settled(ledger: Ledger) -> None:
    assert ledger.audit().code == 0
    ledger.forge(4, previous=(ledger.digest(3),))
    found = ledger.audit()
    assert found.code == 1
    accepting = [word for each in found.report["findings"] for word in ("--accept", each["id"])]
    assert ledger.audit(*accepting).code == 0
    again = ledger.audit()
    assert (again.code, again.found()) == (1, found.found())


def test_to_accept_that_a_log_is_down_is_not_to_accept_that_it_lies(ledger: Ledger) -> None:
    assert ledger.audit().code == 0
    shutil.move(ledger.root / "log", ledger.root / "away")
    down = ledger.audit()
    assert down.code == 3
    accepting = [word for each in down.report["findings"] for word in ("--accept", each["id"])]
    assert ledger.audit(*accepting).code == 0
    shutil.move(ledger.root / "away", ledger.root / "log")
    (tile,) = (ledger.root / "log/public/tile/entries/000.p").glob("15")
    data = tile.read_bytes()
    tile.chmod(0o644)
    tile.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    lies = ledger.audit("--whole", *accepting)
    assert (lies.code, lies.found("alarm")) == (1, [("log", "alarm")])


def test_a_new_record_of_a_known_commit_is_judged_by_what_lies_beside_it(ledger: Ledger) -> None:
    assert ledger.audit().code == 0
    ledger.forge(2, images=[ledger.other, ledger.arm], previous=(ledger.digest(1),))
    goes_on, whole = ledger.audit(), ledger.audit("--whole")
    assert goes_on.code == 1
    assert sorted(goes_on.found("alarm")) == sorted(whole.found("alarm"))
    assert not any("is nowhere" in each for each in goes_on.words("quorum"))


def test_a_second_root_in_another_repository_is_one(ledger: Ledger) -> None:
    """What is looked at only to explain entries explains none of our own releases."""
    other = ledger.copy("other")
    ledger.forge(2, images=[ledger.other, ledger.arm], previous=(ledger.digest(3),), to=other)
    assert ledger.audit(state=None).found("alarm") == [("withheld", "alarm")]
    found = ledger.audit("--also", str(other), state=None)
    assert found.code == 1
    assert ("conflict", "alarm") in found.found("alarm")


def test_a_record_with_a_broken_signature_explains_no_entry(ledger: Ledger) -> None:
    hidden = ledger.copy("hidden")
    digest = ledger.forge(
        2, images=[ledger.other, ledger.arm], previous=(ledger.digest(3),), to=hidden
    )
    bundles = [each.text for each in gather([hidden], [commit(2).key]).attestations]
    [text] = [each for each in bundles if Digest.of(payload_of(each)) == digest]
    value = json.loads(text)
    signature = value["dsseEnvelope"]["signatures"][0]
    broken = bytearray(base64.b64decode(signature["sig"]))
    broken[-1] ^= 1
    signature["sig"] = base64.b64encode(bytes(broken)).decode()
    statement = Statement.parse(payload_of(text), "it")
    said = check_promotion(statement, "it")
    attach_record(ledger.layout, said, 1, [canonical_json.dumps(value)])
    for how in ((), ("--whole",)):
        found = ledger.audit(*how)
        assert (found.code, found.found("alarm")) == (1, [("withheld", "alarm")])


def payload_of(bundle: bytes) -> bytes:
    return Bundle.parse(bundle, "it").envelope.payload


def test_a_release_whose_index_is_not_there_yet_is_no_alarm(ledger: Ledger) -> None:
    """Between record and index a promotion may wait for long: for builders to sign on a chain."""
    usual, ledger.image = ledger.image, ledger.other
    ledger.release()
    untag(ledger.layout, str(commit(4)), "latest")
    index = ledger.said(4).index
    assert index not in {ledger.said(number).index for number in (1, 2, 3)}
    (ledger.directory / "blobs/sha256" / index.hex).unlink()
    found = ledger.audit()
    assert (found.code, found.found("notice")) == (0, [("pending", "notice")])
    # Once another release comes after it, it is missed.
    ledger.image = usual
    ledger.release()
    later = ledger.audit("--whole")
    assert (later.code, later.found("alarm")) == (1, [("gap", "alarm")])


def test_latest_that_goes_back_is_told_of_until_it_is_back(ledger: Ledger) -> None:
    """To an older release, which is one: no record says what ``latest`` is to name."""
    usual, ledger.image = ledger.image, ledger.other
    ledger.release()
    assert ledger.audit().found() == []
    old, new = ledger.said(3).index, ledger.said(4).index
    assert old != new
    point(ledger, old)
    for how in ((), (), ("--whole",)):
        found = ledger.audit(*how)
        assert (found.code, found.found()) == (0, [("tag", "warning")])
        assert f"names {old}, a release before {new}" in found.words("tag")[0]
    point(ledger, new)
    assert ledger.audit().found() == []
    ledger.image = usual
    ledger.release()
    assert ledger.said(5).index not in (old, new), "it says of which commit it is"
    assert ledger.audit().found() == []


def test_latest_that_two_releases_share(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """As indexes were before, which said nothing of their commits: it is none that is older."""
    monkeypatch.setattr(About, "annotations", lambda _: {})
    usual = ledger.image
    for image in (usual, ledger.other, usual):
        ledger.image = image
        ledger.release()
    assert ledger.said(6).index == ledger.said(4).index
    assert ledger.audit().found() == []


def point(ledger: Ledger, digest: Digest) -> None:
    fetched = ledger.layout.get_manifest(digest)
    assert fetched is not None
    ledger.layout.put_manifest(fetched.body, MediaType.INDEX, "latest")


def test_a_tag_of_one_system_that_names_the_promoted_image(ledger: Ledger) -> None:
    for number, image in ((1, ledger.image), (2, ledger.arm)):
        fetched = ledger.layout.get_manifest(image.descriptor.digest)
        assert fetched is not None
        tag = f"{commit(number)}-{image.spec.system}"
        ledger.layout.put_manifest(fetched.body, MediaType.MANIFEST, tag)
    for how in ((), (), ("--whole",)):
        found = ledger.audit(*how)
        assert (found.code, found.report["findings"]) == (0, [])


class Fickle:
    """A ledger whose library fails as libraries do: with an error of its own."""

    name = "chain"

    def entries(self) -> tuple[()]:
        raise RuntimeError("the library gave up")

    def by_commit(self, key: Digest) -> tuple[()]:
        raise RuntimeError("the library gave up")


def test_a_librarys_own_error_is_no_end_of_an_audit(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from nix_seed.audit import audit
    from nix_seed.release import load as trust

    def judges(*given: object, **how: object) -> object:
        return replace(trust.verifiers_of(*given, **how), ledgers=(Fickle(),))  # type: ignore[arg-type]

    monkeypatch.setattr(audit, "verifiers_of", judges)
    found = ledger.audit()
    assert (found.code, found.found()) == (3, [("unread", "could not check")])
    assert found.words("unread") == ["the ledger chain: RuntimeError: the library gave up"]


def test_a_builders_entry_that_nobody_shows_is_told_of(ledger: Ledger) -> None:
    """Which commit it is about a log of hashes cannot tell, so it is no alarm."""
    from dataclasses import replace

    source = replace(ledger.says("carol").source, commit=commit(2))
    bundle = ledger.bundle(ledger.sign(ledger.says("carol", ledger.other, source=source)))
    found = ledger.audit(state=None)
    assert (found.code, found.found("notice")) == (0, [("withheld", "notice")])
    assert "the builder carol signed entries 15 of the log log" in found.words("withheld")[0]
    # Shown with a broken signature it counts for none, and explains nothing.
    value = json.loads(bundle.dump())
    signature = value["dsseEnvelope"]["signatures"][0]
    broken = bytearray(base64.b64decode(signature["sig"]))
    broken[-1] ^= 1
    signature["sig"] = base64.b64encode(bytes(broken)).decode()
    damaged = Bundle.parse(canonical_json.dumps(value), "it")
    ledger.attach(damaged, ledger.other, commit(2))
    assert ledger.audit(state=None).found("notice") == [("withheld", "notice")]
    # Nor do her very words as another builder signed them, which are a forgery to whoever counts.
    said = replace(ledger.says("carol", ledger.other), source=source)
    forged = ledger.bundle(ledger.sign(said, "bob"))
    ledger.attach(forged, ledger.other, commit(2))
    told = ledger.audit(state=None).words("withheld")
    assert [each.partition(" signed")[0] for each in told] == ["the builder carol"]
    ledger.attach(bundle, ledger.other, commit(2))
    assert ledger.audit(state=None).found("notice") == []


def test_another_repository_of_the_same_promoters_explains_entries(
    ledger: Ledger, tmp_path: Path
) -> None:
    other = Ledger(tmp_path / "other", releases=0)
    mine = "https://forge.example/owner/another"
    other.keys, other.promoters, other.builders = ledger.keys, ledger.promoters, ledger.builders
    shutil.rmtree(other.root / "log")
    (other.root / "log").symlink_to(ledger.root / "log")
    other.log, other.logs = ledger.log, ledger.logs
    other.forge(1, repository=mine)
    assert ledger.audit().found() == [("withheld", "alarm")]
    explained = ledger.audit("--also", other.repository)
    assert (explained.code, explained.report["findings"]) == (0, [])


def test_since_takes_what_was_before_as_it_is(ledger: Ledger) -> None:
    from support.audits import unlist

    unlist(ledger.layout, ledger.digest(1), lambda _: False)
    assert ledger.audit(state=None).code == 1
    for name in (str(commit(1)), str(ledger.digest(1))):
        assert ledger.audit("--since", name, state=None).code == 0
    ended = ledger.run(
        *["audit", "--from", ledger.repository, "--policy", str(ledger.write_policy())],
        *["--no-state", "--since", "v1.0"],
    )
    assert (ended.code, "no record of the ledger is v1.0" in ended.printed) == (2, True)


def test_a_log_that_the_policy_gives_no_place_for(ledger: Ledger) -> None:
    del ledger.logs[0]["url"]
    policy = Digest.of(ledger.policy().encode())
    assert policy != ledger.said(1).policy
    found = ledger.audit(state=None)
    assert ("log", "could not check") in found.found()
    assert "where the log log is, the policy does not say" in found.words("log")[0]


def test_a_copy_of_a_log_is_read_in_its_place(ledger: Ledger, tmp_path: Path) -> None:
    shutil.copytree(ledger.root / "log/public", tmp_path / "tiles")
    shutil.rmtree(ledger.root / "log")
    found = ledger.audit("--log", f"log={tmp_path / 'tiles'}")
    assert (found.code, found.report["logs"][0]["read"]) == (0, 15)


def test_a_place_for_a_log_that_no_policy_has_is_refused(ledger: Ledger) -> None:
    ended = ledger.run(
        *["audit", "--from", ledger.repository, "--log", "nolog=/tmp", "--no-state"],
        *["--policy", str(ledger.write_policy())],
    )
    assert ended.code == 2, ended.printed
    assert "no policy has a log nolog, and so none is read at /tmp" in ended.printed
    assert "--log ID=PLACE: there is log" in ended.printed


def test_offline_asks_nobody(ledger: Ledger) -> None:
    ledger.logs[0]["url"] = '"https://log.example"'
    found = ledger.audit("--offline", state=None)
    assert "the log log was not read: --offline" in found.words("log")


def test_a_log_that_is_too_long_for_one_audit(ledger: Ledger) -> None:
    found = ledger.audit("--most-entries", "14")
    assert (found.code, found.found()) == (3, [("log", "could not check")])
    assert (
        "has 15 entries to read, and 14 are the most: raise --most-entries"
        in (found.words("log")[0])
    )


def test_a_registry_out_of_reach(ledger: Ledger) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        ended = ledger.run(
            *["audit", "--from", f"127.0.0.1:{port}/a/b", "--from", ledger.repository],
            *["--policy", str(ledger.write_policy()), "--no-state", "--plain-http"],
        )
    assert ended.code == 3
    assert "COULD NOT CHECK: 127.0.0.1" in ended.printed
    assert "  unread [" in ended.printed


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda ledger: ledger.head.pop("source"), "the policy does not say of which repository"),
        (lambda ledger: (ledger.promoters.clear(), ledger.quorum.pop("promoters")),
         "the policy has no promoters, so there is no ledger by it"),
    ],
)  # fmt: skip
def test_a_policy_without_a_ledger(
    ledger: Ledger, change: Callable[[Ledger], object], words: str
) -> None:
    change(ledger)
    ended = ledger.run(
        *["audit", "--from", ledger.repository, "--policy", str(ledger.write_policy())],
        "--no-state",
    )
    assert (ended.code, words in ended.printed) == (2, True), ended.printed


def test_the_report_for_people(ledger: Ledger) -> None:
    ledger.forge(2, images=[ledger.other, ledger.arm], previous=(ledger.digest(3),))
    ended = ledger.run(
        *["audit", "--from", ledger.repository, "--policy", str(ledger.write_policy())],
        "--no-state",
    )
    assert ended.code == 1
    for words in (
        f"ledger of {SOURCE}, policy epoch 1",
        "  records 4",
        "log     log (tiles): 16 entries, 16 read: every entry was read",
        "ALARM: Commit 000000000000 was released twice, as different things.",
        "  runbook  docs/runbook.md: Two roots for one commit",
        "  conflict [",
    ):
        assert words in ended.printed
    first = "verdict: CHECKED AND FALSE: 4 records: Commit 000000000000 was released twice"
    assert first in ended.printed
    assert not re.search("[0-9a-f]{64}", ended.printed), "a whole hash, which nobody reads"
