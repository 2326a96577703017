"""What goes wrong is said in one line with what to do next, has its exit code, leaves nothing.

Everything here runs the real command on real flakes, stores and disks.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support import refusals
from support.distribution import nix_env
from support.layouts import directory as tar_directory, file as tar_file, tar, write_layout
from support.refusals import TOOL, check_layout, flip, refused, start, truncate, wait_for_a_layer
from support.seeds import (
    Ran,
    build,
    copied_store,
    nix_seed,
    product_flake,
    remove_tree,
    snapshot,
    store_paths,
    write_project,
)


@pytest.fixture(scope="module")
def project(distribution: Path) -> Path:
    return refusals.project()


@pytest.fixture(scope="module")
def image(project: Path) -> dict[str, Any]:
    return refusals.image()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "image"


# The store


@pytest.fixture
def store(image: dict[str, Any], tmp_path: Path) -> Iterator[Path]:
    """A store that may be harmed."""
    yield copied_store(tmp_path / "store", store_paths(image))
    remove_tree(tmp_path / "store")


def victim(store: Path, image: dict[str, Any]) -> tuple[str, Path]:
    """Return a store path, and a file in it that is larger than nothing."""
    path = next(path for path in store_paths(image) if "-bash-" in path)
    files = (store / path.removeprefix("/")).rglob("*")
    return path, next(f for f in files if f.is_file() and not f.is_symlink() and f.stat().st_size)


def make_executable(file: Path) -> None:
    file.chmod(file.stat().st_mode ^ 0o111)


def add_beside(file: Path) -> None:
    file.parent.chmod(0o755)
    (file.parent / "added").write_text("")


@pytest.mark.parametrize("harm", [flip, truncate, make_executable, add_beside])
def test_a_store_path_that_changed(
    harm: Callable[[Path], None],
    project: Path,
    image: dict[str, Any],
    store: Path,
    cache: Path,
    output: Path,
) -> None:
    path, file = victim(store, image)
    harm(file)
    ran = nix_seed("build", project, "--kind", "run", "--store", store, "-o", output, cache=cache)
    refused(ran, 1, f"error: {path}", "hint: ", output=output)
    assert not list(cache.rglob("*.tmp"))


def remove_file(path: Path, file: Path) -> None:
    file.parent.chmod(0o755)
    file.unlink()


def remove_path(path: Path, file: Path) -> None:
    remove_tree(path)


@pytest.mark.parametrize("harm", [remove_file, remove_path])
def test_a_store_path_that_vanished(
    harm: Callable[[Path, Path], None],
    project: Path,
    image: dict[str, Any],
    store: Path,
    cache: Path,
    output: Path,
) -> None:
    path, file = victim(store, image)
    harm(store / path.removeprefix("/"), file)
    ran = nix_seed("build", project, "--kind", "run", "--store", store, "-o", output, cache=cache)
    refused(ran, 1, f"error: {path}", "hint: ", output=output)
    assert not list(cache.rglob("*.tmp"))
    # All that is not the victim's was finished, and is of use once the store is whole again.
    shutil.rmtree(store / path.removeprefix("/"), ignore_errors=True)
    subprocess.run(["cp", "-a", path, store / "nix/store"], check=True)
    again = build(
        project, "--kind", "run", "--store", store, "-o", output, "--threads", "1", cache=cache
    )
    assert again["digest"] == image["digest"]
    check_layout(output)


def test_a_store_path_that_changes_while_another_is_read(
    project: Path, image: dict[str, Any], store: Path, cache: Path, output: Path
) -> None:
    # The largest layer is read first, so this one is untouched when the first is finished.
    last = min(image["layers"][:-1], key=lambda layer: layer["size"])["paths"][0]
    real = store / last.removeprefix("/")
    file = next(f for f in [real, *real.rglob("*")] if f.is_file() and not f.is_symlink())
    arguments = ["--kind", "run", "--store", str(store), "--level", "15", "--threads", "1"]
    process = start(project, *arguments, "-o", str(output), cache=cache)
    wait_for_a_layer(process, cache)
    flip(file)
    out, err = process.communicate(timeout=120)
    refused(Ran(process.returncode, out, err), 1, f"error: {last}", "hint: ", output=output)
    assert not list(cache.rglob("*.tmp"))


# Wrong arguments


@pytest.mark.parametrize("layers", ["0", "7", "121", "200", "-1"])
def test_impossible_counts_of_layers(layers: str, project: Path, cache: Path, output: Path) -> None:
    for command in (["build", str(project), "-o", str(output)], ["plan", str(project)]):
        ran = nix_seed(*command, "--layers", layers, cache=cache)
        message = f"error: {layers} layers cannot be asked for"
        refused(ran, 2, message, "choose from 8 to 120 (--layers)", output=output)
        assert "evaluating" not in ran.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threads", "0"], "Invalid value for '--threads': 0 is not in the range x>=1"),
        (["--level", "20"], "zstd level 20 is not from 1 to 19"),
        (["--format", "squashfs"], "'squashfs' is not one of 'oci', 'oci-archive'"),
        (["--tag", "a/b"], "'a/b' is not a tag"),
        (["--tag", "a/b", "--format", "oci-archive"], "'a/b' is not a tag"),
        (["--tag", "A/b", "--format", "docker-archive"], "localhost/A/b has upper-case letters"),
        (["--compressor", "xz"], "'xz' is not one of 'zstd', 'gzip'"),
        (["--kind", "sead"], "'sead' is not one of 'seed', 'run'"),
        (["--nonsense"], "No such option"),
    ],
)
def test_wrong_options(
    arguments: list[str], message: str, project: Path, cache: Path, output: Path
) -> None:
    ran = nix_seed("build", project, "-o", output, *arguments, cache=cache)
    refused(ran, 2, message, output=output)


def test_an_output_that_is_something_else(project: Path, tmp_path: Path, cache: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "letter").write_text("Dear all,\n")
    before = snapshot(home)
    for output, form, message in (
        (home, "oci", f"{home} is not empty and not an OCI image layout"),
        (home / "letter", "oci", f"{home}/letter is a file; an image layout is a directory"),
        (home, "oci-archive", f"{home} is a directory; a oci-archive is a file"),
        (home / "letter", "oci-archive", "letter exists and is no archive, so it is not replaced"),
        (home / "letter", "docker-archive", "letter exists and is no archive"),
        (home / "a:b", "oci", "cannot have ':' in its name"),
    ):
        arguments = ["--kind", "run", "-o", str(output), "--format", form]
        refused(nix_seed("build", project, *arguments, cache=cache), 2, message)
        assert snapshot(home) == before


def test_an_output_that_may_not_be_written_to(project: Path, cache: Path) -> None:
    output = Path("/proc/image")
    ran = nix_seed("build", project, "--kind", "run", "-o", output, cache=cache)
    refused(ran, 3, f"making the image layout {output} failed", output=output)


def test_a_base_that_is_no_seed(project: Path, tmp_path: Path, cache: Path, output: Path) -> None:
    foreign = write_layout(tmp_path / "foreign", [tar([tar_file("etc/motd", b"hello\n")])])
    (tmp_path / "empty").mkdir()
    (tmp_path / "s.tar").touch()
    for base, message in (
        (f"oci:{foreign}", "is not a seed: its last layer holds no etc/nix-seed/seed.json"),
        (f"oci:{tmp_path}/empty", f"{tmp_path}/empty is not an OCI image layout"),
        (f"oci:{tmp_path}/absent", f"there is no image layout {tmp_path}/absent"),
        (f"oci:{tmp_path}/s.tar", f"{tmp_path}/s.tar is a file; an image layout is a directory"),
        (f"oci:{foreign}:other", "other"),
        ("seed", "for an image layout on disk oci:seed"),
        ("https://example.org/seed", "a reference has no scheme"),
    ):
        arguments = ["--kind", "run", "--base", base, "-o", str(output)]
        ran = nix_seed("build", project, *arguments, cache=cache)
        refused(ran, 2, message, "hint: ", output=output)


def test_a_base_of_another_format(project: Path, tmp_path: Path, cache: Path, output: Path) -> None:
    spec = [tar_directory("etc/nix-seed"), tar_file("etc/nix-seed/seed.json", b'{"format":99}')]
    later = write_layout(tmp_path / "later", [tar(spec)])
    ran = nix_seed(
        "build", project, "--kind", "run", "--base", f"oci:{later}", "-o", output, cache=cache
    )
    message = "is of format 99; this release reads formats 1 to 2"
    refused(ran, 2, message, "use the release of nix-seed that made it", output=output)


def test_a_base_that_was_altered(project: Path, tmp_path: Path, cache: Path, output: Path) -> None:
    base = tmp_path / "base"
    built = build(project, "--kind", "run", "-o", base, cache=cache)
    last = built["layers"][-1]["digest"].removeprefix("sha256:")
    shutil.rmtree(cache)
    flip(base / "blobs/sha256" / last)
    ran = nix_seed(
        "build", project, "--kind", "run", "--base", f"oci:{base}", "-o", output, cache=cache
    )
    refused(ran, 1, f"{last} does not have the digest", "hint: ", output=output)


# Hostile outlines

HONEST = "(seeds.mkRun { inherit self system; package = self.packages.${system}.default; }).nixSeed"


FILES = "(honest.container // { files = honest.container.files ++ [ %s ]; })"


def files(entry: str) -> str:
    return "container = " + FILES % entry


HOSTILE = {
    'name = "a/b"': "'a/b' cannot be the name of an image",
    'name = "../../x"': "'../../x' cannot be the name of an image",
    'name = ""': "'' cannot be the name of an image",
    "name = 1": "malformed: Expected `str`, got `int` - at `$.name`",
    'kind = "other"': "other",
    "tiers = null": "malformed: Expected `array`, got `null` - at `$.tiers`",
    "unknown = true": "malformed: Object contains unknown field `unknown`",
    'inputs.x = "/etc/passwd"': "'/etc/passwd' is not a path in /nix/store",
    'inputs.x = "/nix/store/../../etc"': "is not a path in /nix/store",
    'system = "aarch64-linux"': "is for aarch64-linux, not for x86_64-linux",
    "config.env.A = 1": "malformed: Expected `str`, got `int` - at `$.config.env[...]`",
    'config.env."A=B" = "c"': "A=B",
    'config.entrypoint = "sh"': "malformed: Expected `array`, got `str` - at `$.config.entrypoint`",
    'tiers = [ { name = "app"; roots."/etc/passwd" = { path = true; }; } ]': "'/etc/passwd' is not",
    files('{ path = "../etc/cron"; text = ""; }'): "'../etc/cron' cannot be a file of an image",
    files('{ path = "/etc/cron"; text = ""; }'): "'/etc/cron' cannot be a file of an image",
    files('{ path = "etc/./x"; text = ""; }'): "'etc/./x' cannot be a file of an image",
    files('{ path = "etc//x"; text = ""; }'): "'etc//x' cannot be a file of an image",
    files('{ path = ""; text = ""; }'): "'' cannot be a file of an image",
    files('{ path = "nix/store/x"; text = ""; }'): "'nix/store/x' cannot be a file of an image",
    files('{ path = "a\\nb"; text = ""; }'): "cannot be a file of an image",
    files('{ path = "x"; text = ""; link = "y"; }'): "x is given as a text and as a link",
    files('{ path = "x"; text = ""; mode = "7777"; }'): "x: '7777' is not a mode",
    files('{ path = "etc/passwd"; text = "root::0:0:::"; }'): "etc/passwd",
    files('{ path = "etc/passwd/x"; text = ""; }'): "etc/passwd",
    files('{ path = "bin/x"; text = ""; }'): "bin",
    files('{ path = "etc/nix-seed/seed.json"; text = "{}"; }'): "etc/nix-seed/seed.json",
}


@pytest.fixture(scope="module")
def hostile(distribution: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A flake of many attributes that claim to be images, each wrong in one thing."""
    product = product_flake(tmp_path_factory.mktemp("product") / "nix-seed")
    outputs = TOOL + f"      run = {{ nixSeed = {HONEST}; }};\n"
    outputs += "".join(
        f"      h{number} = let honest = {HONEST}; in\n"
        f"        {{ nixSeed = honest // {{ {change}; }}; }};\n"
        for number, change in enumerate(HOSTILE)
    )
    lying = 'config.labels."io.nix-seed.kind" = "seed";'
    outputs += (
        f"      lying = let honest = {HONEST}; in {{ nixSeed = honest // {{ {lying} }}; }};\n"
    )
    outputs += '      text = "hello";\n      number = 1;\n      set = { };\n'
    where = tmp_path_factory.mktemp("hostile") / "project"
    return write_project(where, distribution, outputs, {"tool": "#!/bin/sh\n"}, product=product)


