"""Commands run in each real engine: isolation, exit codes, results."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError
from nix_seed.flake.nix import Nix
from nix_seed.formats.oci.reference import LayoutReference
from nix_seed.registry.layout import Image, open_image
from nix_seed.use.engines import choose_engine
from nix_seed.use.engines.base import Engine, Job
from nix_seed.use.engines.bwrap import scratch_directory
from nix_seed.use.prove import ProvedFlake, check_proof, prove
from nix_seed.use.run import Command, RunResult, run
from nix_seed.use.sandboxed import find_tree, inside
from support import engines
from support.host_image import host_image
from support.layouts import file, tar, write_layout


def execute(engine: Engine, image: Image, tmp_path: Path, script: str, **more: object) -> str:
    """Run a shell script inside and return what it wrote to ``$x/said``."""
    exchange = tmp_path / "exchange"
    exchange.mkdir(exist_ok=True)
    prelude = "exec > /.nix-seed/exchange/said 2>&1\n"
    job = Job(("/bin/sh", "-e", "-c", prelude + script), exchange, **more)  # type: ignore[arg-type]
    assert engine.run(engine.prepare(image), image, job) == 0
    return (exchange / "said").read_text()


def test_there_is_no_network_but_loopback(engine: Engine, image: Image, tmp_path: Path) -> None:
    said = execute(engine, image, tmp_path, "ls /sys/class/net 2>/dev/null || cat /proc/net/dev")
    interfaces = {line.split(":")[0].strip() for line in said.splitlines() if "|" not in line}
    assert interfaces <= {"lo", "bonding_masters"}
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        reach = f'bash -c ": < /dev/tcp/127.0.0.1/{port}" && echo reached || echo refused'
        assert execute(engine, image, tmp_path, reach).splitlines()[-1] == "refused"


def test_loopback_is_up(engine: Engine, image: Image, tmp_path: Path) -> None:
    # Refused at once, by a kernel that has an interface to refuse on; else "unreachable".
    said = execute(engine, image, tmp_path, 'bash -c ": < /dev/tcp/127.0.0.1/9" || true')
    assert "Connection refused" in said


def test_the_exit_code_is_the_commands(engine: Engine, image: Image, tmp_path: Path) -> None:
    prepared = engine.prepare(image)
    for code in (0, 1, 42, 125):
        (tmp_path / str(code)).mkdir()
        job = Job(("/bin/sh", "-c", f"exit {code}"), tmp_path / str(code))
        assert engine.run(prepared, image, job) == code


def test_the_source_is_writable_inside_and_unchanged_outside(
    engine: Engine, image: Image, flake: Path, tmp_path: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in flake.rglob("*")}
    script = "cat words; echo changed > words; echo new > new; rm flake.nix; ls; cat words"
    said = execute(engine, image, tmp_path, script, source=flake, workdir="/src")
    assert said.split() == ["first", "words", "new", "words", "changed"]
    assert {path: path.stat().st_mtime_ns for path in flake.rglob("*")} == before


def test_every_run_starts_afresh(engine: Engine, image: Image, tmp_path: Path) -> None:
    execute(engine, image, tmp_path, "echo x > /etc/mark; echo x > /usr/bin/mark; rm /bin/grep")
    script = "ls /etc/mark /usr/bin/mark || true; test -x /bin/grep && echo still"
    assert execute(engine, image, tmp_path, script).splitlines()[-1] == "still"


def test_environment(engine: Engine, image: Image, tmp_path: Path) -> None:
    os.environ["NIX_SEED_TEST_LEAK"] = "secret"
    try:
        said = execute(engine, image, tmp_path, "env", env={"MINE": "a b\nc=d"})
    finally:
        del os.environ["NIX_SEED_TEST_LEAK"]
    assert "MINE=a b\nc=d\n" in said
    assert f"PATH={image.environment['PATH']}\n" in said
    assert "secret" not in said


def test_an_awkward_temporary_directory(
    engine: Engine, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    awkward = tmp_path / ".Not_an__image-name_"
    awkward.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(awkward))
    other = host_image(awkward / "layout", tar([file("new", os.urandom(9))]))
    assert engine.prepare(open_image(LayoutReference(str(other))))


def test_preparing_again_is_quick(engine: Engine, image: Image) -> None:
    prepared = engine.prepare(image)
    start = time.monotonic()
    assert engine.prepare(image) == prepared
    assert time.monotonic() - start < 2


def build(engine: Engine, image: Image, source: Path, tmp_path: Path, *more: str) -> RunResult:
    return run(
        Command(("nix", "build", *more), source),
        engine=engine,
        image=image,
        nix=Nix(store=tmp_path / "host"),
    )


def test_a_command_that_is_not_there_is_named_and_no_line_of_ours(
    engine: Engine, image: Image, flake: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    nix = Nix(store=tmp_path / "host")
    for command, code, said in (
        ("nosuch", 127, "no such command in the seed; mkSeed's contents.toolchain adds one"),
        # A function of the script that finds what was built.
        ("store", 127, "no such command in the seed; mkSeed's contents.toolchain adds one"),
        ("./nosuch", 127, "no such file"),
        ("./words", 126, "that file is not executable"),
        ("./", 126, "that is a directory"),
    ):
        result = run(Command((command,), flake), engine=engine, image=image, nix=nix)
        assert result.exit_code == code
        assert f"nix-seed: {command}: {said}\n" in capfd.readouterr().err
    assert run(Command(("exit", "3"), flake), engine=engine, image=image, nix=nix).exit_code == 3


def test_results_come_into_the_hosts_store(
    engine: Engine, image: Image, flake: Path, tmp_path: Path
) -> None:
    result = build(engine, image, flake, tmp_path)
    assert result.exit_code == 0
    assert {path.name for path in result.brought.paths} == {"library", "program"}
    assert [link.path for link in result.brought.links] == [flake / "result"]
    host = Nix(store=tmp_path / "host")
    program = tmp_path / "host" / os.readlink(flake / "result").lstrip("/")
    words = tmp_path / "host" / os.readlink(program / "linked").lstrip("/")
    assert words.read_text() == "first words\n"
    host.run("nix-store", ["--verify", "--check-contents"], "verifying")
    # Again, with a change to the source; what the host has already does not come a second time.
    (flake / "words").write_text("second words\n")
    # A build that was cut short leaves what Nix does not call valid.
    script = f"nix build && mkdir /nix/store/{'0' * 32}-left"
    changed = run(Command(("sh", "-c", script), flake), engine=engine, image=image, nix=host)
    assert {path.name for path in changed.brought.paths} == {"library", "program"}
    assert build(engine, image, flake, tmp_path).brought.paths == ()


def test_results_come_into_a_directory(
    engine: Engine, image: Image, flake: Path, tmp_path: Path
) -> None:
    (flake / "below").mkdir()
    out = tmp_path / "out"
    result = run(
        Command(("nix", "build", ".#library", "--out-link", "below/mine"), flake),
        engine=engine,
        image=image,
        nix=Nix(bin_dir=tmp_path / "there-is-no-nix-here"),
        out=out,
    )
    assert result.exit_code == 0
    assert (flake / "below/mine/words").read_text() == "first words\n"
    assert Path(os.readlink(flake / "below/mine")).is_relative_to(out)
    assert result.brought.into == str(out)


def test_a_flake_in_a_subdirectory(
    engine: Engine, image: Image, flake: Path, tmp_path: Path
) -> None:
    (flake / "sub").mkdir()
    (flake / "flake.nix").rename(flake / "sub/flake.nix")
    text = (flake / "sub/flake.nix").read_text().replace("./words", "../words")
    (flake / "sub/flake.nix").write_text(text)
    subprocess.run(["git", "add", "-A"], cwd=flake, check=True)
    result = build(engine, image, flake / "sub", tmp_path, ".#library")
    assert result.exit_code == 0
    assert [link.path for link in result.brought.links] == [flake / "sub/result"]


def test_a_failing_build_brings_nothing(
    engine: Engine, image: Image, flake: Path, tmp_path: Path
) -> None:
    result = build(engine, image, flake, tmp_path, ".#nothing")
    assert result.exit_code == 1
    assert result.brought.paths == ()
    assert not (flake / "result").exists()


def test_a_file_in_the_links_place_is_kept(
    engine: Engine, image: Image, flake: Path, tmp_path: Path
) -> None:
    (flake / "result").write_text("precious")
    with pytest.raises(InputError, match="result is in the way of the link to /nix/store/"):
        run(
            Command(("/bin/sh", "-c", "rm result && nix build"), flake),
            engine=engine,
            image=image,
            nix=Nix(store=tmp_path / "host"),
        )
    assert (flake / "result").read_text() == "precious"


def test_a_complete_image_is_proved(engine: Engine, image: Image, flake: Path) -> None:
    proof = prove(engine, image, ProvedFlake(flake, "x86_64-linux"))
    check_proof(proof)
    assert proof.complete
    assert proof.outputs == (
        "packages.default",
        "packages.library",
        "apps.default",
        "checks.words",
    )


MISSING = """
      download = derivation {
        name = "source-1.2.tar.gz"; system = "x86_64-linux"; builder = "builtin:fetchurl";
        url = "http://127.0.0.1:9/source-1.2.tar.gz";
        outputHashMode = "flat"; outputHashAlgo = "sha256";
        outputHash = "0000000000000000000000000000000000000000000000000000000000000000";
      };
      openssl = make "openssl-3.0.9" "cat ${download} > $out";
