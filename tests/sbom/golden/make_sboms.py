"""Writes the golden bills of materials: ``PYTHONPATH=tests python -m sbom.golden.make_sboms``."""

from __future__ import annotations

import json
from pathlib import Path

from sbom.test_sbom import FORMATS, ORIGINS, sbom

if __name__ == "__main__":
    for name, write in FORMATS.items():
        value = json.loads(write(sbom(origins=ORIGINS)))
        text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
        Path(__file__).with_name(f"tiny-sbom-{name}.json").write_text(text + "\n")
