"""Run an image with bubblewrap: its root unpacked once, a throw-away overlay above it.

Works as root and, where this user may make user namespaces, as anyone. The overlays are mounted by
``mount`` in a mount namespace of their own, since bubblewrap has ``--overlay`` only from 0.9 on,
and vanish with it.
"""

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from nix_seed.core.errors import CouldNotCheck
from nix_seed.core.files import locked, open_lock
from nix_seed.core.values import dataclass
from nix_seed.image.read.safe_root import remove_tree
from nix_seed.image.read.unpack import check_private, unpacked
from nix_seed.registry.layout import Image
from nix_seed.use.engines.base import EXCHANGE, SOURCE, Job, check_started, environment_of, wrapped
from nix_seed.use.engines.loopback import run_beside


def why_no_namespaces() -> str | None:
    """Return why none can be made, in ``unshare``'s words; None where it made one.

    Raises ``CouldNotCheck`` where it cannot be started.
    """
    command = ["unshare", "--user", "--map-root-user", "true"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise CouldNotCheck(str(error), hint="apt-get install util-linux") from error
    return None if done.returncode == 0 else done.stderr.strip() or "refused"


_INSTALL = "install it: apt-get install bubblewrap mount util-linux"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# $1 the scratch directory, $2 overlay options to try, then the command. All names are relative, so
# that no colon or comma of a user's path can be mistaken for one of overlay's own.
_MOUNT = r"""
cd "$1" || exit 125
choices=$2
shift 2
lay() {
  lower=$1/lower
  if test -e "$1/above"; then lower=$1/above:$lower; fi
  for more in $choices; do
    mount -t overlay -o "lowerdir=$lower,upperdir=$1/rw/upper,workdir=$1/rw/work$more" \
      overlay "$1/merged" 2>>overlay.log && return
  done
  # The scratch directory may lie on an overlay itself, which takes no other above it; memory does.
  mount -t tmpfs tmpfs "$1/rw" && mkdir "$1/rw/upper" "$1/rw/work" && chmod 755 "$1/rw/upper" &&
  mount -t overlay -o "lowerdir=$lower,upperdir=$1/rw/upper,workdir=$1/rw/work" \
    overlay "$1/merged" && return
  cat overlay.log >&2
  exit 125
}
for view in root source store; do
  if test -e "$view/lower"; then lay "$view"; fi
done
if test -e store/lower; then mount --bind store/merged root/merged/nix/store || exit 125; fi
exec "$@"
"""


@dataclass(frozen=True, slots=True)
class Bwrap:
    """Keeps unpacked roots in *cache*``/roots``, and writable layers in *cache*``/runs``."""

    cache: Path
    name: str = "bwrap"

    def unavailable(self) -> str | None:
        """See ``Engine``; tries a namespace, since many systems forbid them to some users."""
        for program in ("bwrap", "unshare", "mount"):
            if shutil.which(program) is None:
                return f"{program} is not on PATH; {_INSTALL}"
        command = [*_unshare(), "bwrap", "--ro-bind", "/", "/", "--unshare-all", "true"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            words = done.stderr.strip().splitlines()[-1:] or ["no message"]
            return (
                f"a user namespace could not be made ({words[0]}); allow it "
                "(sysctl kernel.apparmor_restrict_unprivileged_userns=0) or run as root"
            )
        return None

    def prepare(self, image: Image) -> str:
        """See ``Engine``: the unpacked root's path."""
        return str(unpacked(image, self.cache / "roots"))

    def run(self, prepared: str, image: Image, job: Job) -> int:
        """See ``Engine``."""
        with scratch_directory(self.cache / "runs") as scratch:
            command = [*_unshare(), *laid_out(scratch, Path(prepared), image, job)]
            if job.serve is None:
                code = subprocess.run(command, check=False).returncode
            else:
                code = run_beside(command, job.serve)
            check_started(job, self.name, code, command)
            return code if code >= 0 else 128 - code


def laid_out(scratch: Path, root: Path, image: Image, job: Job) -> list[str]:
    """Prepare *scratch*; return the command that, with mounts of its own, runs *job* above *root*.

    Where ``store/lower`` is in *scratch*, it is what lies below the store, and *root*'s own above.
    """
    _view(scratch / "root", root)
    if job.source is not None:
        _view(scratch / "source", job.source)
    if (scratch / "store/lower").is_dir():
        _make_view(scratch / "store", (root / "nix/store").stat().st_mode & 0o1777)
        (scratch / "store/above").symlink_to(root / "nix/store")
    return ["/bin/sh", "-c", _MOUNT, "nix-seed", str(scratch), _options(), *_bwrap(image, job)]


def _bwrap(image: Image, job: Job) -> list[str]:
    command = ["bwrap", "--bind", "root/merged", "/", "--dev", "/dev", "--proc", "/proc"]
    # /tmp stays on the overlay, thus on disk: a build that fills a tmpfs takes the machine with it.
    if job.source is not None:
        command += ["--bind", "source/merged", SOURCE]
    command += ["--bind", str(job.exchange), EXCHANGE]
    if job.network:
        command += ["--ro-bind-try", "/etc/resolv.conf", "/etc/resolv.conf"]
    elif job.serve is None:
        command += ["--unshare-net"]
    command += ["--unshare-ipc", "--unshare-pid", "--unshare-uts", "--unshare-cgroup-try"]
    command += ["--die-with-parent", "--clearenv"]
    for key, value in _environment(image, job).items():
        command += ["--setenv", key, value]
    return [*command, "--", *wrapped(job)]


def _environment(image: Image, job: Job) -> dict[str, str]:
    base = {"PATH": _PATH, "HOME": "/root"}
    if "TERM" in os.environ:
        base["TERM"] = os.environ["TERM"]
    return environment_of(base | image.environment, job)


def _view(directory: Path, lower: Path) -> None:
    _make_view(directory, lower.stat().st_mode & 0o777)
    (directory / "lower").symlink_to(lower.resolve())


def _make_view(directory: Path, mode: int) -> None:
    for name in ("rw/upper", "rw/work", "merged"):
        (directory / name).mkdir(parents=True)
    (directory / "rw/upper").chmod(mode)


def _unshare() -> list[str]:
    return ["unshare", *(() if os.geteuid() == 0 else ("--user", "--map-root-user")), "--mount"]


def _options() -> str:
    # `volatile` spares the syncs of what is thrown away; kernels before 5.10 do not have it.
    # Outside the first user namespace overlayfs must keep its marks in user.* attributes.
    first = Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]
    if os.geteuid() == 0 and first:
        return ",volatile ,redirect_dir=off"
    return ",volatile,userxattr ,userxattr"


@contextlib.contextmanager
def scratch_directory(runs: Path) -> Iterator[Path]:
    """Yield a new directory, locked while in use; remove those that killed runs left behind."""
    runs.mkdir(parents=True, exist_ok=True, mode=0o700)
    check_private(runs)
    with locked(runs / ".lock"):
        for left in runs.iterdir():
            if left.is_dir() and not _in_use(left):
                remove_tree(left)
        directory = Path(tempfile.mkdtemp(dir=runs))
        lock = open_lock(directory / "lock")
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield directory
    finally:
        # Its lock goes with it: a run that began meanwhile would take it for one left behind.
        with locked(runs / ".lock"):
            remove_tree(directory)
        lock.close()


def _in_use(directory: Path) -> bool:
    try:
        with locked(directory / "lock", wait=False):
            return False
    except FileNotFoundError:
        return False
    except (OSError, CouldNotCheck):
        return True
