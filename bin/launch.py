"""Gets what nix-seed needs, once, and runs nix-seed from this checkout. ``bin/nix-seed`` calls it.

What it needs comes as a file for this Python and platform, whose digest ``bin/bundles.json`` pins;
or else from a package index, at the versions and hashes of ``bin/requirements.txt``. Both become an
ordinary virtual environment. What few commands need is a second file, fetched when it is imported.
 Uses the standard library alone, and few modules of it:
each call passes here.
"""

import os
import sys
import time

_WORDS = ("TOKEN", "SECRET", "PASSWORD", "PASSPHRASE", "PRIVATE_KEY")
_MAIN = """
import sys
sys.path.insert(0, sys.argv.pop(1))
sys.argv[0] = "nix-seed"
from nix_seed.cli.start import main
main()"""
_PATHS = """../rest/site-packages
../rest/site-packages/pure.zip
import seed_launch; seed_launch.prepare_rest()
"""
_PATIENCE = 15.0  # seconds without a byte
_PIECE = 1 << 18
_MOST = 50  # times the size of a file, that what it holds may have
_BLOCK = 512  # bytes of a tar archive


class Unusable(Exception):
    """Why the one file cannot be used; the package index is asked instead."""


def main() -> None:
    """Run nix-seed with the arguments after the first, which is the checkout."""
    root, *arguments = sys.argv[1:]
    with open(os.path.join(root, "bin/requirements.txt"), "rb") as file:
        requirements = file.read()
    place, seconds = os.path.join(tools(), key(requirements)), ""
    if not os.path.exists(os.path.join(place, "bin/python")):
        print(f"nix-seed: setting up, once: {place}", file=sys.stderr, flush=True)
        begun = time.monotonic()
        set_up(root, requirements, place)
        # The time to the first build begins with this.
        seconds = os.environ["NIX_SEED_SETUP_SECONDS"] = f"{time.monotonic() - begun:.2f}"
    outputs, python = os.environ.get("GITHUB_OUTPUT"), os.path.join(place, "bin/python")
    if arguments == ["ci", "setup", "--only"] and outputs:
        # All that this command does: loading it would take as long as setting up.
        with open(outputs, "a") as file:
            file.write(f"seconds={seconds}\npython={python}\n")
        return
    os.execv(python, [python, "-P", "-c", _MAIN, os.path.join(root, "src"), *arguments])


def install(root: str, prefix: str) -> None:
    """Make an ordinary environment in *prefix*, and a command that runs this checkout with it."""
    import shutil

    # As bin/nix-seed, which looks for another.
    if not (3, 11) <= sys.version_info < (3, 15) or "t" in sys.abiflags:
        found = f"{sys.executable} is Python {sys.version.split(' (', maxsplit=1)[0]}"
        fail(f"nix-seed needs Python 3.11 to 3.14, and {found}", "name one: PYTHON=python3.13", 2)
    with open(os.path.join(root, "bin/requirements.txt"), "rb") as file:
        requirements = file.read()
    place = os.path.join(prefix, "share/nix-seed")
    made_for = os.path.join(place, key(requirements))
    if not os.path.exists(made_for):
        shutil.rmtree(place, ignore_errors=True)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        set_up(root, requirements, place)
        open(made_for, "x").close()
    command = os.path.join(prefix, "bin/nix-seed")
    os.makedirs(os.path.dirname(command), exist_ok=True)
    if os.path.lexists(command):
        os.unlink(command)
    python, source = quoted(os.path.join(place, "bin/python")), quoted(os.path.join(root, "src"))
    with open(command, "w") as file:
        # A shebang line would take neither a space in the path nor a long one.
        file.write(f"#!/bin/sh\nexec {python} -P -c '{_MAIN}' {source} \"$@\"\n")
    os.chmod(command, 0o755)
    shutil.copytree(
        os.path.join(root, "man"), os.path.join(prefix, "share/man/man1"), dirs_exist_ok=True
    )


def quoted(text: str) -> str:
    """Quote *text* for a shell."""
    return "'" + text.replace("'", "'\\''") + "'"


def tools() -> str:
    """Return the first directory that can be written of those where tools are kept."""
    home = os.environ.get("HOME")
    names = ("NIX_SEED_TOOLS", "RUNNER_TOOL_CACHE", "XDG_CACHE_HOME")
    places = [os.environ.get(name) for name in names]
    cache = os.path.join(home, ".cache") if home else None
    for place in (*places, cache):
        if not place:
            continue
        path = os.path.join(place, "nix-seed")
        try:
            os.makedirs(path, exist_ok=True)
        except OSError:
            continue
        if os.access(path, os.W_OK):
            return path
    # Where everyone may write, a name that others can foresee may be theirs already.
    user = os.geteuid()
    path = os.path.join(os.environ.get("TMPDIR") or "/tmp", f"nix-seed-{user}")
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        found = os.lstat(path)
    except OSError:
        found = None
    if found and found.st_uid == user and found.st_mode & 0o170077 == 0o040000:
        return path
    return fail("no directory for its tools can be written", "name one: NIX_SEED_TOOLS=DIR", 2)


