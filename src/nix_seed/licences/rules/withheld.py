"""What an image lacks for its licence, and whether the user has accepted the licences of that."""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nix_seed.core.errors import InputError
from nix_seed.formats.nix.store_path import StorePath


@dataclass(frozen=True, slots=True)
class Withheld:
    """A store path that the image lacks because its licence forbids passing it on."""

    path: StorePath
    name: str
    licence: str
    derivation: str
    url: str = ""


@dataclass(frozen=True, slots=True)
class UnknownLicence:
    """A store path of the image that nobody says may be passed on; *licence* is empty if unstated.

    Only what the recipe does not let pass: it keeps the image out of others' registries.
    """

    path: StorePath
    licence: str = ""


def check_accepted(image: str, withheld: Iterable[Withheld], accepted: Sequence[str]) -> None:
    """Raise ``InputError`` unless every licence of what *image* withholds is *accepted*.

    By the licence's name, or by the package's.
    """
    missing = [
        item
        for item in withheld
        if not {item.licence, item.name, item.path.package} & set(accepted)
    ]
    if missing:
        options = " ".join(
            f"--accept-licence {shlex.quote(name)}"
            for name in sorted({item.licence for item in missing})
        )
        raise InputError(
            f"the image {image} lacks what it must not pass on ({len(missing)} in all);"
            " that comes from its vendors, once you accept their licences",
            detail="\n".join(map(_line, missing)),
            hint=f"read the licences, then: {options}",
        )


def _line(item: Withheld) -> str:
    source = f", from {item.url}" if item.url else ""
    return f"{item.name}: licence {item.licence}{source}"
