"""Has the user accepted the licences of what an image had to leave out?"""

import shlex
from collections.abc import Iterable, Sequence

from nix_seed.core.errors import InputError
from nix_seed.licences.rules.withheld import Withheld


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
