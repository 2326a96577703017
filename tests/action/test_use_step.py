"""``use/action.yml`` on machines with an empty ``/nix``, with Nix or without; then builds."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from support.distribution import commit, make_project, upgraded, use_distribution
from support.mounts import need_fuse
from support.registries import docker_registry
from support.runner import REPOSITORY, Runner, command, git
from support.seeds import edit, product_flake, write_project
from support.steps import Result

_INSTALLS_NIX = ["cachix/install-nix-action"]
_BUILD = "nix build --print-build-logs && ./result/bin/greet Hello World"
_NO_NETWORK = ("unshare", "--net")


@pytest.fixture(scope="module")
def runner(distribution: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """The example, whose seed is in a registry already."""
    root = tmp_path_factory.mktemp("use")
    project = make_project("two-packages", root / "project", distribution)
    git(project, "remote", "add", "origin", f"https://github.com/{REPOSITORY}")
    with docker_registry(root / "registry", password=False) as registry:
        found = Runner(root, project, registry)
        made = found.run(".", {"registry_token": "t", "signing": "none", "tags": "dev"})
        assert made.code == 0, made.log
        yield found


@pytest.fixture(autouse=True)
def _thrown_away(runner: Runner) -> Iterator[None]:
    yield
    runner.clean()


def other(runner: Runner, where: Path) -> Runner:
    """The same repository, in a checkout to be changed at will."""
    subprocess.run(["git", "clone", "-q", str(runner.project), str(where)], check=True)
    return replace(runner, project=where)


def with_nix(machine: Runner) -> Runner:
    """Put this machine's Nix, whose programs lie outside of ``/nix``, on its PATH."""
    for name in ("nix", "nix-store", "nix-instantiate", "nix-env"):
        found = shutil.which(name)
        if found is None or str(Path(found).resolve()).startswith("/nix/"):
            pytest.skip("needs a Nix outside of /nix: apt-get install nix-bin")
        (Path(machine.more["PATH"]) / name).symlink_to(found)
    return machine


def check(result: Result) -> dict[str, str]:
    assert result.code == 0, result.log
    return result.outputs


def test_a_machine_without_nix_builds_with_no_network(runner: Runner) -> None:
    machine = runner.fresh()
    used = machine.run("use")
    out = check(used)
    assert (out["found"], out["exact"], out["verified"]) == ("true", "true", "false")
    assert out["digest"] == runner.tags()["dev"]
    assert used.used == [], "the seed brings its own Nix"
    assert used.path
    built = machine.shell(used, _BUILD, prefix=_NO_NETWORK)
    assert built.returncode == 0, built.stderr
    assert "building '/nix/store/" in built.stderr
    assert "Hello, World!" in built.stdout


def test_what_evaluating_writes_comes_with_the_seed(runner: Runner, tmp_path: Path) -> None:
    need_fuse()
    image = {"image": "owner/recorded"}
    inputs = {"registry_token": "t", "signing": "none", "prove": "false", "record": "nix build"}
    check(runner.run(".", inputs | image))
    changed = other(runner, tmp_path / "project")
    edit(changed.project, "libgreet/greet.c", '"%s, %s!"', '"%s + %s!"')
    machine = changed.fresh()
    used = machine.run("use", image)
    assert check(used)["exact"] == "true"
    # Of Nix's own making is only what the changed source gave another name.
    dated = "SELECT count(*) FROM ValidPaths WHERE path LIKE '%.drv' AND registrationTime"
    with closing(sqlite3.connect(machine.root / "nix/var/nix/db/db.sqlite")) as database:
        ours, theirs = (
            database.execute(f"{dated} {which} 1").fetchone()[0] for which in ("=", ">")
        )
    assert ours > 5 * theirs > 0
    check_all = "nix-store --verify --check-contents 2>&1"
    assert "error" not in machine.shell(used, check_all).stdout
    built = machine.shell(used, _BUILD, prefix=_NO_NETWORK)
    assert built.returncode == 0, built.stderr
    assert "Hello + World!" in built.stdout


def test_its_page_splits_the_time_to_the_first_build(runner: Runner) -> None:
    # What the launcher measures when it sets itself up; its own tests look at that.
    used = runner.fresh().run("use", env={"NIX_SEED_SETUP_SECONDS": "3.5"})
    check(used)
    assert "### Time to the first build" in used.summary
    assert "| set up nix-seed | 3.50 s |" in used.summary
    for part in ("find", "verify", "pull", "unpack", "start", "together"):
        assert f"| {part} | " in used.summary
    assert "147 store paths" in used.summary
    assert f"nix-seed hydrate {used.outputs['reference']}" in used.summary


