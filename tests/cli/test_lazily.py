"""What a command names lazily is loaded when it is used, and not by its help."""

from __future__ import annotations

import subprocess
import sys
import threading

from nix_seed.cli.lazily import lazily

_PROGRAM = """
import sys
from nix_seed.cli.trust import policy

name = "nix_seed.release.load"
assert name not in sys.modules
asked = policy.load.load_policy
assert asked is sys.modules[name].load_policy
sys.modules[name].load_policy = None
assert policy.load.load_policy is None
print("seen")
"""


def test_a_module_is_loaded_at_its_first_use() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"seen\n", b"")


def test_other_threads_import_as_ever() -> None:
    found = []

    def work() -> None:
        from nix_seed.core.words import plural

        found.append(plural)

    with lazily():
        from nix_seed.core import words

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    from nix_seed.core.words import plural

    assert found == [plural]
    assert words.plural is plural
