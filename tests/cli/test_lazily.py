"""What a command's module names lazily is loaded when it is used, and not by its help."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import sys
from nix_seed.cli.trust import policy

def loaded(name):
    # Asked as usual, the module would be loaded for the answer.
    return "load_policy" in object.__getattribute__(sys.modules[name], "__dict__")

name = "nix_seed.release.load"
assert not loaded(name)
assert policy.load is sys.modules[name]
assert not loaded(name)
policy.load.load_policy
assert loaded(name)
from nix_seed.release.load import load_policy
assert load_policy is policy.load.load_policy
print("seen")
"""


def test_a_module_is_loaded_at_its_first_use() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, check=True)
    assert done.stdout == b"seen\n"
    assert done.stderr == b""


def test_a_package_and_what_is_loaded_already_are_as_ever() -> None:
    program = (
        "from nix_seed.core import words\n"
        "from nix_seed.cli.lazily import lazily\n"
        "import sys\n"
        "before = list(sys.meta_path)\n"
        "with lazily():\n"
        "    from nix_seed.core import words as again\n"
        "    import nix_seed.trust\n"
        "assert sys.meta_path == before\n"
        "assert again is words and type(words).__name__ == 'module'\n"
        "assert 'trust' in vars(nix_seed)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
