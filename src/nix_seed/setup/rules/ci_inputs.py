"""What the inputs of a CI step mean, which are text, and whether its job may publish.

What a pull request brings is somebody's proposal: it is built, and never published, whatever token
the job was given. What started the job decides, as the CI service says, and nothing else. Only
events on an allow list publish, so one that is new here does not.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

from nix_seed.core import canonical_json
from nix_seed.core.errors import InputError
from nix_seed.core.safe_text import split_address
from nix_seed.core.values import dataclass
from nix_seed.formats.intoto.statement import is_commit
from nix_seed.formats.oci.reference import Reference, check_tag

Host = Literal["github", "gitlab", "other"]

# GitHub's events that only who may write to the repository, or its own clock, can cause.
_GITHUB_TRUSTED = frozenset(
    {"push", "schedule", "workflow_dispatch", "repository_dispatch", "release"}
)
_GITHUB_PULLS = frozenset({"pull_request", "pull_request_target", "merge_group"})
_GITLAB_TRUSTED = frozenset({"push", "web", "schedule", "api", "trigger", "pipeline", "chat"})
_GITLAB_PULLS = ("CI_MERGE_REQUEST_IID", "CI_EXTERNAL_PULL_REQUEST_IID")
# What other services set for a pull request, and for nothing else (or to "false").
_OTHER_PULLS = (
    "APPVEYOR_PULL_REQUEST_NUMBER",
    "BITBUCKET_PR_ID",
    "BUILDKITE_PULL_REQUEST",
    "CHANGE_ID",
    "CIRCLE_PULL_REQUEST",
    "CIRRUS_PR",
    "DRONE_PULL_REQUEST",
    "SEMAPHORE_GIT_PR_NUMBER",
    "SYSTEM_PULLREQUEST_PULLREQUESTID",
    "TRAVIS_PULL_REQUEST",
    "CI_COMMIT_PULL_REQUEST",
)
# Its pushes run with a token that may only read, so that what it brings in cannot write.
_READ_ONLY_ACTORS = frozenset({"dependabot[bot]"})


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether the job may *publish*, and *why* not, in a sentence for people.

    *release*: nothing says that it is about another branch than the default one, so ``latest`` may
    move, if the forge itself says that this commit is on that branch. *repository* (``owner/name``)
    and *commit* (hex) are what the service says it is about, where it does.
    """

    host: Host
    publish: bool
    why: str
    release: bool
    repository: str | None = None
    commit: str | None = None


def host_of(environ: Mapping[str, str]) -> Host:
    """Return whose job this is."""
    if environ.get("GITHUB_ACTIONS") == "true":
        return "github"
    return "gitlab" if environ.get("GITLAB_CI") == "true" else "other"


def evaluate_event(environ: Mapping[str, str], event: Any = None) -> Decision:
    """Decide from the job's environment and, on GitHub, the *event* (the JSON of its payload).

    A payload that is malformed or missing never makes a job more trusted.
    """
    host = host_of(environ)
    if host == "github":
        return _github(environ, event if isinstance(event, dict) else {})
    return _gitlab(environ) if host == "gitlab" else _other(environ)


def why_unknown(decision: Decision, source: str | None) -> str | None:
    """Return why a policy need not know the identity of this job; None where it must.

    A certificate names the repository, and on some services the branch as well. A policy of the
    repository at *source* cannot know its forks, nor all of its branches. The default branch's it
    must know, or nothing would ever be released.
    """
    if decision.repository is not None and source is not None:
        known = split_address(source).path.strip("/")
        if known.lower() != decision.repository.lower():
            return f"the policy is of {known}, and this is a job of {decision.repository}"
    return None if decision.release else "this is not a job of the default branch"


