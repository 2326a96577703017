"""Runs the steps of a composite action as GitHub's runner does, one by one, on this machine.

Only what our own actions use: ``run:`` under bash, ``env:`` and ``if:`` over inputs and outputs.
A step that ``uses:`` another action is reported, never run.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

__all__ = ["ROOT", "Result", "assignments", "load", "parse", "run_action", "runner_env"]

ROOT = Path(__file__).resolve().parents[2]
_EXPRESSION = re.compile(r"\$\{\{\s*(.+?)\s*\}\}")
_BASH = ("bash", "--noprofile", "--norc", "-e", "-o", "pipefail")


def load(path: Path) -> Any:
    """Read a YAML file; ``on`` is a key like any other."""
    return parse(path.read_text())


def parse(text: str) -> Any:
    """Read YAML as ``load`` does."""
    return YAML(typ="safe", pure=True).load(text)


@dataclass
class Result:
    """What an action came to: its exit code, outputs, log; and what it asked other actions for."""

    code: int = 0
    log: str = ""
    outputs: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    path: list[str] = field(default_factory=list)
    summary: str = ""
    used: list[str] = field(default_factory=list)

    def commands(self, name: str) -> list[str]:
        """Return the workflow commands called *name*, as the runner would see them."""
        found, stopped = [], ""
        for line in self.log.splitlines():
            if stopped:
                stopped = "" if line == f"::{stopped}::" else stopped
            elif line.startswith("::stop-commands::"):
                stopped = line.removeprefix("::stop-commands::")
            elif line.startswith((f"::{name} ", f"::{name}::")):
                found.append(line)
        assert not stopped, "commands were never taken again"
        return found


def run_action(
    name: str,
    inputs: Mapping[str, str],
    work: Path,
    *,
    workspace: Path,
    env: Mapping[str, str],
    prefix: tuple[str, ...] = (),
) -> Result:
    """Run the action in the directory *name* of this repository, in *workspace*.

    *env* is the job's environment, *prefix* a program that starts each step.
    """
    action = load(ROOT / name / "action.yml")
    values = {key: str(each.get("default", "")) for key, each in action["inputs"].items()}
    unknown = set(inputs) - set(values)
    assert not unknown, f"{name} has no inputs {unknown}"
    context: dict[str, Any] = {
        "inputs": {key: _fill(text, {"github": _github(env)}) for key, text in values.items()}
        | dict(inputs),
        "github": _github(env),
        "steps": {},
    }
    result = Result()
    work.mkdir(parents=True, exist_ok=True)
    for number, step in enumerate(action["runs"]["steps"]):
        if result.code or not _holds(step.get("if"), context):
            continue
        if "uses" in step:
            result.used.append(step["uses"])
            continue
        files = _files(work / str(number))
        own = {key: _fill(str(text), context) for key, text in step.get("env", {}).items()}
        script = work / f"{number}.sh"
        script.write_text(step["run"])
        assert step["shell"] == "bash"
        assert "${{" not in step["run"], "an expression in a script is code of whoever wrote it"
        done = subprocess.run(
            [*prefix, *_BASH, script],
            cwd=workspace,
            env={**env, **result.variables, **own, **{k: str(v) for k, v in files.items()}}
            | {"GITHUB_ACTION_PATH": str(ROOT / name), "GITHUB_WORKSPACE": str(workspace)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        result.code, result.log = done.returncode, result.log + done.stdout
        outputs = assignments(files["GITHUB_OUTPUT"])
        context["steps"][step.get("id", "")] = {"outputs": outputs}
        result.variables |= assignments(files["GITHUB_ENV"])
        result.path += files["GITHUB_PATH"].read_text().split()
        result.summary += files["GITHUB_STEP_SUMMARY"].read_text()
    result.outputs = {
        key: _fill(each["value"], context) for key, each in action.get("outputs", {}).items()
    }
    return result


def _github(env: Mapping[str, str]) -> dict[str, str]:
    return {"actor": env.get("GITHUB_ACTOR", ""), "token": "never passed on by itself"}


def _files(work: Path) -> dict[str, Path]:
    work.mkdir()
    names = ("GITHUB_OUTPUT", "GITHUB_ENV", "GITHUB_PATH", "GITHUB_STEP_SUMMARY")
    for name in names:
        (work / name).touch()
    return {name: work / name for name in names}


def assignments(path: Path) -> dict[str, str]:
    """Read ``name=value`` and ``name<<END`` as the runner does."""
    found, lines = {}, iter(path.read_text().split("\n"))
    for line in lines:
        equals, heredoc = line.find("="), line.find("<<")
        if heredoc >= 0 and (equals < 0 or heredoc < equals):
            name, _, end = line.partition("<<")
            body = []
            while (each := next(lines)) != end:
                body.append(each)
            found[name] = "\n".join(body)
        elif line:
            name, _, value = line.partition("=")
            found[name] = value
    return found


def _fill(text: str, context: Mapping[str, Any]) -> str:
    return _EXPRESSION.sub(lambda match: _lookup(match[1], context), text)


def _lookup(expression: str, context: Mapping[str, Any]) -> str:
    value: Any = context
    for name in expression.split("."):
        value = value.get(name, {}) if isinstance(value, dict) else {}
    return value if isinstance(value, str) else ""


def _holds(condition: str | None, context: Mapping[str, Any]) -> bool:
    if condition is None:
        return True
    match = re.fullmatch(r"([\w.]+) == '(\w*)'", condition)
    assert match, f"{condition}: the tests know no such condition"
    return _lookup(match[1], context) == match[2]


def runner_env(home: Path, event: Mapping[str, str]) -> dict[str, str]:
    """Return what a job finds in its environment, beside this machine's PATH."""
    kept = {key: os.environ[key] for key in ("PATH", "LANG", "LC_ALL") if key in os.environ}
    return {**kept, "HOME": str(home), "CI": "true", "GITHUB_ACTIONS": "true", **event}
