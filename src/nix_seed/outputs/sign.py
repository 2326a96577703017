"""Signs what a builder says of its outputs, and lists it where readers of the commit look."""

from collections.abc import Sequence
from dataclasses import replace

from nix_seed.core.events import Stage, tell
from nix_seed.core.values import dataclass
from nix_seed.formats.intoto.statement import PAYLOAD_TYPE
from nix_seed.formats.oci.manifest import Descriptor
from nix_seed.logs.log import Log
from nix_seed.outputs.rules import statement as rules
from nix_seed.registry.store import ImageStore
from nix_seed.trust.attestations import list_bundle
from nix_seed.trust.sign import Signer, log_signed


@dataclass(frozen=True, slots=True)
class SignedOutputs:
    """A statement and its *bundles*: one for each log, all over the identical envelope."""

    said: rules.OutputsStatement
    bundles: tuple[bytes, ...]


def sign_outputs(
    said: rules.OutputsStatement, signer: Signer, logs: Sequence[Log]
) -> tuple[SignedOutputs, ...]:
    """Sign and log *said*: as one statement, or as several where it has too many outputs.

    Raises as the signer and the logs do; ask ``check_writable_logs`` before.
    """
    found = []
    for part in rules.split_outputs(said.outputs):
        statement = replace(said, outputs=part)
        tell(Stage("sign", f"signing {len(part)} outputs as {signer.identity}"))
        signed = signer.sign(PAYLOAD_TYPE, rules.make_statement(statement).dump())
        bundles = log_signed(signed, logs)
        found.append(SignedOutputs(statement, tuple(bundle.dump() for bundle in bundles)))
    return tuple(found)


def list_statement(store: ImageStore, signed: SignedOutputs) -> tuple[Descriptor, ...]:
    """List *signed* beside its commit's outputs, by which all builders' statements are found."""
    subject = rules.outputs_subject(signed.said.commit)
    return tuple(list_bundle(store, subject, each, rules.PREDICATE_TYPE) for each in signed.bundles)
