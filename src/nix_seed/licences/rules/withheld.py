"""What an image lacks, or must not be passed on with, for reasons of licence."""

from dataclasses import dataclass

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
