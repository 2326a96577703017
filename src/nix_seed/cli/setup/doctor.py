"""``nix-seed doctor``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from nix_seed.cli import options as shared
from nix_seed.cli.command import argument, exit_with, option, progress, seed_command
from nix_seed.cli.lazily import lazily
from nix_seed.cli.say import LEAST, columns, hanging, manner, say, say_styled
from nix_seed.core.files import cache_directory
from nix_seed.core.processes import current_system
from nix_seed.core.safe_text import safe_line
from nix_seed.core.words import plural
from nix_seed.formats.oci.reference import parse_reference
from nix_seed.setup.rules.diagnosis import Diagnosis, Health, exit_code

with lazily():
    from nix_seed.registry import transfer
    from nix_seed.setup import doctor, doctor_image


# Yellow letters are not legible on a light terminal.
_STYLES: dict[str, dict[str, Any]] = {
    "fine": {"fg": "green"},
    "warning": {"fg": "black", "bg": "yellow"},
    "false": {"fg": "red"},
    "not checked": {"fg": "magenta"},
}
_WAYS = ["bwrap", "podman", "docker", "github"]


@seed_command("doctor")
@argument("image", "[IMAGE]", required=False)
@option(
    "--engine",
    "Replay IMAGE's contract with this only; github: as its runner does, by Docker [all].",
    into="ways",
    multiple=True,
    type=click.Choice(_WAYS),
)
@shared.policy_option("Ask the logs of this policy [trust.toml, if there].", default=None)
@option(
    "--registry HOST",
    "This registry must answer, and have credentials; may be repeated.",
    into="registries",
    multiple=True,
)
@option("--system SYSTEM", "Which image of an index [this machine's].")
@shared.store_option
@option("-v, --verbose", "Show what is fine with all it said, too.")
@shared.registry_options
@shared.json_option
def command(image: str | None, verbose: bool, **options: Any) -> None:
    """Check this machine's set-up; or, inside IMAGE, all that it must do to be built in.

    Every failure comes with its fix; nothing is changed. Exit 0: all is well, or only warnings.
    1: something was checked and is false. 3: something could not be checked.
    """
    if image is None and (options["ways"] or options["system"]):
        raise click.UsageError("--engine and --system are for an IMAGE")
    with progress(quiet=True):
        found = _machine(options) if image is None else _image(image, options)
    code = exit_code(found)
    if manner().json:
        diagnoses = [each.to_json() for each in found]
        say({"image": image, "diagnoses": diagnoses, "counts": _counts(found), "exitCode": code})
    else:
        say_styled("\n".join(_lines(found, verbose)))
    exit_with(code)


def _machine(options: dict[str, Any]) -> Sequence[Diagnosis]:
    setup = doctor.Setup(
        shared.nix_of(options),
        cache_directory(),
        shared.state_directory(),
        datetime.now(UTC),
        shared.stores_of(options),
        shared.policy_used(options, Path()),
        options["registries"],
    )
    return doctor.check_setup(setup)


def _image(image: str, options: dict[str, Any]) -> Sequence[Diagnosis]:
    cache = cache_directory()
    found = transfer.open_here(
        shared.stores_of(options),
        parse_reference(image),
        cache / "images",
        options["system"] or current_system(),
    )
    return tuple(doctor_image.check_image(found, cache, options["ways"]))


def _counts(found: Sequence[Diagnosis]) -> dict[str, int]:
    return {outcome.value: sum(each.outcome is outcome for each in found) for outcome in Health}


def _lines(found: Sequence[Diagnosis], verbose: bool) -> Iterator[str]:
    width, room = max((len(each.name) for each in found), default=0), columns()
    area = ""
    for each in found:
        if each.area != area:
            area = each.area
            yield click.style(area, bold=True)
        mark = each.outcome.value
        said = [safe_line(line) for line in each.said.splitlines()] or [""]
        if mark == "fine" and not verbose:
            said = said[:1]
        head, *below = hanging(f"  {mark:12} {each.name:{width}}  ", said[0], room)
        yield head.replace(mark, click.style(mark, **_STYLES[mark]), 1)
        yield from below
        indent = " " * (width + 17 if room is None or room - width - 17 >= LEAST else 4)
        more = [("", line) for line in said[1:]]
        if mark != "fine":
            more += [("why: ", each.why)] if each.why else []
            more += [
                ("fix: " if not n else "     ", line)
                for n, line in enumerate(each.fix.splitlines())
            ]
        for label, text in more:
            yield from hanging(indent + label, safe_line(text), room)
    counts = _counts(found)
    yield ""
    yield ", ".join(
        plural(number, name, "warnings" if name == "warning" else name)
        for name, number in counts.items()
        if number or name == "fine"
    )
