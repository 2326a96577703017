"""The commands, as a person or a script runs them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from nix_seed.cli.image.index import command as index
from nix_seed.cli.image.inspect import command as inspect
from nix_seed.cli.options import registry_options, stores_of
from nix_seed.cli.progress_lines import Lines
from nix_seed.cli.registry.pull import command as pull
from nix_seed.cli.registry.push import command as push
from nix_seed.cli.release.export import command as export
from nix_seed.core.digests import Digest
from nix_seed.core.errors import InputError
from nix_seed.core.events import Stage
from nix_seed.formats.oci.manifest import Descriptor
from nix_seed.registry.transfer import BlobDone, TagMoved
from support.registries import PASSWORD, USER, docker_registry
from support.seed_images import seed_image


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running.host


@pytest.fixture
def logged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIX_SEED_REGISTRY_USERNAME", USER)
    monkeypatch.setenv("NIX_SEED_REGISTRY_PASSWORD", PASSWORD)


def run(command: Any, *arguments: str, stdin: str | None = None) -> Result:
    done = CliRunner().invoke(command, arguments, input=stdin)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def as_json(command: Any, *arguments: str) -> Any:
    return json.loads(run(command, *arguments, "--json").stdout)


@pytest.mark.parametrize("command", [pull, export])
@pytest.mark.usefixtures("logged_in")
def test_of_an_image_that_is_not_there_nothing_is_begun(
    command: Any, tmp_path: Path, host: str
) -> None:
    target = tmp_path / "copy"
    with pytest.raises(InputError, match="does not exist"):
        run(command, f"{host}/none/seed:v1", f"oci:{target}" if command is pull else str(target))
    assert not target.exists()


@pytest.mark.usefixtures("logged_in")
def test_push_inspect_pull(tmp_path: Path, host: str) -> None:
    root = seed_image(tmp_path / "a", "demo")
    pushed = run(push, f"oci:{tmp_path / 'a'}", f"{host}/cli/seed:v1", "--tag", "extra")
    assert pushed.stdout.startswith(f"{host}/cli/seed@{root.digest}\ntags: v1, extra\n")
    assert "nix-seed: v1 is sha256:" in pushed.stderr
    again = as_json(push, f"oci:{tmp_path / 'a'}", f"{host}/cli/seed:v1")
    assert again["digest"] == str(root.digest)
    assert again["bytes"]["moved"] == 0 < again["bytes"]["present"]
    shown = as_json(inspect, f"{host}/cli/seed:v1")
    assert shown["digest"] == str(root.digest)
    assert shown["narHash"] == "sha256-" + "A" * 43 + "="
    assert list(shown["tiers"]) == ["base", "toolchain", "container"]
    text = run(inspect, f"{host}/cli/seed:v1").stdout
    assert "  system     x86_64-linux\n" in text
    assert "in 3 layers" in text
    pulled = as_json(pull, f"{host}/cli/seed:extra", f"oci:{tmp_path / 'b'}")
    assert pulled["reference"] == f"oci:{tmp_path / 'b'}:extra"
    assert as_json(inspect, f"oci:{tmp_path / 'b'}")["digest"] == str(root.digest)


@pytest.mark.usefixtures("logged_in")
def test_index(tmp_path: Path, host: str) -> None:
    for system in ("x86_64-linux", "aarch64-linux"):
        seed_image(tmp_path / "a", system, system=system)
    images = [f"oci:{tmp_path / 'a'}:x86_64-linux", f"oci:{tmp_path / 'a'}:aarch64-linux"]
    declared = ["--system", "x86_64-linux", "--system", "aarch64-linux"]
    made = as_json(index, f"{host}/cli/index:all", *images, *declared)
    assert list(made["systems"]) == ["aarch64-linux", "x86_64-linux"]
    text = run(inspect, f"{host}/cli/index:all").stdout
    assert "index of 2: sha256:" in text
    with pytest.raises(InputError, match="the index lacks aarch64-linux"):
        run(index, f"{host}/cli/index:some", images[0], *declared)


def test_password_on_standard_input(tmp_path: Path, host: str) -> None:
    seed_image(tmp_path / "a", "demo")
    arguments = [f"oci:{tmp_path / 'a'}", f"{host}/cli/stdin:v1", "--username", USER]
    done = run(push, *arguments, "--password-stdin", stdin=f"{PASSWORD}\n")
    assert done.exit_code == 0
    assert PASSWORD not in done.output
    with pytest.raises(InputError, match="--username and --password-stdin go together"):
        run(push, *arguments)
    with pytest.raises(InputError, match="standard input holds no password"):
        run(push, *arguments, "--password-stdin", stdin="")


@pytest.mark.parametrize(
    ("words", "known"),
    [
        (("host.example/o/r:v1",), {"host.example"}),
        (("oci:a", "--also", "host.example:5000/o/r", "--also", "."), {"host.example:5000"}),
        # Then the only registry is one that the checkout's lock names.
        (("oci:a",), {"host.example", "host.example:5000", "lock.example"}),
    ],
)
def test_a_password_is_for_the_registries_that_are_named_with_it(
    words: tuple[str, ...], known: set[str]
) -> None:
    """A checkout's ``seed.lock`` names another, to which a build would go as well."""

    @click.command()
    @click.argument("reference")
    @click.option("--also", multiple=True)
    @registry_options
    def command(reference: str, also: tuple[str, ...], **options: Any) -> None:
        find = stores_of(options).credentials.find
        hosts = ("host.example", "host.example:5000", "lock.example")
        click.echo("\n".join(host for host in hosts if find(host, "o/r") is not None))

    done = run(command, *words, "--username", "me", "--password-stdin", stdin="hush\n")
    assert set(done.output.split()) == known


def test_the_wrong_way_round(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="oci:b is on this machine") as caught:
        run(push, "oci:a", "oci:b")
    assert caught.value.hint == "nix-seed pull oci:a oci:b"
    with pytest.raises(InputError, match="is in a registry; pull copies to this machine") as caught:
        run(pull, "oci:a", "ghcr.io/o/r:v1")
    assert caught.value.hint == "nix-seed push oci:a ghcr.io/o/r:v1"


def test_a_line_per_layer_for_logs() -> None:
    stream = io.StringIO()
    show = Lines(stream)
    digest = Digest("ab" * 32)
    show(Stage("push", "pushing a to b"))
    show(BlobDone(Descriptor("x", digest, 12_300_000, {"io.nix-seed.tier": "base"}), "moved"))
    show(BlobDone(Descriptor("x", digest, 100), "present"))
    show(TagMoved("v1", digest))
    assert stream.getvalue().splitlines() == [
        "nix-seed: pushing a to b",
        "nix-seed: abababababab  base  12.3 MB  done",
        "nix-seed: abababababab  config  100 bytes  already there",
        f"nix-seed: v1 is {digest}",
    ]