def _github(environ: Mapping[str, str], event: Mapping[str, Any]) -> Decision:
    name = environ.get("GITHUB_EVENT_NAME", "")
    repository = environ.get("GITHUB_REPOSITORY") or None
    refused = _github_refusal(name, repository, environ.get("GITHUB_ACTOR", ""), event)
    return Decision(
        host="github",
        publish=refused is None,
        why=refused or f"the event {name} of {repository} may publish",
        release=refused is None and _is_default_branch(name, environ, event),
        repository=repository,
        commit=environ.get("GITHUB_SHA") or None,
    )


def _github_refusal(
    name: str, repository: str | None, actor: str, event: Mapping[str, Any]
) -> str | None:
    if name in _GITHUB_PULLS or "pull_request" in event:
        fork = _text(event, "pull_request", "head", "repo", "full_name")
        if name != "merge_group" and fork != repository:
            return f"a pull request from {fork or 'a fork'} has no secrets, and never publishes"
        return "a pull request is not merged yet, and never publishes"
    if name == "workflow_run":
        return _workflow_run_refusal(repository, event)
    if name not in _GITHUB_TRUSTED:
        return f"events of the kind {name or '(none)'} never publish"
    if actor in _READ_ONLY_ACTORS:
        return f"jobs that {actor} started have a token that may only read"
    return None


def _workflow_run_refusal(repository: str | None, event: Mapping[str, Any]) -> str | None:
    """It runs with the default branch's rights after another run, which may have been a fork's."""
    first = _text(event, "workflow_run", "event")
    origin = _text(event, "workflow_run", "head_repository", "full_name")
    if repository is None or origin != repository:
        return f"a run after one for {origin or 'a fork'} never publishes"
    if first not in _GITHUB_TRUSTED:
        return f"a run after one for the event {first or '(none)'} never publishes"
    return None


def _is_default_branch(name: str, environ: Mapping[str, str], event: Mapping[str, Any]) -> bool:
    if name == "schedule":
        return True
    branch = _text(event, "repository", "default_branch")
    ref = environ.get("GITHUB_REF", "")
    if branch is None:
        return ref in ("refs/heads/main", "refs/heads/master")
    return ref == f"refs/heads/{branch}"


def _gitlab(environ: Mapping[str, str]) -> Decision:
    source = environ.get("CI_PIPELINE_SOURCE", "")
    branch = environ.get("CI_COMMIT_BRANCH")
    if any(environ.get(name) for name in _GITLAB_PULLS) or "request" in source:
        refused = "a merge request is not merged yet, and never publishes"
    elif source in _GITLAB_TRUSTED or environ.get("CI_COMMIT_REF_PROTECTED") == "true":
        refused = ""
    else:
        refused = f"pipelines of the kind {source or '(none)'} never publish"
    return Decision(
        host="gitlab",
        publish=not refused,
        why=refused or f"pipelines of the kind {source} may publish",
        release=not refused and bool(branch) and branch == environ.get("CI_DEFAULT_BRANCH"),
        repository=environ.get("CI_PROJECT_PATH") or None,
        commit=environ.get("CI_COMMIT_SHA") or None,
    )


def _other(environ: Mapping[str, str]) -> Decision:
    found = [n for n in _OTHER_PULLS if environ.get(n, "").lower() not in ("", "0", "false")]
    if environ.get("CI_PIPELINE_EVENT", "").startswith("pull_request"):
        found.append("CI_PIPELINE_EVENT")
    why = f"{found[0]} says that this is a pull request, which never publishes" if found else ""
    return Decision("other", not found, why or "nothing says that this is a pull request", True)


