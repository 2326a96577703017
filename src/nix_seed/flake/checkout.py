"""What Git knows of a checkout: its commit, whether it was changed, where it came from."""

import base64
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, urlunsplit

from nix_seed.core.declared import time_text
from nix_seed.core.digests import Digest
from nix_seed.core.errors import CouldNotCheck, InputError
from nix_seed.core.safe_text import split_address
from nix_seed.core.values import dataclass
from nix_seed.formats.intoto.statement import Commit
from nix_seed.formats.oci.manifest import About

_ENVIRONMENT = {
    "LC_ALL": "C.UTF-8",
    "GIT_OPTIONAL_LOCKS": "0",
    # Nobody is there to answer.
    "GIT_TERMINAL_PROMPT": "0",
    "GCM_INTERACTIVE": "never",
}
# Whom a project believes, if it says so.
DEFAULT_POLICY = Path("trust.toml")

_PATIENCE = 120  # seconds for a forge to answer
_SCP = re.compile(r"(?:[^@/]+@)?([A-Za-z0-9.-]+):(?!//)(.+)")


@dataclass(frozen=True, slots=True)
class Checkout:
    """The state of a working tree.

    *origin* is the URL of the remote of that name, without credentials, or None. *changes* are the
    changed files that Git tracks, as ``git status`` lists them: Nix copies no others. *prefix* is
    where in the repository at *root* the directory lies; *shallow* says that history is cut off,
    as CI services clone.
    """

    root: Path
    prefix: str
    shallow: bool
    commit: Commit
    origin: str | None
    lock_hash: Digest | None
    changes: tuple[str, ...]

    @property
    def dirty(self) -> bool:
        """Whether the tree differs from its commit."""
        return bool(self.changes)

    @property
    def flake(self) -> str:
        """The flake in the directory, at this very commit, as Nix fetches it."""
        query = [f"rev={self.commit}"]
        query += [f"dir={quote(self.prefix)}"] if self.prefix else []
        # Without this Nix refuses such a repository.
        query += ["shallow=1"] if self.shallow else []
        return f"git+file://{quote(str(self.root))}?{'&'.join(query)}"


@dataclass(frozen=True, slots=True)
class WorkingTree:
    """A working tree, whether or not there is a commit: where it is, and where it is published.

    *origin* and *prefix* are as in ``Checkout``; *branch* is the one that others start from, or is
    *assumed* to be: nothing says so, and there are others.
    """

    root: Path
    prefix: str
    origin: str | None
    branch: str
    assumed: bool = False


def read_repository(directory: Path) -> WorkingTree:
    """Read what repository *directory* lies in."""
    if not directory.is_dir():
        raise InputError(f"{directory} is not a directory")
    where = _told(directory, "rev-parse", "--show-toplevel", "--show-prefix")
    if where is None:
        raise InputError(
            f"{directory} lies in no Git repository",
            hint="make one: git init, and git remote add origin URL",
        )
    root, prefix = where.split("\n")[:2]
    remote = _git(directory, "config", "--get", "remote.origin.url")
    branch, assumed = _default_branch(directory)
    return WorkingTree(Path(root), prefix, remote and _plain_url(remote.strip()), branch, assumed)


def _default_branch(directory: Path) -> tuple[str, bool]:
    """Return the default branch, and whether that is but assumed.

    A clone knows origin's. In another repository it is the only branch, or the one with a usual
    name; the branch at hand may as well be the one on which seeds are being added.
    """
    head = _git(directory, "symbolic-ref", "--quiet", "refs/remotes/origin/HEAD")
    if head is not None:
        return head.strip().removeprefix("refs/remotes/origin/"), False
    here = (_git(directory, "symbolic-ref", "--quiet", "--short", "HEAD") or "").strip()
    form = ("for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads")
    local = (_git(directory, *form) or "").split()
    form = ("for-each-ref", "--format=%(refname:lstrip=3)", "refs/remotes/origin")
    there = (_git(directory, *form) or "").split()
    own = (_git(directory, "config", "--get", "init.defaultBranch") or "").strip()
    names = dict.fromkeys(("main", "master", own))
    usual = [name for name in names if name in there] or [name for name in names if name in local]
    if usual:
        return here if here in usual else usual[0], len(usual) > 1
    return here or "main", bool({*local, *there} - {here})


