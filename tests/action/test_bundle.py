"""The two files that the actions set themselves up from (``tools/make-bundle``)."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from hashlib import sha256
from pathlib import Path

import pytest

from support.launcher import launch_from
from support.steps import ROOT
from support.web import lying


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the file of this Python."""
    folder = tmp_path_factory.mktemp("bundle")
    done = subprocess.run(
        [sys.executable, ROOT / "tools/make-bundle", "--level", "1", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    if "No matching distribution" in done.stderr:
        pytest.skip("needs a package index within reach")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def checkout(made: Path, tmp_path: Path) -> Path:
    """A checkout that pins it, as a released commit does."""
    root = copied(tmp_path / "Prüfling, a checkout")
    pin(root, made)
    return root


def copied(root: Path) -> Path:
    ignored = shutil.ignore_patterns("__pycache__")
    for part in ("bin", "src", "tools"):
        shutil.copytree(ROOT / part, root / part, ignore=ignored)
    return root


def pin(root: Path, folder: Path, url: str = "") -> None:
    subprocess.run(
        [sys.executable, root / "tools/make-bundle", "--pin", url or folder.as_uri(), folder],
        check=True,
    )


def first_of(folder: Path) -> Path:
    [path] = (each for each in folder.glob("*.gz") if "-rest" not in each.name)
    return path


def altered(made: Path, folder: Path, members: list[tuple[str, bytes]]) -> Path:
    """Write another archive, and its pin, under the name of the one that was *made*."""
    [pins] = made.glob("*.json")
    [(platform, entry)] = json.loads(pins.read_text()).items()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    data = gzip.compress(packed.getvalue())
    folder.mkdir()
    (folder / entry["first"]["name"]).write_bytes(data)
    entry["first"] |= {"size": len(data), "sha256": sha256(data).hexdigest()}
    (folder / pins.name).write_text(json.dumps({platform: entry}))
    return folder


# Where there is no index either, what was refused is seen in the exit code.
NO_INDEX = {"PIP_NO_INDEX": "1", "PYTHON": sys.executable}


def test_no_index_is_asked(checkout: Path, tmp_path: Path) -> None:
    first = launch_from(checkout, tmp_path, "--version", **NO_INDEX)
    assert (first.returncode, first.stderr.count("\n")) == (0, 1), first.stderr
    assert "setting up, once" in first.stderr
    again = launch_from(checkout, tmp_path, "--version", **NO_INDEX)
    assert (again.returncode, again.stderr) == (0, "")
    [place] = (tmp_path / "tools/nix-seed").iterdir()
    assert not list(place.glob("lib/*/rest")), "what is not used is not fetched"
    wanted = "import cyclonedx, sigstore.sign, zstandard, license_expression, rich.table"
    for program in (wanted, "import absent_altogether", wanted):
        done = subprocess.run(
            [place / "bin/python", "-c", program], capture_output=True, check=False
        )
        assert (done.returncode == 0) == (program == wanted), done.stderr
    assert len(list(place.glob("lib/*/rest"))) == 1
    assert len(list(place.parent.iterdir())) == 1, "nothing is left beside it"


def test_what_is_fetched_later_is_checked_as_well(
    checkout: Path, made: Path, tmp_path: Path
) -> None:
    mirror = tmp_path / "mirror"
    shutil.copytree(made, mirror)
    env = NO_INDEX | {"NIX_SEED_BUNDLES": str(mirror)}
    assert launch_from(checkout, tmp_path, "--version", **env).returncode == 0
    [rest] = mirror.glob("*-rest.tar.gz")
    whole = rest.read_bytes()
    [place] = (tmp_path / "tools/nix-seed").iterdir()
    command = [str(place / "bin/python"), "-c", "import sigstore.sign"]
    for data, problem in (
        # The same members: but the header names another system that it was made on.
        (whole[:9] + b"\x07" + whole[10:], "is not the one that is pinned"),
        (whole + bytes(1 << 21), "is longer than the one that is pinned"),
    ):
        rest.write_bytes(data)
        refused = subprocess.run(command, capture_output=True, text=True, check=False)
        assert refused.returncode == 3
        assert problem in refused.stderr
        assert not list(place.glob("lib/*/rest"))
    rest.write_bytes(whole)
    both = [subprocess.Popen(command) for _ in range(2)]
    assert [each.wait() for each in both] == [0, 0]


def test_using_a_seed_needs_the_first_file_alone(checkout: Path, tmp_path: Path) -> None:
    assert launch_from(checkout, tmp_path, "--version", **NO_INDEX).returncode == 0
    [place] = (tmp_path / "tools/nix-seed").iterdir()
    modules = "cli.setup.ci_use cli.setup.ci_machine use.hydrate use.mount.store use.mount.seed"
    program = "".join(f"import nix_seed.{name}\n" for name in modules.split())
    program += "import nix_seed.image.plan, nix_seed.registry.http, urllib3, zstandard"
    done = subprocess.run(
        [place / "bin/python", "-c", program],
        env={"PYTHONPATH": str(checkout / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not list(place.glob("lib/*/rest"))


def test_shared_objects_are_without_what_no_loader_reads(made: Path) -> None:
    """With debugging information the file is nearly twice as large."""
    with tarfile.open(first_of(made)) as archive:
        objects = [member for member in archive if member.name.endswith(".so")]
        heads = [archive.extractfile(member).read(64) for member in objects]  # type: ignore[union-attr]
    assert heads
    for head in heads:
        assert not head.startswith(b"\x7fELF\2\1") or head[60:62] == b"\0\0"


def test_our_own_bytecode_is_in_place(checkout: Path, tmp_path: Path) -> None:
    assert launch_from(checkout, tmp_path, "--version", **NO_INDEX).returncode == 0
    source = checkout / "src/nix_seed/cli/main.py"
    [kept] = (source.parent / "__pycache__").glob("main.*.pyc")
    before = kept.stat().st_mtime_ns
    # It is used, and what the source says wins over it.
    assert launch_from(checkout, tmp_path, "--version", **NO_INDEX).returncode == 0
    assert kept.stat().st_mtime_ns == before
    source.write_text(source.read_text() + "\nraise SystemExit(77)\n")
    assert launch_from(checkout, tmp_path, "--version", **NO_INDEX).returncode == 77


def test_it_is_fetched(checkout: Path, made: Path, tmp_path: Path) -> None:
    def answer(_: str, path: str) -> tuple[int, dict[str, str], bytes]:
        return 200, {}, (made / path.removeprefix("/files/")).read_bytes()

    with lying(answer) as url:
        pin(checkout, made, f"{url}/files")
        assert launch_from(checkout, tmp_path, "--version", **NO_INDEX).returncode == 0


def test_a_mirror_serves(checkout: Path, made: Path, tmp_path: Path) -> None:
    pin(checkout, made, "http://127.0.0.1:1/none")
    mirror = tmp_path / "Spiegelchen #1, 100%25"
    mirror.symlink_to(made)
    env = NO_INDEX | {"NIX_SEED_BUNDLES": str(mirror)}
    assert launch_from(checkout, tmp_path, "--version", **env).returncode == 0


def test_another_file_is_refused(checkout: Path, made: Path, tmp_path: Path) -> None:
    for path in made.iterdir():
        shutil.copy(path, tmp_path)
    pin(checkout, tmp_path)
    bundle = first_of(tmp_path)
    data = bytearray(gzip.decompress(bundle.read_bytes()))
    data[600] ^= 1
    changed = gzip.compress(bytes(data), 1)
    # Not longer than the true one: its length shall not be what gives it away.
    bundle.write_bytes(changed)
    pins = checkout / "bin/bundles.json"
    [entry] = json.loads(pins.read_text())["bundles"].values()
    size = str(entry["first"]["size"])
    pins.write_text(pins.read_text().replace(size, str(len(changed))))
    failed = launch_from(checkout, tmp_path, "--version", **NO_INDEX)
    assert "is not the one that is pinned; asking the package index" in failed.stderr
    assert failed.returncode == 3
    assert list((tmp_path / "tools/nix-seed").iterdir()) == []


def test_a_longer_file_is_refused(checkout: Path, made: Path, tmp_path: Path) -> None:
    for path in made.iterdir():
        shutil.copy(path, tmp_path)
    pin(checkout, tmp_path)
    bundle = first_of(tmp_path)
    bundle.write_bytes(bundle.read_bytes() + bytes(1 << 21))
    failed = launch_from(checkout, tmp_path, "--version", **NO_INDEX)
    assert "is longer than the one that is pinned" in failed.stderr
    assert failed.returncode == 3


def test_one_that_cannot_be_had(checkout: Path, tmp_path: Path) -> None:
    env = NO_INDEX | {"NIX_SEED_BUNDLES": "http://127.0.0.1:1/none"}
    failed = launch_from(checkout, tmp_path, "--version", **env)
    assert "could not be fetched" in failed.stderr
    assert failed.returncode == 3


@pytest.mark.parametrize("name", ["../x", "site-packages/../../x", "/x", "else/x"])
def test_nothing_is_written_elsewhere(
    name: str, checkout: Path, made: Path, tmp_path: Path
) -> None:
    pin(checkout, altered(made, tmp_path / "altered", [(name, b"x")]))
    failed = launch_from(checkout, tmp_path, "--version", **NO_INDEX)
    assert "the file holds" in failed.stderr
    assert failed.returncode == 3


def test_other_requirements_ask_the_index(checkout: Path, tmp_path: Path) -> None:
    with (checkout / "bin/requirements.txt").open("a") as file:
        file.write("# another\n")
    failed = launch_from(checkout, tmp_path, "--version", **NO_INDEX)
    assert "could not be installed" in failed.stderr
    assert failed.returncode == 3


def test_it_is_made_alike(tmp_path: Path) -> None:
    """Of our code and four packages: both files have pure ones and compiled ones."""
    root = copied(tmp_path / "checkout")
    locked = root / "bin/requirements.txt"
    entries = re.split(r"^(?=[a-z])", locked.read_text(), flags=re.MULTILINE)
    few = ("click=", "msgspec=", "cryptography=", "packaging=")
    locked.write_text("".join(entry for entry in entries if entry.startswith(few)))
    made = []
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, root / "tools/make-bundle", "--level", "1", tmp_path / seed],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=False,
        )
        if b"No matching distribution" in done.stderr:
            pytest.skip("needs a package index within reach")
        assert done.returncode == 0, done.stderr
        made.append({path.name: path.read_bytes() for path in (tmp_path / seed).glob("*.gz")})
    assert len(made[0]) == 2
    assert made[0] == made[1]
    for name, data in made[0].items():
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            held = archive.getnames()
        assert "site-packages/pure.zip" in held, name
        assert any(each.endswith(".so") for each in held), name
