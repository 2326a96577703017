"""What machines of a benchmark have: a link of a rate and a round trip, and a new disk.

Two TUN devices are the ends of a link. The kernel shapes what leaves either (``tc tbf``), and a
process carries packets from one to the other, each after half of the round trip: not every kernel
has ``netem``. Packets travel as the kernel joins them, so that carrying costs little.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bench.push_peers import run
from support.engines import need, need_root

__all__ = ["HERE", "THERE", "Link", "link", "new_disk", "registry_config", "served"]

# Its own addresses: two benchmarks at once would answer for one another.
_NET = f"10.231.{os.getpid() % 250}"
HERE, THERE = f"{_NET}.1", f"{_NET}.2"

# From linux/if_tun.h.
_SET_INTERFACE, _SET_OFFLOAD = 0x400454CA, 0x400454D0
_TUN, _NO_PACKET_INFO, _HEADER = 0x1, 0x1000, 0x4000
_CHECKSUM, _SEGMENTS = 1, 2
_PACKET = 1 << 17
_AT_ONCE = 64


@dataclass
class Link:
    """The way to the namespace *name*; *ends* are the TUN devices, here and there."""

    name: str
    device: str
    ends: tuple[int, int]
    carrier: int | None = field(default=None)

    def inside(self, *command: str | Path) -> list[str]:
        """Return what runs *command* there."""
        return ["ip", "netns", "exec", self.name, *map(str, command)]

    def shape(self, rate: str, round_trip: float = 0.0) -> None:
        """Let no more than *rate* pass, either way, and have an answer take *round_trip* s."""
        tbf = ["root", "tbf", "rate", rate, "burst", "256kb", "latency", "50ms"]
        run("tc", "qdisc", "replace", "dev", self.device, *tbf)
        run(*self.inside("tc", "qdisc", "replace", "dev", "eth0", *tbf))
        self.carry(round_trip)

    def carry(self, round_trip: float) -> None:
        """Carry packets in a process of its own, from now on with this *round_trip*."""
        self.stop()
        self.carrier = os.fork()
        if self.carrier == 0:
            try:
                _carry(self.ends, round_trip / 2)
            finally:
                os._exit(1)

    def stop(self) -> None:
        """Carry nothing any more."""
        if self.carrier is not None:
            os.kill(self.carrier, signal.SIGKILL)
            os.waitpid(self.carrier, 0)
            self.carrier = None


def _carry(ends: tuple[int, int], delay: float) -> None:
    other = {ends[0]: ends[1], ends[1]: ends[0]}
    waiting: dict[int, deque[tuple[float, bytes]]] = {end: deque() for end in ends}
    while os.getppid() != 1:
        now = time.monotonic()
        due = [queue[0][0] for queue in waiting.values() if queue]
        ready, _, _ = select.select(ends, (), (), max(0.0, min(due) - now) if due else 1.0)
        now = time.monotonic()
        for end in ready:
            queue = waiting[other[end]]
            with contextlib.suppress(BlockingIOError):
                for _ in range(_AT_ONCE):
                    queue.append((now + delay, os.read(end, _PACKET)))
        for end, queue in waiting.items():
            while queue and queue[0][0] <= now:
                with contextlib.suppress(OSError):  # the device is full, or away: it is lost
                    os.write(end, queue.popleft()[1])


@contextmanager
def link() -> Iterator[Link]:
    """Lend a link, without limits yet; skips by name where there can be none."""
    need_root()
    need("ip", "iproute2")
    need("tc", "iproute2")
    name, device = f"seed-bench-{os.getpid()}", f"sb{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"needs network namespaces: {made.stderr.decode()[-200:]}")
    with contextlib.ExitStack() as stack:
        stack.callback(
            subprocess.run, ["ip", "netns", "delete", name], capture_output=True, check=False
        )
        try:
            ends = _tun(device), _tun(f"{device}t")
        except OSError as error:
            pytest.skip(f"needs TUN devices: {error}")
        for end in ends:
            stack.callback(os.close, end)
        found = Link(name, device, ends)
        stack.callback(found.stop)
        run("ip", "link", "set", f"{device}t", "netns", name, "name", "eth0")
        run("ip", "address", "add", f"{HERE}/30", "dev", device)
        run("ip", "link", "set", device, "up")
        run(*found.inside("ip", "address", "add", f"{THERE}/30", "dev", "eth0"))
        for each in ("eth0", "lo"):
            run(*found.inside("ip", "link", "set", each, "up"))
        found.carry(0.0)
        yield found


def _tun(name: str) -> int:
    end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    flags = _TUN | _NO_PACKET_INFO | _HEADER
    fcntl.ioctl(end, _SET_INTERFACE, struct.pack("16sH22x", name.encode(), flags))
    fcntl.ioctl(end, _SET_OFFLOAD, _CHECKSUM | _SEGMENTS)
    return end


@contextmanager
def served(link: Link, command: Sequence[str | Path], port: int) -> Iterator[str]:
    """Run a server in the namespace; yield its host and port."""
    with open(os.devnull, "wb") as nothing:
        process = subprocess.Popen(link.inside(*command), stdout=nothing, stderr=nothing)
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex((THERE, port)) == 0:
                    break
            time.sleep(0.05)
        yield f"{THERE}:{port}"
    finally:
        process.terminate()
        process.wait()


def registry_config(root: Path, port: int, tls: str = "") -> list[str | Path]:
    """Return the command of a registry there, whose blobs lie in *root*."""
    program = need("docker-registry")
    root.mkdir(parents=True, exist_ok=True)
    config = root / f"config-{port}.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nhttp: {{addr: '{THERE}:{port}', secret: x{tls}}}\n"
        f"storage: {{filesystem: {{rootdirectory: '{root / 'data'}'}}}}\n"
    )
    return [program, "serve", config]


@contextmanager
def new_disk(work: Path) -> Iterator[Path]:
    """Lend a directory that is a new file system.

    On one where many files were just removed, ext4 looks long for a place for each new one: that of
    an earlier turn would make the next slower, most of all whoever makes many.
    """
    place = Path(tempfile.mkdtemp(prefix="machine-", dir=work))
    image = place.with_suffix(".ext4")
    run("truncate", "-s", "32G", image)
    extended = "lazy_itable_init=0,lazy_journal_init=0"
    run(need("mkfs.ext4", "e2fsprogs"), "-q", "-F", "-N", "500000", "-E", extended, image)
    run("mount", "-o", "loop", image, place)
    os.sync()
    try:
        yield place
    finally:
        run("umount", "--lazy", place)
        image.unlink()
        place.rmdir()
