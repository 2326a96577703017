"""A seed for aarch64-linux, built and used: every program of it runs, here as on ARM64 itself."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from nix_seed.formats.oci.reference import LayoutReference
from nix_seed.image.read.spec import read_spec
from nix_seed.image.read.unpack import unpacked
from nix_seed.registry.layout import Image, open_image
from nix_seed.setup.doctor_image import check_image
from nix_seed.setup.rules.diagnosis import Health, checks_for
from support import engines, quick
from support.distribution import distribution, nix, nix_env
from support.emulation import arm_python, run_arm_python
from support.hydration import verify
from support.registries import docker_registry
from support.seeds import build, nix_seed

HERE, THERE = "x86_64-linux", "aarch64-linux"
# The first one waits for the packages of a whole seed, each unpacked by an emulated shell.
pytestmark = pytest.mark.timeout(1800)
# ELF's e_machine (System V ABI, AArch64 supplement).
EM_AARCH64 = 183


@pytest.fixture(scope="module")
def image(layouts: Mapping[str, Path]) -> Image:
    return open_image(LayoutReference(str(layouts[THERE])))


@pytest.fixture(scope="module")
def root(image: Image) -> Path:
    """The seed unpacked. It is shared: nobody writes to it."""
    return unpacked(image, quick.root() / "cache" / "roots")


@pytest.fixture(scope="module", params=["bwrap", "podman"])
def started(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Mapping[str, str]]]:
    with engines.started(request.param, tmp_path_factory.mktemp(request.param)) as given:
        yield given


def test_its_programs_are_of_its_system_and_so_it_says(image: Image, root: Path) -> None:
    assert (image.architecture, image.config["variant"]) == ("arm64", "v8")
    found = set()
    for directory, _, names in os.walk(root / "nix/store"):
        for name in names:
            path = Path(directory, name)
            if not path.is_symlink():
                with path.open("rb") as file:
                    head = file.read(20)
                if head.startswith(b"\x7fELF"):
                    found.add(int.from_bytes(head[18:20], "little"))
    assert found == {EM_AARCH64}


def test_the_other_systems_packages_are_what_they_are_without_it(both: Path) -> None:
    def derivation(flake: Path) -> str:
        return nix("eval", "--raw", f"{flake}#legacyPackages.{HERE}.nix.drvPath")

    assert derivation(both) == derivation(distribution())


def test_it_keeps_the_contract(
    image: Image,
    root: Path,
    started: tuple[str, Mapping[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name, environment = started
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    found = list(check_image(image, root.parent.parent, [name]))
    assert [each for each in found if each.outcome is not Health.FINE] == []
    assert len(found) == len(checks_for("seed", "arm64"))


def test_a_foreign_node_runs_from_e(root: Path) -> None:
    """GitHub's runner of ARM64 mounts one; its loader is /lib/ld-linux-aarch64.so.1."""
    done = engines.run_node(root, "arm64")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("v20.")


