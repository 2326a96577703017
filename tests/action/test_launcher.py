"""``bin/nix-seed``: it finds a Python, sets itself up once, and says what lacks."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.engines import need_root
from support.launcher import launch_from
from support.planted import plant_modules, planted_that_ran
from support.runner import programs
from support.steps import ROOT


def launch(place: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return launch_from(ROOT, place, *arguments, **env)


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place in which it has set itself up."""
    place = tmp_path_factory.mktemp("launcher")
    first = launch(place, "--version")
    if "could not be installed" in first.stderr:
        pytest.skip("needs a package index within reach")
    assert first.returncode == 0, first.stderr
    assert "setting up, once" in first.stderr
    assert first.stdout.startswith("nix-seed, version")
    return place


def test_it_sets_up_once(tools: Path) -> None:
    again = launch(tools, "--version")
    assert (again.returncode, again.stderr) == (0, "")
    [place] = (tools / "tools/nix-seed").iterdir()
    assert (place / "bin/python").exists()


def test_a_later_step_is_told_which_python(tools: Path, tmp_path: Path) -> None:
    """And looks for none: here there is none."""
    outputs = tmp_path / "outputs"
    assert launch(tools, "ci", "setup", "--only", GITHUB_OUTPUT=str(outputs)).returncode == 0
    [python] = re.findall("^python=(.+)$", outputs.read_text(), re.MULTILINE)
    path = programs(tmp_path)
    (path / "python3").unlink()
    env = {"PATH": str(path), "RUNNER_TOOL_CACHE": str(tmp_path)}
    assert launch(tools, "--version", **env).returncode == 2
    told = launch(tools, "--version", **env, NIX_SEED_PYTHON=python)
    assert told.stdout.startswith("nix-seed, version"), told.stderr
    gone = launch(tools, "--version", NIX_SEED_PYTHON=str(tmp_path / "gone"))
    assert gone.returncode == 0, gone.stderr


def test_no_module_is_taken_from_where_it_is_called(tools: Path, tmp_path: Path) -> None:
    """A step runs in the checkout, which is a pull request's, with the job's secrets."""
    plant_modules(tmp_path)
    [place] = (tools / "tools/nix-seed").iterdir()
    outcomes = [
        launch(tmp_path, "--version", NIX_SEED_TOOLS=str(tools / "tools")).stdout,
        launch(tmp_path, "--version", NIX_SEED_PYTHON=str(place / "bin/python")).stdout,
    ]
    # Nor by what sets it up; without an index it cannot.
    empty = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    anew = launch(tmp_path, "--version", **empty, PYTHON=sys.executable)
    assert planted_that_ran(tmp_path) == ""
    assert all(each.startswith("nix-seed, version") for each in outcomes)
    assert (anew.returncode, "could not be installed" in anew.stderr) == (3, True)


