"""Prepares a repository for seeds in CI: a workflow and a policy.

``plan_init`` reads and decides, ``carry_out`` writes: everything that the plan shows, or nothing.
``flake.nix`` is never written; ``flake_lines`` says what a person may add to it.

The CI configuration that ``nix-seed init`` writes; ``templates`` has its text.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import field, replace
from datetime import datetime, timedelta
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from nix_seed.core.errors import InputError, NixSeedError
from nix_seed.core.events import Stage, tell
from nix_seed.core.files import explained, unnamed
from nix_seed.core.values import dataclass
from nix_seed.flake.checkout import WorkingTree, read_repository
from nix_seed.flake.evaluate import declared_systems
from nix_seed.flake.nix import Nix
from nix_seed.setup.rules import init
from nix_seed.trust.rules.policy import Policy
from nix_seed.trust.rules.policy_file import parse_policy
from nix_seed.trust.rules.policy_template import PolicyTemplate
from nix_seed.trust.sigstore import PublicRoot, public_root

RUNNERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "x86_64-linux": "ubuntu-24.04",
        "aarch64-linux": "ubuntu-24.04-arm",
        "aarch64-darwin": "macos-15",
        "x86_64-darwin": "macos-15-intel",
    }
)
# The tags of gitlab.com's own runners. Those for macOS are not for everyone.
GITLAB_TAGS: Final[Mapping[str, str]] = MappingProxyType(
    {"x86_64-linux": "saas-linux-small-amd64", "aarch64-linux": "saas-linux-small-arm64"}
)


def render_ci(kind: init.ForgeKind, **values: Any) -> str:
    """Return the CI configuration for a forge of *kind*.

    GitHub's calls the reusable workflow of nix-seed at *ref*; GitLab's does the same by the same
    commands. *systems* are those of ``RUNNERS`` or ``GITLAB_TAGS`` to serve. *directory* is where
    in the repository the flake lies, *branch* the one that publishes.
    """
    from jinja2 import Environment, StrictUndefined

    # Its usual marks are GitHub's own.
    made = Environment(
        variable_start_string="<<",
        variable_end_string=">>",
        block_start_string="<%",
        block_end_string="%>",
        trim_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    made.filters |= {
        "json": lambda value: json.dumps(value, separators=(",", ":")),
        "runner": RUNNERS.__getitem__,
        "tag": GITLAB_TAGS.__getitem__,
    }
    text = (files("nix_seed.setup") / "templates" / f"{kind}.yml").read_text("utf-8")
    return made.from_string(text).render(ours=init.OURS, **values)


_LARGEST = 1 << 20
_FALLBACK = ("x86_64-linux", "aarch64-linux")


@dataclass(frozen=True, slots=True)
class InitRequest:
    """What to prepare: the flake in *directory*, for the nix-seed of *ref*.

    Without a *forge* the remote ``origin`` tells; without *systems* the flake does, and without a
    *branch*, the default one, Git. *policy* writes trust.toml, *force* replaces files that were
    changed.
    """

    directory: Path
    ref: str
    forge: init.ForgeKind | None = None
    systems: tuple[str, ...] = ()
    branch: str | None = None
    policy: bool = True
    force: bool = False


@dataclass(frozen=True, slots=True)
class InitPlan:
    """What would be written into *repository*; *notes* say what was assumed or left out."""

    repository: WorkingTree
    forge: init.Forge | None
    systems: tuple[str, ...]
    changes: tuple[init.FileChange, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def to_write(self) -> tuple[init.FileChange, ...]:
        """Those of the changes that write."""
        return tuple(each for each in self.changes if each.writes)


def plan_init(request: InitRequest, nix: Nix, now: datetime) -> InitPlan:
    """Decide what to write; nothing is written. ``InputError`` where there is no flake or no Git.

    What is there already and differs is kept.
    """
    init.check_ref(request.ref)
    repository = read_repository(request.directory)
    if request.branch is not None:
        repository = replace(repository, branch=init.check_branch(request.branch), assumed=False)
    source = read_text(repository.root / repository.prefix / "flake.nix")
    if source is None:
        raise InputError(
            f"there is no flake.nix in {request.directory}",
            hint="name the directory of the flake; `nix flake init` makes one",
        )
    forge = None if repository.origin is None else init.read_forge(repository.origin, request.forge)
    kind = request.forge or (forge.kind if forge else "github")
    notes = list(_about(repository, forge, request))
    tell(Stage("systems", "asking the flake for its systems"))
    runners = RUNNERS if kind == "github" else GITLAB_TAGS
    systems = _systems(request, nix, source, runners, notes)
    where = ".github/workflows/seed.yml" if kind == "github" else ".gitlab-ci.yml"
    prefix = repository.prefix.rstrip("/")
    asked = {"ref": request.ref, "branch": repository.branch, "systems": systems}
    wanted = {where: render_ci(kind, **asked, directory=prefix)}
    if request.policy and forge is not None:
        wanted |= _policy(repository, forge, request, systems, now, notes)
    changes = tuple(
        init.change_of(path, read_text(repository.root / path), text, force=request.force)
        for path, text in wanted.items()
    )
    return InitPlan(repository, forge, systems, changes, tuple(notes))


def read_text(path: Path) -> str | None:
    """Return the file's text, line ends as they are; None where there is no file."""
    with explained(f"reading {path}"):
        try:
            data = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
    try:
        return data[: _LARGEST + 1].decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text in UTF-8", hint="move it away") from error