def test_a_changed_source_is_built_offline(
    started: tuple[str, Mapping[str, str]],
    layouts: Mapping[str, Path],
    changed: Path,
    tmp_path: Path,
) -> None:
    engine, environment = started
    ran = nix_seed(
        "run", "--json", "--engine", engine, "--image", f"oci:{layouts[THERE]}", "--flake", changed,
        "--out", tmp_path / "out", "--", "sh", "-c", "nix build && result/bin/words",
        cache=quick.root() / "cache",
        env=environment,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    said, brace, rest = ran.out.partition("{")
    assert said == "other words aarch64\n"
    names = {Path(path).name[33:] for path in json.loads(brace + rest)["paths"]}
    assert names == {"words"}


def test_hydrated_it_builds_offline(
    layouts: Mapping[str, Path], changed: Path, tmp_path: Path
) -> None:
    engines.need_root()
    store = tmp_path / "root"
    ran = nix_seed(
        "hydrate", f"oci:{layouts[THERE]}", "--root", store, "--system", THERE, "--flake", changed,
        cache=quick.root() / "cache",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    verify(store)
    output = f"{changed}#packages.{THERE}.default"
    command = ["unshare", "--net", "nix", "--store", str(store), "build", "--offline", "--json"]
    done = subprocess.run(
        [*command, "--no-link", output], env=nix_env(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    built = json.loads(done.stdout)[0]["outputs"]["out"]
    shown = ["chroot", str(store), f"{built}/bin/words"]
    assert subprocess.check_output(shown, text=True) == "other words aarch64\n"


ASSEMBLE = """
import platform
from pathlib import Path
from types import SimpleNamespace
from nix_seed.image.build import assemble_image
from nix_seed.image.layer_cache import LayerCache
from nix_seed.image.rules.spec import Spec
spec = Spec.parse(Path("seed.json").read_bytes(), "seed.json")
nix, plan = SimpleNamespace(root=Path("/tmp")), SimpleNamespace(spec=spec)
print(platform.machine(), assemble_image(nix, plan, LayerCache(Path("cache"))).documents.digest)
"""


@pytest.mark.parametrize("system", [THERE, pytest.param(HERE, marks=pytest.mark.arm64)])
def test_an_arm64_machine_makes_the_same_bytes(
    system: str, project: Path, both: Path, tmp_path: Path
) -> None:
    """The whole assembler on ARM64's Python, zstd and SQLite: one spec, one digest."""
    engines.need("bwrap", "bubblewrap")
    how = ["--system", system, "--kind", "run", "-o", str(tmp_path / "image")]
    made = build(project, *how, cache=tmp_path / "cache")
    spec = read_spec(open_image(LayoutReference(str(tmp_path / "image"))))
    work = tmp_path / "work"
    work.mkdir()
    (work / "seed.json").write_bytes(spec.dump())
    said = run_arm_python(arm_python(both), ASSEMBLE, [], work)
    assert said.split() == ["aarch64", made["digest"]]


@dataclass(frozen=True)
class Released:
    """Where a commit was released, and the digest of each system's image."""

    reference: str
    commit: str
    digests: Mapping[str, str]
    directory: Path


@pytest.fixture(scope="module")
def released(
    project: Path, layouts: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Released]:
    """Both systems' seeds attested by two builders each, and promoted, in a real registry."""
    directory = tmp_path_factory.mktemp("release")
    cache = quick.root() / "cache"
    policy, source = directory / "trust.toml", "https://forge.example/owner/words"

    def done(*arguments: str | Path) -> str:
        ran = nix_seed(*arguments, cache=cache, env={"NIX_SEED_STATE": str(directory / "state")})
        assert ran.code == 0, ran.err
        return ran.out

    keys = {name: directory / f"{name}.key" for name in ("alice", "bob", "rita")}
    for key in keys.values():
        done("key", "generate", key)
    public = {name: f"{name}={key.with_suffix('.pub')}" for name, key in keys.items()}
    done(
        "policy", "init", policy, "--source", source, "--log", directory / "log",
        "--key", public["alice"], "--key", public["bob"], "--promoter", public["rita"],
        "--system", HERE, "--system", THERE,
    )  # fmt: skip
    with docker_registry(directory / "registry", password=False) as registry:
        repository = f"{registry.host}/words"
        for system, layout in layouts.items():
            done("push", f"oci:{layout}", f"{repository}:{system}")
            for name in ("alice", "bob"):
                done(
                    "attest", f"{repository}:{system}", "--flake", project, "--source", source,
                    "--key", keys[name], "--policy", policy, "--sbom", "none",
                )  # fmt: skip
        git = ["git", "-C", str(project), "rev-parse", "HEAD"]
        commit = subprocess.check_output(git, text=True).strip()
        promote = ["promote", commit, "--to", repository, "--tag", "latest"]
        done(*promote, "--key", keys["rita"], "--policy", policy)
        digests = {
            system: str(open_image(LayoutReference(str(layout))).digest)
            for system, layout in layouts.items()
        }
        verified = done("verify", f"{repository}:latest", "--policy", policy)
        assert all(digest in verified for digest in digests.values())
        yield Released(f"{repository}:latest", commit, digests, directory)


# Those marked arm64 take long, and are left to `make arm64`.
@pytest.mark.parametrize("name", ["podman", pytest.param("docker", marks=pytest.mark.arm64)])
def test_an_engine_takes_each_platform_from_the_index(
    released: Released, name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    # A short one: Docker's sockets lie below it.
    directory = tmp_path_factory.mktemp(name)
    start, more = {
        "podman": (engines.podman, ["--tls-verify=false"]),
        "docker": (engines.docker, []),
    }[name]
    said = {}
    with start(directory) as engine:
        before, after = (
            engine.env.get(f"NIX_SEED_{name.upper()}_{kind}", "").split()
            for kind in ("ARGS", "RUN_ARGS")
        )
        for architecture in ("arm64", "amd64"):
            command = [engine.program, *before, "run", "--rm", "--network", "none", *after, *more]
            command += ["--quiet", "--pull", "always", "--platform", f"linux/{architecture}"]
            done = subprocess.run(
                [*command, released.reference, "uname", "-m"],
                env=os.environ | engine.env,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            said[architecture] = done.stdout.strip()
    assert said == {"arm64": "aarch64", "amd64": "x86_64"}


@pytest.mark.parametrize(("architecture", "system"), [("arm64", THERE), ("amd64", HERE)])
def test_skopeo_takes_each_platform_from_the_index(
    released: Released, architecture: str, system: str
) -> None:
    engines.need("skopeo")
    command = ["skopeo", "--override-arch", architecture, "--override-os", "linux", "inspect"]
    command += ["--tls-verify=false", f"docker://{released.reference}"]
    said = json.loads(subprocess.check_output(command))
    assert (said["Architecture"], said["Labels"]["io.nix-seed.system"]) == (architecture, system)


def test_we_take_each_system_from_the_index(released: Released, tmp_path: Path) -> None:
    for system, digest in released.digests.items():
        where = tmp_path / system
        ran = nix_seed(
            "pull", released.reference, f"oci:{where}", "--system", system,
            cache=quick.root() / "cache",
        )  # fmt: skip
        assert ran.code == 0, ran.err
        assert str(open_image(LayoutReference(str(where))).digest) == digest