def test_make_install(tools: Path, tmp_path: Path) -> None:
    """README's way: an environment of its own, and a command on PATH."""
    prefix = tmp_path / "with space"
    # `make test` has the tests' own nix-seed on PATH; a user has none yet.
    path = [each for each in os.get_exec_path() if not Path(each, "nix-seed").exists()]
    env = {
        "PATH": os.pathsep.join(path),
        "PYTHON": shutil.which("python3") or "python3",
        "HOME": str(tools),
        "NIX_SEED_TOOLS": str(tools / "tools"),
        "PREFIX": str(prefix),
    }
    made = subprocess.run(
        ["make", "install"], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    assert f"hint: put {prefix}/bin on your PATH" in made.stdout
    env["PATH"] = f"{prefix}/bin:{env['PATH']}"
    plant_modules(tmp_path)
    command = ["nix-seed", "sbom", "--help"]
    shown = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert planted_that_ran(tmp_path) == ""
    assert shown.returncode == 0, shown.stderr
    assert shown.stderr == "", "nothing is set up at a call"
    again = subprocess.run(["make", "install"], cwd=ROOT, env=env, capture_output=True, check=True)
    assert b"hint:" not in again.stdout


def test_it_runs_every_step(tools: Path) -> None:
    for step in ("setup", "seed", "use", "promote"):
        shown = launch(tools, "ci", step, "--help")
        assert shown.returncode == 0, shown.stderr
    assert "SEED_TAGS" in launch(tools, "ci", "--help").stdout + "SEED_TAGS"


def test_it_can_sign_keyless_and_write_cyclonedx(tools: Path) -> None:
    """What Sigstore and CycloneDX need is among what is installed."""
    [place] = (tools / "tools/nix-seed").iterdir()
    subprocess.run(
        [place / "bin/python", "-c", "import cyclonedx, sigstore.sign, zstandard"], check=True
    )


def test_exit_codes_pass_through(tools: Path) -> None:
    assert launch(tools, "inspect", "oci:absent").returncode == 2


def test_it_needs_a_python(tmp_path: Path) -> None:
    path = programs(tmp_path)
    (path / "python3").unlink()
    old = path / "python3"
    # What Ubuntu 22.04 has.
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    env = {"PATH": str(path), "RUNNER_TOOL_CACHE": str(tmp_path)}
    failed = launch(tmp_path, "--version", **env)
    assert failed.returncode == 2
    assert "nix-seed needs Python 3.11 to 3.14, and PATH has none" in failed.stderr
    assert "ubuntu-24.04" in failed.stderr


def test_it_finds_the_pythons_of_a_runner(tmp_path: Path) -> None:
    """They are there, and not on PATH."""
    path = programs(tmp_path)
    (path / "python3").unlink()
    cached = tmp_path / "Python/3.12.1/x64/bin"
    cached.mkdir(parents=True)
    used = tmp_path / "used"
    (cached / "python3").write_text(
        f'#!/bin/sh\necho used > "{used}"\nexec "{sys.executable}" "$@"\n'
    )
    (cached / "python3").chmod(0o755)
    env = {"PATH": str(path), "RUNNER_TOOL_CACHE": str(tmp_path), "NIX_SEED_TOOLS": ""}
    # Without an index nothing can be installed; which Python was asked is seen all the same.
    env |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    failed = launch(tmp_path, "--version", **env)
    assert used.exists()
    assert failed.returncode == 3
    assert "name it: NIX_SEED_BIN=" in failed.stderr
    assert [each for each in (tmp_path / "nix-seed").iterdir() if each.is_dir()] == []


def pretended(path: Path, alteration: str, words: str, ready: str = "exit 2") -> None:
    """Make *path* a Python that says of itself what *alteration* sets, and *words* to ``-VV``."""
    path.write_text(
        f"""#!/bin/sh
case $* in
  -VV) echo "{words} (main, Oct 1 2026)" ;;
  *" -c "*|"-IS -c "*) exec "{sys.executable}" -IS -c "import sys; {alteration}; $3" ;;
  *) {ready} ;;
esac
"""
    )
    path.chmod(0o755)


NEWER = "sys.version_info = (3, 15, 0)", "Python 3.15.2"
FREE = "sys.abiflags = 't'", "Python 3.14.0 free-threading build"


@pytest.mark.parametrize("other", [NEWER, FREE])
def test_a_python_that_no_package_is_built_for_is_passed_over(
    other: tuple[str, str], tmp_path: Path
) -> None:
    path = programs(tmp_path)
    for name in ("python3.14", "python3"):
        (path / name).unlink(missing_ok=True)
        pretended(path / name, *other)
    env = {"PATH": str(path), "RUNNER_TOOL_CACHE": str(tmp_path)}
    failed = launch(tmp_path, "--version", **env)
    assert failed.returncode == 2
    assert f"needs Python 3.11 to 3.14, and PATH has only {other[1]}\n" in failed.stderr
    named = launch(tmp_path, "--version", **env, PYTHON=str(path / "python3"))
    assert f"and {path}/python3 is {other[1]}\n" in named.stderr
    pretended(path / "python3.12", "pass", "Python 3.12.1", "echo 3.12: $3 $4")
    found = launch(tmp_path, "--version", **env)
    assert found.stdout == f"3.12: {ROOT} --version\n", found.stderr


def test_without_a_home_it_makes_none(tmp_path: Path) -> None:
    """A service's user has none, nor what runs in a container by ``env -i``."""
    place = tmp_path / "Ablage, other"
    env = {"HOME": "", "NIX_SEED_TOOLS": "", "TMPDIR": str(place), "PIP_NO_INDEX": "1"}
    failed = launch(tmp_path, "--version", **env, PIP_FIND_LINKS=str(tmp_path))
    own = place / f"nix-seed-{os.geteuid()}"
    assert f"setting up, once: {own}/" in failed.stderr
    assert own.stat().st_mode & 0o777 == 0o700
    assert not Path("/nonexistent").exists()


@pytest.mark.parametrize("planted", ["open", "link", "another's"])
def test_in_a_shared_directory_it_takes_nobody_elses_tools(planted: str, tmp_path: Path) -> None:
    """Whoever lays a Python there first would be run by whoever comes second."""
    shared = tmp_path / "shared"
    own, named = shared / f"nix-seed-{os.geteuid()}", shared / "nix-seed"
    for place in (own, named):
        where = tmp_path / f"{place.name}, elsewhere" if planted == "link" else place
        where.mkdir(parents=True, mode=0o700)
        if planted == "link":
            shared.mkdir(exist_ok=True)
            place.symlink_to(where)
        elif planted == "open":
            where.chmod(0o777)
        else:
            need_root()
            os.chown(where, 1000, 1000)
    env = {"HOME": "", "NIX_SEED_TOOLS": "", "TMPDIR": str(shared), "PIP_NO_INDEX": "1"}
    failed = launch(tmp_path, "--version", **env)
    assert (failed.returncode, failed.stdout) == (2, "")
    assert "no directory for its tools can be written" in failed.stderr
    assert "name one: NIX_SEED_TOOLS=DIR" in failed.stderr


@pytest.mark.parametrize("kept", ["versions", "installs/python"])
def test_it_runs_no_shim(kept: str, tmp_path: Path) -> None:
    """One of pyenv's or mise's takes a quarter of a second, and is asked for five names."""
    path, shims = programs(tmp_path), tmp_path / "manager/shims"
    (path / "python3").unlink()
    shims.mkdir(parents=True)
    for name in ("python3.14", "python3.12", "python3"):
        (shims / name).write_text(f'#!/bin/sh\necho shim >>"{tmp_path}/used"\nexit 1\n')
        (shims / name).chmod(0o755)
    for version in ("3.9.18", "3.11.7", "3.12.1", "3.13.0t"):
        real = tmp_path / "manager" / kept / version / "bin/python3"
        real.parent.mkdir(parents=True)
        real.write_text(f'#!/bin/sh\necho {version} >>"{tmp_path}/used"\nexit 2\n')
        real.chmod(0o755)
    env = {"PATH": f"{shims}:{path}", "RUNNER_TOOL_CACHE": str(tmp_path / "none")}
    assert launch(tmp_path, "--version", **env).returncode == 2
    assert set((tmp_path / "used").read_text().split()) == {"3.12.1"}


# GitHub's runners: ubuntu-24.04 has 3.12, macos-15 has 3.14; and whatever else the launcher takes.
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
@pytest.mark.parametrize(
    "platform",
    [
        "x86_64-manylinux_2_28",
        "aarch64-manylinux_2_28",
        "aarch64-apple-darwin",
        "x86_64-apple-darwin",
    ],
)
def test_nothing_is_compiled_on_any_platform(platform: str, version: str, tmp_path: Path) -> None:
    """All that is locked has a wheel; uv reads the markers as pip on that platform would."""
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if uv is None:
        pytest.skip("needs uv: pip install uv")
    command: list[str | Path] = [
        *(uv, "pip", "install", "--no-config", "--dry-run", "--target", tmp_path),
        *("--python", sys.executable, "--python-platform", platform, "--python-version", version),
        *("--only-binary", ":all:", "--no-deps", "--require-hashes"),
        *("-r", ROOT / "bin/requirements.txt"),
    ]
    env = {**os.environ, "UV_HTTP_TIMEOUT": "20"}
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, check=False, timeout=120
    )
    if "error sending request" in done.stderr or "Failed to fetch" in done.stderr:
        pytest.skip("needs a package index within reach")
    assert done.returncode == 0, done.stderr
    assert "Would install" in done.stderr


