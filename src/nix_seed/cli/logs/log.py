"""``nix-seed log``: serve, show and check a log of tiles."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from nix_seed.cli.command import DIRECTORY, PORT, argument, option, seed_group, serve
from nix_seed.cli.lazily import lazily
from nix_seed.cli.options import json_option, state_directory
from nix_seed.cli.say import answer, manner, say
from nix_seed.core.files import read_given_text
from nix_seed.core.words import plural

with lazily():
    from nix_seed.formats.tlog import note
    from nix_seed.logs import embedded, log as logs, open as readers, server as servers


@seed_group("log")
def command() -> None:
    """Keep a transparency log of tiles in a directory; read and check any.

    PLACE is the directory of such a log, or the address that its files are served below: for
    Rekor v2 and 'nix-seed log serve' that is https://HOST/api/v2.
    """


key_option = option("--key VKEY", "The log's verifier key [PLACE/log.vkey]; or a file of it.")


@command.command("serve", short_help="Take entries as Rekor v2 does, and serve the log's files.")
@argument("directory", type=DIRECTORY)
@option("--origin NAME", "A new log's name, such as example.com/log.")
@option("--host", "Address to listen on.", default="127.0.0.1")
@option("--port PORT", "Port; 0 takes any that is free.", type=PORT, default=7080)
@option("-q, --quiet", "Do not report requests.")
def _serve(directory: Path, origin: str | None, host: str, port: int, quiet: bool) -> None:
    """Serve the log in DIRECTORY, making it if there is none.

    Anyone who reaches the address may append. Several processes may serve and append to one
    directory. DIRECTORY/public may as well be served by any web server, for reading.
    """
    log = embedded.EmbeddedLog.create(directory, origin)
    server = servers.LogServer(log, host, port, (lambda *_: None) if quiet else _report)
    say(f"log:     {log.trusted.origin}")
    say(f"key:     {log.trusted.key}")
    say(f"entries: {log.checkpoint().head.size}")
    say(f"serving: {server.url}")
    # The entry being written is finished then, or has not happened.
    serve(server.run)


def _report(method: str, path: str, status: int) -> None:
    shown = "".join(c if c.isprintable() else "?" for c in path[:200])
    say(f"{method} {shown} {status}", err=True)


@command.command("show", short_help="Show a log's checkpoint and entries.")
@argument("place")
@argument("index", type=int, required=False)
@key_option
@option("--last N", "Entries to list.", default=10)
@json_option
def _show(place: str, index: int | None, key: str | None, last: int) -> None:
    """Show the newest checkpoint of the log at PLACE and its last entries, or the entry INDEX.

    What is shown has been proved to be in the log.
    """
    reader = _reader(place, key)
    signed = reader.checkpoint()
    size = signed.head.size
    if index is not None:
        say(reader.entry(index, signed).to_json(), indent=None if manner().json else 2)
        return
    entries = list(reader.entries(signed, max(0, size - max(0, last))))
    value = _checkpoint_json(reader, size, signed.head.root)
    lines = signed.dump().decode().splitlines()
    for entry in entries:
        leaf = hashlib.sha256(b"\0" + entry.body).hexdigest()
        lines.append(f"{entry.index:6}  {entry.kind} {entry.version}  leaf {leaf[:16]}…")
    answer(value | {"entries": [entry.to_json() for entry in entries]}, lines)


@command.command("check", short_help="Recompute a whole log; has it kept what it showed before?")
@argument("place")
@key_option
@option("--no-remember", "Neither compare with earlier checks nor keep.")
@json_option
def _check(place: str, key: str | None, no_remember: bool) -> None:
    """Read every entry and tile of the log at PLACE and recompute its root.

    The checkpoint is compared with the last one seen: a log that rolled back, forked or shows
    different trees to different readers is named as such (exit 1).
    """
    reader = _reader(place, key)
    state = None if no_remember else logs.CheckpointState(state_directory() / "checkpoints")
    report = logs.check_log(reader, state)
    head = report.signed.head
    history = report.history.history.value if report.history else "first seen"
    value = _checkpoint_json(reader, head.size, head.root)
    entries = plural(head.size, "entry", "entries")
    lines = [
        f"{reader.trusted.origin}: whole, {entries}, {plural(report.tiles, 'tile')}",
        *(f"  {number:6} {kind}" for kind, number in report.kinds),
        f"since the last check: {'not remembered' if no_remember else history}",
    ]
    answer(value | {"history": history, "kinds": dict(report.kinds)}, lines)


def _reader(place: str, key: str | None) -> logs.TileReader:
    if key is not None and "+" not in key:
        key = read_given_text(Path(key)).strip()
    return readers.open_reader(place, note.NoteKey.parse(key) if key is not None else None)


def _checkpoint_json(reader: logs.TileReader, size: int, root: bytes) -> dict[str, Any]:
    return {"origin": reader.trusted.origin, "size": size, "root": root.hex()}
