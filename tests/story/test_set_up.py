"""``make demo`` for one who is not root: what only root can do is said, all of it at once."""

import shutil
import subprocess
from pathlib import Path

from support.programs import need

INSTALL = Path(__file__).resolve().parents[2] / "tools/install-debian"


def test_a_user_without_sudo_hears_all_that_root_has_to_do() -> None:
    command = [
        need("bwrap"),
        "--unshare-user",
        "--uid",
        "1000",
        "--gid",
        "1000",
        "--die-with-parent",
    ]
    for name in ("bin", "sbin", "lib", "lib64"):
        command += ["--symlink", f"usr/{name}", f"/{name}"]
    for place in ("/usr", "/etc"):
        command += ["--ro-bind", place, place]
    if (sudo := shutil.which("sudo")) is not None:
        command += ["--ro-bind", "/dev/null", str(Path(sudo).resolve())]
    # Neither packages nor apt's lists, nor /nix.
    command += ["--dir", "/var/lib/dpkg", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
    command += ["--clearenv", "--setenv", "PATH", "/usr/bin:/bin"]
    command += ["--ro-bind", str(INSTALL), "/install", "sh", "/install", "venv", "demo"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    error, hint, update, install, store = done.stderr.splitlines()
    assert error == "error: only root can set up what is missing, and this user has no sudo"
    assert hint == "hint: as root, run:"
    assert update == "  apt-get update"
    assert install.startswith("  apt-get install --yes --no-install-recommends ")
    assert {"git", "bubblewrap", "patchelf"} < set(install.split())
    assert store.startswith("  install -d -o ")
    assert store.endswith(" /nix /nix/var /nix/var/nix")