# Runs at every start of Python, pip's too: writes down which program it was and what it could see.
_WATCH = """
import json, os, sys
with open({log!r}, "a") as file:
    print(json.dumps([sys.orig_argv, dict(os.environ)]), file=file)
"""
_SECRETS = {
    name: f"value of {name}"
    for name in (
        "SEED_REGISTRY_TOKEN",
        "SEED_KEY",
        "NIX_SEED_KEY_PASSPHRASE",
        "ACTIONS_RUNTIME_TOKEN",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
        "ACTIONS_ID_TOKEN_REQUEST_URL",
        "SIGSTORE_ID_TOKEN",
        "CI_REGISTRY_PASSWORD",
        "GITHUB_TOKEN",
    )
}


def test_pip_sees_no_secret(tmp_path: Path) -> None:
    log = tmp_path / "log"
    (tmp_path / "watch").mkdir()
    (tmp_path / "watch/sitecustomize.py").write_text(_WATCH.format(log=str(log)))
    env = {**_SECRETS, "PYTHONPATH": str(tmp_path / "watch"), "PYTHON": sys.executable}
    # An empty index: what is installed does not matter here.
    env |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    assert launch(tmp_path, "--version", **env).returncode == 3
    runs = [json.loads(line) for line in log.read_text().splitlines()]
    # Not the launcher's own line of Python, which takes them away.
    pips = [seen for argv, seen in runs if "install" in argv and argv[1] != "-c"]
    assert pips
    for seen in pips:
        assert not _SECRETS.keys() & seen.keys()
        assert not set(_SECRETS.values()) & set(seen.values())
        assert seen["PIP_NO_INDEX"] == "1", "how pip reaches its index stays"


