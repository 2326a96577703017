"""What ``import nix_seed`` offers: every name is there, and the examples of docs/library.md run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import nix_seed
from support.trust import COMMIT, World

PAGE = Path(__file__).parents[2] / "docs/library.md"
EXAMPLE = re.compile(r"```python example\n(.*?)```", re.DOTALL)


def test_every_name_is_there() -> None:
    for name in nix_seed.__all__:
        assert getattr(nix_seed, name) is not None
    assert set(nix_seed.__all__) <= set(dir(nix_seed))


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    code = (
        "import sys, nix_seed; "
        "print(sorted(name for name in sys.modules if name.startswith('nix_seed.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_examples_run(tmp_path: Path) -> None:
    world = World.fresh(tmp_path)
    world.publish("alice", "bob")
    values = {
        "source": world.reference,
        "target": f"oci:{tmp_path / 'copy'}:seed",
        "policy": world.write_policy(),
        "commit": str(COMMIT),
        "state": tmp_path / "state",
    }
    printed: list[str] = []
    examples = EXAMPLE.findall(PAGE.read_text())
    assert examples
    for example in examples:
        exec(example, values | {"print": lambda value: printed.append(str(value))})
    assert printed[0] == str(world.image.descriptor.digest)
    assert printed[1:] == ["True"]
