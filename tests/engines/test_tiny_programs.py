"""Programs of ours that run where nothing but a kernel need be: made here, and really run."""

from __future__ import annotations

import platform
import socket
import subprocess
from pathlib import Path

import pytest

from nix_seed.use.engines.base import EXCHANGE
from nix_seed.use.engines.loopback import LISTENER, PORT, handed_over, why_no_server
from nix_seed.use.engines.tiny_programs import MACHINES, ending_program, listening_program
from support.engines import need

MACHINE = platform.machine()


def started_by(machine: str) -> list[str]:
    """What starts a program of *machine* on this one."""
    if machine == MACHINE:
        return []
    return [need(f"qemu-{machine}-static", "qemu-user-static")]


def unused_port() -> int:
    """A port that nobody has used: the program does not take one over."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def written(path: Path, program: bytes) -> Path:
    path.write_bytes(program)
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("machine", sorted(MACHINES))
def test_it_ends(machine: str, tmp_path: Path) -> None:
    program = written(tmp_path / "end", ending_program(machine))
    assert subprocess.run([*started_by(machine), program], check=False).returncode == 0


@pytest.mark.parametrize("machine", sorted(MACHINES))
def test_it_listens_and_hands_the_socket_over(machine: str, tmp_path: Path) -> None:
    port, address = unused_port(), str(tmp_path / "receiver")
    program = written(tmp_path / "listen", listening_program(machine, port, address))
    with socket.socket(socket.AF_UNIX) as receiver:
        receiver.bind(address)
        receiver.listen(1)
        receiver.settimeout(20)
        subprocess.run([*started_by(machine), program], check=True)
        with receiver.accept()[0] as sender:
            text, descriptors, _, _ = socket.recv_fds(sender, 16, 2)
    assert (text, len(descriptors)) == (b"+", 1)
    with socket.socket(fileno=descriptors[0]) as listener:
        assert listener.getsockname() == ("127.0.0.1", port)
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"hello")
            with listener.accept()[0] as served:
                assert served.recv(5) == b"hello"


def test_nobody_to_hand_it_to_is_no_crash(tmp_path: Path) -> None:
    program = written(
        tmp_path / "listen", listening_program(MACHINE, unused_port(), str(tmp_path / "absent"))
    )
    assert subprocess.run([program], check=False).returncode == 0


def test_a_network_without_a_way_in_is_served(tmp_path: Path) -> None:
    """From a directory whose own path is longer than a socket's address may be."""
    bwrap = need("bwrap", "bubblewrap")
    exchange = tmp_path / ("long" * 30)
    exchange.mkdir()
    found: list[socket.socket] = []
    command = [bwrap, "--unshare-net", "--dir", "/tmp", "--bind", str(exchange), EXCHANGE]
    with handed_over(exchange, EXCHANGE, found.append):
        subprocess.run([*command, f"{EXCHANGE}/{LISTENER}"], check=True)
    [listener] = found
    assert listener.getsockname() == ("127.0.0.1", PORT)
    listener.close()


def test_who_never_sends_is_not_waited_for(tmp_path: Path) -> None:
    found: list[socket.socket] = []
    with handed_over(tmp_path, EXCHANGE, found.append):
        pass
    assert found == []


def test_a_machine_that_nothing_is_made_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert why_no_server("docker") is None
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert "riscv64" in (why_no_server("docker") or "")
    assert why_no_server("bwrap") is None
