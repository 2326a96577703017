import subprocess
from pathlib import Path

from nix_seed.use.results import BATCHED


def shell(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    # A small stack is a small limit on arguments, as a large store's names reach the usual one.
    command = ["sh", "-c", f"ulimit -s 256\n{BATCHED}\n{script}", "sh", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_more_paths_than_a_program_takes_as_arguments(tmp_path: Path) -> None:
    names = [f"/nix/store/{number:032}-x" for number in range(20_000)]
    listed = tmp_path / "list"
    listed.write_text("".join(f"{name}\n" for name in names))
    assert shell('/usr/bin/env printf "%s\\n" $(cat "$1")', listed).returncode != 0
    done = shell('batched "$1" /usr/bin/env printf "%s\\n"', listed)
    assert done.stdout.split() == names


def test_a_failure_ends_it_and_nothing_is_no_call(tmp_path: Path) -> None:
    listed = tmp_path / "list"
    listed.write_text("a\n" * 600)
    assert shell('batched "$1" false', listed).returncode == 1
    listed.write_text("")
    assert shell('batched "$1" false', listed).returncode == 0
