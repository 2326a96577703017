"""Commands, as people run them, where one document of a world is hostile, wherever it lies."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nix_seed.formats.intoto.bundle import BUNDLE_V03
from nix_seed.formats.oci.manifest import MediaType
from nix_seed.formats.oci.reference import parse_reference
from nix_seed.image.read.spec import open_seed_image
from nix_seed.outputs.kept import keep, put_config, put_newest
from nix_seed.outputs.rules.kept import NAR_TYPE, KeptOutput, Stored
from nix_seed.outputs.rules.statement import PREDICATE_TYPE, OutputsStatement, outputs_subject
from nix_seed.outputs.sign import sign_outputs
from nix_seed.registry.open import Stores
from nix_seed.sbom.sbom import attach_sboms, sbom_of
from nix_seed.trust.attestations import list_bundle
from support.attestations import put
from support.audits import Ledger, commit
from support.hostile import BLOBS, Files, changed, readdressed
from support.output_scene import BLOB, FACT
from support.trust import SOURCE, SYSTEM

COMMIT = commit(1)
CASES = int(os.environ.get("NIX_SEED_TESTS_CASES", "150"))
_FACTS = ("digest", "narHash", "root", "record", "index", "commit", "promoters", "agreeing")
_TRUSTED = ("verify", "verify deep", "verify commit", "audit", "ledger show", "outputs check")
_OTHERS = ("troubles", "attestations", "dissents", "setAside", "findings")


def _world(root: Path) -> Ledger:
    """A release, its evidence, bills of materials, and an output that two builders keep."""
    world = Ledger.fresh(root, releases=0)
    world.head["outputs"] = '"own"'
    world.release()
    put_config(world.store)
    said = OutputsStatement(
        source=SOURCE, commit=COMMIT, system=SYSTEM, seed=world.image.descriptor.digest,
        builder="alice", finished_on="2026-01-31T12:00:00Z", outputs=(FACT,),
    )  # fmt: skip
    nar = put(world.store, BLOB, NAR_TYPE)
    for who in ("alice", "bob"):
        (signed,) = sign_outputs(replace(said, builder=who), world.keys[who], [world.log])
        bundle = put(world.store, signed.bundles[0], BUNDLE_V03)
        kept = KeptOutput(
            path=FACT.path, nar_hash=FACT.nar_hash, nar_size=FACT.nar_size,
            nar=Stored(nar.digest, nar.size), bundles=(Stored(bundle.digest, bundle.size),),
            commit=str(COMMIT), signer=who, pushed="2026-01-31T12:00:00Z",
        )  # fmt: skip
        put_newest(world.store, str(COMMIT), keep(world.store, kept))
        list_bundle(world.store, outputs_subject(COMMIT), signed.bundles[0], PREDICATE_TYPE)
    image = open_seed_image(Stores(), parse_reference(world.reference), SYSTEM)
    attach_sboms(image, sbom_of(image), ["cyclonedx", "spdx"])
    world.write_policy()
    return world


class Scene:
    """The world, its files as they were, and where commands write."""

    def __init__(self, root: Path) -> None:
        self.world = _world(root / "world")
        self.root, self.out = self.world.root, root / "out"
        self.good = self._files()
        self.runs = 0

    def _files(self) -> Files:
        found = (each for each in self.root.rglob("*") if each.is_file())
        return {str(each.relative_to(self.root)): each.read_bytes() for each in found}

    def put(self, files: Files) -> None:
        """Have just *files* there."""
        before = self._files()
        for name in before.keys() - files.keys():
            (self.root / name).unlink()
        for name, data in files.items():
            if before.get(name) != data:
                (self.root / name).write_bytes(data)

    def documents(self) -> dict[str, list[str]]:
        """The names of what others wrote, by kind."""
        found: dict[str, list[str]] = {}
        for name, data in self.good.items():
            if name.startswith(("images/", "log/public/")) and "nix/store" not in name:
                kind = name
                if name.startswith(BLOBS):
                    value = json.loads(data) if data[:1] in b"{[" else {}
                    kind = str(value.get("artifactType") or value.get("mediaType") or sorted(value))
                found.setdefault(kind, []).append(name)
        return found

    def commands(self) -> dict[str, list[str]]:
        """Every command that reads, with fresh places to write to."""
        self.runs += 1
        out = self.out / str(self.runs)
        out.mkdir(parents=True)
        seed, at, key = self.world.reference, self.world.repository, str(COMMIT)
        policy = ["--policy", str(self.root / "trust.toml")]
        judged = [*policy, "--state", str(out / "state"), "--json"]
        return {
            "inspect": ["inspect", seed, "--json"],
            "verify": ["verify", seed, *judged],
            "verify deep": ["verify", seed, *judged, "--deep"],
            "verify commit": ["verify", key, "--from", at, *judged],
            "audit": ["audit", "--from", at, *policy, "--no-state", "--json"],
            "ledger show": ["ledger", "show", key, "--from", at, *policy, "--json"],
            "export": ["export", seed, str(out / "export"), "--deep"],
            "report": ["report", seed, "-o", str(out / "page"), *policy, "--no-roots"],
            "licences": ["licences", seed],
            "diff": ["diff", seed, f"{at}:tampered", "--no-diffoscope"],
            "pull": ["pull", f"{at}:{key}", f"oci:{out / 'pulled'}:x"],
            "lock": ["lock", f"{at}:{key}", "-o", str(out / "seed.lock"), *policy],
            "install": ["install", key, "--from", at, *policy, "--store", str(out / "store")],
            "outputs check": ["outputs", "check", key, "--from", at, *judged],
            "log check": ["log", "check", str(self.root / "log"), "--no-remember", "--json"],
            "log show": ["log", "show", str(self.root / "log"), "--json"],
        }

    def half_written(self) -> list[str]:
        """What the last command, which failed, left as if it had not."""
        out = self.out / str(self.runs)
        index = out / "pulled/index.json"
        left = [each for each in ("seed.lock", "page") if (out / each).exists()]
        return left + (["pulled"] if index.exists() and '"x"' in index.read_text() else [])


def _is_named(kind: str) -> bool:
    """Whether the user names it, or what it is part of: an image, or where a log's key lies."""
    image = kind in (MediaType.MANIFEST, MediaType.INDEX) or kind.startswith("['architecture'")
    return image or kind in ("images/index.json", "images/oci-layout", "log/log.vkey")


