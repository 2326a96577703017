"""mount(2) and what goes with it: FUSE, overlays, bind mounts, namespaces. Linux only."""

import contextlib
import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from nix_seed.core.errors import CouldNotCheck

# From linux/mount.h, linux/sched.h.
_NOSUID, _NODEV, _READ_ONLY = 2, 4, 1
_BIND, _RECURSIVE, _PRIVATE, _DETACH = 4096, 16384, 1 << 18, 2
_NEWNS, NEWUSER = 0x20000, 0x10000000
_DEVICE: Final = Path("/dev/fuse")
# Opened once: in a forked child nothing should be loaded.
_LIBC: Final[Any] = ctypes.CDLL(None, use_errno=True)
# From glibc's malloc.h; elsewhere they are not known.
_ARENA_MAX, _MMAP_FROM, _TRIM_FROM = -8, -3, -1
_CONNECTIONS: Final = Path("/sys/fs/fuse/connections")


class NotMountable(CouldNotCheck):
    """An image cannot be mounted here; unpacking it does as well. The message says why."""


def why_not_here() -> str | None:
    """Return why this machine, or this user, can mount no image; None where it can."""
    if not sys.platform.startswith("linux"):
        return "only Linux has what a mount needs"
    if not _DEVICE.exists():
        return f"there is no {_DEVICE}: load the module fuse, or give the container the device"
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        return f"{_DEVICE} is not writable for this user"
    return None


@contextlib.contextmanager
def as_owner(directory: Path) -> Iterator[None]:
    """As root, work as the owner of *directory* meanwhile; mounting is done as root all the same.

    Nothing is changed where it is root's, or not there.
    """
    try:
        owner = directory.stat()
    except FileNotFoundError:
        owner = None
    if owner is None or os.geteuid() != 0:
        yield
        return
    with _acting_as(owner.st_uid, owner.st_gid):
        yield


def as_root() -> contextlib.AbstractContextManager[None]:
    """Where a root works as the owner of something: as root again meanwhile."""
    return _acting_as(0, 0)


@contextlib.contextmanager
def _acting_as(user: int, group: int) -> Iterator[None]:
    before = os.geteuid(), os.getegid()
    if before == (user, group) or os.getuid() != 0:
        yield
        return
    _set_effective(user, group)
    try:
        yield
    finally:
        _set_effective(*before)


def _set_effective(user: int, group: int) -> None:
    if os.geteuid() != 0:
        os.seteuid(0)
    os.setegid(group)
    os.seteuid(user)


def open_device() -> int:
    """Open what a mount is served by; ``NotMountable`` where that is forbidden."""
    try:
        with as_root():
            return os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise NotMountable(f"{_DEVICE} cannot be opened: {error.strerror}") from error


def mount_fuse(device: int, target: Path) -> None:
    """Mount what is served by *device* at *target*; for all users, who see what modes allow."""
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions"
    _mount("nix-seed", target, "fuse.nix-seed", _NOSUID | _NODEV | _READ_ONLY, options)


def mount_overlay(lower: str, upper: str, work: str, target: Path) -> None:
    """Mount *upper* above *lower* at *target*; names without colons and commas."""
    _mount("overlay", target, "overlay", 0, f"lowerdir={lower},upperdir={upper},workdir={work}")


def detach(target: Path) -> bool:
    """Take away what is mounted at *target*, whoever still uses it; False where nothing is."""
    with as_root():
        done: int = _LIBC.umount2(os.fsencode(target), _DETACH)
    return done == 0


def is_mounted(target: Path) -> bool:
    """Whether something is mounted at *target* itself, dead or alive."""
    return any(place == str(target) for _, place in _mounts())


def abort(connection: int) -> None:
    """Have every request of the FUSE *connection* fail at once, and all later ones."""
    with contextlib.suppress(OSError), as_root():
        (_CONNECTIONS / str(connection) / "abort").write_text("1")


def connection_of(target: Path) -> int | None:
    """Return the number of the FUSE connection that is mounted at *target*."""
    for number, place in _mounts():
        if place == str(target):
            return number
    return None


def _mounts() -> list[tuple[int, str]]:
    """Return minor device number and place of every mount that this process sees."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        _, _, device, _, place, *_ = line.split(" ")
        place = place.encode().decode("unicode_escape", "replace") if "\\" in place else place
        found.append((int(device.partition(":")[2]), place))
    return found


def enter_mount_namespace() -> None:
    """In a forked child: have mounts of one's own, as root or, in a user namespace, as if root.

    Raises ``OSError`` where the system forbids it.
    """
    enter_namespaces(_NEWNS, as_root=True)
    _mount("none", Path("/"), None, _RECURSIVE | _PRIVATE, None)


def enter_namespaces(kinds: int, *, as_root: bool) -> None:
    """In a forked child: enter new namespaces; for others than root a user namespace is one too.

    In it the user is root, or who it was before.
    """
    user, group = os.geteuid(), os.getegid()
    _check(_LIBC.unshare(kinds if user == 0 else kinds | NEWUSER), "unshare")
    if user != 0:
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{0 if as_root else user} {user} 1"),
            ("gid_map", f"{0 if as_root else group} {group} 1"),
        ):
            Path("/proc/self", name).write_text(text)


def keep_memory(*, mmap_from: int, trim_from: int) -> None:
    """Have glibc keep what is freed in one pool: pieces, and in all, up to so many bytes.

    Another C library has no such setting, and is left as it is.
    """
    with contextlib.suppress(AttributeError):
        for option, value in ((_ARENA_MAX, 1), (_MMAP_FROM, mmap_from), (_TRIM_FROM, trim_from)):
            _LIBC.mallopt(option, value)


def try_in_child(work: Callable[[], None]) -> str | None:
    """Do *work* in a child that is thrown away; return why it failed, None where it did not."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            try:
                work()
            except OSError as error:
                os.write(writes, f"{error.strerror or error}".encode()[:4096])
            except CouldNotCheck as error:
                os.write(writes, error.message.encode()[:4096])
        os._exit(0)
    os.close(writes)
    with open(reads, "rb") as answer:
        text = answer.read().decode(errors="replace")
    os.waitpid(child, 0)
    return text or None


def _mount(source: str, target: Path, kind: str | None, flags: int, options: str | None) -> None:
    with as_root():
        done = _LIBC.mount(
            source.encode(),
            os.fsencode(target),
            None if kind is None else kind.encode(),
            ctypes.c_ulong(flags),
            None if options is None else options.encode(),
        )
    _check(done, f"mounting {kind or source} at {target}")


def _check(done: int, doing: str) -> None:
    if done != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{doing}: {os.strerror(number)}")
