"""Ask apt what packages exist, and let apt download them.

Everything goes through apt, so mirrors, proxies, keys and pins are the user's own. An *apt root* is
a directory that holds ``etc/apt`` and ``var/lib/apt`` of its own, for packages of another suite.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from debian_flake.errors import Failure

_WANTED = {
    "Package", "Version", "Depends", "Pre-Depends", "Provides", "Filename", "SHA256", "Size",
    "Description", "Homepage", "Section", "Architecture",
}  # fmt: skip
_UNSANDBOXED = ("-o", "APT::Sandbox::User=root")
_FIELD = re.compile(r"^([A-Za-z0-9-]+):[ \t]*(.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Package:
    """One stanza of apt's index; ``depends`` is a list of alternatives, in Debian's order."""

    name: str
    version: str
    filename: str
    sha256: str
    size: int
    depends: tuple[tuple[str, ...], ...]
    provides: tuple[str, ...]
    description: str
    homepage: str
    section: str

    @property
    def store_name(self) -> str:
        """Return the file's name in the Nix store, which allows fewer characters than Debian."""
        return re.sub(r"[^A-Za-z0-9+._-]", "-", f"{self.name}_{self.version}.deb")


@dataclass(frozen=True, slots=True)
class Apt:
    """apt on this machine, or in another root, or for another architecture.

    *lists* is where the lists of the other *architecture* are kept, so that apt's own stay as they
    are. They are those of the machine's own sources.
    """

    root: Path | None = None
    architecture: str | None = None
    lists: Path | None = None

    def _options(self) -> list[str]:
        return self._options_of_root() + self._options_of_architecture()

    def _options_of_architecture(self) -> list[str]:
        if self.architecture is None or self.lists is None:
            return []
        for folder in ("state/lists/partial", "cache/archives/partial"):
            (self.lists / folder).mkdir(parents=True, exist_ok=True)
        (self.lists / "status").touch()
        settings = {
            "APT::Architecture": self.architecture,
            "APT::Architectures": self.architecture,
            "Dir::State::Lists": self.lists / "state/lists",
            "Dir::State::status": self.lists / "status",
            "Dir::Cache": self.lists / "cache",
        }
        return [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]

    def _options_of_root(self) -> list[str]:
        if self.root is None:
            return []
        root = self.root.resolve()
        if not (root / "etc/apt").is_dir():
            raise Failure(
                f"{root} is no apt root: it has no etc/apt",
                "make one with: ./make apt-root DIR --suite SUITE",
            )
        return ["-o", f"Dir={root}", "-o", f"Dir::State::status={root}/var/lib/dpkg/status"]

    def run(self, program: str, *arguments: str, cwd: Path | None = None) -> str:
        """Run an apt program and return what it printed."""
        if shutil.which(program) is None:
            raise Failure(
                f"{program} not found: this example makes its packages from Debian's",
                "run it on Debian (or in a Debian container) with apt installed",
            )
        command = [program, *self._options(), *arguments]
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failure(f"{program} {arguments[0]} failed:\n{done.stderr.strip()}")
        return done.stdout

    def update(self) -> None:
        """Fetch the lists of the other architecture; old ones do where the mirror is away."""
        if self.lists is None:
            return
        try:
            self.run("apt-get", "update", "-q", "--error-on=any", *_UNSANDBOXED)
        except Failure:
            if not any((self.lists / "state/lists").glob("*_Packages*")):
                raise

    def packages(self) -> dict[str, Package]:
        """Return the candidate version of every package in apt's lists."""
        # Stanzas without a Filename are installed here but offered by no list: not downloadable.
        stanzas = self.run("apt-cache", "dumpavail").split("\n\n")
        found = {p.name: p for s in stanzas if (p := parse_stanza(s)) is not None}
        if not found:
            raise Failure("apt's package lists are empty", "run `apt-get update` first")
        return found

    def download(self, packages: Sequence[Package], into: Path) -> None:
        """Let apt fetch the packages' files (verified by apt) into a directory, in one call."""
        wanted = [f"{package.name}={package.version}" for package in packages]
        try:
            self.run("apt-get", "download", "-q", *_UNSANDBOXED, *wanted, cwd=into)
        except Failure as failure:
            raise Failure(
                f"downloading {len(wanted)} packages: {failure}",
                "is the network up? are the lists fresh? try `apt-get update`, then run this again",
            ) from None


def parse_stanza(text: str) -> Package | None:
    """Parse one stanza of a Packages file; None if it names no downloadable file."""
    fields = {key: value for key, value in _FIELD.findall(text) if key in _WANTED}
    if "Filename" not in fields or "SHA256" not in fields:
        return None
    depends = ", ".join(filter(None, (fields.get("Pre-Depends"), fields.get("Depends"))))
    return Package(
        name=fields["Package"],
        version=fields["Version"],
        filename=fields["Filename"],
        sha256=fields["SHA256"],
        size=int(fields["Size"]),
        depends=tuple(_alternatives(depends)),
        provides=tuple(_bare(entry) for entry in _split(fields.get("Provides", ""), ",")),
        description=fields.get("Description", ""),
        homepage=fields.get("Homepage", ""),
        section=fields.get("Section", ""),
    )


def _alternatives(depends: str) -> Iterable[tuple[str, ...]]:
    for clause in _split(depends, ","):
        yield tuple(_bare(name) for name in _split(clause, "|"))


def _split(text: str, separator: str) -> list[str]:
    return [part.strip() for part in text.split(separator) if part.strip()]


def _bare(name: str) -> str:
    """Return the package name without version relation and architecture qualifier."""
    return name.split("(", maxsplit=1)[0].split(":", maxsplit=1)[0].strip()


def make_apt_root(directory: Path, suite: str) -> None:
    """Make an apt root for another suite of the distribution this machine already uses."""
    targets = Apt().run(
        "apt-get", "indextargets", "--format",
        "$(IDENTIFIER)\t$(ORIGIN)\t$(RELEASE)\t$(CODENAME)\t$(REPO_URI)\t$(COMPONENT)",
    )  # fmt: skip
    rows = [line.split("\t") for line in targets.splitlines()]
    base = next((r for r in rows if r[0] == "Packages" and r[1] == "Debian" and r[2] == r[3]), None)
    if base is None:
        raise Failure("apt knows no Debian suite on this machine", "run `apt-get update` first")
    keyring = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
    for folder in ("etc/apt/apt.conf.d", "etc/apt/preferences.d", "var/lib/dpkg",
                   "var/lib/apt/lists/partial", "var/cache/apt/archives/partial"):  # fmt: skip
        (directory / folder).mkdir(parents=True, exist_ok=True)
    (directory / "var/lib/dpkg/status").touch()
    # The user's own settings (proxies, clocks) still hold; only the sources are other ones.
    for file in Path("/etc/apt/apt.conf.d").glob("*"):
        if file.name != "docker-clean":
            shutil.copy(file, directory / "etc/apt/apt.conf.d")
    source = f"deb [signed-by={keyring}] {base[4]} {suite} main\n"
    (directory / "etc/apt/sources.list").write_text(source)
    Apt(directory).run("apt-get", "update", "-q", *_UNSANDBOXED)
