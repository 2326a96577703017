"""``nix-seed doctor`` on set-ups and images that are really broken."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from nix_seed.core.files import has_program
from nix_seed.flake.nix import Nix
from nix_seed.logs.embedded import EmbeddedLog
from nix_seed.setup.doctor import Setup, check_setup
from nix_seed.setup.rules.diagnosis import checks_for
from nix_seed.trust.sign import KeySigner
from nix_seed.use.macos_store import Machine
from support import engines, warm
from support.distribution import nix_env
from support.host_image import host_image
from support.layouts import directory, file, tar
from support.logs import served
from support.programs import need
from support.registries import docker_registry, free_port
from support.web import answering

Found = dict[str, dict[str, Any]]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Nix as it should be, and nothing of the user's own."""
    own = {
        "NIX_SEED_CACHE": str(tmp_path / "cache"),
        "NIX_SEED_STATE": str(tmp_path / "state"),
        "DOCKER_CONFIG": str(tmp_path / "docker"),
        "REGISTRY_AUTH_FILE": str(tmp_path / "auth.json"),
        "HOME": str(tmp_path),
    }
    # Podman wants the file to be there, if it is named.
    (tmp_path / "auth.json").write_text("{}")
    return nix_env() | own


def doctor(
    environment: dict[str, str], *arguments: str, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return warm.run(["doctor", *arguments], environment, cwd or Path(environment["HOME"]))


def found(environment: dict[str, str], *arguments: str, code: int) -> Found:
    done = doctor(environment, "--json", *arguments)
    assert done.returncode == code, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert said["exitCode"] == code
    assert all(each["fix"] or each["outcome"] == "fine" for each in said["diagnoses"])
    return {f"{each['area']}/{each['name']}": each for each in said["diagnoses"]}


def wrong(diagnoses: Found, outcome: str = "false") -> list[str]:
    return [name for name, each in diagnoses.items() if each["outcome"] == outcome]


def program(place: Path, name: str, text: str) -> None:
    place.mkdir(exist_ok=True)
    (place / name).write_text(f"#!/bin/sh\n{text}\n")
    (place / name).chmod(0o755)


# The machine


def test_a_machine_that_is_well(environment: dict[str, str]) -> None:
    for name in ("nix", "git"):
        need(name)
    engines.need("bwrap", "bubblewrap")
    seen = found(environment, code=0)
    assert "(CppNix)" in seen["nix/version"]["said"]
    assert seen["nix/a build"]["outcome"] == "fine"
    assert seen["engines/bwrap"]["outcome"] == "fine"
    text = doctor(environment).stdout
    assert re.search(r"\nnix\n  (fine|warning) +version ", text)
    assert text.splitlines()[-1].split(", ")[0].endswith(" fine")


def test_a_machine_with_nothing(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    seen = found(environment | {"PATH": str(tmp_path / "bin")}, code=1)
    assert wrong(seen) == [
        "nix/version",
        "tools/git",
        "engines/bwrap",
        "engines/podman",
        "engines/docker",
        "engines/any",
    ]
    assert seen["nix/version"]["fix"].startswith("apt-get install nix-bin on Debian")
    assert seen["engines/bwrap"]["fix"] == "install it: apt-get install bubblewrap mount util-linux"
    assert seen["engines/docker"]["fix"] == "install Docker Engine 23 or newer"
    assert seen["tools/git"]["fix"] == "apt-get install git"
    assert wrong(seen, "not checked") == ["engines/user namespaces"]


def test_programs_that_are_too_old(environment: dict[str, str], tmp_path: Path) -> None:
    place = tmp_path / "bin"
    program(place, "docker", "echo 20.10.24")
    program(place, "nix", 'case $* in *--version) echo "nix (Nix) 2.3.16" ;; *) exit 1 ;; esac')
    program(place, "nix-store", "exit 1")
    seen = found(environment | {"PATH": f"{place}:/usr/bin:/bin"}, code=1)
    assert seen["nix/version"]["said"] == "2.3.16 (CppNix)"
    assert seen["nix/version"]["fix"] == "install Nix 2.8 or newer"
    assert "20.10.24 cannot read zstd layers" in seen["engines/docker"]["said"]
    alone = found(environment | {"PATH": str(place)}, code=1)
    assert alone["engines/docker"]["outcome"] == "false"


def test_an_engine_that_answers_and_starts_nothing(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """Its version says nothing of whether its containers start."""
    answers = """case $* in
  version*) echo 26.1.5 ;;
  import*) cat > /dev/null; echo sha256:0123 ;;
  run*) printf 'docker: runc did not start; sorry\\n' >&2; exit 125 ;;
esac"""
    program(tmp_path / "bin", "docker", answers)
    seen = found(environment | {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"}, code=0)
    told = seen["engines/docker"]
    assert told["said"] == "it starts no container: docker: runc did not start, sorry"
    assert told["outcome"] == "warning", "bwrap is enough"
    assert "NIX_SEED_DOCKER_RUN_ARGS" in told["fix"]


def test_a_docker_that_talks_nonsense_is_not_judged_by_a_crash(
    environment: dict[str, str], tmp_path: Path
) -> None:
    program(tmp_path / "bin", "docker", "echo dev-build")
    seen = found(environment | {"PATH": str(tmp_path / "bin")}, code=1)
    assert "it could not be asked" in seen["engines/docker"]["said"]


def with_nix(environment: dict[str, str], **settings: str) -> dict[str, str]:
    config = "".join(f"{name.replace('_', '-')} = {value}\n" for name, value in settings.items())
    return environment | {"NIX_CONFIG": environment["NIX_CONFIG"] + config}


def test_a_nix_that_nixpkgs_takes(environment: dict[str, str]) -> None:
    # It would have a shell in its sandbox that this system need not have.
    newer = with_nix(environment, sandbox_paths="")
    newer["PATH"] = f"{engines.trixie_nix()}{os.pathsep}{newer['PATH']}"
    assert found(newer, code=0)["nix/version"]["outcome"] == "fine"


def test_nix_set_up_otherwise(environment: dict[str, str]) -> None:
    need("nix")
    seen = found(with_nix(environment, experimental_features="", sandbox="false"), code=0)
    warnings = [name for name in wrong(seen, "warning") if name != "nix/version"]
    assert warnings[:2] == ["nix/experimental features", "nix/sandbox"]
    assert seen["nix/experimental features"]["said"].startswith("flakes and nix-command: off")


def found_without_hook(environment: dict[str, str], hook: str) -> Found:
    """Look until a build ends in the hook: Nix does without where it sees early that it died."""
    for _ in range(10):
        seen = found(with_nix(environment, build_hook=hook), code=1)
        if wrong(seen) != ["nix/build-hook"]:
            break
    assert wrong(seen) == ["nix/build-hook", "nix/a build"]
    return seen


def test_a_build_hook_that_is_not_there(environment: dict[str, str]) -> None:
    """As where a distribution ships the program in another package: every build ends in it."""
    need("nix")
    seen = found_without_hook(environment, "/nowhere/build-remote")
    assert seen["nix/build-hook"]["said"] == "/nowhere/build-remote is not there"
    assert seen["nix/build-hook"]["fix"] == seen["nix/a build"]["fix"]
    assert "\x1b" not in seen["nix/a build"]["said"]
    # An empty one, as some advise, is none; the fix that is shown is one.
    found_without_hook(environment, "")
    link = Path(environment["HOME"]) / "build-remote"
    link.symlink_to(need("nix"))
    found(with_nix(environment, build_hook=str(link)), code=0)


def test_a_store_that_cannot_be_written_to(environment: dict[str, str]) -> None:
    need("nix")
    seen = found(environment, "--store", "/proc/nowhere", code=1)
    assert wrong(seen) == ["nix/a build"]


def test_disks(environment: dict[str, str], tmp_path: Path) -> None:
    engines.need_root()
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], check=True)
    try:
        places = {"NIX_SEED_CACHE": str(small / "cache"), "NIX_SEED_STATE": "/proc/nowhere"}
        seen = found(environment | places, code=1)
    finally:
        subprocess.run(["umount", small], check=True)
    assert seen["disk/cache"]["said"] == f"{small}/cache: 0.0 GB free"
    assert seen["disk/state"]["said"].startswith("/proc/nowhere cannot be written to: ")
    assert seen["disk/state"]["fix"] == ("choose a place that you may write to: NIX_SEED_STATE=DIR")


def test_a_mac(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIX_CONFIG", nix_env()["NIX_CONFIG"])

    def mac() -> dict[str, str]:
        setup = Setup(
            Nix(), tmp_path / "c", tmp_path / "s", datetime.now(UTC),
            machine=Machine(tmp_path), system="darwin",
        )  # fmt: skip
        return {f"{each.area}/{each.name}": each.outcome.value for each in check_setup(setup)}

    seen = mac()
    assert seen["macOS/store"] == "warning"
    assert not any(name.startswith("engines/") for name in seen)
    (tmp_path / "nix").mkdir()
    assert mac()["macOS/store"] == "fine"


# Beyond the machine


@contextlib.contextmanager
def server(ahead: timedelta) -> Iterator[str]:
    """A registry whose clock goes *ahead* of this machine's."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(401)
            self.end_headers()

        do_GET = do_HEAD

        def date_time_string(self, timestamp: float | None = None) -> str:
            return format_datetime(datetime.now(UTC) + ahead, usegmt=True)

        def log_message(self, *args: Any) -> None:
            pass

    with answering(Handler) as listening:
        yield f"127.0.0.1:{listening.server_port}"


@pytest.mark.parametrize(
    ("ahead", "code", "outcome"), [(0, 0, "fine"), (90, 0, "warning"), (-3600, 1, "false")]
)
def test_the_clock(environment: dict[str, str], ahead: int, code: int, outcome: str) -> None:
    with server(timedelta(seconds=ahead)) as host:
        seen = found(environment, "--registry", host, code=code)
    assert seen["clock/skew"]["outcome"] == outcome
    assert host in seen["clock/skew"]["said"]
    assert seen[f"registries/{host}"]["said"] == f"http://{host} answers"
    assert seen[f"credentials/{host}"]["outcome"] == "warning"


def test_a_registry_that_is_down(environment: dict[str, str]) -> None:
    host = f"127.0.0.1:{free_port()}"
    seen = found(environment, "--registry", host, code=3)
    assert wrong(seen, "not checked") == [f"registries/{host}", "clock/skew"]
    assert "no connection could be made" in seen[f"registries/{host}"]["said"]


def test_a_real_registry(environment: dict[str, str], tmp_path: Path) -> None:
    with docker_registry(tmp_path / "registry") as running:
        seen = found(environment, "--registry", running.host, code=0)
    assert seen["clock/skew"]["outcome"] == "fine"


def credentials(environment: dict[str, str], config: Any) -> None:
    Path(environment["REGISTRY_AUTH_FILE"]).write_text(
        config if isinstance(config, str) else json.dumps(config)
    )


def test_credentials(environment: dict[str, str], tmp_path: Path) -> None:
    credentials(environment, {
        "auths": {"a.example": {"auth": "bWU6c2VjcmV0"}, "b.example": {}},
        "credHelpers": {"c.example": "there", "d.example": "missing", "e.example": "mute"},
    })  # fmt: skip
    place = tmp_path / "helpers"
    program(place, "docker-credential-there", """echo '{"Username": "you", "Secret": "s3cret"}'""")
    program(place, "docker-credential-mute", "exit 9")
    env = environment | {"PATH": f"{place}:{environment['PATH']}"}
    seen = found(env, code=1)
    assert seen["credentials/a.example"]["said"].startswith("me (from ")
    assert seen["credentials/b.example"]["outcome"] == "warning"
    assert seen["credentials/c.example"]["said"] == "you (from docker-credential-there)"
    assert seen["credentials/d.example"]["outcome"] == "false"
    assert (
        "docker-credential-missing is configured, but not on PATH"
        in (seen["credentials/d.example"]["said"])
    )
    assert seen["credentials/e.example"]["outcome"] == "not checked"
    assert "secret" not in json.dumps(seen).lower().replace("s3cret", "secret")
    credentials(environment, "{")
    assert wrong(found(environment, code=1)) == ["credentials/files"]


def trust(tmp_path: Path, log: EmbeddedLog, url: str, expires: datetime) -> str:
    key = KeySigner.generate().public_key.pem.decode()
    (tmp_path / "trust.toml").write_text(
        f"version = 1\nepoch = 1\nexpires = {expires:%Y-%m-%dT%H:%M:%SZ}\n"
        f'systems = ["x86_64-linux"]\n[quorum]\nthreshold = 1\nlogs = 1\n'
        f'[[builders]]\nid = "a"\nkey = """\n{key}"""\n'
        f'[[logs]]\nid = "ours"\nkind = "tiles"\norigin = "{log.trusted.origin}"\n'
        f'key = "{log.trusted.key}"\nurl = "{url}"\n'
    )
    return "trust.toml"


def test_logs(environment: dict[str, str], tmp_path: Path) -> None:
    later = datetime.now(UTC) + timedelta(days=300)
    log = EmbeddedLog.create(tmp_path / "log", "log.example")
    other = EmbeddedLog.create(tmp_path / "other", "log.example")
    with served(log) as listening:
        trust(tmp_path, log, f"{listening.url}", later)
        seen = found(environment, code=0)
        assert seen["logs/ours"]["said"].endswith("answers: 0 entries, signed by the policy's key")
        assert seen["policy/trust.toml"]["outcome"] == "fine"
        assert seen["clock/skew"]["outcome"] == "fine"
        trust(tmp_path, other, f"{listening.url}", later)
        assert wrong(found(environment, code=1)) == ["logs/ours"]
    seen = found(environment, code=3)
    assert wrong(seen, "not checked") == ["logs/ours", "clock/skew"]
    trust(tmp_path, log, "log", later)
    assert found(environment, code=0)["logs/ours"]["said"].startswith("log answers: 0 entries")


def test_policies(environment: dict[str, str], tmp_path: Path) -> None:
    log = EmbeddedLog.create(tmp_path / "log", "log.example")
    trust(tmp_path, log, "log", datetime.now(UTC) - timedelta(days=1))
    seen = found(environment, code=1)
    assert wrong(seen) == ["policy/trust.toml"]
    assert "the policy expired on" in seen["policy/trust.toml"]["said"]
    trust(tmp_path, log, "log", datetime.now(UTC) + timedelta(days=5))
    seen = found(environment, code=0)
    assert seen["policy/warning"]["said"].startswith("the policy expires in ")
    assert wrong(found(environment, "--policy", "none.toml", code=1)) == ["policy/none.toml"]


# An image


def image(environment: dict[str, str], *more: bytes) -> str:
    engines.need("bwrap", "bubblewrap")
    return f"oci:{host_image(Path(environment['HOME']) / 'image', *more)}"


# The host's own Nix has an empty database there: it is no seed.
NO_SEED = ["Nix's store"]


def test_an_image_is_asked_for_all_of_the_contract(environment: dict[str, str]) -> None:
    seen = found(environment, image(environment), "--engine", "bwrap", code=1)
    assert [name.partition("/")[2] for name in wrong(seen)] == NO_SEED
    assert len(seen) == len(checks_for("seed", "amd64"))


def test_broken_clauses_come_with_their_fix(environment: dict[str, str]) -> None:
    broken = tar(
        [
            file(".wh.tmp"),
            directory("tmp", 0o755),
            file("usr/bin/.wh.zstd"),
            file("etc/os-release", b"ID=alpine\n", 0o644),
        ]
    )
    reference = image(environment, broken)
    seen = found(environment, reference, "--engine", "bwrap", code=1)
    assert {name.removeprefix("bwrap/") for name in wrong(seen)} == {
        "/tmp", "zstd", "/etc/os-release", *NO_SEED,
    }  # fmt: skip
    assert seen["bwrap//tmp"]["fix"] == "give the image a directory /tmp of mode 1777"
    text = doctor(environment, reference, "--engine", "bwrap").stdout
    assert "mode 755" in text
    assert "fix: give the image a directory /tmp of mode 1777" in text


@pytest.mark.parametrize("engine", [(), ("--engine", "bwrap")])
def test_an_image_without_a_shell(environment: dict[str, str], engine: tuple[str, ...]) -> None:
    lacking = tar([file("usr/bin/.wh.sh")])
    seen = found(environment, image(environment, lacking), *engine, code=1)
    assert list(seen) == ["image//bin/sh"]
    assert seen["image//bin/sh"]["said"] == "there is no such program"


def test_a_shell_that_cannot_start(environment: dict[str, str]) -> None:
    useless = tar([file("usr/bin/.wh.sh"), file("usr/bin/sh", b"\x7fELF no more", 0o555)])
    seen = found(environment, image(environment, useless), "--engine", "bwrap", code=3)
    assert list(seen) == ["bwrap/contract"]
    assert seen["bwrap/contract"]["said"].startswith("bwrap could not start the image")


def test_what_an_image_says_does_not_steer_the_terminal(environment: dict[str, str]) -> None:
    script = b"#!/bin/sh\nprintf '\\033[2Jx'; exit 1"
    evil = tar([file("usr/bin/.wh.zstd"), file("usr/bin/zstd", script, 0o555)])
    done = doctor(environment, image(environment, evil), "--engine", "bwrap")
    assert done.returncode == 1
    assert "\x1b[2J" not in done.stdout
    assert "\ufffd[2Jx" in done.stdout


def test_without_an_engine_nothing_is_known(environment: dict[str, str]) -> None:
    reference = image(environment)
    (Path(environment["HOME"]) / "bin").mkdir()
    bare = environment | {"PATH": str(Path(environment["HOME"]) / "bin")}
    seen = found(bare, reference, code=3)
    assert seen["image/contract"]["said"].startswith("no engine can run the image here\nbwrap: ")
    seen = found(bare, reference, "--engine", "github", code=3)
    assert seen["github/contract"]["said"] == "github cannot be used here"
    assert seen["github/contract"]["fix"] == (
        "docker is not on PATH; install Docker Engine 23 or newer"
    )


def test_podman_is_asked_too(
    environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    with engines.podman(tmp_path_factory.mktemp("podman")) as started:
        env = environment | started.env
        seen = found(env, image(environment), "--engine", "podman", code=1)
    assert wrong(seen) == [f"podman/{name}" for name in NO_SEED]


def test_as_githubs_runner_does_it(
    environment: dict[str, str], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    good = image(environment)
    lacking = f"oci:{host_image(tmp_path / 'lacking', tar([file('usr/bin/.wh.tail')]))}"
    ways = ("--engine", "docker", "--engine", "github")
    # A short path: that of a socket below it has an end.
    with engines.docker(tmp_path_factory.mktemp("docker")) as started:
        env = environment | started.env
        seen = found(env, good, *ways, code=1)
        assert wrong(seen) == [f"{way}/{name}" for way in ("docker", "github") for name in NO_SEED]
        assert len(seen) == 2 * len(checks_for("seed", "amd64"))
        seen = found(env, lacking, *ways, code=1)
        assert "docker//usr/bin/tail" in wrong(seen)
        assert (
            "a job's container does not start, for the image has no `tail`"
            in (seen["github/contract"]["said"])
        )
        left = subprocess.run(
            ["docker", "ps", "--all", "--quiet"], env=env, capture_output=True, check=True
        )
        assert left.stdout == b""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--engine", "bwrap"), "--engine and --system are for an IMAGE"),
        (("oci:nowhere",), "nowhere"),
        (("UPPER/case",), "UPPER/case"),
    ],
)
def test_wrong_words(environment: dict[str, str], arguments: tuple[str, ...], words: str) -> None:
    done = doctor(environment, *arguments)
    assert done.returncode == 2, done.stdout
    assert words in done.stderr


def test_programs_are_looked_for_with_the_images_eyes(tmp_path: Path) -> None:
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "bin").symlink_to("usr/bin")
    (tmp_path / "usr/bin/bash").write_text("")
    (tmp_path / "usr/bin/bash").chmod(0o755)
    (tmp_path / "usr/bin/sh").symlink_to("/usr/bin/../../../bin/./bash")
    (tmp_path / "usr/bin/loop").symlink_to("loop")
    (tmp_path / "usr/bin/out").symlink_to(shutil.which("sh") or "/bin/sh")
    (tmp_path / "usr/bin/plain").write_text("")
    os.symlink("/nowhere", tmp_path / "usr/bin/gone")
    assert has_program(tmp_path, "/bin/sh")
    assert has_program(tmp_path, "/usr/bin/bash")
    assert has_program(tmp_path, "/usr/bin/out")  # its own /bin/sh
    for name in ("loop", "plain", "gone", "none"):
        assert not has_program(tmp_path, f"/usr/bin/{name}")
