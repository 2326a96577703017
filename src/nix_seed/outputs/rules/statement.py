"""``urn:nix-seed:outputs:v1``: one builder built these store paths from this commit, in this seed.

One statement covers what a job built for one system: one signature and one log entry for all of it.
Each output is a subject, by the SHA-256 of its NAR. One more subject is a key of the commit's, by
which a log's index and a registry find all statements on the outputs of that commit. It is another
key than that of the commit's image: who verifies an image reads nothing of its outputs.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import field
from typing import Final

from nix_seed.core.declared import Declared, at, check_time
from nix_seed.core.digests import Digest, NarHash
from nix_seed.core.errors import InputError
from nix_seed.core.values import dataclass
from nix_seed.formats.intoto.statement import Commit, Statement, Subject
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.formats.oci.manifest import Descriptor

PREDICATE_TYPE: Final = "urn:nix-seed:outputs:v1"
KEY_TYPE: Final = "application/vnd.nix-seed.outputs-of-commit.v1"
MOST_OUTPUTS: Final = 1000
"""How many outputs a statement has: an envelope of these is well within what readers take."""
_MOST_NAMES = 10_000  # of references, build inputs and flake outputs of one output


@dataclass(frozen=True, slots=True)
class OutputFact:
    """What a builder says of one store path.

    *deriver* is the derivation it was built by. *built_from* are those outputs of the same project
    that this derivation takes directly; *names* the flake outputs, without their system, that it is
    (``packages.default``). All three lists are sorted.
    """

    path: StorePath
    nar_hash: NarHash
    nar_size: int
    references: tuple[StorePath, ...] = field(metadata=at(sizes=(0, _MOST_NAMES)))
    deriver: StorePath | None = field(default=None, metadata=at(omit=True))
    built_from: tuple[StorePath, ...] = field(default=(), metadata=at(omit=True))
    names: tuple[str, ...] = field(default=(), metadata=at(omit=True))

    def __post_init__(self) -> None:
        for each in (self.references, self.built_from, self.names):
            if list(each) != sorted(set(each)):  # type: ignore[type-var]
                raise InputError(f"{self.path}: its lists must be sorted, each item once")

    @property
    def agreement(self) -> tuple[StorePath, NarHash, int, tuple[StorePath, ...]]:
        """What independent builders must agree on: all that a store would take on their word."""
        return self.path, self.nar_hash, self.nar_size, self.references


@dataclass(frozen=True, slots=True)
class OutputsStatement(Declared):
    """The predicate (docs/formats-outputs.md).

    *source* is where the flake is published, *seed* the digest of the image that it was built in,
    *builder* the id the signer claims; only policy makes it true. *ref* is the branch or tag, where
    the builder knows of one. *outputs* are sorted by path.
    """

    source: str
    commit: Commit
    system: str
    seed: Digest
    builder: str = field(metadata=at("builder.id"))
    finished_on: str
    outputs: tuple[OutputFact, ...] = field(metadata=at(sizes=(1, MOST_OUTPUTS)))
    ref: str | None = field(default=None, metadata=at(omit=True))
    offline: bool = True

    def __post_init__(self) -> None:
        check_time(self.finished_on)
        paths = [each.path for each in self.outputs]
        if paths != sorted(set(paths)):
            raise InputError("outputs must be sorted by path, each once")
        if not self.offline:
            raise InputError("offline is false: what was built with a network is no output")


def make_statement(said: OutputsStatement) -> Statement:
    """Return the statement over every output's NAR, and the key of the commit's outputs."""
    outputs = (Subject(str(each.path), Digest(each.nar_hash.hex)) for each in said.outputs)
    of_commit = Subject("outputs of commit", outputs_subject(said.commit).digest)
    return Statement((*outputs, of_commit), PREDICATE_TYPE, said.to_json())


def read_statement(statement: Statement, what: str) -> OutputsStatement:
    """Return what *statement* says; ``InputError`` unless it is just what is written of that."""
    said = statement.predicate_as(OutputsStatement, PREDICATE_TYPE, what)
    if statement != make_statement(said):
        raise InputError(f"{what}: its subjects or members are not those of its predicate")
    return said


def split_outputs(outputs: Sequence[OutputFact]) -> Iterator[tuple[OutputFact, ...]]:
    """Yield *outputs*, sorted, in as many parts as there must be statements."""
    ordered = tuple(sorted(outputs, key=lambda each: each.path))
    for start in range(0, len(ordered), MOST_OUTPUTS):
        yield ordered[start : start + MOST_OUTPUTS]


def outputs_subject(commit: Commit) -> Descriptor:
    """Return the descriptor of the text whose referrers are the statements on *commit*'s outputs.

    Of ``nix-seed/outputs/v1``, a zero byte, Git's algorithm and the hex digits, in ASCII.
    """
    text = f"nix-seed/outputs/v1\0{commit.algorithm}{commit.hex}".encode()
    return Descriptor(KEY_TYPE, Digest(hashlib.sha256(text).hexdigest()), len(text))