def read_checkout(directory: Path) -> Checkout:
    """Read the checkout that *directory*, which holds the flake, lies in."""
    if not directory.is_dir():
        raise InputError(f"{directory} is not a directory")
    head = _told(directory, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    if head is None:
        raise InputError(
            f"{directory} is no Git checkout with a commit",
            hint="an attestation is about a commit: commit first (git init, git add, git commit)",
        )
    where = _told(
        directory, "rev-parse", "--show-toplevel", "--is-shallow-repository", "--show-prefix"
    )
    status = _told(directory, "status", "--porcelain", "--untracked-files=no")
    if where is None or status is None:
        raise InputError(f"{directory} is no working tree of Git's")
    root, shallow, prefix = where.split("\n")[:3]
    remote = _git(directory, "config", "--get", "remote.origin.url")
    lock = _git_bytes(directory, "show", "HEAD:./flake.lock")
    return Checkout(
        root=Path(root),
        prefix=prefix.rstrip("/"),
        shallow=shallow == "true",
        commit=Commit(head.strip()),
        origin=None if remote is None else _plain_url(remote.strip()),
        lock_hash=None if lock is None else Digest(hashlib.sha256(lock).hexdigest()),
        changes=tuple(status.splitlines()),
    )


def about_commit(directory: Path, commit: Commit | None = None) -> About:
    """Return what is known of *commit* where it is checked out, or of the one that is."""
    try:
        found = read_checkout(directory)
    except (InputError, CouldNotCheck):
        return About(revision=str(commit or ""))
    if commit is None and found.dirty:
        return About(found.origin or "")
    wanted = str(commit or found.commit)
    time = _git(directory, "show", "--no-patch", "--format=%ct", wanted, "--") or ""
    created = time_text(datetime.fromtimestamp(int(time), UTC)) if time.strip().isdigit() else ""
    return About(found.origin or "", wanted, created)


def git_version() -> str | None:
    """Return what Git calls itself, None where it fails; ``CouldNotCheck`` where there is none."""
    said = _git(Path(), "--version")
    return None if said is None else said.strip()


def find_line(directory: Path, text: str) -> tuple[str, int] | None:
    """Return the first file of the checkout, by its path there, and the line that hold *text*.

    None where none does, or nothing can be told.
    """
    try:
        found = _git(directory, "grep", "-nIF", "--full-name", "-e", text)
    except CouldNotCheck:
        return None
    name, _, rest = (found or "").partition(":")
    number = rest.partition(":")[0]
    return (name, int(number)) if number.isdigit() else None


def tracked_files(directory: Path) -> frozenset[str] | None:
    """Return the files that Git tracks in *directory*, a repository's root; None where it is none.

    Nix takes no others for a flake's.
    """
    if not (directory / ".git").exists():
        return None
    listed = _git_bytes(directory, "ls-files", "-z")
    return None if listed is None else frozenset(os.fsdecode(listed).split("\0")) - {""}


def seen_by_git(file: Path) -> Path | None:
    """Return the work tree that *file* lies in and that would take it; None where it is ignored."""
    directory = file.resolve().parent
    root = _git(directory, "rev-parse", "--show-toplevel")
    ignored = root and _git(directory, "check-ignore", "--quiet", "--", str(file.resolve()))
    return None if not root or ignored is not None else Path(root.rstrip("\n")).resolve()


def copy_history(directory: Path, target: Path) -> None:
    """Make *target* a ``.git`` for a copy of *directory*, the root of a worktree or submodule.

    It has the same commit and index; ``CouldNotCheck`` in Git's words where that fails.
    """
    place = str(target.absolute())
    _told(directory, "clone", "--quiet", "--bare", str(directory.absolute()), place)
    _told(directory, "--git-dir", place, "config", "core.bare", "false")
    index = _told(directory, "rev-parse", "--git-path", "index")
    if index is not None and (directory / index.strip()).is_file():
        shutil.copyfile(directory / index.strip(), target / "index")


def resolve_commit(directory: Path, text: str) -> str | None:
    """Return the commit that *text* (``HEAD``, a tag, a short hash) names in *directory*'s history.

    None where it names none, or there is no repository.
    """
    try:
        found = _told(directory, "rev-parse", "--verify", "--quiet", f"{text}^{{commit}}")
    except CouldNotCheck:
        return None
    return None if found is None else found.strip()


def tagged_commits(directory: Path) -> frozenset[str]:
    """Return the commits that tags of the repository in *directory* name."""
    form = "--format=%(objectname) %(*objectname)"
    listed = _told(directory, "for-each-ref", form, "refs/tags")
    if listed is None:
        raise InputError(f"{directory} lies in no Git repository, whose tags could be kept")
    return frozenset(listed.split())


def parents_of(directory: Path) -> tuple[str, ...]:
    """Return the commit checked out in *directory* and its parents; nothing outside of Git.

    A clone without history knows its parents' names all the same: the commit itself states them.
    """
    raw = _git_bytes(directory, "--no-replace-objects", "cat-file", "commit", "HEAD")
    if raw is None:
        return ()
    tree, *lines = raw.partition(b"\n\n")[0].decode("utf-8", "replace").splitlines()
    # A commit is named by its hash, of the same kind as its tree's: Git need not be asked again.
    kind = "sha1" if len(tree) == len("tree ") + 40 else "sha256"
    head = hashlib.new(kind, b"commit %d\0%b" % (len(raw), raw), usedforsecurity=False)
    parents = [line.removeprefix("parent ") for line in lines if line.startswith("parent ")]
    return (head.hexdigest(), *parents)


@dataclass(frozen=True, slots=True)
class Login:
    """A *token* that may read the repositories of the forge at *server* (``https://host``)."""

    server: str
    token: str = field(repr=False)

    def config(self) -> str:
        """Return the lines of Git's configuration that have it sent there, and nowhere else."""
        basic = base64.b64encode(f"x-access-token:{self.token}".encode()).decode()
        section = f"[http {_quoted(self.server.rstrip('/') + '/')}]"
        return f"{section}\n\textraheader = {_quoted(f'AUTHORIZATION: basic {basic}')}\n"


def newest_commits(
    directory: Path, most: int, *, url: str | None = None, login: Login | None = None
) -> tuple[str, ...] | None:
    """Ask origin for the newest commits of its default branch, the newest first, *most* at most.

    Of merged branches only the merges count. *url* is asked in the place of *directory*'s remote
    called origin. None where nothing answers, or nobody lets us in. The checkout, which may have
    no history, is not touched.
    """
    found = url or _git(directory, "config", "--get", "remote.origin.url")
    if found is None:
        return None
    lines = f'[remote "origin"]\n\turl = {_quoted(found.strip())}\n'
    with tempfile.TemporaryDirectory(prefix="nix-seed-") as place:
        _git(directory, "init", "--quiet", "--bare", place)
        # In a file, and not among arguments, which every process may read.
        with open(Path(place, "config"), "a", encoding="utf-8") as config:
            config.write(lines + (login.config() if login else ""))
        there = ("--git-dir", place)
        fetch = ("fetch", "--quiet", "--no-tags", "--depth", str(most), "--filter=tree:0")
        if _git(directory, *there, *fetch, "origin", "HEAD", patience=_PATIENCE) is None:
            return None
        listed = _git(directory, *there, "rev-list", "--first-parent", "FETCH_HEAD")
    return None if listed is None else tuple(listed.split())[:most]


def _quoted(text: str) -> str:
    """Quote for a file of Git's configuration."""
    plain = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{plain}"'


# What Git says where there is nothing of the kind, rather than something that it cannot read.
_NOTHING = ("not a git repository", "must be run in a work tree")
_FOREIGN = ("dubious ownership", "unsafe repository")


def _told(directory: Path, *arguments: str) -> str | None:
    """Return what Git prints, or None where there is no repository, work tree or such commit.

    ``CouldNotCheck``, in Git's own words, where it fails for another reason.
    """
    done = _run(directory, arguments)
    words = done.stderr.decode("utf-8", "replace").strip()
    if done.returncode == 0:
        return done.stdout.decode("utf-8", "replace")
    if any(text in words for text in _NOTHING) or (done.returncode == 1 and not words):
        return None
    if any(text in words for text in _FOREIGN):
        trust = f"git config --global --add safe.directory {directory.absolute()}"
        raise CouldNotCheck(
            f"Git does not read {directory}: it belongs to another user",
            detail=words,
            hint=f"if you trust it: {trust}",
        )
    raise CouldNotCheck(f"Git cannot read the repository of {directory}", detail=words or None)


def clone_commit(directory: Path, commit: Commit, clone: Path) -> None:
    """Have *commit* in *clone*, with the address that the checkout *directory* says it comes from.

    ``InputError`` where the checkout has not all of it.
    """
    source = directory.absolute()
    origin = _git(source, "remote", "get-url", "origin")
    _demand(source, "clone", "--quiet", "--no-checkout", "--", str(source), str(clone))
    _demand(clone, "-c", "advice.detachedHead=false", "checkout", "--quiet", str(commit))
    if origin is not None:
        _demand(clone, "remote", "set-url", "origin", origin.strip())
    else:
        _demand(clone, "remote", "remove", "origin")


def _demand(directory: Path, *arguments: str) -> None:
    done = _run(directory, arguments)
    if done.returncode != 0:
        raise InputError(
            "git cannot take the commit from its checkout",
            detail=done.stderr.decode("utf-8", "replace").strip(),
            hint="run this in a full clone of the repository: git fetch --unshallow",
        )


def _git(directory: Path, *arguments: str, patience: float | None = None) -> str | None:
    out = _git_bytes(directory, *arguments, patience=patience)
    return None if out is None else out.decode("utf-8", "replace")


def _git_bytes(directory: Path, *arguments: str, patience: float | None = None) -> bytes | None:
    """Return what Git prints, or None where it says no, or nothing within *patience* seconds."""
    try:
        done = _run(directory, arguments, patience)
    except subprocess.TimeoutExpired:
        return None
    return done.stdout if done.returncode == 0 else None


def _run(
    directory: Path, arguments: Sequence[str], patience: float | None = None
) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            ["git", "-C", str(directory), *arguments],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            env=os.environ | _ENVIRONMENT,
            timeout=patience,
            check=False,
        )
    except OSError as error:
        raise CouldNotCheck(
            f"cannot start git: {error.strerror}", hint="apt-get install git"
        ) from error


def _plain_url(url: str) -> str:
    """Return *url* as everyone would write it: ``https://host/owner/repo``, without credentials."""
    if (found := _SCP.fullmatch(url)) and "://" not in url:
        url = f"https://{found[1]}/{found[2]}"
    parts = split_address(url)
    if parts.scheme in ("ssh", "git+ssh", "git", "http", "https") and parts.hostname:
        port = f":{parts.port}" if parts.port and parts.scheme == "https" else ""
        path = parts.path.removesuffix("/").removesuffix(".git")
        return urlunsplit(("https", f"{parts.hostname}{port}", path, "", ""))
    return url
