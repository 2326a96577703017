"""Credentials, from where people already keep them.

In this order, the first that has an entry wins:

1. what was given on the command line; only for the registries that are named there, if any is:
   a checkout's ``seed.lock`` names others;
2. ``NIX_SEED_REGISTRY_USERNAME`` and ``NIX_SEED_REGISTRY_PASSWORD``, or
   ``NIX_SEED_REGISTRY_TOKEN``; only for the host in ``NIX_SEED_REGISTRY``, if that is set;
3. podman's ``auth.json`` (containers-auth.json(5)) and Docker's ``config.json``: ``credHelpers``,
   ``auths``, ``credsStore``;
4. ``DOCKER_AUTH_CONFIG``, which holds such a file (GitLab CI, Docker 28);
5. in a job of github.com, ``GITHUB_TOKEN`` for ghcr.io.

No secret is ever shown: they are left out of every ``repr``, message and event.
"""

import base64
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from nix_seed.core.errors import CouldNotCheck, InputError
from nix_seed.core.values import dataclass

_DOCKER_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")
_HELPER_SECONDS = 60
_RUN = "/run/containers"
_AUTH_FILE = "containers/auth.json"
_VARIABLE = "DOCKER_AUTH_CONFIG"
_PREFIX = "NIX_SEED_REGISTRY"


@dataclass(frozen=True, slots=True)
class Credential:
    """Who we are to a registry; ``source`` says where that was found.

    ``identity_token`` is an OAuth2 refresh token, ``bearer`` a token to be sent as it is.
    """

    source: str
    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str | None = field(default=None, repr=False)
    bearer: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{self.username or 'a token'} (from {self.source})"

    def basic(self) -> str:
        """Return the ``Authorization`` header of RFC 7617."""
        pair = f"{self.username}:{self.password}".encode()
        return "Basic " + base64.b64encode(pair).decode()


Helper = Callable[[str, str], bytes | None]


