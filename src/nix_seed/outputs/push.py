"""What was built from a commit, in its seed: found in the store, packed, signed and pushed.

Only outputs of the project's own derivations, and what they refer to beyond the seed. A tree with
changes is no commit, and nothing of it leaves this machine.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from nix_seed.core.declared import time_text
from nix_seed.core.digests import Digest, NarHash
from nix_seed.core.errors import InputError, NixSeedError
from nix_seed.core.events import Stage, tell
from nix_seed.core.parallel import in_parallel
from nix_seed.core.reach import reach
from nix_seed.core.values import dataclass
from nix_seed.core.words import plural
from nix_seed.flake.checkout import Checkout, read_checkout
from nix_seed.flake.nix import DerivationReader, Nix
from nix_seed.flake.nix_code import nix_string
from nix_seed.flake.provenance import read_provenance
from nix_seed.formats.intoto.bundle import BUNDLE_V03
from nix_seed.formats.nix.store_path import STORE_DIR, PathInfo, StorePath
from nix_seed.formats.oci.manifest import Descriptor
from nix_seed.outputs.facts import output_facts
from nix_seed.outputs.kept import check_rewritable, find_kept, keep, put_config, put_newest
from nix_seed.outputs.nar import Packed, pack
from nix_seed.outputs.rules.kept import KeptOutput, Stored, with_nar
from nix_seed.outputs.rules.statement import OutputFact, OutputsStatement
from nix_seed.outputs.sign import SignedOutputs, list_statement, sign_outputs
from nix_seed.registry.layout_store import LayoutStore
from nix_seed.registry.open import AnyReference, Stores, check_writable
from nix_seed.registry.store import ImageStore, put_bytes
from nix_seed.release.attester import Attester, SourceTree
from nix_seed.release.preflight import prepare_attest

RENEWED_AFTER: Final = timedelta(days=7)
"""What was pushed longer ago is said again, so that what is in use does not expire."""

_REQUESTS: Final = 16
"""How many of them, each of a few kilobytes, are under way at once."""
_SMALL: Final = 1 << 20  # bytes of a NAR

_OUTPUTS: Final = """
let
  flake = builtins.getFlake URL;
  named = kind:
    let all = flake.${kind}.${SYSTEM} or { }; in
    builtins.concatMap
      (name:
        let found = builtins.tryEval { drv = all.${name}.drvPath; out = all.${name}.outPath; }; in
        if found.success && (builtins.tryEval found.value.drv).success
        then [ (found.value // { name = "${kind}.${name}"; }) ] else [ ])
      (builtins.filter (name: isMeant "${kind}.${name}") (builtins.attrNames all));
  isMeant = name: !(builtins.elem name EXCLUDED);
in
builtins.concatMap named (builtins.filter isMeant [ "packages" "checks" ])
"""


@dataclass(frozen=True, slots=True)
class OutputsTarget:
    """Where outputs are kept: *reference*, in one of *stores*; *nix* has them."""

    stores: Stores
    reference: AnyReference
    nix: Nix


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """The seed that outputs were built in: its *digest*, its *system*, and what it holds."""

    digest: Digest
    system: str
    held: Collection[StorePath]


@dataclass(frozen=True, slots=True)
class NamedOutputs:
    """A flake's packages and checks: their derivations, and which of them each path is."""

    drvs: frozenset[StorePath]
    names: Mapping[StorePath, Sequence[str]]

    def installables(self, flake: str, system: str) -> tuple[str, ...]:
        """Return what to have Nix build of *flake*: all of them, sorted."""
        names = sorted(name for each in self.names.values() for name in each)
        parts = ((kind, rest) for kind, _, rest in (name.partition(".") for name in names))
        return tuple(f'{flake}#{kind}.{system}."{rest}"' for kind, rest in parts)


@dataclass(frozen=True, slots=True)
class OutputChoice:
    """Which outputs: those of *installables*, or without any of all packages and checks.

    Of these what Nix calls built on this machine, and what was *built* before it came into the
    store. *ref* is the branch or tag they were built for. *millis* are the milliseconds that
    derivations took to build, where that is known. *named* are the flake's outputs, where they were
    evaluated before.
    """

    installables: Sequence[str] = ()
    built: Collection[StorePath] = frozenset()
    ref: str | None = None
    millis: Mapping[StorePath, int] = field(default_factory=dict)
    named: NamedOutputs | None = None


@dataclass(frozen=True, slots=True)
class OutputPushed:
    """*path* is in the repository; *sent* are the bytes that took, 0 where it was there."""

    path: StorePath
    sent: int


@dataclass(frozen=True, slots=True)
class PushedOutputs:
    """What was *pushed*, and what was *known* there; *sent* are bytes of NARs.

    *left* is how many of the commit's outputs the store has from elsewhere.
    """

    commit: str
    signer: str
    pushed: tuple[OutputFact, ...]
    known: tuple[OutputFact, ...]
    sent: int
    statements: tuple[Digest, ...]
    left: int = 0


def find_outputs(
    nix: Nix, read: DerivationReader, flake: str, seed: BuiltIn, choice: OutputChoice
) -> Mapping[StorePath, tuple[str, ...]]:
    """Return what the store has of the project's outputs and their closure beyond *seed*.

    Each with the flake outputs that it is. What is chosen, or without that all packages and checks
    of *flake*, is where the project's derivations are looked for.
    """
    named = choice.named or named_outputs(nix, flake, seed.system)
    installables = choice.installables
    drvs: Collection[StorePath] = named.drvs
    if installables:
        arguments = ["path-info", "--derivation", "--", *installables]
        found = nix.run("nix", arguments, f"looking for {' '.join(installables)}").split()
        drvs = frozenset(StorePath.containing(each) for each in found)
    wanted, held = set[StorePath](), set(seed.held)

    def further(drv: StorePath) -> Iterable[StorePath]:
        outputs = read(drv).outputs.values()
        # Where outputs are addressed by their content, no path is known before they are built.
        floating = any(each.path is None for each in outputs)
        made = {each.path for each in outputs if each.path is not None}
        if not floating and (made <= held or any(each.hash for each in outputs)):
            return ()
        wanted.update(made)
        return read(drv).input_drvs

    reach(drvs, further)
    wanted -= held
    there = wanted - nix.invalid_paths(wanted)
    closure = nix.requisites(there) - held if there else frozenset()
    return {path: tuple(named.names.get(path, ())) for path in sorted(closure)}


def named_outputs(
    nix: Nix, flake: str, system: str, excluded: Collection[str] = ()
) -> NamedOutputs:
    """Evaluate *flake*, and return its packages and checks, but for those that do not evaluate.

    Those *excluded*, by name or by kind, are not evaluated at all.
    What is addressed by its content has no name: its path is known only once it is built.
    """
    text = _OUTPUTS.replace("URL", nix_string(flake)).replace("SYSTEM", nix_string(system))
    text = text.replace("EXCLUDED", f"[ {' '.join(map(nix_string, excluded))} ]")
    names: dict[StorePath, list[str]] = {}
    drvs = set()
    for each in nix.evaluate(text, f"evaluating the outputs of {flake}"):
        drvs.add(StorePath.parse(each["drv"]))
        if each["out"].startswith(f"{STORE_DIR}/"):
            names.setdefault(StorePath.parse(each["out"]), []).append(each["name"])
    return NamedOutputs(frozenset(drvs), names)


def check_commit(directory: Path) -> None:
    """Raise ``InputError`` where the tree is not what its commit says."""
    _check_clean(read_checkout(directory), directory)


def _check_clean(checkout: Checkout, directory: Path) -> None:
    if checkout.dirty:
        raise InputError(
            f"{directory} has changes that no commit holds: what was built stays in this"
            " machine's store, and is not pushed",
            detail="\n".join(checkout.changes[:10]),
            hint="commit them, and build again",
        )


def push_outputs(
    target: OutputsTarget,
    seed: BuiltIn,
    tree: SourceTree,
    attester: Attester,
    selection: OutputChoice,
) -> PushedOutputs:
    """Push what was built from the commit in *tree*, and say so, signed.

    What came from elsewhere, a cache say, is not vouched for. What is there already, on the same
    signer's word of the last days, is not sent again; it is said again where that word was of
    another commit. Nothing is signed before every NAR is in the repository. Raises ``InputError``
    for a tree with changes, and as ``prepare_attest``, Nix, the registry and the logs do.
    """
    ready = prepare_attest(replace(tree, allow_dirty=True), attester, seed.system)
    _check_clean(ready.checkout, tree.directory)
    check_writable(target.stores, target.reference)
    store = target.stores.open(target.reference, create=True)
    tell(Stage("outputs", f"looking for what was built from {ready.source.commit}"))
    read = DerivationReader(target.nix)
    names = find_outputs(target.nix, read, ready.checkout.flake, seed, selection)
    origins = read_provenance(target.nix, names)
    ours = {
        path: origins[path].deriver
        for path in names
        if path in selection.built or origins[path].ultimate or origins[path].addressed
    }
    facts = output_facts(target.nix, read, ours, names)
    work = _Work(store, target, attester.signer.identity, selection.millis)
    known = work.known(facts)
    new = tuple(each for each in facts if each not in known)
    unsaid = tuple(each for each in facts if known.get(each) != str(ready.source.commit))
    signed: tuple[SignedOutputs, ...] = ()
    if unsaid:
        said = OutputsStatement(
            source=ready.source.uri,
            commit=ready.source.commit,
            system=seed.system,
            seed=seed.digest,
            builder=attester.builder,
            finished_on=time_text(work.now),
            outputs=unsaid,
            ref=selection.ref,
        )
        signed = work.push(said, new, attester)
    return PushedOutputs(
        str(ready.source.commit),
        attester.signer.identity,
        new,
        tuple(known),
        work.sent,
        tuple(Digest.of(bundle) for each in signed for bundle in each.bundles),
        len(names) - len(ours),
    )


@dataclass(slots=True)
class _Work:
    """What is done for many paths at once."""

    store: ImageStore
    target: OutputsTarget
    signer: str
    millis: Mapping[StorePath, int]
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    sent: int = 0
    expected: set[NarHash] = field(default_factory=set)
    listed: dict[StorePath, tuple[Descriptor, ...]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def known(self, facts: Sequence[OutputFact]) -> dict[OutputFact, str]:
        """Return which of *facts* are kept, on this signer's word of the last days, of a commit."""
        tell(Stage("outputs", f"asking for {plural(len(facts), 'path')}", len(facts)))
        last_said = in_parallel(self.last_said, facts, _REQUESTS)
        return {fact: of for fact, of in zip(facts, last_said, strict=True) if of is not None}

    def push(
        self, said: OutputsStatement, new: Sequence[OutputFact], attester: Attester
    ) -> tuple[SignedOutputs, ...]:
        """Send what is *new* of the outputs that are *said*, then sign and list all of them."""
        check_rewritable(self.store)
        tell(Stage("outputs", f"pushing {plural(len(new), 'path')}", len(new)))
        blobs = self.pack_all(new)
        signed = sign_outputs(said, attester.signer, attester.logs)
        tell(Stage("outputs", f"listing {plural(len(new), 'path')}", len(new)))
        put_config(self.store)
        for each in signed:
            # First what is said: a path that is listed is not said again by who was ended here.
            list_statement(self.store, each)
            self.list_all(each, blobs)
        self.list_newest(str(said.commit), new)
        return signed

    def last_said(self, fact: OutputFact) -> str | None:
        """Return of which commit this signer last said just that, None where that is long ago."""
        listed = find_kept(self.store, fact.path.hash_part, writing=True)
        with self._lock:
            self.expected |= {each.nar_hash for each in listed.kept}
            self.listed[fact.path] = listed.entries
        said = (fact.path, fact.nar_hash, self.signer)
        since = time_text(self.now - RENEWED_AFTER)
        found = (e for e in listed.kept if (e.path, e.nar_hash, e.signer) == said)
        return next((each.commit for each in found if each.pushed > since), None)

    def pack_all(self, facts: Collection[OutputFact]) -> Mapping[StorePath, Packed]:
        """Send all NARs: of small ones more at once, for these wait for answers, not for bytes."""
        small = [each for each in facts if each.nar_size <= _SMALL]
        large = [each for each in facts if each.nar_size > _SMALL]
        sent = in_parallel(self.pack, small, _REQUESTS)
        sent += in_parallel(self.pack, large, self.target.stores.jobs)
        return dict(zip((each.path for each in (*small, *large)), sent, strict=True))

    def pack(self, fact: OutputFact) -> Packed:
        """Send the NAR, where it is not there."""
        info = PathInfo(fact.path, fact.nar_hash, fact.nar_size, tuple(fact.references))
        expected = fact.nar_hash in self.expected
        packed = pack(self.store, info, self.target.nix, expected=expected)
        with self._lock:
            self.sent += packed.sent
            tell(OutputPushed(fact.path, packed.sent))
        return packed

    def list_all(self, signed: SignedOutputs, blobs: Mapping[StorePath, Packed]) -> None:
        """List what is new of a statement, and see that no other job overwrote it."""
        put = (put_bytes(self.store, BUNDLE_V03, bundle) for bundle in signed.bundles)
        bundles = tuple(Stored(blob.digest, blob.size) for blob in put)
        new = [each for each in signed.said.outputs if each.path in blobs]
        entries = keep(
            self.store,
            *(
                KeptOutput(
                    path=fact.path,
                    nar_hash=fact.nar_hash,
                    nar_size=fact.nar_size,
                    nar=blobs[fact.path].blob,
                    bundles=bundles,
                    commit=str(signed.said.commit),
                    signer=self.signer,
                    pushed=signed.said.finished_on,
                    deriver=fact.deriver,
                    references=tuple(fact.references),
                    build_millis=None if fact.deriver is None else self.millis.get(fact.deriver),
                )
                for fact in new
            ),
            jobs=_REQUESTS,
        )
        for fact, entry in zip(new, entries, strict=True):
            text = blobs[fact.path].text
            told = with_nar(entry, text) if text else entry
            self.listed[fact.path] = (told, *self.listed[fact.path])
        # What was there, and so not sent, may have been cleaned away since: now it is listed.
        listed = ((each, blobs[each.path].blob) for each in new)
        in_parallel(self.send_again, listed, _REQUESTS)

    def list_newest(self, commit: str, new: Collection[OutputFact]) -> None:
        """List all of the commit in one document, what is *new* first: that only saves requests."""
        first = dict.fromkeys((*(each.path for each in new), *self.listed))
        entries = (entry for path in first for entry in self.listed[path])
        with suppress(NixSeedError):
            put_newest(self.store, commit, entries)

    def send_again(self, listed: tuple[OutputFact, Stored]) -> None:
        """Send a NAR that is listed where it is gone; on a disk anything may be."""
        fact, blob = listed
        doubtful = isinstance(self.store, LayoutStore) or fact.nar_hash in self.expected
        if doubtful and not self.store.has_blob(blob.digest):
            self.pack(fact)
