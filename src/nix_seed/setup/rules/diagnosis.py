"""What makes a machine or an image fit for nix-seed: diagnoses, and the image contract as a table.

A machine is judged from facts that others collected. The contract is what every image must do to be
usable where images are used. Each of its checks is a few words of shell, run inside the image by
its own ``/bin/sh`` and programs, with no network: exit code 0 is a pass, what it prints is shown
where it fails. ``contract_script`` makes one script of many checks and ``read_findings`` reads its
transcript, so that a whole image is examined by starting it once. A run image has a shell and no
programs beside its own, so what is asked of both kinds is asked in the shell's own words.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final, Literal

from nix_seed.core.errors import CouldNotCheck, NixSeedError
from nix_seed.core.values import dataclass
from nix_seed.core.words import members
from nix_seed.flake.rules.nix_version import parse_nix_version

Kind = Literal["seed", "run"]


@dataclass(frozen=True, slots=True)
class Clause:
    """One clause: *name*, the shell that tests it, why it is there, and how to *fix* a failure."""

    name: str
    shell: str
    why: str
    fix: str


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


class Health(StrEnum):
    """How a check ended. A warning is something that works, and yet is worth knowing."""

    FINE = "fine"
    WARNING = "warning"
    FALSE = "false"
    UNCHECKED = "not checked"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The check *name* of an *area* (``nix``, ``docker``): *said* is what was found.

    *fix* says what to do about it; only what is fine may do without. *why* is what it is for.
    """

    area: str
    name: str
    outcome: Health
    said: str
    fix: str = ""
    why: str = ""

    def __post_init__(self) -> None:
        if self.outcome is not Health.FINE and not self.fix:
            raise ValueError(f"{self.area}, {self.name}: what is not fine needs a fix")

    def to_json(self) -> dict[str, Any]:
        """Return it as programs read it."""
        return members(self, "area", "name", "outcome", "said", "fix", "why")


def exit_code(diagnoses: Iterable[Diagnosis]) -> int:
    """Return 1 if something was checked and is false, else 3 if something was not checked, else 0.

    Nothing checked at all is 3: it would say that all is well.
    """
    outcomes = {each.outcome for each in diagnoses}
    if Health.FALSE in outcomes:
        return 1
    return 3 if Health.UNCHECKED in outcomes or not outcomes else 0


def diagnose_error(area: str, name: str, error: Exception) -> Diagnosis:
    """Return what an *error* in the middle of a check comes to; a bug is no answer either."""
    if not isinstance(error, NixSeedError):
        said = f"an unexpected {type(error).__name__}: {error}"
        return Diagnosis(area, name, Health.UNCHECKED, said, "this is a fault of nix-seed")
    outcome = Health.UNCHECKED if isinstance(error, CouldNotCheck) else Health.FALSE
    said = "\n".join(part for part in (error.message, error.detail) if part)
    return Diagnosis(area, name, outcome, said, error.hint or "see its own message")


def diagnose_clause(area: str, clause: Clause, said: str, *, passed: bool) -> Diagnosis:
    """Return what a clause of the image contract comes to, kept or broken."""
    if passed:
        return Diagnosis(area, clause.name, Health.FINE, said, why=clause.why)
    said = said or "it failed, and said nothing"
    return Diagnosis(area, clause.name, Health.FALSE, said, clause.fix, clause.why)


def read_findings(area: str, checks: Sequence[Clause], transcript: str) -> tuple[Diagnosis, ...]:
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
        findings.append(diagnose_clause(area, check, words, passed=result == "0"))
    return tuple(findings)


HOOK_FIX: Final = (
    "take build-hook out of nix.conf; or make it a link to Nix, named build-remote:"
    ' ln -s "$(command -v nix)" …/build-remote'
)
INSTALL_NIX: Final = (
    "apt-get install nix-bin on Debian 13, Ubuntu 24.04 and newer; else https://nixos.org/download"
)
OLDEST_NIX: Final = (2, 8)
# nixpkgs' lib/minver.nix.
_NIXPKGS_WANTS: Final = (2, 18)
_SKEW_FALSE, _SKEW_WARNING = timedelta(minutes=5), timedelta(seconds=30)
_LEAST_ROOM, _LITTLE_ROOM = 1 << 30, 5 << 30
_INSTALL_ENGINE = (
    "apt-get install bubblewrap mount util-linux (or podman, or Docker Engine 23 and newer)"
)


def judge_nix_version(text: str) -> Diagnosis:
    """Judge what ``nix --version`` printed."""
    found = parse_nix_version(text)
    if found is None:
        fix = "is the first `nix` on PATH really Nix?"
        return Diagnosis("nix", "version", Health.UNCHECKED, f"it says {text!r}", fix)
    said = f"{found.version} ({found.fork})"
    if found.number < OLDEST_NIX:
        return Diagnosis("nix", "version", Health.FALSE, said, "install Nix 2.8 or newer")
    if found.number < _NIXPKGS_WANTS:
        said += ": too old to evaluate a current nixpkgs, which wants 2.18"
        fix = f"install a newer one: {INSTALL_NIX}"
        return Diagnosis("nix", "version", Health.WARNING, said, fix)
    return Diagnosis("nix", "version", Health.FINE, said)


