from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from nix_seed.core.digests import NarHash
from nix_seed.core.errors import CouldNotCheck, InputError, NixFailed, NixSeedError
from nix_seed.flake import nix_process
from nix_seed.flake.evaluate import evaluate_flake
from nix_seed.flake.nix import Nix
from nix_seed.flake.rules.choice import FlakeChoice
from nix_seed.formats.nix.store_path import StorePath
from support.distribution import nix_env
from support.engines import need_root, trixie_nix
from support.programs import need, run
from support.specs import store_path

FLAKE = '{ outputs = { self }: { answer = 42; broken = throw "spam and eggs"; }; }'


@pytest.fixture
def nix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Nix:
    """A Nix with a store of its own."""
    for program in ("nix", "nix-store"):
        need(program)
    for name in ("NIX_CONFIG", "NIX_USER_CONF_FILES"):
        monkeypatch.setenv(name, nix_env()[name])
    return Nix(store=tmp_path / "root")


@pytest.fixture
def flake(tmp_path: Path) -> str:
    directory = tmp_path / "flake"
    directory.mkdir()
    (directory / "flake.nix").write_text(FLAKE)
    return f"path:{directory}"


def add(nix: Nix, file: Path) -> StorePath:
    return StorePath.parse(nix.run("nix-store", ["--add", str(file)], "adding").strip())


def test_nix_says_who_it_is(nix: Nix) -> None:
    assert nix.version().startswith("nix (")


def test_a_flake_is_named_purely(nix: Nix, flake: str) -> None:
    metadata = nix.metadata(flake)
    assert metadata.source.name == "source"
    assert metadata.revision is None
    assert (nix.root / str(metadata.source).lstrip("/") / "flake.nix").read_text() == FLAKE
    assert metadata.url.startswith(f"path:{metadata.source}?narHash=sha256-")
    assert nix.evaluate(f'(builtins.getFlake "{metadata.url}").answer', "asking") == 42


def test_nix_fails_in_its_own_words(nix: Nix, flake: str) -> None:
    url = nix.metadata(flake).url
    with pytest.raises(NixFailed, match="asking: nix failed") as caught:
        nix.evaluate(f'(builtins.getFlake "{url}").broken', "asking")
    assert "spam and eggs" in (caught.value.detail or "")
    assert caught.value.exit_code == 4


# Minutes of work.
SLOW = """let list = builtins.genList (x: x) 20000; add = builtins.foldl' (a: b: a + b); in
  builtins.foldl' (a: x: a + add x list) 0 list"""


def test_an_evaluation_is_ended_that_nobody_waits_for(nix: Nix) -> None:
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    start = time.monotonic()
    with pytest.raises(NixFailed):
        replace(nix, stop=stop).evaluate(SLOW, "asking")
    assert time.monotonic() - start < 20


def test_the_altered_flake_is_not_waited_for_where_the_flake_fails(
    nix: Nix, tmp_path: Path
) -> None:
    slow = f"""{{ outputs = {{ self }}: builtins.seq
      (if builtins.readFile ./word == "word\\n" then throw "at once" else ({SLOW})) {{ }}; }}"""
    (tmp_path / "flake.nix").write_text(slow)
    (tmp_path / "word").write_text("word\n")
    start = time.monotonic()
    with pytest.raises(NixSeedError):
        evaluate_flake(nix, f"path:{tmp_path}", FlakeChoice(system="x86_64-linux"))
    assert time.monotonic() - start < 20


def test_no_flake_is_told_with_what_to_do(nix: Nix, tmp_path: Path) -> None:
    with pytest.raises(NixFailed, match="reading the flake path:") as caught:
        nix.metadata(f"path:{tmp_path}")
    assert "flake.nix" in (caught.value.detail or "")
    assert "name a directory that holds a flake.nix" in (caught.value.hint or "")


