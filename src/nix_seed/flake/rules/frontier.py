"""The frontier of a flake's build graph: what its own derivations are built from.

Whose a derivation is, an experiment tells: the flake is evaluated as it is, and its *twin*, whose
files are all altered, beside it. What comes out otherwise is the project's own; what comes out the
same is not, whatever it is called and wherever its text came from. Neither is opened without need:

- A fixed output is not the project's: its content is agreed on beforehand, and it has to be
  fetched. Where only its derivation changes, the key names what it makes. One whose name holds the
  commit has another store path at each, which no seed can hold ahead: that one is opened.
- What a file only chooses, such as packages of a Python by its version, is not the project's.
- What no source decides, but an output names and a file of the flake defines, is the project's.
- What Nix never substitutes (``allowSubstitutes = false``: scripts and texts) is made in no time
  wherever it is needed. It is opened, so that the text may change.

For an output that the twin does not have, a walk over the derivations decides: what is built from
the project's source, or from what an output names, is the project's.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field

from nix_seed.core.values import dataclass
from nix_seed.flake.rules.existence import Questions
from nix_seed.formats.nix.store_path import Derivation, Graph, StorePath

Outputs = Mapping[StorePath, frozenset[str]]


@dataclass(frozen=True, slots=True)
class Twin:
    """What the altered flake evaluates to.

    *outputs* are those that it has, by name; *derivations* all that make them, however far back;
    *made* the store paths of those that the flake itself does not have. *inputs* are source trees.
    *problem* says why there is no twin, or why it has no further files.

    *moved* are derivations that another answer to the *questions* moves: is a file there, is there
    a commit? *unanswered* says why no other could be tried. *dated* are hashes of fixed outputs
    whose name holds the commit or its time. *chosen* are derivations that a file only chooses.
    *careful* tells that lock files, versions and texts are the flake's own.
    """

    outputs: frozenset[str] = frozenset()
    derivations: frozenset[StorePath] = frozenset()
    made: frozenset[StorePath] = frozenset()
    inputs: Mapping[str, str] = field(default_factory=dict)
    problem: str | None = None
    questions: Questions = field(default_factory=Questions)
    moved: frozenset[StorePath] = frozenset()
    unanswered: str | None = None
    dated: frozenset[str] = frozenset()
    chosen: frozenset[StorePath] = frozenset()
    careful: bool = False


@dataclass(frozen=True, slots=True)
class Frontier:
    """Wanted outputs by derivation, and the project's derivations, which were opened."""

    derivations: Outputs
    project: frozenset[StorePath]


def evaluate_frontier(
    roots: Mapping[StorePath, Iterable[str]], read: Graph, is_own: Callable[[StorePath], bool]
) -> Frontier:
    """Walk from *roots*, the derivations of the flake's outputs, to what the project is built from.

    A root that is not the project's (an ``app`` may start another flake's program) is wanted.
    """
    wanted: dict[StorePath, set[str]] = {}
    opened: set[StorePath] = set()
    queue: list[Mapping[StorePath, Iterable[str]]] = [roots]
    while queue:
        for path, outputs in queue.pop().items():
            if path in opened:
                continue
            if is_own(path) or is_never_substituted(read(path)):
                opened.add(path)
                queue.append(read(path).input_drvs)
            else:
                wanted.setdefault(path, set()).update(outputs)
    derivations = {path: frozenset(outputs) for path, outputs in sorted(wanted.items())}
    return Frontier(derivations, frozenset(opened))


def is_never_substituted(derivation: Derivation) -> bool:
    """Whether Nix makes it wherever it is needed, as nixpkgs' trivial builders ask for."""
    if derivation.is_fixed_output:
        return False
    structured = derivation.env.get("__json")
    if structured is None:
        return derivation.env.get("allowSubstitutes") == ""
    if '"allowSubstitutes":false' not in structured:
        return False
    try:
        return json.loads(structured).get("allowSubstitutes") is False
    except (ValueError, RecursionError, AttributeError):
        return False  # not what Nix writes: then it is no builder of nixpkgs'


class Experiment:
    """Whether a derivation is the project's own, by the *twin*; *known* are by definition."""

    def __init__(self, read: Graph, twin: Twin, known: frozenset[StorePath]) -> None:
        self._read = read
        self._twin = twin
        self._known = known

    def __call__(self, path: StorePath) -> bool:
        """Tell whether *path* comes out otherwise, or is known."""
        derivation = self._read(path)
        if derivation.is_fixed_output:
            return self.is_dated(path)
        return path in self._known or self.changes(path)

    def is_dated(self, path: StorePath) -> bool:
        """Tell whether *path* makes the same content at each commit, but by another name."""
        outputs = self._read(path).outputs.values()
        return any(output.hash in self._twin.dated for output in outputs) and self.changes(path)

    def changes(self, path: StorePath) -> bool:
        """Tell whether what *path* makes comes out otherwise in the twin."""
        if path in self._twin.chosen:
            return False
        if path in self._twin.derivations:
            return path in self._twin.moved
        made = {output.path for output in self._read(path).outputs.values()}
        return not made <= self._twin.made


class FrontierWalk:
    """Whether a derivation is the project's own, by what it is built from.

    Each is looked at once. *known* are the derivations that are the project's because an output
    names them; *is_own_source* tells the project's source from its inputs'.
    """

    def __init__(
        self, read: Graph, is_own_source: Callable[[StorePath], bool], known: frozenset[StorePath]
    ) -> None:
        self._read = read
        self._is_own_source = is_own_source
        self._known = known
        self._answers: dict[StorePath, bool] = {}

    def __call__(self, root: StorePath) -> bool:
        """Tell whether *root* changes with the project's source, as far as can be seen."""
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
