"""docs/json.md says what ``--json`` prints: compared with what the commands really print."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from support import built, engines
from support.hydration import make_seed
from support.json_page import SECTIONS, check, problems
from support.nars import NarFile
from support.programs import need
from support.releases import ReleaseWorld
from support.seed_images import seed_image
from support.seeds import COMMAND, nix_seed
from support.trust import COMMIT


def printed(*arguments: str | Path, codes: tuple[int, ...] = (0,)) -> str:
    done = subprocess.run(
        [*COMMAND, *map(str, arguments), "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode in codes, done.stderr
    return done.stdout


def test_the_page_is_read() -> None:
    assert len(SECTIONS) >= 24
    assert all(SECTIONS.values())


def test_it_would_be_found() -> None:
    fine = {"schema": 1, "cache": "x", "freed": 1, "unpacked": 0, "results": 0}
    fine |= {"kept": {"layers": 1}}
    assert problems("clean", dict(fine)) == []
    assert problems("clean", fine | {"more": 1}) == ["more is not documented"]
    assert problems("clean", fine | {"freed": "1"}) == ["freed is str, not number"]
    assert problems("clean", fine | {"kept": {"x": 1}}) == ["kept: ['x'] is not documented"]
    short = {name: value for name, value in fine.items() if name != "cache"}
    assert problems("clean", short) == ["cache was not printed"]


def test_commands_about_this_machine(tmp_path: Path) -> None:
    check("clean", printed("clean"))
    check("doctor", printed("doctor", codes=(0, 1, 3)))
    check("key generate", printed("key", "generate", tmp_path / "key"))
    check("key show", printed("key", "show", tmp_path / "key"))


def test_commands_about_images(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    seed_image(one, "seed")
    seed_image(other, "seed", system="aarch64-linux")
    check("inspect", printed("inspect", f"oci:{one}:seed"))
    check("lock", printed("lock", f"oci:{one}:seed", "-o", tmp_path / "seed.lock"))
    check("push", printed("pull", f"oci:{one}:seed", f"oci:{tmp_path}/copy:x"))
    small, _ = make_seed(tmp_path / "small", [{"a": NarFile(b"a")}])
    larger, _ = make_seed(tmp_path / "larger", [{"a": NarFile(b"a")}, {"b": NarFile(b"b")}])
    check("diff", printed("diff", small, larger, "--no-diffoscope", codes=(1,)))
    check("hydrate", printed("hydrate", small, "--root", tmp_path / "root"))
    images = (f"oci:{one}:seed", f"oci:{other}:seed")
    check("index", printed("index", f"oci:{tmp_path}/index:latest", *images))


def test_commands_about_trust(tmp_path: Path) -> None:
    world = ReleaseWorld.fresh(tmp_path)
    world.attest_all()
    world.promote("rita")
    policy = str(world.write_policy())
    for command, arguments in {
        "verify": ("verify", str(COMMIT), "--state", str(tmp_path / "one")),
        "audit": ("audit", "--state", str(tmp_path / "two")),
        "ledger show": ("ledger", "show"),
    }.items():
        where = ("--from", world.repository, "--policy", policy, "--json")
        check(command, world.run(*arguments, *where).printed)
    check("policy check", world.run("policy", "check", policy, "--json").printed)
    page = ("-o", str(tmp_path / "page.html"), "--no-roots", "--policy", policy, "--json")
    check("report", world.run("report", f"{world.repository}:seed", *page).printed)
    check("policy show", world.run("policy", "show", policy, "--json").printed)
    check("policy diff", world.run("policy", "diff", policy, policy, "--json").printed)
    check("log check", world.run("log", "check", str(tmp_path / "log"), "--json").printed)


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Give what runs a command on a project whose seed has been built."""
    for program in ("nix", "git"):
        need(program)
    layout = built.layout("seed")
    project = built.project()
    cache = tmp_path_factory.mktemp("cache")

    def ask(*arguments: str | Path) -> str:
        words = [str(each).replace("SEED", f"oci:{layout}") for each in arguments]
        ran = nix_seed(*words, cache=cache, cwd=project)
        assert ran.code in (0, 1), ran.err
        return ran.out

    return ask


def test_commands_about_a_project(ask: Callable[..., str], tmp_path: Path) -> None:
    check("build", ask("build", "--json", "-o", tmp_path / "image", "--tag", "x"))
    check("plan", ask("plan", "--json", "--base", f"oci:{tmp_path}/image:x"))
    check("plan --why", ask("plan", "--json", "--why", "packages.default"))
    check("licences", ask("licences", "--json"))
    check("roots", ask("roots", "--json"))
    check("init", ask("init", "--json", "--dry-run", "--github"))


def test_commands_inside_a_seed(ask: Callable[..., str], tmp_path: Path) -> None:
    engines.need("bwrap", "bubblewrap")
    inside = ("--engine", "bwrap", "--image", "SEED", "--json")
    check("prove", ask("prove", *inside))
    check("run", ask("run", *inside, "--out", tmp_path / "out", "--", "true"))