def test_a_nix_whose_store_is_in_the_home_directory_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As newer ones have it that Debian's package alone brings: its paths are not in /nix/store."""
    need("nix")
    monkeypatch.setattr(nix_process, "_STATE", tmp_path / "absent")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for name in nix_process._PLACES:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match="this user's Nix has no store in /nix/store") as caught:
        Nix().run("nix", ["--version"], "asking")
    assert "sudo install -d -o $USER /nix" in str(caught.value.hint)
    nix_process.demand_store({"NIX_REMOTE": "daemon"})
    Nix(store=tmp_path / "root").run("nix", ["--version"], "asking")


@pytest.mark.parametrize("newer", [False, True])
@pytest.mark.parametrize(
    ("trusted", "takes"), [("root", False), ("root @nogroup", True), ("root nobody", True)]
)
def test_whom_a_daemon_trusts(trusted: str, takes: bool, newer: bool, tmp_path: Path) -> None:
    """Most Nix is installed with a daemon, and most who use it are none of its trusted users."""
    need_root()
    for program in ("nix-daemon", "setpriv"):
        need(program)
    bin_dir = trixie_nix() if newer else Path(shutil.which("nix") or "").parent
    # In a directory of its own: sockets have short names.
    with tempfile.TemporaryDirectory() as directory:
        env = nix_env(trusted_users=trusted) | {
            "NIX_DAEMON_SOCKET_PATH": f"{directory}/socket",
            "HOME": directory,
            "PATH": f"{bin_dir}{os.pathsep}{os.environ['PATH']}",
        }
        os.chmod(directory, 0o755)
        daemon = subprocess.Popen([bin_dir / "nix-daemon"], env=env, stderr=subprocess.DEVNULL)
        try:
            for _ in range(600):
                if os.path.exists(env["NIX_DAEMON_SOCKET_PATH"]):
                    break
                time.sleep(0.05)
            # To read is allowed only so that this very Python and Nix are found.
            user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
            user += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
            ask = "print(Nix(bin_dir=Path(sys.argv[1])).takes_unsigned())"
            code = (
                f"import sys; from pathlib import Path; from nix_seed.flake.nix import Nix; {ask}"
            )
            command = [*user, sys.executable, "-c", code, str(bin_dir)]
            said = run(*command, env=env | {"NIX_REMOTE": "daemon"})
        finally:
            daemon.kill()
            daemon.wait()
    assert said.decode().strip() == str(takes)


def test_a_flake_named_like_an_option_is_no_option(nix: Nix) -> None:
    with pytest.raises(NixFailed):
        nix.metadata("--help")


def test_a_closure_is_listed_with_hashes(nix: Nix, tmp_path: Path) -> None:
    (tmp_path / "one").write_text("one")
    expression = 'builtins.toFile "two" "to ${builtins.toFile "one" "one"}"'
    top = StorePath.parse(nix.evaluate(expression, "adding"))
    closure = nix.closure([top])
    (one,) = closure[top].references
    assert one.name == "one"
    assert list(closure) == sorted([one, top])
    assert closure[one].nar_hash == NarHash.parse(nix.hash_path(tmp_path / "one"))
    assert nix.path_infos([one]) == [closure[one]]
    assert nix.closure([]) == {}


def test_a_path_that_is_not_valid_is_nixs_to_refuse(nix: Nix) -> None:
    with pytest.raises(NixFailed, match="listing the closure: nix-store failed") as caught:
        nix.closure([store_path("gone")])
    assert "is not valid" in (caught.value.detail or "")


def test_derivations_are_read_from_this_store(nix: Nix) -> None:
    expression = (
        '(derivation { name = "x"; system = "x86_64-linux"; builder = "/bin/sh"; }).drvPath'
    )
    path = StorePath.parse(nix.evaluate(expression, "making a derivation"))
    derivation = nix.read_derivation(path)
    assert (derivation.builder, derivation.env["name"]) == ("/bin/sh", "x")
    assert not Path(str(path)).exists()  # it is not in the machine's store
    with pytest.raises(
        CouldNotCheck, match=r"cannot read the derivation .*: No such file"
    ) as caught:
        nix.read_derivation(store_path("gone.drv"))
    assert "run the command again" in (caught.value.hint or "")


