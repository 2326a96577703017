"""The same commands anywhere: ``bin/publish`` on a bare machine, and the template for GitLab."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from nix_seed.setup.init import GITLAB_TAGS, render_ci
from nix_seed.setup.rules.diagnosis import Health, judge_nix_version
from support import built
from support.distribution import nix_env
from support.engines import trixie_nix
from support.registries import PASSWORD, USER, Running, docker_registry
from support.runner import Runner, command, git
from support.steps import ROOT, load, parse

TEMPLATE = load(ROOT / "examples/gitlab/.gitlab-ci.yml")


@dataclass(frozen=True)
class Place:
    root: Path
    project: Path
    registry: Running

    @property
    def host(self) -> str:
        return self.registry.host

    def environment(self, **more: str) -> dict[str, str]:
        kept = {key: value for key, value in nix_env().items() if key in ("PATH", "NIX_CONFIG")}
        own = {"HOME": str(self.root), "NIX_SEED_BIN": str(command(self.root))}
        own |= {"NIX_SEED_CACHE": str(self.root / "cache"), "NIX_SEED_STATE": str(self.root / "s")}
        return kept | own | more


@pytest.fixture(scope="module")
def place(distribution: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    root = tmp_path_factory.mktemp("other")
    project = built.small_project(root / "project", distribution)
    git(project, "remote", "add", "origin", "https://gitlab.example/group/project")
    with docker_registry(root / "registry") as registry:
        yield Place(root, project, registry)


def publish(place: Place, **more: str) -> subprocess.CompletedProcess[str]:
    env = {"SEED_REGISTRY": place.host, "SEED_IMAGE": "any/seed", "SEED_SIGNING": "none", **more}
    return subprocess.run(
        [ROOT / "bin/publish"],
        cwd=place.project,
        env=place.environment(**env),
        capture_output=True,
        text=True,
        check=False,
    )


def test_publish_anywhere(place: Place, tmp_path: Path) -> None:
    out, page = tmp_path / "out", tmp_path / "page.md"
    login = {"SEED_REGISTRY_USER": USER, "SEED_REGISTRY_TOKEN": PASSWORD}
    done = publish(place, **login, SEED_OUTPUTS=str(out), SEED_SUMMARY=str(page), SEED_TAGS="a, b")
    assert done.returncode == 0, done.stderr
    values = dict(line.split("=", 1) for line in out.read_text().splitlines())
    assert values["SEED_PUBLISHED"] == "true"
    assert values["SEED_REFERENCE"].startswith(f"{place.host}/any/seed@sha256:")
    assert "## Seed for" in page.read_text()
    assert "tag        b" in done.stderr
    assert "::" not in "".join(line[:2] for line in done.stderr.splitlines())
    assert PASSWORD not in done.stdout + done.stderr


def test_publish_without_a_token_builds(place: Place) -> None:
    done = publish(place, SEED_LAYERS="43")
    assert done.returncode == 0, done.stderr
    assert "notice: Nothing is published: there is no registry_token: build only" in done.stderr
    assert "image      oci:" in done.stderr


def test_publish_not_for_a_pull_request(place: Place) -> None:
    login = {"SEED_REGISTRY_USER": USER, "SEED_REGISTRY_TOKEN": PASSWORD}
    done = publish(place, **login, BUILDKITE_PULL_REQUEST="7", SEED_LAYERS="43")
    assert done.returncode == 0, done.stderr
    assert "BUILDKITE_PULL_REQUEST says that this is a pull request" in done.stderr


def test_promote_anywhere_moves_latest_on_the_default_branch(place: Place, tmp_path: Path) -> None:
    """No variable says which branch that is: origin does."""
    env = {"SEED_REGISTRY": place.host, "SEED_IMAGE": "any/release", "SEED_SIGNING": "none"}
    env |= {"SEED_REGISTRY_USER": USER, "SEED_REGISTRY_TOKEN": PASSWORD}
    env |= {"SEED_SYSTEMS": "x86_64-linux", "SEED_TAGS": "latest"}
    work = tmp_path / "work"
    subprocess.run(["git", "clone", "-q", str(place.project), str(work)], check=True)
    trunk = git(work, "branch", "--show-current")
    (work / "more").write_text("of a feature")
    git(work, "checkout", "-q", "-b", "feature")
    git(work, "add", "more")
    git(work, "-c", "user.name=T", "-c", "user.email=t@localhost", "commit", "-q", "-m", "Feature")
    said = {}
    for branch in ("feature", trunk):
        git(work, "checkout", "-q", branch)
        for script in (["bin/publish"], ["bin/nix-seed", "ci", "promote"]):
            done = subprocess.run(
                [ROOT / script[0], *script[1:]],
                cwd=work,
                env=place.environment(**env),
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
        said[branch] = done.stderr
    assert "none of the newest" in said["feature"]
    assert "tag              latest" not in said["feature"]
    assert "tag              latest" in said[trunk]


def test_publish_must_know_where(place: Place) -> None:
    done = publish(place, SEED_IMAGE="")
    assert done.returncode == 2
    assert "the repository of the seeds is not named" in done.stderr


def gitlab(place: Place, job: str, work: Path, **more: str) -> dict[str, str]:
    """What GitLab sets for a job of the template: its own variables, then the template's."""
    predefined = {
        "GITLAB_CI": "true",
        "CI": "true",
        "CI_PIPELINE_SOURCE": "push",
        "CI_PROJECT_PATH": "Group/Project",
        "CI_PROJECT_DIR": str(place.project),
        "CI_COMMIT_SHA": git(place.project, "rev-parse", "HEAD"),
        "CI_COMMIT_BRANCH": "main",
        "CI_DEFAULT_BRANCH": "main",
        "CI_REGISTRY": place.host,
        "CI_REGISTRY_USER": USER,
        "CI_REGISTRY_PASSWORD": PASSWORD,
        "CI_REPOSITORY_URL": str(place.project),
    } | more
    env = place.environment(**predefined)
    for variables in (TEMPLATE["variables"], TEMPLATE[job].get("variables", {})):
        for name, value in variables.items():
            env[name] = _expanded(str(value), env)
    # The product is cloned from here, to a place of the test's.
    env |= {"NIX_SEED_SOURCE": str(work / "source"), "NIX_SEED_REF": "main"}
    return env | {"SEED_SIGNING": "none"}