@pytest.mark.parametrize("change", HOSTILE)
def test_an_outline_made_by_hand(
    change: str, hostile: Path, cache: Path, tmp_path: Path, output: Path
) -> None:
    number = list(HOSTILE).index(change)
    arguments = ["--kind", "run", "--attr", f"h{number}", "-o", str(output)]
    ran = nix_seed("build", hostile, *arguments, cache=cache, cwd=tmp_path)
    refused(ran, 2, HOSTILE[change], output=output)
    assert set(tmp_path.iterdir()) <= {cache}


def test_an_honest_outline_made_by_hand(hostile: Path, cache: Path) -> None:
    assert build(hostile, "--kind", "run", cache=cache)["name"] == "tool"


def test_a_label_of_ours_cannot_be_claimed(hostile: Path, cache: Path, output: Path) -> None:
    arguments = ["--kind", "run", "--attr", "lying", "-o", str(output)]
    built = build(hostile, *arguments, cache=cache)
    blobs = output / "blobs/sha256"
    manifest = json.loads((blobs / built["digest"][7:]).read_text())
    config = json.loads((blobs / manifest["config"]["digest"][7:]).read_text())
    assert config["config"]["Labels"]["io.nix-seed.kind"] == "run"


@pytest.mark.parametrize("attr", ["text", "number", "set"])
def test_an_attribute_that_is_no_image(attr: str, hostile: Path, cache: Path, output: Path) -> None:
    ran = nix_seed("build", hostile, "--attr", attr, "-o", output, cache=cache)
    message = f"{attr} of {hostile} was not made by mkSeed or mkRun"
    refused(ran, 2, message, "name another with --attr", output=output)