def test_a_root_keeps_a_path(nix: Nix, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")
    path = add(nix, tmp_path / "kept")
    nix.realise({}, [path])
    nix.add_root(tmp_path / "link", path)
    assert (tmp_path / "link").readlink().name == path.base_name


def test_exported_paths_are_imported(nix: Nix, tmp_path: Path) -> None:
    (tmp_path / "one").write_text("one")
    path = add(nix, tmp_path / "one")
    at = ("--store", str(nix.store))
    (tmp_path / "export").write_bytes(run("nix-store", *at, "--export", str(path), env=nix_env()))
    other = Nix(store=tmp_path / "other")
    with (tmp_path / "export").open("rb") as export:
        assert other.import_paths(export) == [path]
    assert other.path_infos([path]) == nix.path_infos([path])


def test_a_missing_nix_is_told_with_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="nix is not installed, or not on PATH") as caught:
        Nix().version()
    assert "apt-get install nix-bin" in (caught.value.hint or "")
    with pytest.raises(CouldNotCheck, match=r"cannot start .*/nix: No such file"):
        Nix(bin_dir=tmp_path).version()


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("executing 'git': No such file or directory", "apt-get install git"),
        ("creating directory '/ro/.cache': Read-only file system", "let HOME"),
        ("cannot get cwd: No such file or directory", "cd to another"),
        ("writing to file: No space left on device", "df -h"),
        ("cannot find flake 'flake:nixpkgs' in the flake registries", "give its address"),
        (
            "experimental Nix feature 'pipe-operators' is disabled",
            'mkSeed { nixConf = "extra-experimental-features = pipe-operators"; … }',
        ),
        ("attribute 'currentTime' missing", "use self.lastModified"),
        (
            "in pure evaluation mode, 'fetchGit' will not fetch unlocked input"
            " 'git+file:///nix/store/x-source?exportIgnore=1'",
            "src = ./.; without builtins.fetchGit",
        ),
        ("Host key verification failed.", "ssh -T git@HOST"),
        ("Failed to fetch git repository 'ssh://git@a/b'", "this machine reaches"),
        (
            "relative path '../x' points outside of its parent's store path '/nix/store/y'",
            "an input lies outside of the flake's repository",
        ),
        (
            "… while updating the flake input 'up' error: access to absolute path '/nix/store/x'"
            " is forbidden in pure evaluation mode (use '--impure' to override)",
            "an input lies outside of the flake's repository",
        ),
        ("Nixpkgs requires an implementation of Nix with the following", "Nix is too old for"),
    ],
)
def test_a_broken_machine_is_told_with_what_to_do(said: str, hint: str, tmp_path: Path) -> None:
    program = tmp_path / "nix"
    program.write_text(f'#!/bin/sh\necho "error: {said}" >&2\nexit 1\n')
    program.chmod(0o755)
    with pytest.raises(NixFailed) as caught:
        Nix(bin_dir=tmp_path).evaluate("1", "asking")
    assert said in (caught.value.detail or "")
    assert hint in (caught.value.hint or "")


def test_what_is_not_json_is_nixs_failure(tmp_path: Path) -> None:
    program = tmp_path / "nix"
    program.write_text("#!/bin/sh\necho '{'\n")
    program.chmod(0o755)
    with pytest.raises(NixFailed, match="asking: Nix printed something that is not JSON"):
        Nix(bin_dir=tmp_path).evaluate("1", "asking")


def test_settings_and_language_reach_nix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nix"
    program.write_text('#!/bin/sh\nprintf \'["%s","%s"]\' "$LC_ALL" "$*"\n')
    program.chmod(0o755)
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    nix = Nix(store=tmp_path / "r", bin_dir=tmp_path, settings={"sandbox": "false"})
    language, arguments = json.loads(json.dumps(nix.evaluate("1", "asking")))
    assert language == "C.UTF-8"
    assert f"--store {tmp_path / 'r'}" in arguments
    assert "--option sandbox false" in arguments
    assert "--extra-experimental-features nix-command flakes" in arguments