def _facts(value: Any, key: str = "") -> Iterator[str]:
    """What an answer says that it stands for."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from () if name in _OTHERS else _facts(each, name)
    elif isinstance(value, list):
        for each in value:
            yield from _facts(each, key)
    elif key in _FACTS:
        yield f"{key} {value}"


def _stated(printed: str) -> set[str]:
    line = next((each for each in printed.splitlines() if each.startswith("{")), "{}")
    return set(_facts(json.loads(line)))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene(tmp_path_factory.mktemp("hostile"))


def test_no_document_breaks_a_command_or_makes_it_say_what_is_not_so(scene: Scene) -> None:
    made = random.Random(11)
    documents = scene.documents()
    others = [scene.good[name] for names in documents.values() for name in names]
    digests = [name.removeprefix(BLOBS) for name in scene.good if name.startswith(BLOBS)]
    right = {name: scene.world.run(*words) for name, words in scene.commands().items()}
    assert {name for name, ended in right.items() if ended.code} == {"diff", "install"}
    faults = []
    for case in range(CASES):
        kind = made.choice(sorted(documents))
        name = made.choice(sorted(documents[kind]))
        how, data = changed(scene.good[name], made, digests, others)
        moved = name.startswith(BLOBS) and made.random() < 0.8
        scene.put(readdressed(scene.good, name, data) if moved else scene.good | {name: data})
        for command in made.sample(sorted(right), 2):
            words = scene.commands()[command]
            begun = time.process_time()
            ended = scene.world.run(*words)
            wrong = [
                ended.code not in (0, 1, 2, 3) and f"exit {ended.code}",
                "an unexpected" in ended.printed and "an unexpected error",
                time.process_time() - begun > 10 and "too long",
                ended.code == 2 and not _is_named(kind) and "wrong input",
                (ended.code == 0 and command in _TRUSTED)
                and _stated(ended.printed) - _stated(right[command].printed),
                ended.code != 0 and scene.half_written(),
            ]
            faults += [
                f"case {case}, {command}: {each}; {kind}, {how}: {ended.printed[-300:]}"
                for each in wrong
                if each
            ]
    scene.put(scene.good)
    assert not faults, "\n\n".join(faults)