@dataclass(frozen=True, slots=True)
class Keyring:
    """Finds credentials. *environ* and *home* are the process's.

    *given* is the command line's, and is for the registries *given_for* (empty: for any).
    """

    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    home: Path | None = None
    given: Credential | None = None
    helper: Helper | None = None
    given_for: frozenset[str] = frozenset()

    def find(self, registry: str, repository: str) -> Credential | None:
        """Return the credential for *repository* of *registry* (``host[:port]``), None if none."""
        if self.given is not None and (not self.given_for or registry in self.given_for):
            return self.given
        return (
            _from_environment(self.environ, registry)
            or self._from_configs(registry, repository)
            or _from_github(self.environ, registry)
        )

    def registries(self) -> tuple[str, ...]:
        """Return what the user's files have entries for, sorted, as they name it."""
        found: set[str] = set()
        for path in self._files():
            config = _read(path)
            for name in ("auths", "credHelpers"):
                found |= {_normal(key) for key in _object(config, name, str(path))}
        return tuple(sorted(found))

    def _from_configs(self, registry: str, repository: str) -> Credential | None:
        for path in self._files():
            if found := self._from_config(_read(path), str(path), registry, repository):
                return found
        text = self.environ.get(_VARIABLE)
        config = _parse(text, _VARIABLE) if text else {}
        return self._from_config(config, _VARIABLE, registry, repository)

    def _files(self) -> Iterator[Path]:
        if given := self.environ.get("REGISTRY_AUTH_FILE"):
            yield Path(given)
            return
        # Whoever logs in without a session's directory (root, above all) has it in /run.
        if runtime := self._xdg("XDG_RUNTIME_DIR"):
            yield Path(runtime, _AUTH_FILE)
        # There it is root's where root ran podman, and nobody else can have logged in.
        elif self.home and os.access(f"{_RUN}/{os.getuid()}", os.X_OK):
            yield Path(_RUN, str(os.getuid()), "auth.json")
        config = self._xdg("XDG_CONFIG_HOME") or (self.home and self.home / ".config")
        if config:
            yield Path(config, _AUTH_FILE)
        docker = self.environ.get("DOCKER_CONFIG") or (self.home and self.home / ".docker")
        if docker:
            yield Path(docker, "config.json")

    def _xdg(self, name: str) -> str | None:
        """Return a directory; a relative one is none (XDG Base Directory Specification)."""
        value = self.environ.get(name, "")
        return value if value.startswith("/") else None

    def _from_config(
        self, config: dict[str, Any], path: str, registry: str, repository: str
    ) -> Credential | None:
        helpers, entry = _object(config, "credHelpers", path), _object(config, "auths", path)
        for key in _keys(registry, repository):
            named = next((name for name in helpers if _normal(name) == key), None)
            helper = None if named is None else _text(helpers, named, path)
            if helper is not None:
                return self._ask(helper, named or key, path)
            match = next((name for name in entry if _normal(name) == key), None)
            # `docker login` leaves an empty entry behind where a helper holds the secret.
            if match is not None and (found := _from_entry(entry[match], f"{path}, {key}")):
                return found
        store = _text(config, "credsStore", path)
        server = "https://index.docker.io/v1/" if registry in _DOCKER_HUB else registry
        return None if store is None else self._ask(store, server, path)

    def _ask(self, name: str, server: str, path: str) -> Credential | None:
        if not _HELPER.match(name):
            raise InputError(f"{path}: {name!r} is no name of a credential helper")
        answer = (self.helper or run_helper)(name, server)
        if answer is None:
            return None
        source = f"docker-credential-{name}"
        try:
            value = json.loads(answer)
            username, secret = str(value["Username"]), str(value["Secret"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            # The answer holds a secret: no part of it is repeated here.
            raise CouldNotCheck(f"{source} answered what is not its protocol") from error
        if username == "<token>":
            return Credential(source, identity_token=secret)
        return Credential(source, username, secret)


def run_helper(name: str, server: str) -> bytes | None:
    """Ask ``docker-credential-NAME get``; None if it knows nothing of *server*."""
    program = f"docker-credential-{name}"
    try:
        done = subprocess.run(
            [program, "get"],
            input=server.encode(),
            capture_output=True,
            timeout=_HELPER_SECONDS,
            check=False,
        )
    except FileNotFoundError as error:
        raise InputError(
            f"the credential helper {program} is configured, but not on PATH",
            hint="install it, or remove it from Docker's config.json",
        ) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CouldNotCheck(f"{program} did not answer: {error}") from error
    if done.returncode == 0:
        return done.stdout
    # The protocol tells "unknown server" from a failure by this text on standard output only.
    if b"credentials not found" in done.stdout:
        return None
    raise CouldNotCheck(
        f"{program} failed with exit code {done.returncode} for {server}",
        hint=f"see what it says: echo {server} | {program} get",
    )


def _from_environment(environ: Mapping[str, str], registry: str) -> Credential | None:
    if environ.get(_PREFIX, registry) != registry:
        return None
    source = "the environment"
    token = environ.get(f"{_PREFIX}_TOKEN")
    username = environ.get(f"{_PREFIX}_USERNAME")
    password = environ.get(f"{_PREFIX}_PASSWORD")
    if username and password:
        return Credential(source, username, password)
    if username or password:
        raise InputError(f"set both {_PREFIX}_USERNAME and {_PREFIX}_PASSWORD, or neither")
    return Credential(source, bearer=token) if token else None


def _from_github(environ: Mapping[str, str], registry: str) -> Credential | None:
    token = environ.get("GITHUB_TOKEN")
    # Other forges (GHES, Gitea, Forgejo) set the same variables: only the server tells whose it is.
    ours = environ.get("GITHUB_SERVER_URL") == "https://github.com"
    if registry != "ghcr.io" or not token or environ.get("GITHUB_ACTIONS") != "true" or not ours:
        return None
    return Credential("GITHUB_TOKEN", environ.get("GITHUB_ACTOR") or "x-access-token", token)


def _keys(registry: str, repository: str) -> Iterator[str]:
    """Yield what a file may call it, the most exact first (containers-auth.json(5))."""
    parts = repository.split("/")
    for length in range(len(parts), 0, -1):
        yield "/".join([registry, *parts[:length]])
    yield from _DOCKER_HUB if registry in _DOCKER_HUB else (registry,)


def _normal(key: str) -> str:
    """Docker's keys may be addresses: ``https://index.docker.io/v1/``."""
    bare = key.lower().removeprefix("https://").removeprefix("http://")
    return re.sub(r"/v[12]/?\Z", "", bare).rstrip("/")


def _from_entry(entry: Any, where: str) -> Credential | None:
    if not isinstance(entry, dict):
        raise InputError(f"{where}: an object is wanted")
    if entry.get("identitytoken"):
        return Credential(where, identity_token=str(entry["identitytoken"]))
    if entry.get("registrytoken"):
        return Credential(where, bearer=str(entry["registrytoken"]))
    if entry.get("username") and entry.get("password"):
        return Credential(where, str(entry["username"]), str(entry["password"]))
    if not entry.get("auth"):
        return None
    try:
        pair = base64.b64decode(str(entry["auth"]), validate=True).decode()
    except ValueError as error:
        raise InputError(f"{where}: auth is not base64 of user:password") from error
    username, colon, password = pair.rstrip("\0").partition(":")
    if not colon:
        raise InputError(f"{where}: auth is not base64 of user:password")
    return Credential(where, username, password)


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}",
            hint="let this user read it, set HOME to a directory of this user's, or name another"
            " file in REGISTRY_AUTH_FILE",
        ) from error
    # One that was made and never written to, as by a mount of nothing, holds no logins.
    return _parse(text, str(path)) if text.strip() else {}


def _parse(text: bytes | str, path: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        # The parser's message quotes the text, which holds secrets.
        raise InputError(f"{path} is not valid JSON", hint="mend it, or log in anew") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: an object is wanted")
    return value


def _object(config: dict[str, Any], key: str, path: str) -> dict[str, Any]:
    value = config.get(key) or {}
    if not isinstance(value, dict):
        raise InputError(f"{path}: {key} must be an object")
    return value


def _text(config: dict[str, Any], key: str, path: str) -> str | None:
    value = config.get(key)
    if value is not None and not isinstance(value, str):
        raise InputError(f"{path}: {key} must be a string")
    return value or None
