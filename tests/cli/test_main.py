from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest

from nix_seed.cli import main as module
from nix_seed.cli.command import seed_command
from nix_seed.cli.main import COMMANDS, SECTIONS, cli, main
from nix_seed.cli.options import json_option
from nix_seed.cli.say import say
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError, NixFailed, NixSeedError
from support.programs import need

CI_STEPS = ("promote", "seed", "served", "setup", "store", "use")
SLOW = {"rich", "urllib3", "zstandard", "deflate", "msgspec", "sqlite3", "rfc8785"}


def nix_seed(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nix_seed", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | env
    )


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Give what runs a command of this body, in a table of its own, and returns the exit code."""

    def run(body: Callable[..., Any], *arguments: str) -> int:
        fake = ModuleType("fake_command")
        fake.command = json_option(seed_command("fake")(body))  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "nix_seed.cli.fake_command", fake)
        monkeypatch.setitem(COMMANDS, "fake", ("fake_command", "x"))
        monkeypatch.setattr(sys, "argv", ["nix-seed", "fake", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        assert isinstance(code, int)
        return code

    return run


def fails(error: BaseException) -> Callable[..., Any]:
    def body(**_: object) -> None:
        raise error

    return body


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CheckedFalse("m", hint="h"), 1),
        (InputError("m", hint="h"), 2),
        (CouldNotCheck("m", hint="h"), 3),
        (NixFailed("m", hint="h", detail="d"), 4),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_error_has_its_code_and_its_words(
    run: Any, capsys: pytest.CaptureFixture[str], error: Exception, code: int
) -> None:
    assert run(fails(error)) == code
    said = capsys.readouterr()
    detail = "  | d\n" if code == 4 else ""
    assert (said.out, said.err) == ("", f"error: m\n{detail}hint: h\n")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (CheckedFalse("m", hint="h", detail="d"), "checked and false"),
        (InputError("m", hint="h", detail="d"), "wrong input"),
        (CouldNotCheck("m", hint="h", detail="d"), "could not check"),
        (NixFailed("m", hint="h", detail="d"), "Nix failed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_program_that_asked_for_json_gets_the_error_as_json(
    run: Any, capsys: pytest.CaptureFixture[str], error: NixSeedError, kind: str
) -> None:
    code = error.exit_code
    assert run(fails(error), "--json") == code
    said = capsys.readouterr()
    told = {"kind": kind, "message": "m", "hint": "h", "detail": "d", "exitCode": code}
    assert json.loads(said.out) == {"schema": 1, "error": told}
    assert said.err == "error: m\n  | d\nhint: h\n"


def test_a_fault_and_an_interruption_are_json_too(
    run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(fails(KeyError("spam")), "--json") == 3
    told = json.loads(capsys.readouterr().out)["error"]
    assert (told["kind"], told["exitCode"]) == ("could not check", 3)
    assert told["message"] == "an unexpected KeyError: 'spam'"
    assert run(fails(KeyboardInterrupt()), "--json") == 130
    assert json.loads(capsys.readouterr().out)["error"]["kind"] == "interrupted"


def test_there_is_one_json_object(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """An answer that was printed is what counts: the error after it is for people."""

    def body(**_: object) -> None:
        say({"broken": ["x"]})
        raise CheckedFalse("broken")

    assert run(body, "--json") == 1
    said = capsys.readouterr()
    assert json.loads(said.out) == {"schema": 1, "broken": ["x"]}
    assert said.err == "error: broken\n"


def test_a_fault_of_the_program_is_never_an_answer(
    run: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NIX_SEED_DEBUG", raising=False)
    assert run(fails(KeyError("spam"))) == 3
    said = capsys.readouterr().err
    assert said == (
        "error: an unexpected KeyError: 'spam'\n"
        "this is a fault of nix-seed; set NIX_SEED_DEBUG=1 for the details to report\n"
    )
    monkeypatch.setenv("NIX_SEED_DEBUG", "1")
    assert run(fails(KeyError("spam"))) == 3
    said = capsys.readouterr().err
    assert "Traceback (most recent call last)" in said
    assert "raise error" in said
    assert said.endswith("KeyError: 'spam'\n")


def test_an_interrupted_run_says_what_is_kept(
    run: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(fails(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err.strip() == "interrupted"
    monkeypatch.setattr("nix_seed.cli.main._KEEPING", {"fake"})
    assert run(fails(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err.strip().startswith("interrupted; finished layers are kept")


def test_a_command_ends_with_0_or_with_its_own_code(run: Any) -> None:
    assert run(lambda **_: None) == 0
    assert run(lambda **_: click.get_current_context().exit(77)) == 77
    assert run(lambda **_: "text") == 0


FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full: Linux has it")


def in_shell(words: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run nix-seed with redirections as a shell writes them."""
    script = f'exec "$@" {words}'
    command = [sys.executable, "-m", "nix_seed", *arguments]
    return subprocess.run(
        ["sh", "-c", script, "sh", *command], capture_output=True, text=True, check=False
    )


