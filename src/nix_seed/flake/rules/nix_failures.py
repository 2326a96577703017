"""What Nix says when it fails, and what to do about the failures that people meet most."""

import re

# What Nix says where evaluation would build or fetch, and may not.
FORBIDDEN = re.compile(r"allow-import-from-derivation|forbidden in (restricted|pure)")

# What a Nix says that lacks what a flake of today asks of it.
TOO_OLD = re.compile(
    r"requires (Nix (>=|version)|an implementation of Nix)|unsupported Nix version"
    r"|is not a recognised command|unrecognised flag|unknown experimental feature"
    r"|has unsupported version [1-9]"
    r"|unexpected flake input attribute '(submodules|lfs)'"
    r"|attribute '[a-zA-Z]+' missing, at .*builtins|builtins\.\w+' missing"
)

# What Nix says where it did not get what a flake names.
UNREACHED = (
    *("unable to download", "ould not resolve", "Cannot find Git revision", "program 'git'"),
    "Failed to fetch git repository",
)
REACH = "see that this machine reaches what the flake names, and try again"

INSTALL = """install it:
  on Debian and Ubuntu     apt-get install nix-bin (Debian 13, Ubuntu 24.04 or newer for nixpkgs)
  elsewhere, macOS too     the installer described at https://nixos.org/download"""


NO_FLAKE = (
    "name a directory that holds a flake.nix, or a flake such as github:owner/repo;"
    " `nix flake init` makes one"
)

_OWNER = "if you trust it: git config --global --add safe.directory DIRECTORY"

_STORE = "Nix's store is not writable for this user; is its daemon running?"
_LOCK = "lock the flake's inputs first: nix flake lock"
_TOKEN = (
    "does it exist? What is private wants a token that may read it, in nix.conf:"
    " access-tokens = github.com=TOKEN"
)
_NAMED = (
    "no registry here has an input of that name: give its address in flake.nix, such as"
    ' inputs.nixpkgs.url = "github:NixOS/nixpkgs"; and lock it: nix flake lock'
)
_DISABLED = re.compile(r"experimental Nix feature '([a-z-]+)'")
_FEATURE = (
    "let nix.conf, and that of the seed, say: extra-experimental-features = NAME;"
    ' mkSeed { nixConf = "extra-experimental-features = NAME"; … }. A nixConfig in flake.nix is'
    " not taken: it may be anybody's"
)
_SYSTEM = (
    "this machine builds nothing for that system: give Nix a remote builder for it (builders),"
    " or emulation (binfmt, and extra-platforms)"
)
_RELOCK = (
    "flake.lock, or another file that is read as JSON, is not whole, as a merge may leave it:"
    " git checkout REVISION -- flake.lock; or lock anew: nix flake lock"
)
_OTHER_INPUT = (
    "an input is not what flake.lock says any more: give its address a revision,"
    " and lock it anew: nix flake update INPUT"
)
_LINKED = "let flake.lock be a file, which every Nix takes: cp --remove-destination FILE flake.lock"
_PURE = (
    "a seed is evaluated without --impure, to be the same everywhere: make what is read there an"
    " input of the flake, or give its sha256 or rev"
)
_REFUSED = (
    "let flake.nix allow it: import nixpkgs { inherit system; config.allowUnfree = true; }, or"
    " config.permittedInsecurePackages, or config.allowBroken, as Nix says above"
)
_CLOCK = "use self.lastModified in flake.nix: pure evaluation has no builtins.currentTime"
# How Nix before 2.26, and since, says that an input lies beside the repository.
_OUTSIDE = re.compile(
    r"points outside of its parent's store path"
    r"|while updating the flake input (?s:.*)access to absolute path '/nix/store/"
)
_ADDRESS = (
    "an input lies outside of the flake's repository, where no other machine has it: give it the"
    " address of a repository of its own, or move it into this one"
)
_HOST = "let ssh know that host first: ssh -T git@HOST asks; in CI, ssh-keyscan HOST names its keys"
_OWN_GIT = "in a flake ./. is what Git tracks already: src = ./.; without builtins.fetchGit"
_SYSTEMS = "name the system in flake.nix: pure evaluation has no builtins.currentSystem"
_PLACE = "let HOME, and XDG_CACHE_HOME if you set it, name directories that Nix may write to"

_HINTS = {
    "dubious ownership": _OWNER,
    "is not owned by current user": _OWNER,
    "unsafe repository": _OWNER,
    "does not contain a 'flake.nix'": NO_FLAKE,
    "could not find a flake.nix": NO_FLAKE,
    "/flake.nix': No such file": NO_FLAKE,
    "/flake.nix' does not exist": NO_FLAKE,
    "is not a valid URL": (
        "before 2.19, Nix takes no directory whose name holds a space or is not ASCII:"
        " rename it, or use a newer Nix"
    ),
    "attribute 'currentSystem' missing": _SYSTEMS,
    "attribute 'currentTime' missing": _CLOCK,
    "efusing to evaluate": _REFUSED,
    "unlocked input 'git+file:///nix/store/": _OWN_GIT,
    **dict.fromkeys(("in pure eval", "unlocked input"), _PURE),
    **dict.fromkeys(("cannot be evaluated in pure", "in pure mode", "unlocked"), _LOCK),
    **dict.fromkeys(("has unsupported version 0", "json.exception.parse_error"), _RELOCK),
    "flake.lock' is a symlink": _LINKED,
    "follows a non-existent input": "in flake.nix, let follows name an input that is there",
    **dict.fromkeys(("NAR hash mismatch in input", "mismatch in field 'narHash'"), _OTHER_INPUT),
    "is not tracked by Git": "Nix sees only what Git tracks: git add the file",
    "requires lock file changes": _LOCK,
    "does not provide attribute": "`nix flake show` lists what the flake has",
    "cannot find flake 'flake:": _NAMED,
    "executing 'git'": "Nix reads checkouts by git: apt-get install git",
    "cannot get cwd": "the directory you are in was deleted: cd to another",
    "Read-only file system": _PLACE,
    "cannot determine user's home directory": _PLACE,
    "No space left on device": "make room where Nix keeps its store, or what TMPDIR names: df -h",
    "Host key verification failed": _HOST,
    "publickey": "let Git's own ssh read that repository: ssh -T git@HOST says whether it may",
    "could not read Username": "let Git read that repository: git ls-remote URL must not ask",
    **dict.fromkeys(("HTTP error 401", "HTTP error 403", "HTTP error 404"), _TOKEN),
    **dict.fromkeys(UNREACHED, REACH),
    "cannot connect to socket": (
        "start Nix's daemon (systemctl start nix-daemon.socket);"
        " or unset NIX_REMOTE, where this user may write to the store"
    ),
    **dict.fromkeys((" is required to build '", "Required system: '"), _SYSTEM),
    "Operation not permitted": _STORE,
    "Permission denied": _STORE,
}


# How it says that a path is not there, which is no file of a flake.
_GONE = re.compile(r"(path|getting status of) '/(?!/?nix/store/)[^']*'(: No such| does not exist)")


def find_input_hint(detail: str) -> str | None:
    """Say what to do about an input of a flake, itself there, that is not on this machine."""
    return _ADDRESS if _GONE.search(detail) else None


def find_hint(detail: str) -> str | None:
    """Say what to do about the failures that people meet most."""
    said = "\n".join(line for line in detail.splitlines() if not line.startswith("warning:"))
    if disabled := _DISABLED.search(said):
        return _FEATURE.replace("NAME", disabled[1])
    if _OUTSIDE.search(said):
        return _ADDRESS
    return next((hint for words, hint in _HINTS.items() if words in said), None)
