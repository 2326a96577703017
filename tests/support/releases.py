"""A world in which commits are released: images of two systems, promoters, and their command."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from nix_seed.core.digests import Digest
from nix_seed.formats.intoto.statement import (
    PAYLOAD_TYPE,
    Commit,
    PromotionPredicate,
    Source,
    promotion_statement,
)
from nix_seed.formats.oci.reference import parse_reference
from nix_seed.registry.client import Repository
from nix_seed.registry.credentials import Keyring
from nix_seed.registry.open import Stores
from nix_seed.release.load import earlier_of, load_policy, verifiers_of
from nix_seed.release.promote import Promoted, Signing, promote
from nix_seed.release.records import attach_record
from nix_seed.release.verify import ReleasePlace
from nix_seed.trust.sign import KeySigner, open_logs
from support.remembered import remembered
from support.trust import COMMIT, SOURCE, SYSTEM, TREES, MadeImage, World, make_image, pem

ARM = "aarch64-linux"


@dataclass(frozen=True, slots=True)
class Ended:
    """How the command ended, and all that it printed."""

    code: int
    printed: str


class ReleaseWorld(World):
    """Two systems, three builders, two promoters of whom one must sign.

    *history* are the files of earlier policies that whoever promotes knows.
    """

    def __init__(self, root: Path, repository: Repository | None = None) -> None:
        super().__init__(root, repository)
        self.arm = make_image(self.store, root / "arm", "arm", TREES, ARM)
        self.head["systems"] = f'["{ARM}", "{SYSTEM}"]'
        self.quorum["promoters"] = "1"
        self.keys |= {"rita": KeySigner.generate(), "sam": KeySigner.generate()}
        self.promoters = {name: {"key": pem(self.keys[name])} for name in ("rita", "sam")}
        self.logs[0]["url"] = '"log"'
        for name, key in self.keys.items():
            (root / f"{name}.key").write_bytes(key.pem())
            os.chmod(root / f"{name}.key", 0o600)
        self.repository = self.reference.removesuffix(":seed")
        self.history: tuple[Path, ...] = ()

    def at(self, root: Path) -> Self:
        """Return this world where its files have been copied to *root*."""
        mine = super().at(root)
        mine.repository = mine.reference.removesuffix(":seed")
        return mine

    def outside(self) -> object | None:
        """What deeds depend on beside the files."""
        known = super().outside()
        # Policies of before lie anywhere, so their bytes are asked for.
        return known and (known, [path.read_bytes() for path in self.history])

    @property
    def images(self) -> Mapping[str, MadeImage]:
        """The honest image of each system."""
        return {SYSTEM: self.image, ARM: self.arm}

    @remembered
    def attest_all(self, *names: str, commit: Commit = COMMIT) -> None:
        """Have each builder attest the honest image of both systems."""
        for image in self.images.values():
            for name in names or ("alice", "bob"):
                source = Source(SOURCE, commit, Digest.of(b"flake.lock"))
                signed = self.sign(self.says(name, image, source=source))
                self.attach(self.bundle(signed), image, commit)

    @remembered
    def promote(self, who: str = "rita", *tags: str, commit: Commit = COMMIT) -> Promoted:
        """Promote as *who*, by the policy as it now is."""
        loaded = load_policy(self.write_policy(), datetime.now(UTC))
        logs = open_logs(loaded.policy, loaded.directory, spare=True)
        return promote(
            verifiers_of(loaded, Stores(Keyring()), self.root / "state" / who),
            commit,
            ReleasePlace(parse_reference(self.repository), (), tags),
            Signing(self.keys[who], logs),
            earlier_of(loaded, self.history),
        )

    def promote_by_command(self, target: str, *more: str) -> Ended:
        """Promote as rita to *target*, by the command."""
        policy, key = str(self.write_policy()), str(self.root / "rita.key")
        state = str(self.root / "state/rita")
        options = ("--policy", policy, "--key", key, "--state", state)
        return self.run("promote", str(COMMIT), "--to", target, *options, *more)

    def record(
        self, predicate: PromotionPredicate, *names: str, log: bool = True, attach: bool = True
    ) -> Digest:
        """Sign, log and list a record by hand, as an attacker with these keys would."""
        payload = promotion_statement(predicate).dump()
        bundles = []
        for name in names:
            signed = self.keys[name].sign(PAYLOAD_TYPE, payload)
            bundles.append((self.bundle(signed) if log else signed.bundle).dump())
        if attach:
            attach_record(self.store, predicate, 1, bundles)
        return Digest.of(payload)

    def run(self, *arguments: str) -> Ended:
        """Run the command itself, in this process, with this world's policy."""
        import sys

        from nix_seed.cli.main import main

        before = sys.argv
        out = io.StringIO()
        sys.argv = ["nix-seed", *arguments]
        try:
            with redirect_stdout(out), redirect_stderr(out):
                main()
        except SystemExit as ended:
            return Ended(int(ended.code or 0), out.getvalue())
        finally:
            sys.argv = before
        return Ended(0, out.getvalue())

    def verify(self, *arguments: str, state: str = "consumer") -> Ended:
        """``nix-seed verify`` with this world's policy and a state of its own."""
        policy = str(self.write_policy())
        where = str(self.root / "state" / state)
        return self.run("verify", *arguments, "--policy", policy, "--state", where)
