"""A server of ours in a network that somebody else made: real namespaces, a real socket."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest

from nix_seed.use.engines.loopback import GATE, PORT, STARTED, served_inside, why_no_server
from support.engines import need

# What a container does: say that it is there, wait, and say what it read and who answers.
SCRIPT = f"""
: > {STARTED}
read -r served < {GATE}
echo "$served"
[ "$served" = - ] || ss -H -l -n -t 'sport = :{PORT}'
"""


def told(exchange: Path, *unshare: str, inside: Path | None = None) -> tuple[str, list[str]]:
    """Run the script in namespaces of its own; return what it printed, and where was served."""
    found: list[socket.socket] = []
    need("ss", "iproute2")
    command = [need("unshare", "util-linux"), *unshare, "sh", "-c", SCRIPT]
    ask = exchange / "ask"
    with (
        served_inside(exchange, str(inside or exchange), ["cat", str(ask)], found.append),
        subprocess.Popen(command, cwd=exchange, stdout=subprocess.PIPE, text=True) as process,
    ):
        ask.write_text(f"{process.pid}\n")
        printed = process.communicate(timeout=30)[0]
    listeners = [listener.getsockname() for listener in found]
    for listener in found:
        listener.close()
    return printed, [f"{host}:{port}" for host, port in listeners]


@pytest.mark.parametrize("spaces", [("--net",), ("--user", "--map-root-user", "--net")], ids=str)
def test_a_network_of_roots_and_one_of_a_users(tmp_path: Path, spaces: tuple[str, ...]) -> None:
    printed, listeners = told(tmp_path, *spaces)
    assert listeners == [f"127.0.0.1:{PORT}"]
    assert printed.startswith("+\n")
    assert f"127.0.0.1:{PORT}" in printed


def test_a_process_that_does_not_see_the_directory_is_none_of_ours(tmp_path: Path) -> None:
    """Docker's machine has other processes by the same numbers."""
    exchange, other = tmp_path / "exchange", tmp_path / "other"
    exchange.mkdir()
    other.mkdir()
    assert told(exchange, "--net", inside=other) == ("-\n", [])


def test_an_engine_that_tells_nothing_is_not_waited_for(tmp_path: Path) -> None:
    found: list[socket.socket] = []
    with served_inside(tmp_path, str(tmp_path), ["false"], found.append):
        done = subprocess.run(
            ["sh", "-c", SCRIPT], cwd=tmp_path, capture_output=True, text=True, check=False
        )
    assert (done.stdout, found) == ("-\n", [])


def test_a_container_that_never_starts_is_not_waited_for(tmp_path: Path) -> None:
    found: list[socket.socket] = []
    with served_inside(tmp_path, str(tmp_path), ["false"], found.append):
        pass
    assert found == []


def test_engines_in_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert why_no_server("docker") is None
    monkeypatch.setattr("sys.platform", "darwin")
    assert "another machine" in (why_no_server("docker") or "")
    assert why_no_server("bwrap") is None
