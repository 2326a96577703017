"""Record entries of real Rekor servers.

``PYTHONPATH=tests:src python tests/logs/golden/make_rekor.py`` writes ``rekor.json``: for each
server its key, three signed envelopes, and their entries as they stand in bundles. The keys are
made anew each time, and thrown away.
"""

from __future__ import annotations

import base64
import json
import tempfile
from pathlib import Path
from typing import Any

from nix_seed.logs.log import Log
from nix_seed.logs.rekor import LogHttp, RekorV1
from nix_seed.logs.rules.entry import TrustedLog
from support.logs import Signing
from support.rekor import PATIENCE, rekor_v1, rekor_v2

STATEMENT = {
    "_type": "https://in-toto.io/Statement/v1",
    "predicateType": "https://example.com/p",
    "predicate": {},
}


def payload(number: int) -> bytes:
    """Return a statement of its own subject."""
    subject = {"name": f"image {number}", "digest": {"sha256": f"{number:064x}"}}
    return json.dumps(STATEMENT | {"subject": [subject]}).encode()


def record(log: Log) -> dict[str, Any]:
    """Log three envelopes; the first entry's proof is by the newest checkpoint too."""
    signing = Signing()
    entries = []
    for number in range(3):
        envelope, verifier = signing.sign(payload(number))
        entry = log.append(envelope, verifier)
        entries.append({"envelope": envelope.to_json(), "entry": entry})
    der = base64.b64encode(verifier.der).decode()
    trusted = log.trusted
    return {
        "kind": trusted.kind, "origin": trusted.origin, "key": str(trusted.key),
        "verifier": der, "entries": entries,
        "consistency": [value.hex() for value in log.consistency(2, 3)],
        "checkpoint": log.checkpoint().dump().decode(),
    }  # fmt: skip


def main() -> None:
    """Start each server, and record."""
    found = {}
    with tempfile.TemporaryDirectory() as name:
        with rekor_v1(Path(name) / "v1") as (url, key):
            trusted = TrustedLog("v1", "rekor-v1", "rekor.test", key)
            http = LogHttp(url, patience=PATIENCE)
            found["rekor v1"] = record(RekorV1(trusted, url, http=http))
        for kind in ("ed25519", "ecdsa-p256"):
            with rekor_v2(Path(name) / kind, kind) as log:
                found[f"rekor v2 {kind}"] = record(log.client)
    text = json.dumps(found, indent=1, sort_keys=True)
    Path(__file__).with_name("rekor.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
