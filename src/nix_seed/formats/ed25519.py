"""Ed25519 keys that are no keys: points of small order.

One signature under such a key is good for many messages, and nobody needs a secret to make it.
"""

from typing import Final

_LOW: Final = "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"
# Each point of order 1, 2, 4 and 8 in every spelling, without the sign, which is the last bit.
_SMALL_ORDER: Final = frozenset(
    bytes.fromhex(each)
    for each in (
        "00" * 32,
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ec" + _LOW,
        "ed" + _LOW,
        "ee" + _LOW,
    )
)


def is_small_order(public: bytes) -> bool:
    """Whether the 32 bytes *public* are a point of small order, however it is spelled."""
    return public[:31] + bytes([public[31] & 0x7F]) in _SMALL_ORDER
