"""The public Sigstore's trusted root, as Sigstore's own library brings it."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass

__all__ = ["PublicRoot", "public_root"]

_REKOR = "https://rekor.sigstore.dev"


@dataclass(frozen=True, slots=True)
class PublicRoot:
    """*text* is the JSON of a ``TrustedRoot``, *rekor_key* the base64 of its Rekor v1's key."""

    text: str
    rekor_key: str | None


def public_root() -> PublicRoot | None:
    """Return the root without asking the network; None where the library is not installed."""
    try:
        from sigstore.models import ClientTrustConfig  # noqa: PLC0415  (an extra)
    except ImportError:
        return None
    logging.getLogger("sigstore").addHandler(logging.NullHandler())  # its warnings go nowhere
    value = json.loads(ClientTrustConfig.production(offline=True).trusted_root._inner.to_json())
    keys = {each["baseUrl"]: each["publicKey"]["rawBytes"] for each in value.get("tlogs", ())}
    return PublicRoot(json.dumps(value, indent=2) + "\n", keys.get(_REKOR))