def key(requirements: bytes) -> str:
    """Name an environment by what is in it and the Python that it is for."""
    from hashlib import sha256

    python = f"{sys.version} {os.uname().machine} {sys.prefix}"
    return sha256(requirements + python.encode()).hexdigest()[:20]


def set_up(root: str, requirements: bytes, place: str) -> None:
    """Make the environment *place*. A second process that does so meanwhile does no harm."""
    import shutil

    new = f"{place}.{os.getpid()}"
    try:
        try:
            from_bundle(root, requirements, new)
        except Unusable as reason:
            if str(reason):
                print(f"nix-seed: {reason}; asking the package index", file=sys.stderr, flush=True)
            shutil.rmtree(new, ignore_errors=True)
            from_index(root, new)
        # Whoever was faster wins: both are the same.
        if not os.path.exists(place):
            os.rename(new, place)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def from_bundle(root: str, requirements: bytes, new: str) -> None:
    """Unpack the first file that is pinned for this Python, and prepare for the rest."""
    import json
    import sysconfig
    from hashlib import sha256
    from urllib.parse import quote

    try:
        with open(os.path.join(root, "bin/bundles.json"), "rb") as file:
            pins = json.load(file)
    except FileNotFoundError:
        raise Unusable("") from None
    if pins["requirements"] != sha256(requirements).hexdigest():
        raise Unusable("")
    pin = pins["bundles"].get(f"{sysconfig.get_config_var('SOABI')}-{os.uname().machine}")
    if pin is None or too_old(pins["glibc"]):
        raise Unusable("")
    base = os.environ.get("NIX_SEED_BUNDLES") or pins["url"]
    if "://" not in base:
        base = f"file://{quote(os.path.abspath(base))}"
    unpack(base, pin["first"], new, os.path.join(root, "src"))
    finish(new)
    packages = os.path.join(library(new), "site-packages")
    with open(os.path.join(packages, "rest.pth"), "x") as file:
        file.write(_PATHS)
    with (
        open(__file__, "rb") as source,
        open(os.path.join(packages, "seed_launch.py"), "xb") as file,
    ):
        file.write(source.read())
    with open(os.path.join(packages, "rest.json"), "w") as file:
        json.dump({"base": base, "pin": pin["rest"]}, file)


class Rest:
    """Finds what is imported of the second file, by fetching that."""

    def __init__(self, place: str, names: "list[str]") -> None:
        self.place, self.names = place, frozenset(names)

    def find_spec(self, name, path=None, _target=None):
        """Return the module's spec, once the file is there; None of any other."""
        if path is not None or name not in self.names:
            return None
        sys.meta_path.remove(self)
        fetch_rest(self.place)
        import importlib.util

        return importlib.util.find_spec(name)


def unpack(base: str, pin, new: str, source: str = "") -> None:
    """Unpack the pinned file of *base* below *new*; of another nothing is written: ``Unusable``.

    Our own bytecode goes beside the code in *source*.
    """
    from hashlib import sha256
    from urllib.request import urlopen
    from zlib import decompressobj, error as malformed

    digest, left, plain, zipped = sha256(), pin["size"], bytearray(), decompressobj(wbits=31)
    try:
        with urlopen(f"{base.rstrip('/')}/{pin['name']}", timeout=_PATIENCE) as answer:
            # Decompressed while it arrives, and believed once all of it is here.
            while data := answer.read(_PIECE):
                left -= len(data)
                if left < 0:
                    raise Unusable(f"{pin['name']} is longer than the one that is pinned")
                digest.update(data)
                plain += zipped.decompress(data, _MOST * pin["size"])
                if len(plain) > _MOST * pin["size"]:
                    raise ValueError(f"it holds more than {_MOST} times its size")
        if left > 0:
            raise ValueError(f"it ends {left} bytes early")
    except (OSError, ValueError, malformed) as error:
        raise Unusable(f"{pin['name']} could not be fetched: {error}") from error
    if digest.hexdigest() != pin["sha256"]:
        raise Unusable(f"{pin['name']} of {base} is not the one that is pinned")
    try:
        extract(memoryview(plain), library(new), source)
    except (OSError, ValueError) as error:
        raise Unusable(f"{pin['name']} cannot be unpacked: {error}") from error


def library(place: str) -> str:
    """Return where an environment's Python looks for its packages."""
    return os.path.join(place, f"lib/python{sys.version_info[0]}.{sys.version_info[1]}")


def prepare_rest() -> None:
    """In an environment that lacks the second file: have it fetched by the first import of it."""
    import json

    packages = os.path.dirname(os.path.abspath(__file__))
    if not os.path.exists(os.path.join(packages, "../rest")):
        with open(os.path.join(packages, "rest.json"), "rb") as file:
            sys.meta_path.append(
                Rest(os.path.join(packages, "../../.."), json.load(file)["pin"]["imports"])
            )


