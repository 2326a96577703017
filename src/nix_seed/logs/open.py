"""Opens a log by its kind and place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nix_seed.core.errors import CouldNotCheck, InputError
from nix_seed.formats.tlog.note import NoteKey
from nix_seed.logs.log import DirectorySource, Log, TileReader, read_key_of_log
from nix_seed.logs.rules.entry import TrustedLog

if TYPE_CHECKING:
    from nix_seed.logs.rekor import RekorV1, RekorV2
    from nix_seed.registry.errors import Patience


def open_log(trusted: TrustedLog, place: str) -> Log:
    """Return the log *trusted* at *place*: an address, or the directory of an embedded log.

    ``CouldNotCheck`` where there is no log in the directory; an address is not asked yet.
    """
    if "://" not in place:
        from nix_seed.logs.embedded import EmbeddedLog

        directory = Path(place)
        if not (directory / "log.vkey").is_file():
            # Not wrong input: the policy is right, and what it names is not there now.
            raise CouldNotCheck(
                f"there is no log in {directory}",
                hint=f"is it somewhere else now? 'nix-seed log serve {directory}' makes a new one",
            )
        log = EmbeddedLog.open(directory)
        if log.trusted.key != trusted.key:
            raise InputError(
                f"the log in {directory} is {log.trusted.origin}, not {trusted.origin}",
                hint="their keys differ: name another directory, or correct the policy",
            )
        return log
    return _served(trusted, place, None)


def open_history(
    trusted: TrustedLog, place: str, *, patience: Patience | None = None
) -> RekorV1 | TileReader:
    """Return what can be asked about the log *trusted* at *place* by those who only read it.

    *place* is an address or a directory, as a policy has it; a directory takes no private key.
    """
    if "://" not in place:
        return TileReader(trusted, _files(Path(place)))
    return _served(trusted, place, patience)


def _served(trusted: TrustedLog, place: str, patience: Patience | None) -> RekorV1 | RekorV2:
    from nix_seed.logs.rekor import LogHttp, RekorV1, RekorV2

    http = LogHttp(place, patience=patience)
    if trusted.kind == "rekor-v1":
        return RekorV1(trusted, place, http=http)
    return RekorV2(trusted, place, http=http)


def open_reader(place: str, key: NoteKey | None) -> TileReader:
    """Return a reader of the tile log at *place*, an address or a directory, for checking it.

    A directory is an embedded log's own, or a copy of what one publishes; *key* may be left out
    only where ``log.vkey`` lies there.
    """
    if "://" in place:
        from nix_seed.logs.rekor import HttpSource, LogHttp

        if key is None:
            raise InputError(
                f"checking the log at {place} takes its verifier key",
                hint="name it with --key; an embedded log has it in its file log.vkey",
            )
        return TileReader(trusted_by(key), HttpSource(LogHttp(place)))
    directory = Path(place)
    if not directory.is_dir():
        raise InputError(f"{place} is neither a directory nor an address", hint=_PLACES)
    path = directory / "log.vkey"
    if key is None and not path.is_file():
        raise InputError(
            f"there is no log.vkey in {directory}", hint="name the log's verifier key with --key"
        )
    return TileReader(trusted_by(key or read_key_of_log(path)), _files(directory))


def _files(directory: Path) -> DirectorySource:
    """Return the files of an embedded log's directory, or of a copy of what one publishes."""
    public = directory / "public"
    return DirectorySource(public if public.is_dir() else directory)


def trusted_by(key: NoteKey) -> TrustedLog:
    """Return the tile log that *key* signs for, called by its origin."""
    return TrustedLog(key.name, "tiles", key.name, key)


_PLACES = "name the directory of an embedded log, or the https:// address of a log"