def _expanded(text: str, env: Mapping[str, str]) -> str:
    for name in sorted(env, key=len, reverse=True):
        text = text.replace(f"${name}", env[name])
    return text


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A repository with the launcher in it, in the place of the public one."""
    source = tmp_path / "source"
    (source / "bin").mkdir(parents=True)
    for name in ("nix-seed", "publish", "requirements.txt"):
        (source / "bin" / name).write_bytes((ROOT / "bin" / name).read_bytes())
        (source / "bin" / name).chmod(0o755)
    git(source, "init", "-q", "-b", "main")
    git(source, "add", "-A")
    git(source, "-c", "user.name=T", "-c", "user.email=t@localhost", "commit", "-q", "-m", "x")
    return tmp_path


def run_job(
    place: Place, job: str, work: Path, more: Mapping[str, str], prefix: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run a job's lines as GitLab's shell does: each must succeed."""
    lines = [*TEMPLATE[".nix-seed"]["before_script"], *TEMPLATE[job]["script"]]
    script = "\n".join(lines).replace("/tmp/nix-seed", str(work / "clone"))
    return subprocess.run(
        [*prefix, "bash", "-eo", "pipefail", "-c", script],
        cwd=place.project,
        env=gitlab(place, job, work, **more),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def nix_of_the_image() -> Path:
    """The Nix that a job's ``apt-get install nix-bin`` brings, beside this machine's own."""
    images = {TEMPLATE["default"]["image"]}
    images.add(
        parse(render_ci("gitlab", ref="v1", systems=tuple(GITLAB_TAGS), directory=""))["default"][
            "image"
        ]
    )
    [image] = images
    assert image.startswith("python:3.")
    assert image.endswith("-trixie"), "another Debian has another Nix"
    return trixie_nix()


def test_the_image_has_a_nix_for_nixpkgs(nix_of_the_image: Path) -> None:
    command = [str(nix_of_the_image / "nix"), "--version"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert judge_nix_version(said).outcome is Health.FINE, said


def test_the_template_of_gitlab(
    place: Place, work: Path, tmp_path: Path, nix_of_the_image: Path
) -> None:
    """Three jobs: seed, promote, build; the last one on a machine without a store."""
    path = f"{nix_of_the_image}:{place.environment()['PATH']}"
    seeded = run_job(place, "seed", work, {"PATH": path})
    assert seeded.returncode == 0, seeded.stderr
    outputs = (place.project / "seed.env").read_text()
    assert "SEED_PUBLISHED=true" in outputs
    assert f"{place.host}/group/project/seed@sha256:" in outputs
    assert "section_start" in seeded.stderr
    (place.project / "seed.env").unlink()
    _again(work)
    promoted = run_job(place, "promote", work, {})
    assert promoted.returncode == 0, promoted.stderr
    assert "tag              latest" in promoted.stderr
    _again(work)
    (tmp_path / "m").mkdir()
    bare = Runner(tmp_path / "m", place.project, place.registry)
    machine = bare.fresh()
    built = run_job(place, "build", work, {"PATH": machine.more["PATH"]}, machine.prefix)
    bare.clean()
    (place.project / "use.env").unlink(missing_ok=True)
    assert built.returncode == 0, built.stderr
    assert (place.project / "result").is_symlink()


def test_a_merge_request_on_gitlab_publishes_nothing(place: Place, work: Path) -> None:
    event = {"CI_PIPELINE_SOURCE": "merge_request_event", "CI_COMMIT_BRANCH": ""}
    done = run_job(place, "seed", work, event)
    assert done.returncode == 0, done.stderr
    assert "a merge request is not merged yet, and never publishes" in done.stderr
    (place.project / "seed.env").unlink()
    _again(work)
    promoted = run_job(place, "promote", work, event)
    assert promoted.returncode == 0, promoted.stderr
    assert "Nothing is promoted" in promoted.stderr


def test_gitlab_names_the_identity_that_lacks(place: Place, work: Path) -> None:
    env = gitlab(place, "seed", work) | {"SEED_SIGNING": "keyless"}
    env |= {"SEED_REGISTRY_TOKEN": PASSWORD}
    done = subprocess.run(
        [ROOT / "bin/publish"],
        cwd=place.project,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "SIGSTORE_ID_TOKEN is not set" in done.stderr
    assert "`id_tokens: SIGSTORE_ID_TOKEN: aud: sigstore`" in done.stderr
    assert TEMPLATE[".nix-seed"]["id_tokens"] == {"SIGSTORE_ID_TOKEN": {"aud": "sigstore"}}


def _again(work: Path) -> None:
    subprocess.run(["rm", "-rf", work / "clone"], check=True)