# What programs read


def test_json_is_all_there_is_on_standard_output(
    project: Path, image: dict[str, Any], cache: Path, output: Path, tmp_path: Path
) -> None:
    dirty = shutil.copytree(project, tmp_path / "dirty", symlinks=True)
    (dirty / "tool").write_text("#!/bin/sh\necho changed\n")
    ran = nix_seed("build", dirty, "--kind", "run", "--json", "-o", output, cache=cache)
    assert ran.code == 0
    value = json.loads(ran.out)
    named = {"digest", "narHash", "inputKey", "reference", "kind", "name", "system"}
    assert named | {"size", "layers"} <= value.keys()
    assert value["reference"] == f"oci:{output}:tool"
    assert value["size"] == sum(layer["size"] for layer in value["layers"])
    keys = {"digest", "diffId", "size", "tier", "paths", "reused"}
    assert all(keys <= layer.keys() for layer in value["layers"])
    manifest = json.loads((output / "blobs/sha256" / value["digest"][7:]).read_text())
    assert [layer["digest"] for layer in manifest["layers"]] == [
        layer["digest"] for layer in value["layers"]
    ]
    # Another program of the project's, so another image to ship.
    assert value["digest"] != image["digest"]


def test_a_failed_run_answers_with_its_error_alone(project: Path, cache: Path) -> None:
    for command in ("build", "plan"):
        ran = nix_seed(command, project, "--attr", "absent", "--json", cache=cache)
        assert ran.code == 2
        assert json.loads(ran.out).keys() == {"schema", "error"}
        assert "error: " in ran.err


def test_nix_can_be_told_apart_from_nix_seed(project: Path, cache: Path, output: Path) -> None:
    """A build that fails is Nix's failure: its log is shown, and the code is 4."""
    env = nix_env(sandbox_paths="/nonexistent-for-test")
    broken = '"mkdir -p $out/bin; cp $src $out/bin/tool"'
    where = shutil.copytree(project, cache.parent / "failing", symlinks=True)
    flake = where / "flake.nix"
    flake.write_text(flake.read_text().replace(broken, '"echo I give up >&2; exit 7"'))
    ran = nix_seed("build", where, "--kind", "run", "-o", output, cache=cache, env=env)
    refused(ran, 4, "building what the image is to hold: nix-store failed", output=output)