def _about(
    repository: WorkingTree, forge: init.Forge | None, request: InitRequest
) -> Iterator[str]:
    if repository.assumed:
        yield f"the default branch is assumed to be {repository.branch}; --branch says otherwise"
    if (
        forge is not None
        and forge.kind == "github"
        and request.policy
        and init.is_assumed(request.ref)
    ):
        yield (
            f"{request.ref} is taken for a branch of nix-seed: trust.toml names "
            f"{init.full_ref(request.ref)}; for a tag give --ref refs/tags/{request.ref}"
        )
    if forge is not None:
        return
    what = "there is no remote origin"
    if repository.origin is not None:
        names = {"github": "GitHub's", "gitlab": "GitLab's", None: "GitHub's or GitLab's"}
        what = f"the remote origin, {repository.origin}, is not known for {names[request.forge]}"
    if request.forge is None:
        yield f"{what}: the workflow is GitHub's; --github or --gitlab says which it is"
    if request.policy:
        hint = "git remote add origin URL, and then again"
        yield f"{what}: trust.toml is left out, for it names who builds ({hint})"


def _systems(
    request: InitRequest, nix: Nix, source: str, runners: Mapping[str, str], notes: list[str]
) -> tuple[str, ...]:
    for system in request.systems:
        if system not in runners:
            raise InputError(
                f"there is no runner for {system}", hint=f"there are: {', '.join(runners)}"
            )
    found = request.systems
    if not found:
        try:
            found = declared_systems(nix, str(request.directory.absolute()))
        except NixSeedError as error:
            found = tuple(system for system in RUNNERS if f'"{system}"' in source) or _FALLBACK
            notes.append(
                f"the flake could not be asked for its systems ({error.message}): "
                f"{', '.join(found)} assumed; --system says otherwise"
            )
    served = tuple(system for system in runners if system in found)
    left = [system for system in found if system not in served]
    if left and served:
        notes.append(f"there are no runners for {', '.join(left)}: left out")
    if not served:
        raise InputError(
            f"the flake is for {', '.join(found) or 'no system'}, which no runner is for",
            hint=f"there are runners for {', '.join(runners)}",
        )
    return served


def _policy(
    repository: WorkingTree,
    forge: init.Forge,
    request: InitRequest,
    systems: tuple[str, ...],
    now: datetime,
    notes: list[str],
) -> dict[str, str]:
    """Return the policy and the trusted root that it names."""
    path, beside = f"{repository.prefix}trust.toml", f"{repository.prefix}trusted_root.json"
    old, old_root = read_text(repository.root / path), read_text(repository.root / beside)
    root = _root(old_root) or public_root()
    workflow = init.workflow_of(forge, request.ref, repository.branch)
    known = _parsed(old, path, now)
    before = init.keep_before(known, workflow)
    if before.workflow is not None and request.force:
        ref = before.workflow.subject.partition("@")[2]
        notes.append(
            f"trust.toml also trusts nix-seed at {ref}, as before, for the seeds that there are: "
            f"take out {init.BEFORE} after the first release"
        )
    text = PolicyTemplate(
        repository=None,
        source=forge.url,
        systems=systems,
        keys=(),
        # Doing it again must change nothing.
        expires=known.expires if known is not None else now + timedelta(days=365),
        workflows=[workflow],
        rekor_key=root.rekor_key,
        epoch=before.epoch,
        accepts=before.accepts,
        before=before.workflow,
    ).render()
    parse_policy(text.encode(), path, now)
    return {path: text, beside: root.text}


def _parsed(text: str | None, path: str, now: datetime) -> Policy | None:
    """Return the policy that lies there; None where there is none that is good."""
    try:
        return None if text is None else parse_policy(text.encode(), path, now)
    except InputError:
        return None


def _root(text: str | None) -> PublicRoot | None:
    """Return the root that lies there already: Sigstore's own changes, and both are good."""
    if text is None:
        return None
    try:
        return PublicRoot.of(json.loads(text), text)
    except (ValueError, KeyError, TypeError):
        return None


def flake_lines(ref: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return what to add to flake.nix to set options of ``mkSeed``: places, each with lines."""
    return (
        ("to the flake's inputs", (f'nix-seed.url = "github:{init.OURS}/{ref}";',)),
        (
            "there too, if nixpkgs is an input",
            ('nix-seed.inputs.nixpkgs.follows = "nixpkgs";',),
        ),
        ("to the arguments of outputs", ("self", "nix-seed")),
        (
            "to packages.<system>, for each system",
            ("seed = nix-seed.lib.mkSeed { inherit self system; };",),
        ),
    )


def carry_out(plan: InitPlan) -> None:
    """Write *plan*, all of it or nothing; ``InputError`` where a file changed since."""
    root = plan.repository.root
    with ExitStack() as undo:
        for change in plan.to_write:
            if read_text(root / change.path) != change.before:
                raise InputError(
                    f"{change.path} was changed meanwhile", hint="nothing was written: try again"
                )
            path = _target(root, change.path)
            for directory in reversed([each for each in path.parents if not each.exists()]):
                with explained(f"making {directory}"):
                    directory.mkdir()
                undo.callback(directory.rmdir)
            undo.callback(_take_back, path, change.before)
            _write(path, change.after)
        undo.pop_all()


def _target(root: Path, path: str) -> Path:
    """Return the file to write, past symlinks, which may not lead out of the repository."""
    target = (root / path).resolve()
    if not target.is_relative_to(root.resolve()):
        raise InputError(
            f"{path} lies outside of the repository, at {target}",
            hint="nothing was written: a symlink leads there",
        )
    return target


def _write(path: Path, text: str) -> None:
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
    with unnamed(path.parent, f"writing {path}") as file:
        file.write(text.encode())
        file.keep(path, mode)


def _take_back(path: Path, before: str | None) -> None:
    if before is not None:
        _write(path, before)
    else:
        path.unlink(missing_ok=True)