def test_a_tree_has_the_hash_that_nix_gives_it(nix: Nix, tmp_path: Path) -> None:
    """Files that are empty, large, or programs; links; empty directories; names by their bytes."""
    tree = tmp_path / "tree"
    for name in ("b", "b.d/empty", "b.d/x", "é", "B"):
        (tree / name).mkdir(parents=True)
    (tree / "b/large").write_bytes(b"0123456" * 100_000)
    (tree / "b/none").write_bytes(b"")
    (tree / "b-").write_text("before b in some orders, after it in others")
    (tree / "b.d/x/program").write_text("#!/bin/sh\n")
    (tree / "b.d/x/program").chmod(0o755)
    (tree / "b.d/gone").symlink_to("/nowhere/at/all")
    for path in (tree, tree / "b-", tree / "b.d/x/program", tree / "b.d/gone"):
        assert nix.hash_path(path) == nix.run("nix", ["hash", "path", str(path)], "").strip()
    os.mkfifo(tree / "pipe")
    with pytest.raises(CouldNotCheck, match="neither a file, a directory nor a link"):
        nix.hash_path(tree)
    with pytest.raises(CouldNotCheck, match="hashing"):
        nix.hash_path(tmp_path / "absent")


def test_all_paths_are_those_that_nix_lists(
    nix: Nix, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read from its database; asked of Nix where that cannot be."""
    (tmp_path / "one").write_text("one")
    kept = add(nix, tmp_path / "one")
    assert nix.store is not None
    # Lies in the store, and is not valid: a build that was cut short leaves such.
    (nix.store / "nix/store" / store_path("left").base_name).write_text("")
    (tmp_path / "another").write_text("another")
    paths = sorted([str(kept), str(add(nix, tmp_path / "another"))])
    assert paths == sorted(nix.run("nix", ["path-info", "--all"], "").split())
    listed = "".join(f"{path}\n" for path in paths)
    assert nix.all_paths() == listed
    ran: list[str] = []

    def answer(_: Nix, program: str, *_given: object) -> str:
        ran.append(program)
        return "".join(f"{path}\n" for path in reversed(paths))

    monkeypatch.setattr(Nix, "run", answer)
    assert nix.all_paths() == listed
    assert not ran
    database = nix.store / "nix/var/nix/db/db.sqlite"
    database.rename(database.with_name("aside"))
    assert nix.all_paths() == listed
    assert ran == ["nix"]
    # Another store than the one at /nix may be meant.
    monkeypatch.setenv("NIX_REMOTE", "ssh-ng://elsewhere")
    assert Nix().all_paths() == listed
    assert ran == ["nix", "nix"]


@pytest.mark.parametrize("readable", [True, False])
def test_all_paths_while_another_process_deletes_some(
    nix: Nix, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, readable: bool
) -> None:
    """Nix lists every path, and fails at one that has gone by the time it looks at it."""

    def refuse(path: Path) -> list[str]:
        raise OSError(f"{path} is another user's")

    if not readable:
        monkeypatch.setattr("nix_seed.formats.nix.database.list_valid_paths", refuse)
    kept = []
    for number in range(40):
        file = tmp_path / f"kept-{number}"
        file.write_text(str(number))
        kept.append(add(nix, file))
    assert nix.all_paths() == "".join(f"{path}\n" for path in sorted(kept))
    program = f"""
import subprocess, sys
while True:
    for number in range(4):
        open({str(tmp_path)!r} + f"/gone-{{number}}", "w").write(str(number))
    files = [{str(tmp_path)!r} + f"/gone-{{number}}" for number in range(4)]
    store = ["nix-store", "--store", {str(nix.store)!r}]
    made = subprocess.run([*store, "--add", *files], capture_output=True, text=True).stdout.split()
    subprocess.run([*store, "--delete", *made], capture_output=True)
"""
    other = subprocess.Popen([sys.executable, "-c", program])
    try:
        for _ in range(30):
            assert set(map(str, kept)) <= set(nix.all_paths().splitlines())
    finally:
        other.kill()
        other.wait()
