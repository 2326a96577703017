"""What spares the tests waiting does spare them: it goes by names of modules, which may move."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest

from nix_seed.registry.errors import Patience, Unreachable
from support import frames, quick, seeds, warm
from support.quick.sitecustomize import PATIENT, RESTING

# Two seconds, four times; spared, less than a fifth of one.
SLOW = "Patience(base=2, longest=2, chance=lambda: 1.0)"
PROGRAM = f"""
from nix_seed.registry.errors import Patience, Unreachable
def fail(): raise Unreachable("away")
try: {SLOW}.retry(fail)
except Unreachable: print("gave up")
"""


def test_another_attempt_hardly_waits() -> None:
    def fail() -> None:
        raise Unreachable("away")

    begun = time.monotonic()
    with pytest.raises(Unreachable):
        Patience(base=2, longest=2, chance=lambda: 1.0).retry(fail)
    assert time.monotonic() - begun < 8


def test_nor_does_it_in_what_tests_start() -> None:
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True)
    assert done.stdout == b"gave up\n"
    assert time.monotonic() - begun < 8


def test_each_module_named_is_there_and_waits() -> None:
    for name in PATIENT:
        assert "sleep(" in Path(str(import_module(name).__file__)).read_text(), name
    for name in RESTING:
        assert ".wait(_REST)" in Path(str(import_module(name).__file__)).read_text(), name


def test_what_tests_run_is_forked(tmp_path: Path) -> None:
    assert warm.forks(seeds.environment(tmp_path))
    assert not warm.forks(seeds.environment(tmp_path, {"LANG": "de_DE"}))
    with quick.durable():
        assert warm.forks(seeds.environment(tmp_path))


FRAMES = """
import os
from pathlib import Path
from nix_seed.image.rules.frames import Compressor
from support import frames
place, compressor, data = Path("frames"), Compressor.at_hand(), os.urandom(100) * 1000
real = compressor.compress(data)
frames.remember(place)
assert compressor.compress(data) == real
[known] = place.iterdir()
known.write_bytes(b"kept")
assert compressor.compress(data) == b"kept"
assert Compressor.at_hand(level=4).compress(data) != b"kept"
assert compressor.compress(data[:-1]) != b"kept"
os.environ.update(frames.ANEW)
assert compressor.compress(data) == real
"""


def test_a_frame_is_compressed_once(tmp_path: Path) -> None:
    """And anew for another level, other data, and where a test asks for that."""
    where = os.pathsep.join([str(Path(frames.__file__).parents[1]), warm.SOURCE])
    env = os.environ | {"PYTHONPATH": where}
    subprocess.run([sys.executable, "-c", FRAMES], cwd=tmp_path, env=env, check=True)


def test_a_program_that_is_forked_is_as_one_that_starts(tmp_path: Path) -> None:
    program = str(warm.program(tmp_path / "bin"))
    for words in (["--version"], ["inspect", "oci:absent"], ["no", "such"]):
        said = [
            subprocess.run([*command, *words], cwd=tmp_path, capture_output=True, check=False)
            for command in ([program], seeds.COMMAND)
        ]
        assert said[0].returncode == said[1].returncode
        assert (said[0].stdout, said[0].stderr) == (said[1].stdout, said[1].stderr)
    key = ["unshare", "--mount", "--net", program, "key", "generate", "k"]
    if os.geteuid() == 0:
        assert subprocess.run(key, cwd=tmp_path, capture_output=True, check=False).returncode == 0
        assert (tmp_path / "k.pub").is_file()


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGKILL])
def test_a_program_that_is_forked_ends_by_signals(number: signal.Signals, tmp_path: Path) -> None:
    program = warm.program(tmp_path / "bin")
    # It has its own ways with those that it waits for, and who started us may ignore SIGHUP.
    log = ["log", "serve", str(tmp_path / "log"), "--origin", "log.example", "--port", "0"]
    with subprocess.Popen(
        [program, *log], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as serving:
        assert serving.stdout is not None
        assert serving.stdout.readline()
        serving.send_signal(number)
        # Its end is seen where nobody holds its files open any more.
        serving.stdout.read()
        assert serving.wait(30) == -number