def fetch_rest(place: str) -> None:
    """Unpack the second file into the environment *place*, unless another process has meanwhile."""
    import json
    import shutil

    found = os.path.join(library(place), "rest")
    new = f"{os.path.abspath(place)}.{os.getpid()}"
    with open(os.path.join(library(place), "site-packages/rest.json"), "rb") as file:
        pins = json.load(file)
    try:
        unpack(pins["base"], pins["pin"], new)
        if not os.path.exists(found):
            os.rename(library(new), found)
    except Unusable as reason:
        fail(str(reason), "it brings what this command needs: try again", 3)
    except OSError:
        if not os.path.exists(found):
            raise
    finally:
        shutil.rmtree(new, ignore_errors=True)
    import site

    site.addsitedir(os.path.join(found, "site-packages"))


def too_old(needed: str) -> bool:
    """Tell whether this machine's C library is older than what the file was made for."""
    try:
        name, found = os.confstr("CS_GNU_LIBC_VERSION").split()
    except (AttributeError, OSError, ValueError):
        return False
    return name == "glibc" and numbers(found) < numbers(needed)


def numbers(version: str) -> "list[int]":
    """Read a dotted version."""
    return [int(part) for part in version.split(".")]


def extract(archive, packages: str, source: str) -> None:
    """Write the plain files of a tar archive below *packages*; ``Unusable`` if it has any other.

    The standard library's way takes three times as long for the few hundred files of the first.
    Our own bytecode, among them, goes where this Python looks for that of *source*. It is checked
    against the code whenever it is used, so it can only save time.
    """
    made, at, tag = set(), 0, sys.implementation.cache_tag
    while at < len(archive) and (head := bytes(archive[at : at + _BLOCK])).strip(b"\0"):
        at += _BLOCK
        above, name = (bytes(part).rstrip(b"\0").decode() for part in (head[345:500], head[:100]))
        parts = (f"{above}/{name}" if above else name).split("/")
        if (
            head[156:157] not in (b"0", b"\0")
            or {"", "..", "."}.intersection(parts)
            or parts[0] not in ("site-packages", "own")
        ):
            raise Unusable(f"the file holds {'/'.join(parts)!r}")
        is_own, size = parts[0] == "own", int(head[124:135], 8)
        path = os.path.join(packages, *parts)
        if is_own:
            cached = f"{parts[-1][:-4]}.{tag}.pyc"
            path = os.path.join(source, *parts[1:-1], "__pycache__", cached)
        folder = os.path.dirname(path)
        try:
            if folder not in made:
                os.makedirs(folder, exist_ok=True)
                made.add(folder)
            # Others may load it already.
            partial = f"{path}.{os.getpid()}" if is_own else path
            with open(partial, "wb") as file:
                file.write(archive[at : at + size])
            if is_own:
                os.replace(partial, path)
        except OSError:
            # A checkout that may not be written: it is compiled at need.
            if not is_own:
                raise
        at += -(-size // _BLOCK) * _BLOCK


def finish(new: str) -> None:
    """Make an environment of *new*."""
    python = os.path.realpath(sys.executable)
    os.makedirs(os.path.join(new, "bin"))
    os.symlink(python, os.path.join(new, "bin/python"))
    with open(os.path.join(new, "pyvenv.cfg"), "w") as file:
        file.write(f"home = {os.path.dirname(python)}\ninclude-system-site-packages = false\n")


def from_index(root: str, new: str) -> None:
    """Make an environment with pip, from the index that this machine's pip is set up for."""
    import subprocess

    # Whatever is run to install packages has no business with the job's secrets.
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("SEED_") and not any(word in name.upper() for word in _WORDS)
    }

    def runs(*command: str, quiet: bool = False) -> bool:
        stream = subprocess.DEVNULL if quiet else sys.stderr
        return (
            subprocess.run(command, env=env, stdout=stream, stderr=stream, check=False).returncode
            == 0
        )

    python = os.path.join(new, "bin/python")
    # A pip of the place's own takes seconds to make: the one that is there serves as well, from
    # 22.3 on.
    # Nor has what lies in the directory that it is called in, which is a checkout.
    here = (sys.executable, "-P", "-m")
    pip = (*here, "pip", "--python", python)
    made = runs(*here, "venv", "--without-pip", new, quiet=True)
    if not (made and runs(*pip, "--version", quiet=True)):
        pip = (python, "-P", "-m", "pip")
        if not runs(*here, "venv", "--clear", new):
            fail(
                f"{sys.executable} cannot make a virtual environment",
                "on Debian and Ubuntu: apt-get install python3-venv",
                2,
            )
    # Wheels only: nothing is compiled, and no code of theirs runs.
    options = ("--quiet", "--disable-pip-version-check", "--no-input", "--no-compile")
    locked = ("--only-binary=:all:", "--no-deps", "--require-hashes")
    wanted = os.path.join(root, "bin/requirements.txt")
    if not runs(*pip, "install", *options, *locked, "--requirement", wanted):
        fail(
            "what nix-seed needs could not be installed",
            "the machine must reach a package index; where it cannot, install nix-seed beforehand"
            " and name it: NIX_SEED_BIN=/path/to/nix-seed",
            3,
        )


def fail(what: str, hint: str, code: int) -> str:
    """End with an error."""
    print(f"error: {what}\nhint: {hint}", file=sys.stderr)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
