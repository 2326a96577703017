# pragma version 0.4.3
# pragma evm-version paris
# pragma optimize gas
"""
@title Nix Seed ledger
@license MIT
@notice One release per commit, entered once by a threshold of builders, and never changed.
@dev There is no owner, no upgrade and no way to remove an entry. The builders themselves replace
     their set. Anybody may bring signatures and pay for the gas. Nothing here depends on how it was
     deployed (no immutables), so that the code at an address can be compared byte for byte.
"""

struct Builder:
    account: address
    id: bytes32  # UTF-8, filled up with zeros

struct Signature:
    v: uint256
    r: uint256
    s: uint256

struct Entry:
    root: bytes32
    record: bytes32

event Published:
    commitKey: indexed(bytes32)
    root: indexed(bytes32)
    record: bytes32
    index: uint256
    epoch: uint256

event BuildersChanged:
    epoch: indexed(uint256)
    threshold: uint256
    builders: DynArray[Builder, MOST]

MOST: constant(uint256) = 32

# Half the order of secp256k1. Of (r, s) and (r, -s), both valid, only the lower s counts (EIP-2).
HALF: constant(uint256) = 57896044618658097711785492504343953926418782139537452191302581570759080747168

# EIP-712
DOMAIN_TYPE: constant(bytes32) = keccak256(
    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)
DOMAIN_NAME: constant(bytes32) = keccak256("nix-seed ledger")
DOMAIN_VERSION: constant(bytes32) = keccak256("1")
PUBLISH_TYPE: constant(bytes32) = keccak256(
    "Publish(bytes32 commitKey,bytes32 root,bytes32 record,uint256 epoch)"
)
BUILDER_TYPE: constant(bytes32) = keccak256("Builder(address account,bytes32 id)")
BUILDERS_TYPE: constant(bytes32) = keccak256(
    "SetBuilders(Builder[] builders,uint256 threshold,uint256 epoch)Builder(address account,bytes32 id)"
)

# What is entered for a commit; and the commit that a root was entered for.
entries: public(HashMap[bytes32, Entry])
commitOf: public(HashMap[bytes32, bytes32])
# How many entries there are, and a hash chain over them: a replay must end in this very value.
count: public(uint256)
head: public(bytes32)
# The builders' set, counted by epoch. An account belongs to it if it is of the present epoch.
epoch: public(uint256)
threshold: public(uint256)
builders: DynArray[Builder, MOST]
epochOf: HashMap[address, uint256]


@deploy
def __init__(builders: DynArray[Builder, MOST], threshold: uint256):
    """
    @notice Begin with these builders, as epoch 1.
    """
    self._install(builders, threshold, 1)


@external
def publish(
    commitKey: bytes32, root: bytes32, record: bytes32, signatures: DynArray[Signature, MOST]
):
    """
    @notice Enter a release, for good.
    @param commitKey SHA-256 by which the commit is known.
    @param root Merkle root over the release's systems.
    @param record SHA-256 of the promotion record's statement.
    @param signatures Over Publish and the present epoch, in ascending order of the signers.
    """
    assert commitKey != empty(bytes32), "no commit key"
    assert root != empty(bytes32), "no root"
    assert record != empty(bytes32), "no record"
    assert self.entries[commitKey].root == empty(bytes32), "commit has an entry"
    assert self.commitOf[root] == empty(bytes32), "root has a commit"
    epoch: uint256 = self.epoch
    self._check(keccak256(abi_encode(PUBLISH_TYPE, commitKey, root, record, epoch)), signatures)
    self.entries[commitKey] = Entry(root=root, record=record)
    self.commitOf[root] = commitKey
    index: uint256 = self.count
    self.count = index + 1
    self.head = keccak256(abi_encode(self.head, commitKey, root, record))
    log Published(commitKey=commitKey, root=root, record=record, index=index, epoch=epoch)


@external
def setBuilders(
    builders: DynArray[Builder, MOST],
    threshold: uint256,
    epoch: uint256,
    signatures: DynArray[Signature, MOST],
):
    """
    @notice Replace the builders; the present ones, up to their threshold, have signed it.
    @param builders In ascending order of their accounts.
    @param epoch The present one and 1: what was signed for any other is of no use.
    """
    assert epoch == self.epoch + 1, "not the next epoch"
    hashes: DynArray[bytes32, MOST] = []
    for each: Builder in builders:
        hashes.append(keccak256(abi_encode(BUILDER_TYPE, each.account, each.id)))
    # EIP-712: an array is the hash of its members' hashes, without offset and length.
    members: bytes32 = keccak256(slice(abi_encode(hashes), 64, 32 * len(hashes)))
    self._check(keccak256(abi_encode(BUILDERS_TYPE, members, threshold, epoch)), signatures)
    self._install(builders, threshold, epoch)


@view
@external
def builderSet() -> DynArray[Builder, MOST]:
    """
    @notice The present builders.
    """
    return self.builders


@internal
def _install(builders: DynArray[Builder, MOST], threshold: uint256, epoch: uint256):
    assert threshold > 0, "threshold is 0"
    assert threshold <= len(builders), "threshold exceeds the builders"
    previous: uint160 = 0
    for i: uint256 in range(len(builders), bound=MOST):
        account: uint160 = convert(builders[i].account, uint160)
        # Ascending from above zero: none is the zero address, and none is there twice.
        assert account > previous, "builders not ascending"
        previous = account
        assert builders[i].id != empty(bytes32), "builder without id"
        for j: uint256 in range(i, bound=MOST):
            assert builders[j].id != builders[i].id, "two builders of one id"
        self.epochOf[builders[i].account] = epoch
    self.builders = builders
    self.threshold = threshold
    self.epoch = epoch
    log BuildersChanged(epoch=epoch, threshold=threshold, builders=builders)


@view
@internal
def _check(message: bytes32, signatures: DynArray[Signature, MOST]):
    assert len(signatures) >= self.threshold, "too few signatures"
    domain: bytes32 = keccak256(
        abi_encode(DOMAIN_TYPE, DOMAIN_NAME, DOMAIN_VERSION, chain.id, self)
    )
    digest: bytes32 = keccak256(concat(b"\x19\x01", domain, message))
    epoch: uint256 = self.epoch
    previous: uint160 = 0
    for each: Signature in signatures:
        assert each.s <= HALF, "high s"
        assert each.v == 27 or each.v == 28, "bad v"
        signer: address = ecrecover(digest, each.v, each.r, each.s)
        # What recovers to nobody is the zero address, which is never above the one before.
        assert convert(signer, uint160) > previous, "signers not ascending"
        previous = convert(signer, uint160)
        assert self.epochOf[signer] == epoch, "not a builder's signature"
