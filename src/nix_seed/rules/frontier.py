"""The frontier of a flake's build graph: what its own derivations are built from.

The project's derivations P are those its outputs name, and every derivation that is built from one
of them or from the project's own source, however deep and unnamed: all of them change when the
source changes, so none is baked. What P is built from, and is not in P, is the frontier.

A fixed-output derivation is never in P: its content is agreed on beforehand, it has to be fetched,
and a change of the project's source does not change it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from nix_seed.formats.nix.derivation import Derivation
from nix_seed.formats.nix.store_path import StorePath

__all__ = ["Frontier", "Graph", "evaluate_frontier"]

Graph = Callable[[StorePath], Derivation]


@dataclass(frozen=True, slots=True)
class Frontier:
    """Wanted outputs by derivation, and the project's derivations, which were opened."""

    derivations: Mapping[StorePath, frozenset[str]]
    project: frozenset[StorePath]


def evaluate_frontier(
    roots: Mapping[StorePath, Iterable[str]],
    read: Graph,
    is_own_source: Callable[[StorePath], bool],
    *,
    known: frozenset[StorePath],
) -> Frontier:
    """Walk from *roots*, the derivations of the flake's outputs, to what the project is built from.

    *read* gives a derivation by its path; *is_own_source* tells the project's source from its
    inputs'; *known* are the derivations that are the project's because an output names them. A root
    that is not the project's (an ``app`` may start another flake's program) is itself wanted.
    """
    volatile = _Volatile(read, is_own_source, known)
    wanted: dict[StorePath, set[str]] = {}
    opened: set[StorePath] = set()
    queue: list[Mapping[StorePath, Iterable[str]]] = [roots]
    while queue:
        for path, outputs in queue.pop().items():
            if not volatile(path):
                wanted.setdefault(path, set()).update(outputs)
            elif path not in opened:
                opened.add(path)
                queue.append(read(path).input_drvs)
    derivations = {path: frozenset(outputs) for path, outputs in sorted(wanted.items())}
    return Frontier(derivations, frozenset(opened))


class _Volatile:
    """Whether a derivation changes with the project's source; each is looked at once."""

    def __init__(
        self, read: Graph, is_own_source: Callable[[StorePath], bool], known: frozenset[StorePath]
    ) -> None:
        self._read = read
        self._is_own_source = is_own_source
        self._known = known
        self._answers: dict[StorePath, bool] = {}

    def __call__(self, root: StorePath) -> bool:
        # Depth first without recursion: chains of derivations are deeper than Python's stack.
        stack = [root]
        while stack:
            path = stack[-1]
            if path in self._answers:
                stack.pop()
                continue
            derivation = self._read(path)
            if derivation.is_fixed_output:
                self._answers[path] = False
                continue
            if path in self._known:
                self._answers[path] = True
                continue
            open_inputs = [item for item in derivation.input_drvs if item not in self._answers]
            if open_inputs:
                stack.extend(open_inputs)
                continue
            self._answers[path] = any(self._answers[item] for item in derivation.input_drvs) or any(
                map(self._is_own_source, derivation.input_srcs)
            )
        return self._answers[root]
