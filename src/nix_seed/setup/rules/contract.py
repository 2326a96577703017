"""The image contract, as a table: what every image must do to be usable where images are used.

Each check is a few words of shell, run inside the image by its own ``/bin/sh`` and programs, with
no network: exit code 0 is a pass, what it prints is shown where it fails. ``contract_script`` makes
one script of many checks and ``read_findings`` reads its transcript, so that a whole image is
examined by starting it once. A run image has a shell and no programs beside its own, so what is
asked of both kinds is asked in the shell's own words.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["seed", "run"]


@dataclass(frozen=True, slots=True)
class Clause:
    """One clause: *name*, the shell that tests it, why it is there, and how to *fix* a failure."""

    name: str
    shell: str
    why: str
    fix: str


@dataclass(frozen=True, slots=True)
class ClauseResult:
    """What a check found: *said* is its output."""

    check: Clause
    passed: bool
    said: str


_GITHUB = "GitHub's runner starts a container job with it"
_TOOLS = "mkSeed's container tier links it; give mkSeed a pkgs that has "


def _program(path: str, try_it: str, why: str = _GITHUB) -> Clause:
    name = path.rpartition("/")[2]
    shell = f"test -x {path} || {{ echo 'no program at {path}'; exit 1; }}\n{try_it}"
    return Clause(path, shell, why, _TOOLS + name)


def _on_path(name: str, why: str) -> Clause:
    shell = f'command -v {name} || {{ echo "not on PATH=$PATH"; exit 1; }}\n{name} --version'
    return Clause(name, shell, why, _TOOLS + name)


def _regular(path: str, beginning: str) -> Clause:
    shell = (
        f"test ! -L {path} || {{ echo 'a symlink'; exit 1; }}\n"
        f"test -f {path} || {{ echo 'not there'; exit 1; }}\n"
        f"while read -r line; do case $line in {beginning}*) exit 0 ;; esac; done < {path}\n"
        f"echo 'no line begins with {beginning}'; exit 1"
    )
    why = "containerd refuses absolute symlinks there (path escapes from parent)"
    return Clause(path, shell, why, f"ship {path} as a file, not as a link into the store")


def _sticky(path: str) -> Clause:
    shell = (
        f"test -d {path} || {{ echo 'no directory'; exit 1; }}\n"
        "if command -v stat > /dev/null; then\n"
        f'  test "$(stat -c %a {path})" = 1777 || {{ stat -c "mode %a" {path}; exit 1; }}\n'
        "fi\n"
        f"test -k {path} || {{ echo 'not sticky'; exit 1; }}\n"
        f": > {path}/nix-seed-contract"
    )
    fix = f"give the image a directory {path} of mode 1777"
    return Clause(path, shell, "programs make files there", fix)


_BOTH = (
    _program("/bin/sh", "/bin/sh -e -c true", "every engine starts commands with it"),
    _program("/usr/bin/bash", "/usr/bin/bash --noprofile --norc -e -o pipefail -c true"),
    _regular("/etc/passwd", "root:"),
    _regular("/etc/group", "root:"),
    _regular("/etc/nsswitch.conf", "hosts:"),
    _regular("/etc/os-release", "ID=nixos"),
    Clause(
        "/etc",
        "test -d /etc && test ! -L /etc && test -w /etc",
        "engines write hosts and resolv.conf into it",
        "ship /etc as a directory, not as a link",
    ),
    _sticky("/tmp"),
    _sticky("/var/tmp"),
    Clause(
        "LD_LIBRARY_PATH",
        'test -z "${LD_LIBRARY_PATH-}" || { echo "it is $LD_LIBRARY_PATH"; exit 1; }',
        "a global one makes Nix's own programs load foreign libraries",
        "take it out of the image's environment (mkSeed's config.env)",
    ),
    Clause(
        "CA certificates",
        "for name in SSL_CERT_FILE NIX_SSL_CERT_FILE; do\n"
        '  eval "file=\\${$name-}"\n'
        '  test -z "$file" || test -s "$file" || { echo "$name=$file is not there"; exit 1; }\n'
        "done\n"
        "test -s /etc/ssl/certs/ca-certificates.crt || test -s /etc/ssl/certs/ca-bundle.crt || {\n"
        "  echo 'no bundle in /etc/ssl/certs'; exit 1; }",
        "programs verify servers with them",
        _TOOLS + "cacert",
    ),
)

_SEED = (
    _program("/usr/bin/env", "/usr/bin/env true", "scripts begin with it"),
    _program("/usr/bin/cat", "/usr/bin/cat /etc/os-release > /dev/null"),
    _program("/usr/bin/tail", "echo x | /usr/bin/tail -n 1"),
    _program("/usr/bin/grep", "echo x | /usr/bin/grep x"),
    Clause(
        "os-release probe",
        "cat /etc/*release | grep ^ID",
        "GitHub's runner probes the distribution with just these words",
        "ship an /etc/os-release with a line ID=",
    ),
    _on_path("git", "flakes are fetched and listed with it"),
    _on_path("tar", "actions unpack archives with it"),
    _on_path("gzip", "actions unpack archives with it"),
    _on_path("zstd", "the cache action packs with it"),
    *(_on_path(name, "steps of jobs use coreutils") for name in ("ls", "cp", "mkdir", "sort")),
    Clause(
        "safe.directory",
        "git config --system --get-all safe.directory | grep -qx '[*]' || {\n"
        "  echo 'git does not trust sources of another owner'; exit 1; }",
        "steps of a job run as another user than the one who checked the sources out",
        "ship an /etc/gitconfig with [safe] directory = *",
    ),
    _on_path("nix", "a seed is there to build in"),
    Clause(
        "Nix's store",
        "for path in /nix/store/*; do\n"
        '  case $path in *.drv|"/nix/store/*") ;; *) break ;; esac\n'
        "done\n"
        'test -e "$path" || { echo "the store is empty"; exit 1; }\n'
        'nix-store --check-validity "$path"',
        "a store without a database knows none of its paths, and builds all of them again",
        "the container tier lacks /nix/var/nix/db: build the image with nix-seed",
    ),
    Clause(
        "Nix's settings",
        "config=$(nix show-config 2>/dev/null || nix config show) || exit\n"
        "for want in 'sandbox = false' 'substituters =' 'build-users-group ='; do\n"
        '  echo "$config" | sed "s/ *$//" | grep -qx "$want" ||\n'
        '    { echo "not set: $want"; exit 1; }\n'
        "done",
        "an unprivileged container has no build users, no sandbox and no caches to ask",
        "set them in /etc/nix/nix.conf or NIX_CONFIG (mkSeed's nixConf)",
    ),
    Clause(
        "a build",
        'nix build --no-link --impure --expr \'derivation { name = "contract";'
        ' system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo > $out" ]; }\'',
        "building offline is what a seed is for",
        "read the message of Nix above",
    ),
)

_LOADERS = {"amd64": "/lib64/ld-linux-x86-64.so.2", "arm64": "/lib/ld-linux-aarch64.so.1"}
_LIBRARIES = ("libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "libstdc++.so.6")


def _node(architecture: str) -> tuple[Clause, ...]:
    loader = _LOADERS.get(architecture)
    if loader is None:
        return ()
    wanted = " ".join((*_LIBRARIES, "libgcc_s.so.1"))
    # The loader itself is asked to resolve Node's needs: where it looks differs between makers.
    shell = (
        f"test -x {loader} || {{ echo 'no loader at {loader}'; exit 1; }}\n"
        "if test -x /__e/node20/bin/node; then /__e/node20/bin/node --version; exit; fi\n"
        f"for library in {wanted}; do\n"
        "  found=\n"
        '  for place in "${loader%/*}" /lib /lib64 /usr/lib /usr/lib64 /lib/*-linux-gnu; do\n'
        '    test ! -e "$place/$library" || found=1\n'
        "  done\n"
        '  test "$found" || { echo "$library is not where the loader looks"; exit 1; }\n'
        "done"
    )
    why = "GitHub mounts its own Node at /__e, and it was built for an ordinary Linux"
    fix = "the loader and its libraries come with mkSeed's container tier"
    return (Clause("GitHub's Node", f"loader={loader}\n{shell}", why, fix),)


def checks_for(kind: Kind, architecture: str) -> tuple[Clause, ...]:
    """Return the contract of an image of *kind* for *architecture* (OCI's name, ``amd64``)."""
    both = (*_BOTH, *_node(architecture))
    return both if kind == "run" else (*both, *_SEED)


def contract_script(checks: Sequence[Clause]) -> str:
    """Return one shell script that makes every check and writes a transcript on its output."""
    lines = []
    for number, check in enumerate(checks):
        lines += [f"( {check.shell}\n) </dev/null 2>&1", f"printf '\\n::{number}::%s\\n' $?"]
    return "\n".join(lines) + "\n"


def read_findings(checks: Sequence[Clause], transcript: str) -> tuple[ClauseResult, ...]:
    """Read the transcript; a check it does not mention did not pass."""
    findings, said = [], list[str]()
    codes: dict[int, tuple[str, str]] = {}
    for line in transcript.splitlines():
        number, mark, code = line.removeprefix("::").partition("::")
        if line.startswith("::") and mark and number.isdigit():
            codes[int(number)] = code, "\n".join(said).strip()
            said = []
        else:
            said.append(line)
    for position, check in enumerate(checks):
        result, words = codes.get(position, ("", "the image stopped before this check"))
        findings.append(ClauseResult(check, result == "0", words))
    return tuple(findings)