"""


def test_what_is_missing_is_named_with_the_way_to_add_it(
    engine: Engine, image: Image, flake: Path
) -> None:
    text = (flake / "flake.nix").read_text().replace("    let", "    let" + MISSING)
    text = text.replace('make "library" "', 'make "library" "cat ${openssl}; ')
    (flake / "flake.nix").write_text(text)
    proof = prove(engine, image, ProvedFlake(flake, "x86_64-linux"))
    assert [(gap.name, gap.kind, gap.behind) for gap in proof.gaps] == [
        ("openssl-3.0.9", "derivation", 1)
    ]
    assert proof.gaps[0].needed_by == ("packages.library",)
    with pytest.raises(CheckedFalse) as caught:
        check_proof(proof)
    assert caught.value.hint == (
        "openssl-3.0.9 (derivation for packages.library); "
        "add it: mkSeed { contents.packages = [ openssl ]; }"
    )


def test_a_flake_that_cannot_be_evaluated_offline(
    engine: Engine, image: Image, flake: Path
) -> None:
    (flake / "flake.nix").write_text('{ outputs = { self }: throw "needs the moon"; }')
    proof = prove(engine, image, ProvedFlake(flake, "x86_64-linux"))
    assert not proof.complete
    with pytest.raises(CheckedFalse, match="cannot be evaluated inside the seed") as caught:
        check_proof(proof)
    assert "needs the moon" in str(caught.value.detail)


def test_an_image_without_a_shell_could_not_be_started(
    engine: Engine,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    empty = open_image(LayoutReference(str(write_layout(tmp_path / "empty", [tar([])]))))
    (tmp_path / "exchange").mkdir()
    job = Job(("true",), tmp_path / "exchange")
    with pytest.raises(CouldNotCheck, match="could not start the image") as caught:
        engine.run(engine.prepare(empty), empty, job)
    # One line and what to do; the engine's own words stand above, and none of our shell's.
    assert str(caught.value.hint).splitlines() == [
        "its own message is above; `nix-seed doctor IMAGE` checks the image"
    ]
    assert "sh" in capfd.readouterr().err
    monkeypatch.setenv("NIX_SEED_DEBUG", "1")
    with pytest.raises(CouldNotCheck) as caught:
        engine.run(engine.prepare(empty), empty, job)
    assert "/bin/sh" in str(caught.value.hint)


def test_a_worktree_has_its_history_inside(engine: Engine, image: Image, tmp_path: Path) -> None:
    """Its own branch, index and changes, as in the worktree, which stays as it is."""
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@t", "-C"]

    def call(place: Path, *arguments: str) -> str:
        command = [*git, str(place), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    main, tree = tmp_path / "main", tmp_path / "tree"
    main.mkdir()
    call(main, "init", "--quiet")
    (main / "kept").write_text("1\n")
    call(main, "add", ".")
    call(main, "commit", "--quiet", "--message", "first")
    call(main, "worktree", "add", "--quiet", "-b", "other", str(tree))
    (tree / "staged").write_text("2\n")
    call(tree, "add", "staged")
    (tree / "kept").write_text("changed\n")
    status = call(tree, "status", "--short", "--branch")
    with inside(engine, image) as work:
        script = (
            "exec > /.nix-seed/exchange/said 2>&1; git status --short --branch; git log --oneline"
        )
        assert work.run(("/bin/sh", "-ec", script), find_tree(tree)) == 0
        said = work.read("said")
        assert work.run(("/bin/sh", "-ec", "rm -rf .git; touch new"), find_tree(tree)) == 0
    assert status == "## other\n M kept\nA  staged\n"
    assert said == status + call(tree, "log", "--oneline")
    assert call(tree, "status", "--short", "--branch") == status


def test_an_unknown_engine_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'lxc' is not an engine") as caught:
        choose_engine("lxc", tmp_path)
    assert caught.value.hint == "the engines are bwrap, podman, docker"


def test_an_engine_that_is_not_there_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CouldNotCheck, match="no engine can be used on this machine") as caught:
        choose_engine(None, tmp_path)
    assert "bwrap: bwrap is not on PATH; install it: apt-get install bubblewrap" in str(
        caught.value.hint
    )
    with pytest.raises(CouldNotCheck, match="the engine docker cannot be used"):
        choose_engine("docker", tmp_path)


def test_runs_that_end_and_begin_at_once_leave_each_other_alone(tmp_path: Path) -> None:
    def use(number: int) -> None:
        with scratch_directory(tmp_path / "runs") as directory:
            for each in range(20):
                (directory / f"{number}-{each}").mkdir()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(use, range(100)))
    assert os.listdir(tmp_path / "runs") == [".lock"]


def test_killed_runs_leave_nothing_for_long(image: Image, tmp_path: Path) -> None:
    engines.need("bwrap", "bubblewrap")
    # A copy of the root that is there already would not be run: it is unpacked again.
    engine = choose_engine("bwrap", tmp_path / "cache")
    engine.prepare(image)
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            (tmp_path / "a").mkdir()
            engine.run(engine.prepare(image), image, Job(("/bin/sleep", "60"), tmp_path / "a"))
        finally:
            os._exit(0)
    while not (tmp_path / "a/started").exists():
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    (tmp_path / "b").mkdir()
    engine.run(engine.prepare(image), image, Job(("/bin/true",), tmp_path / "b"))
    assert os.listdir(tmp_path / "cache/runs") == [".lock"]
    # The command ends because its parent did, and that one after it: not at once.
    deadline = time.monotonic() + 30
    ps = ["ps", "-o", "args", "-s", str(child)]
    while "/bin/sleep 60" in subprocess.run(ps, capture_output=True, text=True, check=False).stdout:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_bwrap_works_for_someone_without_privileges(run_image: Image, tmp_path: Path) -> None:
    engines.need("bwrap", "bubblewrap")
    if os.geteuid() != 0:
        pytest.skip("needs root, to become someone else; others run every test as themselves")
    home = Path(tempfile.mkdtemp(prefix="nix-seed-"))
    home.chmod(0o755)
    os.chown(home, 65534, 65534)
    shutil.copytree(run_image.directory, home / "image")
    image = open_image(LayoutReference(str(home / "image"), digest=run_image.digest))
    # Once as root: the interpreter's own files need not be readable for the other user. With a
    # thread beside it no process is forked, and so these are not loaded.
    for name in ("concurrent.futures.process", "multiprocessing.popen_fork"):
        importlib.import_module(name)
    choose_engine("bwrap", tmp_path / "cache").prepare(image)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            engine = choose_engine("bwrap", home / "cache")
            (home / "exchange").mkdir()
            argv = ("/bin/sh", "-c", "test $UID = 0 && echo x > /etc/new && echo x > /usr/bin/new")
            code = engine.run(engine.prepare(image), image, Job(argv, home / "exchange"))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    shutil.rmtree(home)
    assert code == 0
