"""The engine ``host``: the machine's own store, no network, the user's own tree."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from nix_seed.core.errors import CouldNotCheck
from nix_seed.formats.oci.reference import LayoutReference
from nix_seed.registry.layout import open_image
from nix_seed.use.engines.host import Host
from nix_seed.use.run import Command, run_on_host
from support.distribution import nix_env, require_nix
from support.engines import need_root
from support.hydration import make_seed
from support.nars import NarFile

COMMAND = [sys.executable, "-m", "nix_seed", "run", "--engine", "host"]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "root/nix/var/nix/db").mkdir(parents=True)
    (tmp_path / "root/nix/var/nix/db/db.sqlite").touch()
    return tmp_path / "root"


def test_there_is_no_network_but_loopback(tmp_path: Path, store: Path) -> None:
    if Host(store).network_off() != "namespace":
        pytest.skip("needs network namespaces")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        reach = f"(: < /dev/tcp/127.0.0.1/{port}) 2> said; cat /proc/net/dev >> said"
        run = run_on_host(Command(["bash", "-c", reach], tmp_path), engine=Host(store))
    said = (tmp_path / "said").read_text()
    assert (run.exit_code, run.network) == (0, "namespace")
    assert "Connection refused" in said  # by a loopback that is up, but is not this machine's
    devices = [line.split(":")[0].strip() for line in said.splitlines() if line.startswith("  ")]
    assert devices == ["lo"]


def test_with_the_network_it_is_reached(tmp_path: Path, store: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        reach = f": < /dev/tcp/127.0.0.1/{server.getsockname()[1]}"
        run = run_on_host(
            Command(["bash", "-c", reach], tmp_path, network=True), engine=Host(store)
        )
    assert (run.exit_code, run.network) == (0, "on")


def test_exit_codes_and_environment(tmp_path: Path, store: Path) -> None:
    for code in (0, 3, 125):
        run = run_on_host(Command(["sh", "-c", f"exit {code}"], tmp_path), engine=Host(store))
        assert run.exit_code == code
    script = 'printf "%s|%s" "$MINE" "$NIX_CONFIG" > said; pwd >> said; kill -9 $$'
    run = run_on_host(
        Command(["sh", "-c", script], tmp_path, env={"MINE": "x"}), engine=Host(store)
    )
    said = (tmp_path / "said").read_text()
    assert run.exit_code == 137
    assert said.startswith("x|")
    assert "substitute = false" in said
    assert said.endswith(f"{tmp_path}\n")


def test_what_cannot_be_used_is_said(tmp_path: Path, store: Path) -> None:
    with pytest.raises(CouldNotCheck) as caught:
        run_on_host(Command(["true"], tmp_path), engine=Host(tmp_path / "none"))
    assert "fill it: nix-seed hydrate REF" in (caught.value.hint or "")
    (store / "nix/var/nix/db/db.sqlite").unlink()
    reference, _ = make_seed(tmp_path / "made", [{"a": NarFile(b"a")}])
    image = open_image(LayoutReference.parse(reference))
    with pytest.raises(CouldNotCheck, match="lacks 1 path of"):
        Host(store).prepare(image)
    with pytest.raises(CouldNotCheck, match="nowhere-at-all is not on PATH"):
        run_on_host(Command(["nowhere-at-all"], tmp_path), engine=_touched(store))


def _touched(store: Path) -> Host:
    (store / "nix/var/nix/db/db.sqlite").touch()
    return Host(store)


FLAKE = """{
  outputs = { self }: {
    packages.x86_64-linux.default = derivation {
      name = "made-on-the-host"; system = "x86_64-linux"; builder = "/bin/sh";
      args = [ "-c" "echo %s > $out" ];
    };
  };
}
"""


def test_a_build_on_the_machines_store(tmp_path: Path) -> None:
    require_nix()
    need_root()
    (tmp_path / "flake.nix").write_text(FLAKE % os.getpid())
    command = [*COMMAND, "--flake", str(tmp_path), "--json", "--", "nix", "build", "path:."]
    # As Nix comes, with commands and flakes off.
    env = nix_env(sandbox="false", experimental_features="")
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["engine"], said["exitCode"]) == ("host", 0)
    assert (tmp_path / "result").read_text() == f"{os.getpid()}\n"
    wrong = subprocess.run(
        [*COMMAND, "--out", str(tmp_path), "--", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert wrong.returncode == 2
    assert "--out has no meaning with --engine host" in wrong.stderr
