"""The reference and the manual pages are what the code says: made anew and compared."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import click
import pytest

from nix_seed.cli.main import COMMANDS, cli

ROOT = Path(__file__).resolve().parents[2]
STALE = "run tools/make-reference, and commit what it wrote"


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader(
        "make_reference", str(ROOT / "tools/make-reference")
    )
    spec = importlib.util.spec_from_loader("make_reference", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def made(maker: ModuleType) -> dict[str, str]:
    files: dict[str, str] = maker.made()
    return files


def test_what_is_committed_is_current(made: dict[str, str]) -> None:
    there = [*(ROOT / "docs/reference").glob("*"), *(ROOT / "man").glob("*")]
    assert {str(path.relative_to(ROOT)) for path in there} == set(made), STALE
    stale = [name for name, text in made.items() if (ROOT / name).read_text() != text]
    assert not stale, STALE


def test_every_command_and_option_is_in_it(made: dict[str, str]) -> None:
    page = made["docs/reference/commands.md"]
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        for option in command.params:
            hidden = not isinstance(option, click.Option) or option.hidden
            shown = (
                next(each for each in option.opts if each.startswith("--")) if not hidden else ""
            )
            assert shown in page, f"{name} {shown}"
        assert f"`nix-seed {name}`" in page


def test_what_nobody_explains_is_refused(
    maker: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = maker.names_read()
    assert {"NIX_SEED_CACHE", "SEED_REGISTRY_TOKEN"} <= read
    monkeypatch.setattr(maker, "names_read", lambda: read | {"NIX_SEED_NEW"})
    with pytest.raises(SystemExit, match=r"lacks NIX_SEED_NEW"):
        maker.variables()
    sample = (ROOT / "tools/reference/trust.toml").read_text()
    said = maker.policy_comments(sample.replace("# How many builders must agree.\n", ""))
    assert ("quorum", "threshold") not in said
    assert said["quorum", "witnesses"] == "How many witnesses must have signed each checkpoint."


def test_variables_that_are_told_of_are_read(maker: ModuleType) -> None:
    code = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    code += "".join(path.read_text() for path in (ROOT / "bin").iterdir() if path.is_file())
    for name in (name for section in maker.VARIABLES.values() for name in section):
        # Proxies in small letters, engines by their name.
        found = name in code or name.lower().removesuffix("_proxy") in code
        engine = re.fullmatch(r"NIX_SEED_(PODMAN|DOCKER)(_RUN)?_ARGS", name)
        assert found or engine, name


def test_manual_pages_are_clean(made: dict[str, str], tmp_path: Path) -> None:
    if shutil.which("groff") is None:
        pytest.skip("needs groff: apt-get install groff-base")
    for name, text in made.items():
        if not name.startswith("man/"):
            continue
        done = subprocess.run(
            ["groff", "-man", "-Tutf8", "-ww", "-rLL=100n"],
            input=text.encode(),
            capture_output=True,
            check=False,
        )
        assert not done.stderr, f"{name}: {done.stderr.decode()}"
    shown = subprocess.run(
        ["groff", "-man", "-Tascii", "-P-c"],
        input=made["man/nix-seed-run.1"].encode(),
        capture_output=True,
        check=True,
    ).stdout.decode()
    shown = re.sub(".\b", "", shown)
    assert "nix-seed run --image oci:seed -- nix build" in shown
    assert "--network" in shown
