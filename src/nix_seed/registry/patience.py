"""When to ask again, and how long to wait for an answer."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from nix_seed.registry.errors import Unreachable

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Patience:
    """Limits in seconds, and the clock, the chance and the sleep they are measured with.

    ``connect``: to open a connection, and for one that takes no more of what we send. ``stall``:
    for the next byte of an answer. ``settle``: for the answer to a finished upload, which some
    registries hash first. ``longest_asked``: the most that a ``Retry-After`` is honoured for; a
    server that wants longer is reported at once rather than slept for.
    """

    attempts: int = 5
    base: float = 0.4
    longest: float = 20.0
    longest_asked: float = 120.0
    connect: float = 15.0
    stall: float = 30.0
    settle: float = 300.0
    sleep: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = random.random
    now: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic

    def delay(self, attempt: int, retry_after: str | None = None) -> float | None:
        """Return how long to wait after failed *attempt* (0 is the first), None to give up.

        Exponential with full jitter; a server's own ``Retry-After`` is never undercut.
        """
        if attempt + 1 >= self.attempts:
            return None
        backoff: float = min(self.longest, self.base * 2**attempt) * self.chance()
        asked = self._asked(retry_after)
        if asked is None:
            return backoff
        return None if asked > self.longest_asked else asked + backoff

    def retry(self, work: Callable[[], T], *, safe: bool = True) -> T:
        """Do *work* until it succeeds, fails for good, or patience ends.

        What is not *safe* to repeat is done again only if it was certainly not carried out.
        """
        attempt = 0
        while True:
            try:
                return work()
            except Unreachable as error:
                if not (safe or error.not_done):
                    raise
                delay = self.delay(attempt, error.retry_after)
                if delay is None:
                    raise
                self.sleep(delay)
                attempt += 1

    def _asked(self, retry_after: str | None) -> float | None:
        """Read ``Retry-After`` (RFC 9110, 10.2.3): seconds, or an HTTP date."""
        if retry_after is None:
            return None
        from email.utils import parsedate_to_datetime

        text = retry_after.strip()
        if text.isascii() and text.isdigit():
            return float(text)
        try:
            return max(0.0, parsedate_to_datetime(text).timestamp() - self.now())
        except (ValueError, OverflowError, OSError):
            return None
