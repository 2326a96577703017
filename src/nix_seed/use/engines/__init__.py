"""The engines that run images: bubblewrap, podman and Docker."""

from collections.abc import Callable
from pathlib import Path

from nix_seed.core.errors import CouldNotCheck, InputError
from nix_seed.use.engines.base import Engine
from nix_seed.use.engines.bwrap import Bwrap
from nix_seed.use.engines.containers import Docker, Podman

# In the order they are tried: the first needs no daemon and no second copy of the image.
ENGINES: dict[str, Callable[[Path], Engine]] = {
    "bwrap": Bwrap,
    "podman": lambda _: Podman(),
    "docker": lambda _: Docker(),
}


def choose_engine(name: str | None, cache: Path) -> Engine:
    """Return the engine *name*, or without one the first that works here.

    Raises ``InputError`` for an unknown name and ``CouldNotCheck``, with the reasons, where none
    can be used.
    """
    if name is not None and name not in ENGINES:
        raise InputError(f"{name!r} is not an engine", hint=f"the engines are {', '.join(ENGINES)}")
    reasons = []
    for each in [name] if name is not None else ENGINES:
        engine = ENGINES[each](cache)
        reason = engine.unavailable()
        if reason is None:
            return engine
        reasons.append(f"{each}: {reason}")
    what = "no engine can" if name is None else f"the engine {name} cannot"
    raise CouldNotCheck(f"{what} be used on this machine", hint="\n".join(reasons))
