"""The built wheel, installed as users install commands: no checkout, nothing of the system's."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from support.steps import ROOT

UV = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
pytestmark = pytest.mark.skipif(UV is None, reason="needs uv: pip install uv")


def run(*command: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        command, env=kept | env, capture_output=True, text=True, check=False, timeout=240
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    done = run(str(UV), "build", "--wheel", "--no-config", "-o", folder, ROOT)
    if "Failed to fetch" in done.stderr or "error sending request" in done.stderr:
        pytest.skip("needs a package index within reach")
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


def test_the_readme_stands_alone(wheel: Path) -> None:
    """On an index it lies beside no other file."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [each for each in archive.namelist() if each.endswith("/METADATA")]
        text = archive.read(name).decode()
    links = re.findall(r"\]\(([^)]+)\)", text.partition("\n\n")[2])
    assert len(links) > 20
    assert [link for link in links if not link.startswith(("https://", "#"))] == []
    assert "Project-URL: Repository, https://github.com/" in text


def test_an_index_renders_the_readme(wheel: Path) -> None:
    done = run(str(UV), "tool", "run", "twine", "check", "--strict", wheel)
    if "Failed to fetch" in done.stderr or "error sending request" in done.stderr:
        pytest.skip("needs a package index within reach")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASSED" in done.stdout


@pytest.mark.parametrize("way", ["uv", "pipx"])
def test_installed(way: str, wheel: Path, tmp_path: Path) -> None:
    uv = str(UV)
    ways = {
        "uv": (uv, "tool", "install", "--python", sys.executable, wheel),
        "pipx": (uv, "tool", "run", "pipx", "install", "--python", sys.executable, wheel),
    }
    places = ("UV_TOOL_DIR", "UV_TOOL_BIN_DIR", "PIPX_HOME", "PIPX_BIN_DIR", "PIPX_MAN_DIR", "HOME")
    env = {name: str(tmp_path / name) for name in places}
    env["UV_CACHE_DIR"] = str(wheel.parent / "cache")
    (tmp_path / "HOME").mkdir()
    done = run(*ways[way], **env)
    assert done.returncode == 0, done.stderr
    bin_of = {"uv": "UV_TOOL_BIN_DIR", "pipx": "PIPX_BIN_DIR"}
    command = tmp_path / bin_of[way] / "nix-seed"
    shown = run(command, "--version", **env)
    assert re.match(r"nix-seed, version \d", shown.stdout), shown.stderr
    assert list(command.resolve().parents[1].glob("share/man/man1/nix-seed.1"))
    # What it does by default works: signing keyless, and bills of materials.
    python = command.resolve().parent / "python"
    assert run(python, "-c", "import sigstore.sign, cyclonedx").returncode == 0
    assert run(command, "inspect", "oci:absent", **env).returncode == 2
    # Nothing of nix-seed's lies in the home besides.
    assert not list((tmp_path / "HOME").rglob("*nix-seed*"))
