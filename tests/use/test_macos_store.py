"""Making /nix on macOS, by a record of its commands: what is run, in which order, and only once."""

from __future__ import annotations

import plistlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from nix_seed.core.errors import CouldNotCheck, InputError
from nix_seed.use.macos_store import Machine, System, create_store

UUID = "5B4D1F9A-6C21-4C53-8F2A-1B2C3D4E5F60"
UTIL = "/System/Library/Filesystems/apfs.fs/Contents/Resources/apfs.util"
OPTIONS = "rw,noauto,nobrowse,noatime,owners"


class Mac(System):
    """Answers as macOS 14 does, and remembers what it was asked to change."""

    def __init__(self, root: Path, *, mounted: bool = False, volume: bool = False) -> None:
        self.machine = Machine(root)
        (root / "etc").mkdir()
        self.mounted, self.volume, self.device = mounted, volume, b"disk3s1s1\n"
        self.changes: list[list[str]] = []
        self.makes_nix = True

    def run(self, argv: Sequence[str], *, any_code: bool = False) -> bytes:
        code, output = self._answer(argv)
        if code and not any_code:
            raise CouldNotCheck(f"making /nix: {argv[0]} failed with exit code {code}")
        return output

    def _answer(self, argv: Sequence[str]) -> tuple[int, bytes]:
        match list(argv):
            case ["stat", "-f", "%d", "/"]:
                return 0, b"16777233\n"
            case ["stat", "-f", "%d", "/nix"]:
                return 0, b"16777240\n" if self.mounted else b"16777233\n"
            case ["stat", "-f", "%Sd", "/"]:
                return 0, self.device
            case ["diskutil", "apfs", "list", "-plist", "disk3"]:
                return 0, self._list()
        self.changes.append(list(argv))
        if argv[0] == UTIL:
            return self._make_nix(), b""
        self.volume |= "addVolume" in argv
        self.mounted |= "mount" in argv
        return 0, b""

    def _make_nix(self) -> int:
        """Make what synthetic.conf names; the exit codes are those of apfs.util."""
        if not self.makes_nix:
            return 252
        assert self.machine.synthetic.read_text().splitlines()[-1] == "nix"
        self.machine.nix.mkdir()
        return 253

    def _list(self) -> bytes:
        volumes = [{"Name": "Macintosh HD", "APFSVolumeUUID": "0" * 8}]
        if self.volume:
            volumes.append({"Name": "Nix Store", "APFSVolumeUUID": UUID})
        return plistlib.dumps({"Containers": [{"ContainerReference": "disk3", "Volumes": volumes}]})


def test_from_nothing(tmp_path: Path) -> None:
    mac = Mac(tmp_path)
    (tmp_path / "etc/synthetic.conf").write_text(
        "data\tSystem/Volumes/Data/data"
    )  # no last newline
    create_store(mac, mac.machine)
    assert mac.changes == [
        [UTIL, "-t"],
        ["diskutil", "apfs", "addVolume", "disk3", "Case-sensitive APFS", "Nix Store", "-nomount"],
        ["diskutil", "mount", "-mountOptions", OPTIONS, "-mountPoint", "/nix", UUID],
        ["diskutil", "enableOwnership", "/nix"],
    ]
    synthetic = (tmp_path / "etc/synthetic.conf").read_text()
    assert synthetic == "data\tSystem/Volumes/Data/data\nnix\n"
    assert (tmp_path / "etc/fstab").read_text() == f"UUID={UUID} /nix apfs {OPTIONS}\n"


def test_again_nothing_changes(tmp_path: Path) -> None:
    mac = Mac(tmp_path)
    create_store(mac, mac.machine)
    files = [(tmp_path / "etc" / name).read_text() for name in ("synthetic.conf", "fstab")]
    mac.changes.clear()
    create_store(mac, mac.machine)
    assert mac.changes == []
    assert files == [(tmp_path / "etc" / name).read_text() for name in ("synthetic.conf", "fstab")]


def test_after_a_restart_the_volume_is_only_mounted(tmp_path: Path) -> None:
    mac = Mac(tmp_path)
    create_store(mac, mac.machine)
    mac.changes.clear()
    mac.mounted = False
    create_store(mac, mac.machine)
    assert [change[1] for change in mac.changes] == ["mount", "enableOwnership"]
    assert len((tmp_path / "etc/fstab").read_text().splitlines()) == 1


def test_only_root_can(tmp_path: Path) -> None:
    mac = Mac(tmp_path)
    with pytest.raises(InputError, match="only root can make it on macOS") as caught:
        create_store(mac, Machine(tmp_path, user=501))
    assert "run the same command with sudo" in (caught.value.hint or "")
    assert mac.changes == []


def test_what_goes_wrong_is_said(tmp_path: Path) -> None:
    mac = Mac(tmp_path)
    mac.makes_nix = False
    with pytest.raises(CouldNotCheck, match=r"was not made by apfs\.util"):
        create_store(mac, mac.machine)
    mac.makes_nix, mac.device = True, b"map auto_home\n"
    with pytest.raises(CouldNotCheck, match="the disk of / is 'map auto_home'"):
        create_store(mac, mac.machine)
