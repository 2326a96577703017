"""What a benchmark reports: sections of figures, and verdicts on what was wanted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["Section", "Verdict", "document", "markdown", "met_word"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One wanted figure: what was measured, in words, and whether that is enough (None: unknown).

    *why* is for a figure that is missed: the short profile that explains it.
    """

    work: str
    against: str
    measured: str
    wanted: str
    met: bool | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """A part's table, its cells ready to be shown, and what it says about what was wanted."""

    title: str
    intro: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    verdicts: tuple[Verdict, ...] = ()
    notes: tuple[str, ...] = ()


def met_word(met: bool | None) -> str:
    """Return the word for a verdict."""
    return "not measured" if met is None else "yes" if met else "**no**"


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table, the first column to the left, the others to the right."""
    lines = [_line(columns), "| --- |" + " ---: |" * (len(columns) - 1)]
    return "\n".join([*lines, *(_line(row) for row in rows)])


def document(head: str, sections: Sequence[Section]) -> str:
    """Return the whole report: the verdicts first, then every part."""
    verdicts = [verdict for section in sections for verdict in section.verdicts]
    goals = markdown(
        ("work", "against", "measured", "wanted", "met"),
        ((v.work, v.against, v.measured, v.wanted, met_word(v.met)) for v in verdicts),
    )
    missed = [v for v in verdicts if v.met is False and v.why]
    parts = [head, "## What is wanted, and what is", goals]
    if missed:
        parts += ["## Why what is missed is missed"]
        parts += ["\n".join(f"* **{v.work}**, against {v.against}: {v.why}" for v in missed)]
    return "\n\n".join([*parts, *(_part(section) for section in sections)]) + "\n"


def _part(section: Section) -> str:
    parts = [f"## {section.title}", section.intro, markdown(section.columns, section.rows)]
    if section.notes:
        parts.append("\n".join(f"* {note}" for note in section.notes))
    return "\n\n".join(part for part in parts if part)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