def test_a_machine_with_nix_finds_it_by_the_recipe(runner: Runner, tmp_path: Path) -> None:
    """A commit that no job has tagged, in a clone of its own: the recipe is what counts."""
    changed = other(runner, tmp_path / "project")
    edit(changed.project, "libgreet/greet.c", '"%s, %s!"', '"%s - %s!"')
    machine = with_nix(changed.fresh())
    used = machine.run("use")
    out = check(used)
    assert (out["found"], out["exact"]) == ("true", "true")
    assert "by its input key" in used.log
    assert used.path == [], "the machine's own Nix stays the one"
    built = machine.shell(used, _BUILD, prefix=_NO_NETWORK)
    assert built.returncode == 0, built.stderr
    assert "Hello - World!" in built.stdout


def test_a_commit_of_source_only_uses_its_parents(runner: Runner, tmp_path: Path) -> None:
    changed = other(runner, tmp_path / "project")
    edit(changed.project, "libgreet/greet.c", '"%s, %s!"', '"%s; %s!"')
    # As GitHub checks out: the newest commit alone.
    shallow = tmp_path / "shallow"
    clone = ["git", "clone", "-q", "--depth", "1", f"file://{changed.project}", str(shallow)]
    subprocess.run(clone, check=True)
    machine = replace(changed, project=shallow).fresh()
    used = machine.run("use")
    out = check(used)
    assert (
        f"the seed of {git(changed.project, 'rev-parse', 'HEAD^')[:12]}, before this one"
        in used.log
    )
    assert out["exact"] == "true", "its recipe is the same, which its Nix tells"
    built = machine.shell(used, _BUILD, prefix=_NO_NETWORK)
    assert built.returncode == 0, built.stderr


def test_another_lock_is_said_to_be_one(runner: Runner, tmp_path: Path) -> None:
    changed = other(runner, tmp_path / "project")
    use_distribution(changed.project, upgraded("make"))
    used = changed.fresh().run("use")
    out = check(used)
    assert (out["found"], out["exact"]) == ("true", "false")
    [notice] = used.commands("notice")
    assert "The seed is another's" in notice
    assert "Nix fetches what it lacks" in notice
    assert "substitute = false" not in used.variables["NIX_CONFIG"]
    assert "Nix fetches what it lacks" in used.summary


def test_no_seed_yet(runner: Runner) -> None:
    used = runner.fresh().run("use", {"image": "nobody/nothing"})
    out = check(used)
    assert (out["found"], out["exact"], out["reference"]) == ("false", "false", "")
    [notice] = used.commands("notice")
    assert "has no seed yet. Nix fetches and builds as ever." in notice
    assert [each.partition("@")[0] for each in used.used] == _INSTALLS_NIX
    assert used.commands("error") == []


def test_no_seed_where_there_must_be_one(runner: Runner) -> None:
    used = runner.fresh().run("use", {"image": "nobody/nothing", "required": "true"})
    assert used.code == 3
    [error] = used.commands("error")
    assert "there is no seed to use" in error
    assert "required: false" in error


def test_a_registry_that_lets_nobody_in(runner: Runner, tmp_path: Path) -> None:
    with docker_registry(tmp_path / "closed") as closed:
        machine = replace(runner.fresh(), registry=closed)
        used = machine.run("use")
        assert check(used)["found"] == "false"
        [notice] = used.commands("notice")
        assert "denied" in notice
        assert "permissions: packages: read" in notice
        failed = machine.run("use", {"registry_token": "wrong", "required": "true"})
        assert failed.code == 3


def test_only_what_an_output_needs(runner: Runner) -> None:
    machine = runner.fresh()
    used = machine.run("use", {"for": ".#packages.libgreet"})
    check(used)
    found = re.search(r"\| new \| (\d+) store paths", used.summary)
    assert found
    assert int(found[1]) < 147
    built = machine.shell(used, "nix build .#libgreet", prefix=_NO_NETWORK)
    assert built.returncode == 0, built.stderr
    assert "substitute = false" not in used.variables["NIX_CONFIG"], "others may need more"


def test_a_seed_that_the_lock_names(runner: Runner, tmp_path: Path) -> None:
    """Of a registry whose tags are gone, the lock still knows the digest."""
    changed = other(runner, tmp_path / "project")
    environment = {**os.environ, "NIX_SEED_STATE": str(tmp_path / "state")}
    lock = [str(command(runner.root)), "lock", f"{runner.seeds}:dev", "-o", "seed.lock"]
    subprocess.run(lock, cwd=changed.project, env=environment, check=True)
    stated = json.loads((changed.project / "seed.lock").read_text())
    # Two commits later: neither this one nor its parent has a tag.
    for name in ("one", "two"):
        (changed.project / name).write_text(name)
        commit(changed.project, name)
    used = changed.fresh().run("use")
    assert check(used)["digest"] == stated["systems"]["x86_64-linux"]["digest"]
    assert "the seed that seed.lock names" in used.log


def test_one_image_by_name(runner: Runner) -> None:
    reference = f"{runner.seeds}@{runner.tags()['dev']}"
    used = runner.fresh().run("use", {"reference": reference})
    assert check(used)["reference"] == reference
    gone = f"{runner.seeds}@sha256:{'0' * 64}"
    failed = runner.fresh().run("use", {"reference": gone})
    assert failed.code == 2
    assert "does not exist" in failed.commands("error")[0]