def test_a_python_without_a_pip_serves(tools: Path, tmp_path: Path) -> None:
    """Debian's, with python3-venv and no python3-pip: the venv gets one of its own."""
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    # How many packages its pip installs does not matter: those that this needs.
    root = tmp_path / "checkout"
    for part in ("bin", "src"):
        shutil.copytree(ROOT / part, root / part, ignore=shutil.ignore_patterns("__pycache__"))
    locked = root / "bin/requirements.txt"
    entries = re.split(r"^(?=[a-z])", locked.read_text(), flags=re.MULTILINE)
    locked.write_text(
        "".join(entry for entry in entries if entry.startswith(("click=", "msgspec=")))
    )
    made = launch_from(root, tmp_path, "--version", PYTHON=str(bare / "bin/python"))
    assert made.returncode == 0, made.stderr
    [place] = (tmp_path / "tools/nix-seed").iterdir()
    assert (place / "bin/pip").exists()


def test_the_time_of_setting_up_is_handed_on(tmp_path: Path) -> None:
    """To what the launcher then runs, and by ``ci setup`` to the steps that follow."""
    output = tmp_path / "output"
    output.touch()
    github = {"GITHUB_ACTIONS": "true", "GITHUB_OUTPUT": str(output)}
    first = launch(tmp_path, "ci", "setup", **github)
    if "could not be installed" in first.stderr:
        pytest.skip("needs a package index within reach")
    assert first.returncode == 0, first.stderr
    assert "secrets" not in first.stderr
    [seconds] = [line for line in output.read_text().splitlines() if line.startswith("seconds=")]
    assert 0.5 < float(seconds.removeprefix("seconds=")) < 250
    for only in ([], ["--only"]):
        output.write_text("")
        assert launch(tmp_path, "ci", "setup", *only, **github).returncode == 0
        said = output.read_text()
        assert "seconds=\n" in said, "nothing was set up again"
        assert ("nix=" in said) is not bool(only)


def test_one_that_is_installed_is_used(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text('#!/bin/sh\necho "own: $*"\n')
    own.chmod(0o755)
    assert launch(tmp_path, "a", "b c", NIX_SEED_BIN=str(own)).stdout == "own: a b c\n"
