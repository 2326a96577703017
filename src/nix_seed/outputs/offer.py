"""Offers kept outputs to one command in a seed, and remembers what came of it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import field
from typing import Final

from nix_seed.core import canonical_json
from nix_seed.core.values import dataclass
from nix_seed.core.words import human_size, plural
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.outputs.cache import OutputCache, OutputMissed, OutputTaken
from nix_seed.outputs.open import settings_for
from nix_seed.outputs.push import OutputChoice
from nix_seed.outputs.server import CacheServer, serving
from nix_seed.registry.layout import Image
from nix_seed.use.engines.base import Engine, LocalCache, WithCache
from nix_seed.use.engines.loopback import PORT
from nix_seed.use.results import Brought
from nix_seed.use.withheld import spec_of

_MOST_REASONS: Final = 20


@dataclass(slots=True)
class Told:
    """What the cache told while the command ran."""

    taken: list[OutputTaken] = field(default_factory=list)
    reasons: dict[str, None] = field(default_factory=dict)

    def __call__(self, event: object) -> None:
        """Note *event*."""
        if isinstance(event, OutputTaken):
            self.taken.append(event)
        elif isinstance(event, OutputMissed) and event.reason:
            self.reasons[event.reason] = None

    @property
    def size(self) -> int:
        """The bytes that were taken, as they came."""
        return sum(each.size for each in self.taken)

    @property
    def saved(self) -> float:
        """The seconds that building what was taken took its builders, as far as they say."""
        return sum(each.millis or 0 for each in self.taken) / 1000

    def dump(self) -> bytes:
        """Return it as JSON, for another process of this machine's."""
        reasons = list(self.reasons)[:_MOST_REASONS]
        millis = sum(each.millis or 0 for each in self.taken)
        return canonical_json.dumps(
            {"taken": len(self.taken), "bytes": self.size, "millis": millis, "reasons": reasons}
        )

    def text(self) -> str:
        """Return it for people; empty where there is nothing to tell."""
        lines = []
        if self.taken:
            lines.append(f"{plural(len(self.taken), 'output')} taken, {human_size(self.size)}")
        lines += [f"not taken: {reason}" for reason in list(self.reasons)[:5]]
        return "\n".join(lines)


@dataclass(slots=True)
class Outputs:
    """What commands may take from; *told* is what came of it."""

    cache: OutputCache
    told: Told

    @contextmanager
    def offered(self, network: bool, held: Callable[[StorePath], bool]) -> Iterator[LocalCache]:
        """Serve until the block ends: in the command's own network or, with *network*, here."""
        self.cache.held = held
        with ExitStack() as stack:
            if network:
                here = stack.enter_context(serving(CacheServer(self.cache)))
                yield LocalCache(settings_for(here.url, self.cache.key))
                return

            def serve(listener: socket.socket) -> None:
                stack.enter_context(serving(CacheServer(self.cache, listener=listener)))

            url = f"http://127.0.0.1:{PORT}"
            yield LocalCache(settings_for(url, self.cache.key), serve)

    @contextmanager
    def offered_in(self, image: Image, engine: Engine, network: bool = False) -> Iterator[Engine]:
        """Yield *engine*, in whose containers of *image* Nix takes from here."""
        spec = spec_of(image)
        here = set() if spec is None else {*spec.paths, *(each.path for each in spec.withheld)}
        with self.offered(network, here.__contains__) as cache:
            yield WithCache(engine, cache)


def choice_of(brought: Brought | None, told: Told | None, ref: str | None) -> OutputChoice:
    """Return what to push of what a command *brought*: not what it took, as it *told*.

    *ref* is the branch or tag that it was built for.
    """
    if brought is None:
        return OutputChoice(ref=ref)
    taken = frozenset() if told is None else {each.path for each in told.taken}
    return OutputChoice((), frozenset(brought.made) - taken, ref, brought.millis)