def test_a_policy_that_nobody_meets_uses_nothing(runner: Runner, tmp_path: Path) -> None:
    changed = other(runner, tmp_path / "project")
    subprocess.run([command(runner.root), "key", "generate", tmp_path / "k"], check=True)
    init = [
        str(command(runner.root)),
        "policy",
        "init",
        "trust.toml",
        "--key",
        f"a={tmp_path}/k.pub",
    ]
    subprocess.run([*init, "--system", "x86_64-linux"], cwd=changed.project, check=True)
    commit(changed.project, "Trust a")
    machine = changed.fresh()
    failed = machine.run("use")
    assert failed.code == 1
    [error] = failed.commands("error")
    assert "is not used" in error
    assert "Checked%2C and false" in error
    assert not (machine.root / "nix/store").exists(), "nothing was unpacked"


WITHHOLDING = """
    packages.${system} = let
      tool = pkgs.runCommand "vendor-tool-1.0" { } "mkdir $out; echo from the vendor > $out/words"
        // { meta.license = { shortName = "vendor-eula"; free = false; }; };
    in {
      default = pkgs.runCommand "app" { inherit tool; own = ./own.txt; }
        "cat $tool/words $own > $out";
      lean = seeds.mkSeed { inherit self system; licences.unknown = "report"; };
    };
"""
LEAN = {"seed_attr": "sub#lean", "image": "owner/lean-seed"}
_BUILD_SUB = "nix build ./sub && cat result"


@pytest.fixture(scope="module")
def withholding(
    runner: Runner, distribution: Path, tmp_path_factory: pytest.TempPathFactory
) -> Runner:
    """A flake in a directory of its repository; its seed, ``lean``, lacks a vendor's tool."""
    root = tmp_path_factory.mktemp("withholding")
    project = write_project(
        root / "project",
        distribution,
        WITHHOLDING,
        {"own.txt": "own\n"},
        product=product_flake(root / "product"),
    )
    (project / "sub").mkdir()
    git(project, "mv", "flake.nix", "flake.lock", "own.txt", "sub")
    git(project, "remote", "add", "origin", f"https://github.com/{REPOSITORY}")
    key, program = root / "ci", str(command(runner.root))
    subprocess.run([program, "key", "generate", key], check=True)
    init = [program, "policy", "init", "trust.toml", "--key", f"ci={key}.pub"]
    subprocess.run([*init, "--system", "x86_64-linux"], cwd=project / "sub", check=True)
    commit(project, "Trust this CI")
    found = replace(runner, project=project, runs=100)
    signed = {"registry_token": "t", "signing": "key", "key": key.read_text()}
    # Nix 2.8 evaluates no flake in a directory of a tree that is not git's.
    made = found.run(".", {**signed, **LEAN, "prove": "false"})
    assert made.code == 0, made.log
    assert "left out, not to be passed on: vendor-tool-1.0 (vendor-eula)" in made.log
    return found


@pytest.fixture
def accepting(withholding: Runner, tmp_path: Path) -> Runner:
    """The commit after it, which has the same recipe: its policy accepts the licence."""
    shutil.copytree(withholding.project, tmp_path / "project", symlinks=True)
    policy = tmp_path / "project/sub/trust.toml"
    policy.write_text(policy.read_text() + '\n[licences]\naccept = ["vendor-eula"]\n')
    commit(tmp_path / "project", "Accept the vendor's licence")
    return replace(withholding, project=tmp_path / "project")


def test_what_a_seed_must_not_pass_on_is_asked_for(withholding: Runner) -> None:
    failed = withholding.fresh().run("use", LEAN)
    assert failed.code == 2
    [error] = failed.commands("error")
    assert "vendor-tool-1.0: licence vendor-eula" in error
    machine = withholding.fresh()
    used = machine.run("use", {**LEAN, "accept_licence": "vendor-eula"})
    assert check(used)["exact"] == "true"
    built = machine.shell(used, _BUILD_SUB, prefix=_NO_NETWORK)
    assert built.stdout == "from the vendor\nown\n", built.stderr


def test_the_policy_accepts_it(accepting: Runner) -> None:
    machine = accepting.fresh()
    used = machine.run("use", LEAN)
    out = check(used)
    assert (out["found"], out["exact"], out["verified"]) == ("true", "true", "true")
    built = machine.shell(used, _BUILD_SUB, prefix=_NO_NETWORK)
    assert built.stdout == "from the vendor\nown\n", built.stderr


def test_a_part_that_needs_it_gets_it(accepting: Runner) -> None:
    machine = accepting.fresh()
    used = machine.run("use", {**LEAN, "for": "./sub#packages.default"})
    check(used)
    built = machine.shell(used, _BUILD_SUB, prefix=_NO_NETWORK)
    assert built.stdout == "from the vendor\nown\n", built.stderr