def judge_settings(
    settings: Mapping[str, str], *, linux: bool, hook_exists: bool
) -> Iterator[Diagnosis]:
    """Judge Nix's *settings*, as ``nix show-config`` gives them; *hook_exists*: build-hook's."""
    yield _features(settings)
    sandbox = settings.get("sandbox", "")
    if linux and sandbox != "true":
        fix = "set sandbox = true in nix.conf; policies may demand it (requireSandbox)"
        said = f"it is {sandbox or 'not known'}: builds see this machine"
        yield Diagnosis("nix", "sandbox", Health.WARNING, said, fix)
    else:
        yield Diagnosis("nix", "sandbox", Health.FINE, sandbox or "as this system has it")
    hook = settings.get("build-hook")
    if hook is None or hook_exists:
        yield Diagnosis("nix", "build-hook", Health.FINE, hook or "as this Nix has it")
        return
    name = hook.split(" ")[0]
    said = f"{name} is not there" if name else "it is set to nothing"
    why = "Nix asks this program for remote builders, and no build goes on without its answer"
    yield Diagnosis("nix", "build-hook", Health.FALSE, said, HOOK_FIX, why)


def _features(settings: Mapping[str, str]) -> Diagnosis:
    missing = {"flakes", "nix-command"} - set(settings.get("experimental-features", "").split())
    if missing:
        return Diagnosis(
            "nix",
            "experimental features",
            Health.WARNING,
            f"{' and '.join(sorted(missing))}: off, but for nix-seed's own calls",
            "for plain `nix build`: experimental-features = nix-command flakes in nix.conf",
        )
    return Diagnosis("nix", "experimental features", Health.FINE, "flakes nix-command")


def judge_engines(reasons: Mapping[str, str | None]) -> Iterator[Diagnosis]:
    """Judge engines by why each cannot be used (None: it can). One is enough."""
    usable = [name for name, reason in reasons.items() if reason is None]
    for name, reason in reasons.items():
        if reason is None:
            words = "usable" if name == "bwrap" else "started a container"
            yield Diagnosis("engines", name, Health.FINE, words)
            continue
        said, _, fix = reason.partition("; ")
        outcome = Health.WARNING if usable else Health.FALSE
        yield Diagnosis("engines", name, outcome, said, fix or _engine_fix(name, said))
    if not usable:
        said = "none can be used: `run`, `prove` and `doctor IMAGE` need one"
        yield Diagnosis("engines", "any", Health.FALSE, said, _INSTALL_ENGINE)


def _engine_fix(name: str, said: str) -> str:
    if "zstd" in said:
        return "install a newer Docker Engine, or build with --compressor gzip for this one"
    if "it starts no container" in said:
        variable = f"NIX_SEED_{name.upper()}_RUN_ARGS"
        return f"`{name} run` must work; options that it needs here go into {variable}"
    if name == "docker":
        return "start its daemon, or join the group docker; `docker version` must succeed"
    return f"`{name} info` must succeed"


Reading = tuple[str, timedelta]
"""How far this machine is ahead of a server, which is named."""


def judge_clock(readings: Sequence[Reading]) -> Diagnosis | None:
    """Judge this machine's clock by servers' own; None where none was read.

    The kindest reading counts: a server's clock may be the wrong one.
    """
    if not readings:
        return None
    source, skew = min(readings, key=lambda each: abs(each[1]))
    side = "ahead of" if skew > timedelta(0) else "behind"
    said = f"{round(abs(skew).total_seconds())} s {side} {source}"
    why = "certificates of keyless signers last ten minutes, tokens of registries five"
    health = Health.FALSE if abs(skew) > _SKEW_FALSE else Health.WARNING
    if abs(skew) <= _SKEW_WARNING:
        return Diagnosis("clock", "skew", Health.FINE, said, why=why)
    return Diagnosis("clock", "skew", health, said, "set the clock: timedatectl set-ntp true", why)


def judge_room(name: str, place: str, free: int, problem: str | None, variable: str) -> Diagnosis:
    """Judge whether there is room at *place*, for which *variable* names another.

    *free* are bytes. *problem* is why nothing can be written there, if so.
    """
    if problem is not None:
        said, fix = (
            f"{place} cannot be written to: {problem}",
            "choose a place that you may write to",
        )
        return Diagnosis("disk", name, Health.FALSE, said, f"{fix}: {variable}=DIR")
    said = f"{place}: {free / 1e9:.1f} GB free"
    if free >= _LITTLE_ROOM:
        return Diagnosis("disk", name, Health.FINE, said)
    health = Health.FALSE if free < _LEAST_ROOM else Health.WARNING
    fix = f"make room there, or choose another place: {variable}=DIR"
    return Diagnosis("disk", name, health, said, fix)