def _text(value: Any, *names: str) -> str | None:
    """Return the text at a path of members, None where any of it is absent or of another type."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, str) and value else None


LATEST: Final = "latest"
_SEPARATORS = re.compile(r"[\s,]+")
_LINES = re.compile(r"[,\n]")
_SYSTEM = re.compile(r"[a-z0-9_]+-[a-z0-9]+\Z")
_GHCR = "ghcr.io"
# On GitHub a package lies beside the repository, on GitLab inside of it.
_NAMES = {"github": "{}-seed", "gitlab": "{}/seed"}


def parse_seed_attr(text: str) -> tuple[str, str | None]:
    """Read ``.#seed``, ``sub/dir#attribute``, ``#attribute`` or ``attribute``.

    Returns the flake's directory below its start, and its attribute; None is ``seed``, if there.
    """
    directory, hash_sign, attr = text.strip().rpartition("#")
    if not hash_sign and (attr.startswith((".", "/")) or "/" in attr):
        directory, attr = attr, ""
    if ":" in directory:
        raise InputError(
            f"seed_attr {text!r} names a flake that is not in the checkout",
            hint="what is published is the commit checked out: name a directory of it, .#seed",
        )
    return directory or ".", None if attr in ("", "seed") else attr


def parse_list(text: str, separators: re.Pattern[str] = _SEPARATORS) -> tuple[str, ...]:
    """Read what spaces, commas or lines separate, or a JSON list of texts; each once."""
    stripped = text.strip()
    if stripped.startswith("["):
        try:
            found = canonical_json.loads(stripped.encode(), label="a list")
        except (InputError, UnicodeEncodeError) as error:
            raise InputError(f"{_shown(text)} begins as a JSON list, and is none") from error
        if not all(isinstance(each, str) for each in found):
            raise InputError(f"{_shown(text)}: a list of texts is wanted")
        return tuple(dict.fromkeys(each.strip() for each in found if each.strip()))
    found = (each.strip() for each in separators.split(stripped))
    return tuple(dict.fromkeys(each for each in found if each))


def parse_names(text: str) -> tuple[str, ...]:
    """Read names that may have spaces in them: commas and lines separate."""
    return parse_list(text, _LINES)


def parse_tags(text: str) -> tuple[str, ...]:
    """Read tags; ``InputError`` for what can be none."""
    tags = parse_list(text)
    for tag in tags:
        check_tag(tag, "tags")
    return tags


def split_index_tags(tags: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Divide *tags* in those that may name anything, and those of a promoted index alone.

    These are ``latest``, and every commit.
    """
    held = tuple(tag for tag in tags if tag == LATEST or is_commit(tag))
    return tuple(tag for tag in tags if tag not in held), held


def parse_systems(text: str) -> tuple[str, ...]:
    """Read Nix systems, sorted; ``InputError`` for what can be none."""
    systems = parse_list(text)
    for system in systems:
        if not _SYSTEM.match(system):
            raise InputError(
                f"{_shown(system)} is no Nix system", hint="such as x86_64-linux, aarch64-darwin"
            )
    return tuple(sorted(systems))


def parse_switch(text: str, name: str) -> bool:
    """Read ``true`` or ``false``; nothing is false."""
    value = text.strip().lower()
    if value not in ("", "true", "false"):
        raise InputError(f"{name} is {_shown(text)}, neither true nor false")
    return value == "true"


def repository_of(
    image: str, registry: str, decision: Decision, environ: Mapping[str, str]
) -> Reference:
    """Return the repository of the seeds: the *image* named, or the CI job's project's own.

    *image* may name its registry as well; *registry* is for one that does not. Registries take
    lower case only, while repositories may be called anything.
    """
    host = registry.strip() or environ.get("CI_REGISTRY", "") or _GHCR
    name = image.strip()
    if "://" in host:
        bare = host.partition("://")[2].rstrip("/")
        raise InputError(
            f"registry is {_shown(host)}, and a registry's name has no scheme",
            hint=f"write registry: {bare}",
        )
    if not name:
        if decision.repository is None:
            raise InputError(
                "the repository of the seeds is not named",
                hint="name it: image (SEED_IMAGE), such as owner/name",
            )
        name = _NAMES[decision.host].format(decision.repository)
    first, slash, _ = name.partition("/")
    names_host = bool(slash) and ("." in first or ":" in first or first == "localhost")
    found = Reference.parse(name.lower() if names_host else f"{host}/{name.lower()}")
    if found.tag is not None or found.digest is not None:
        raise InputError(f"image {name} names a tag or digest", hint="name the repository alone")
    return found


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:80]}…")