@needs_full
@pytest.mark.parametrize("arguments", [["--version"], ["build", "--help"], ["completion", "bash"]])
def test_an_answer_that_cannot_be_written_is_no_answer(arguments: list[str]) -> None:
    done = in_shell(">/dev/full", *arguments)
    assert done.returncode == 3
    assert done.stderr.startswith("error: writing to standard output failed: No space left")
    assert "hint: send it to a place with room" in done.stderr


@needs_full
@pytest.mark.parametrize("arguments", [["inspect", "oci:absent"], ["inspect", "a/b"]])
def test_an_error_that_cannot_be_told_keeps_its_code(arguments: list[str]) -> None:
    """Not 1, by which Python ends: that means "checked and false"."""
    assert in_shell("2>/dev/full", *arguments).returncode == 2
    assert in_shell(">/dev/full 2>/dev/full", "--version").returncode == 3


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_file_is_an_empty_one(closed: str) -> None:
    assert in_shell(closed, "--version").returncode == 0
    assert in_shell(closed, "key", "show", "absent").returncode == 2
    # And no file that is opened later takes its place: a program that is started would write there.
    code = "import os; from nix_seed.cli import main as m; m._open_standard_files(); os._exit(0 if"
    code += " all(os.get_inheritable(n) for n in range(3)) and os.open('/dev/null', 0) > 2 else 9)"
    script = f'exec "$0" -c "$1" {closed}'
    assert subprocess.run(["sh", "-c", script, sys.executable, code], check=False).returncode == 0


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_gone_is_no_answer(unbuffered: str) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "nix_seed", "--help"]
    done = subprocess.run(
        command,
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_pipe_broken_inside_a_command_is_no_answer() -> None:
    code = (
        "import sys, click, types\n"
        "from nix_seed.cli import main as m\n"
        "fake = types.ModuleType('fake')\n"
        "@click.command()\n"
        "def command(): raise BrokenPipeError(32, 'gone')\n"
        "fake.command = command\n"
        "sys.modules['nix_seed.cli.fake'] = fake\n"
        "m.COMMANDS['fake'] = ('fake', '')\n"
        "sys.argv = ['nix-seed', 'fake']\n"
        "m.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bild"], "No such command 'bild'. Did you mean 'build'?"),
        (["xyzzy"], "No such command 'xyzzy'."),
        (["--nonsense"], "No such option"),
        (["build", "--kind", "both"], "'both' is not one of 'seed', 'run'"),
        (["run"], "Missing argument"),
    ],
)
def test_wrong_arguments_are_wrong_input(arguments: list[str], words: str) -> None:
    done = nix_seed(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr


def test_wrong_arguments_are_json_too() -> None:
    done = nix_seed("plan", "--json", "--kind", "both")
    told = json.loads(done.stdout)["error"]
    assert (done.returncode, told["kind"], told["exitCode"]) == (2, "wrong input", 2)
    assert "'both' is not one of" in told["message"]


def test_help_lists_every_command_and_the_exit_codes() -> None:
    done = nix_seed("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for name, (_, line) in COMMANDS.items():
        assert f"  {name} " in done.stdout
        assert line in done.stdout
    assert [line[:-1] for line in done.stdout.splitlines() if line[-1:] == ":"] == [
        "Options",
        *SECTIONS,
    ]
    assert "1 checked and false" in done.stdout


# What serves, completes, or is a step of a CI job answers nothing.
ANSWERS_NOTHING = {
    "log serve",
    "outputs serve",
    "completion",
    "shell",
    *(f"ci {step}" for step in CI_STEPS),
}


def leaves(name: str, command: click.Command) -> Iterator[tuple[str, set[str]]]:
    """Yield each command with the options that it takes."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for each in command.list_commands(context):
            found = command.get_command(context, each)
            assert found is not None
            yield from leaves(f"{name} {each}", found)
    else:
        yield name, {option for param in command.params for option in param.opts}


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_that_answers_takes_json_q_and_v(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    for each, options in leaves(name, command):
        if each not in ANSWERS_NOTHING:
            assert {"--json", "-q", "-v"} <= options, each


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_of_the_table_is_there(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.name == name
    assert COMMANDS[name][1] == command.get_short_help_str(200)


@pytest.mark.parametrize(
    "arguments", [["--help"], *([name, "--help"] for name in COMMANDS)], ids=" ".join
)
def test_help_imports_nothing_slow(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        f"sys.argv = ['nix-seed', *{arguments!r}]\n"
        "from nix_seed.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as e: assert e.code == 0\n"
        "print('LOADED', *{name.partition('.')[0] for name in sys.modules})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split()[1:])
    assert "click" in loaded
    assert not loaded & SLOW


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_commands(shell: str) -> None:
    if shell == "bash":
        need("bash")
    done = nix_seed("completion", shell)
    assert done.returncode == 0, done.stderr
    assert "_NIX_SEED_COMPLETE" in done.stdout


def test_bash_is_told_the_commands() -> None:
    asked = {"_NIX_SEED_COMPLETE": "bash_complete", "COMP_WORDS": "nix-seed pl", "COMP_CWORD": "1"}
    done = nix_seed(**asked)
    assert done.stdout.strip() == "plain,plan"
    assert nix_seed(**asked | {"COMP_WORDS": "nix-seed plan --ki", "COMP_CWORD": "2"}).stdout == (
        "plain,--kind\n"
    )


def test_names_are_completed_without_loading_commands() -> None:
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('LOADED', *sys.modules))\n"
        "sys.argv = ['nix-seed']\n"
        "from nix_seed.cli.main import main\n"
        "main()\n"
    )
    asked = {"_NIX_SEED_COMPLETE": "zsh_complete", "COMP_WORDS": "nix-seed p", "COMP_CWORD": "1"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env=os.environ | asked, capture_output=True, text=True, check=True
    )
    *said, loaded = done.stdout.splitlines()
    assert said[:3] == ["plain", "plan", "Show the layers, and who caused what changed."]
    assert "nix_seed.cli.image.plan" not in loaded.split()


def test_the_module_is_the_command() -> None:
    assert nix_seed("--version").stdout.startswith("nix-seed, version ")
    assert module.main is main


def test_help_is_asked_for_in_either_way() -> None:
    assert nix_seed("help").stdout == nix_seed("--help").stdout
    assert nix_seed("version").stdout == nix_seed("-V").stdout == nix_seed("--version").stdout
    assert nix_seed("help", "key", "generate").stdout == nix_seed("key", "generate", "-h").stdout


def test_a_mistyped_option_of_run_is_no_command() -> None:
    done = nix_seed("run", "--imgae", "oci:seed", "--", "true")
    assert done.returncode == 2
    assert "No such option '--imgae'. Did you mean '--image'?" in done.stderr
