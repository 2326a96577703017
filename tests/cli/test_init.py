"""``nix-seed init`` on real repositories, judged by Git, Nix and the schemas of what CI reads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from nix_seed.core.errors import InputError
from nix_seed.flake.nix import Nix
from nix_seed.setup.init import InitRequest, carry_out, plan_init
from nix_seed.trust.rules.signer import CertificateIdentity
from support.distribution import nix_env
from support.goprograms import installed
from support.init import FLAKE, done, git, init, make, policy
from support.programs import need

ROOT = Path(__file__).resolve().parents[2]


WORKFLOW = ".github/workflows/seed.yml"


# Flakes that the lines which ``init`` shows are pasted into, where they say.
ONE_SYSTEM = """{
  inputs = { INPUT };
  outputs = { ARGUMENTS }: let system = "x86_64-linux"; in {
    packages.${system} = { PACKAGE };
  };
}
"""


EACH_SYSTEM = """{
  inputs = { nixpkgs.url = "nixpkgs"; INPUT FOLLOWS };
  outputs = { nixpkgs, ARGUMENTS }: {
    packages = nixpkgs.lib.genAttrs [ "aarch64-linux" "x86_64-linux" ] (system: { PACKAGE });
  };
}
"""


NIXPKGS = """{
  lib.genAttrs = names: f:
    builtins.listToAttrs (map (name: { inherit name; value = f name; }) names);
}"""


FILES = [WORKFLOW, "trust.toml", "trusted_root.json"]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return make(tmp_path / "project", FLAKE)


def workflow(repository: Path) -> Any:
    return YAML(typ="safe").load((repository / WORKFLOW).read_text())


def branch_of(repository: Path, *arguments: str) -> tuple[str, list[str]]:
    """Return the branch that the workflow is for, and what is noted about it."""
    said = done(repository, "--dry-run", "--system", "x86_64-linux", *arguments)
    [line] = [each for each in said["files"][0]["diff"].splitlines() if "branches:" in each]
    return json.loads(line.partition("[")[2].rstrip("]")), [
        n for n in said["notes"] if "branch" in n
    ]


@pytest.mark.parametrize("name", ["main", "master", "mine"])
def test_the_default_branch_is_not_the_one_at_hand(repository: Path, name: str) -> None:
    """Seeds are added on a branch, to be merged."""
    git(repository, "branch", "-m", name)
    git(repository, "config", "init.defaultBranch", "mine")
    git(repository, "checkout", "-qb", "add-seed")
    assert branch_of(repository) == (name, [])
    git(repository, "update-ref", "refs/remotes/origin/develop", "HEAD")
    remote_head = ("refs/remotes/origin/HEAD", "refs/remotes/origin/develop")
    git(repository, "symbolic-ref", *remote_head)
    assert branch_of(repository) == ("develop", []), "as a clone knows"


def test_a_default_branch_that_is_assumed_is_said_to_be(repository: Path) -> None:
    git(repository, "config", "init.defaultBranch", "absent")
    assert branch_of(repository) == ("trunk", []), "the only one"
    git(repository, "checkout", "-qb", "add-seed")
    note = "the default branch is assumed to be {}; --branch says otherwise".format
    assert branch_of(repository) == ("add-seed", [note("add-seed")])
    assert branch_of(repository, "--branch", "trunk") == ("trunk", [])
    for name in ("main", "master"):
        git(repository, "branch", name)
    assert branch_of(repository) == ("main", [note("main")])
    git(repository, "checkout", "-q", "master")
    assert branch_of(repository) == ("master", [note("master")])


def test_it_writes_a_workflow_and_a_policy_that_are_good(repository: Path) -> None:
    said = done(repository, "--yes")
    assert [(each["path"], each["state"]) for each in said["files"]] == [
        (path, "new") for path in FILES
    ]
    assert (said["forge"], said["source"]) == ("github", "https://github.com/me/thing")
    assert said["systems"] == ["x86_64-linux"]
    assert said["written"] is True
    found = policy(repository)
    [builder], [promoter] = found.builders, found.promoters
    assert builder.signer == promoter.signer
    assert str(builder.signer) == (
        "https://github.com/0compute/nix-seed/.github/workflows/seed.yml@refs/tags/v0.1.0 of "
        "https://token.actions.githubusercontent.com, for https://github.com/me/thing"
    )
    assert found.source == "https://github.com/me/thing"
    assert (found.quorum.threshold, found.quorum.logs, found.quorum.promoters) == (1, 1, 1)
    schema = ROOT / ".venv/bin/check-jsonschema"
    command: list[str | Path] = [
        schema,
        "--builtin-schema",
        "vendor.github-workflows",
        repository / WORKFLOW,
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def test_the_workflow_calls_ours_with_inputs_and_permissions_it_has(repository: Path) -> None:
    done(repository, "--yes")
    ours = YAML(typ="safe").load((ROOT / WORKFLOW).read_text())
    theirs = workflow(repository)
    # YAML 1.2 reads `on` as a name.
    assert theirs["on"] == {"push": {"branches": ["trunk"]}, "pull_request": None}
    seed, build = theirs["jobs"]["seed"], theirs["jobs"]["build"]
    assert seed["uses"] == f"0compute/nix-seed/{WORKFLOW}@v0.1.0"
    assert set(seed["with"]) <= set(ours["on"]["workflow_call"]["inputs"])
    assert json.loads(seed["with"]["systems"]) == ["x86_64-linux"]
    wanted: dict[str, str] = {}
    for job in ours["jobs"].values():
        wanted |= job.get("permissions", {})
    assert seed["permissions"] == wanted
    checkout, use, _ = build["steps"]
    assert checkout["uses"] in {
        step.get("uses") for job in ours["jobs"].values() for step in job["steps"]
    }
    assert use["uses"] == "0compute/nix-seed/use@v0.1.0"
    action = YAML(typ="safe").load((ROOT / "use/action.yml").read_text())
    assert set(use["with"]) <= set(action["inputs"])


def test_pinned_by_its_hash_the_workflow_has_nothing_to_find(repository: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    done(repository, "--yes", "--ref", commit)
    command: list[str | Path] = [ROOT / ".venv/bin/zizmor", "--offline", "--persona=auditor"]
    checked = subprocess.run(
        [*command, repository / WORKFLOW], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    [builder] = policy(repository).builders
    assert isinstance(builder.signer, CertificateIdentity)
    assert builder.signer.subject.endswith(f"/seed.yml@{commit}")


@pytest.mark.interop
def test_actionlint_finds_nothing(repository: Path) -> None:
    done(repository, "--yes", "--system", "x86_64-linux", "--system", "aarch64-darwin")
    command = [installed("actionlint"), "-shellcheck=", "-pyflakes="]
    checked = subprocess.run(
        [*command, repository / WORKFLOW], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_runners_are_those_of_the_reusable_workflow() -> None:
    from nix_seed.setup.init import RUNNERS

    ours = (ROOT / WORKFLOW).read_text()
    assert json.dumps(dict(RUNNERS), separators=(",", ":")) in ours


@pytest.mark.parametrize("arguments", [(), ("--flake",)])
def test_twice_is_once(repository: Path, arguments: tuple[str, ...]) -> None:
    done(repository, "--yes", *arguments)
    before = git(repository, "status", "--porcelain"), (repository / "trust.toml").read_bytes()
    again = done(repository, "--yes", *arguments)
    assert {each["state"] for each in again["files"]} == {"same"}
    assert {each["diff"] for each in again["files"]} == {""}
    assert again["written"] is False
    assert before == (
        git(repository, "status", "--porcelain"),
        (repository / "trust.toml").read_bytes(),
    )
    assert "nothing to write" in init(repository, *arguments).stdout


def test_what_somebody_changed_is_kept_and_shown(repository: Path) -> None:
    done(repository, "--yes")
    path = repository / WORKFLOW
    path.write_text(path.read_text().replace("nix flake check", "nix build"))
    mine = path.read_text()
    kept = done(repository, "--yes")
    assert kept["files"][0]["state"] == "kept"
    assert "-      - run: nix build\n+      - run: nix flake check" in kept["files"][0]["diff"]
    assert path.read_text() == mine
    forced = done(repository, "--yes", "--force")
    assert forced["files"][0]["state"] == "replaced"
    assert path.read_text() != mine


def test_the_diff_is_a_patch(repository: Path, tmp_path: Path) -> None:
    shown = done(repository, "--dry-run")
    assert git(repository, "status", "--porcelain") == ""
    patch = tmp_path / "all.patch"
    patch.write_text("".join(each["diff"] + "\n" for each in shown["files"]))
    git(repository, "apply", str(patch))
    assert {each["state"] for each in done(repository, "--dry-run")["files"]} == {"same"}


def test_it_asks_nobody_where_there_is_no_terminal(repository: Path) -> None:
    result = init(repository)
    assert result.returncode == 2
    assert "+++ b/.github/workflows/seed.yml" in result.stdout
    assert result.stderr == (
        "error: nothing was written: there is nobody to ask, for standard input is no terminal\n"
        "hint: --yes writes without asking, --dry-run only shows what would be written\n"
    )
    assert init(repository, "--json").returncode == 2
    assert git(repository, "status", "--porcelain") == ""


@pytest.mark.parametrize(("answer", "written"), [("y", True), ("n", False), ("", False)])
def test_on_a_terminal_it_asks_in_colour(repository: Path, answer: str, written: bool) -> None:
    import pty

    main, terminal = pty.openpty()
    command = [sys.executable, "-m", "nix_seed", "init", str(repository)]
    environment = nix_env() | {"TERM": "xterm"}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment
    )
    os.close(terminal)
    said = b""
    try:
        while b"Write these 3 files? [y/N]" not in said:
            said += os.read(main, 4096)
        os.write(main, answer.encode() + b"\n")
        try:
            while data := os.read(main, 4096):
                said += data
        except OSError:
            pass  # the other end is closed
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(main)
    assert b"\x1b[32m+name: Seed" in said
    assert b"lines: the public Sigstore's certificates and keys" in said
    assert (repository / WORKFLOW).exists() is written
    assert (b"nothing was written" in said) is not written
    # A new package on GitHub is private.
    assert (b"make the package thing-seed public" in said) is written
    assert (b"nix-seed licences ." in said) is written


def test_the_lines_for_the_flake_are_shown_and_it_stays_as_it_is(repository: Path) -> None:
    before = (repository / "flake.nix").read_bytes()
    result = init(repository, "--yes", "--flake", "--no-policy")
    assert result.returncode == 0, result.stderr
    assert (
        "to set options of mkSeed, add to flake.nix:\n"
        "  to the flake's inputs:\n"
        '      nix-seed.url = "github:0compute/nix-seed/v0.1.0";\n'
        "  there too, if nixpkgs is an input:\n"
        '      nix-seed.inputs.nixpkgs.follows = "nixpkgs";\n'
        "  to the arguments of outputs:\n"
        "      self\n"
        "      nix-seed\n"
        "  to packages.<system>, for each system:\n"
        "      seed = nix-seed.lib.mkSeed { inherit self system; };\n"
    ) in result.stdout
    assert (repository / "flake.nix").read_bytes() == before
    assert git(repository, "status", "--porcelain") == "?? .github/\n"
    assert "add to flake.nix" not in init(repository, "--yes", "--no-policy").stdout
    assert done(repository, "--dry-run")["flake"] == []


@pytest.mark.parametrize("text", [ONE_SYSTEM, EACH_SYSTEM], ids=["one system", "each system"])
def test_the_lines_make_a_seed_where_they_are_added(tmp_path: Path, text: str) -> None:
    need("nix")
    repository = make(tmp_path / "project", FLAKE)
    said = done(repository, "--dry-run", "--flake", "--system", "x86_64-linux")
    own_input, follows, arguments, package = [each["lines"] for each in said["flake"]]
    pasted = {
        "INPUT": "\n".join(own_input),
        "FOLLOWS": "\n".join(follows),
        "ARGUMENTS": ", ".join(arguments),
        "PACKAGE": "\n".join(package),
    }
    for gap, lines in pasted.items():
        text = text.replace(gap, lines)
    (repository / "flake.nix").write_text(text)
    # The real thing: our own library as the input, which a checkout of the project has.
    inputs = {"nix-seed": "{ lib = import ./nix; }"}
    if follows[0] in text:
        inputs["nixpkgs"] = NIXPKGS
    command = ["nix", "eval", "--no-write-lock-file"]
    for name, outputs in inputs.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "flake.nix").write_text(f"{{ outputs = {{ ... }}: {outputs}; }}")
        command += ["--override-input", name, f"path:{tmp_path / name}"]
    library = ROOT / "src/nix_seed/flake/expressions"
    subprocess.run(["cp", "-r", library, tmp_path / "nix-seed/nix"], check=True)
    command += [f"{repository}#packages.x86_64-linux.seed", "--apply"]
    checked = subprocess.run(
        [*command, "seed: builtins.isAttrs seed"], capture_output=True, text=True, env=nix_env(),
        check=False,
    )  # fmt: skip
    assert checked.stdout == "true\n", checked.stderr


def test_all_or_nothing(repository: Path) -> None:
    from datetime import UTC, datetime

    plan = plan_init(InitRequest(repository, "v1"), Nix(), datetime.now(UTC))
    (repository / "trusted_root.json").write_text("somebody was faster\n")
    with pytest.raises(InputError) as raised:
        carry_out(plan)
    assert raised.value.message == "trusted_root.json was changed meanwhile"
    assert git(repository, "status", "--porcelain") == "?? trusted_root.json\n"
    assert not (repository / ".github").exists()


def test_a_link_leads_nowhere_else(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (repository / ".github").symlink_to(tmp_path / "elsewhere")
    result = init(repository, "--yes")
    assert result.returncode == 2
    assert f"{WORKFLOW} lies outside of the repository, at {tmp_path}" in result.stderr
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize(
    ("origin", "arguments", "forge", "words"),
    [
        (None, (), None, "there is no remote origin: trust.toml is left out"),
        ("https://forge.example/a/b", (), None, "is not known for GitHub's or GitLab's"),
        ("https://user:secret@github.com/a/b.git", (), "github", None),
        ("ssh://git@gitlab.example.org:22/a/b/c", (), "gitlab", None),
        ("https://forge.example/a/b", ("--gitlab",), "gitlab", None),
        ("https://forge.example/a/b", ("--github",), "github", None),
        ("https://gitlab.com/a/b/c", ("--github",), None, "is not known for GitHub's: trust.toml"),
    ],
)
def test_the_forge_is_known_by_its_origin(
    tmp_path: Path, origin: str | None, arguments: tuple[str, ...], forge: str, words: str | None
) -> None:
    repository = make(tmp_path / "project", FLAKE, origin)
    said = done(repository, "--yes", *arguments)
    assert said["forge"] == forge
    assert (words is None) or any(words in note for note in said["notes"])
    assert "secret" not in json.dumps(said)
    assert (repository / "trust.toml").exists() is (forge is not None)
    gitlab = forge == "gitlab"
    assert (repository / ".gitlab-ci.yml").exists() is gitlab
    assert (repository / WORKFLOW).exists() is not gitlab


def test_gitlab_gets_its_own(tmp_path: Path) -> None:
    origin = "git@gitlab.com:group/below/thing.git"
    repository = make(tmp_path / "project", FLAKE, origin)
    done(repository, "--yes", "--system", "x86_64-linux", "--system", "aarch64-linux")
    command: list[str | Path] = [
        ROOT / ".venv/bin/check-jsonschema",
        "--builtin-schema",
        "vendor.gitlab-ci",
    ]
    command += ["--data-transform", "gitlab-ci", repository / ".gitlab-ci.yml"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    [builder] = policy(repository).builders
    jobs = YAML(typ="safe").load((repository / ".gitlab-ci.yml").read_text())
    assert [each["SYSTEM"] for each in jobs[".systems"]["parallel"]["matrix"]] == [
        "x86_64-linux",
        "aarch64-linux",
    ]
    assert jobs["variables"]["SEED_SYSTEMS"] == "x86_64-linux aarch64-linux"
    result = init(repository, "--yes", "--system", "x86_64-darwin")
    assert result.returncode == 2
    assert "there is no runner for x86_64-darwin" in result.stderr
    assert str(builder.signer) == (
        "https://gitlab.com/group/below/thing//.gitlab-ci.yml@refs/heads/trunk of "
        "https://gitlab.com"
    )


def test_a_flake_below_the_repositorys_root(tmp_path: Path) -> None:
    repository = make(tmp_path / "project", FLAKE)
    (repository / "nix code").mkdir()
    git(repository, "mv", "flake.nix", "nix code/flake.nix")
    git(repository, "commit", "-qm", "moved")
    said = done(repository, "--yes", str(repository / "nix code"))
    assert [each["path"] for each in said["files"]] == [
        WORKFLOW, "nix code/trust.toml", "nix code/trusted_root.json",
    ]  # fmt: skip
    jobs = workflow(repository)["jobs"]
    assert jobs["seed"]["with"]["flake"] == "nix code"
    _, use, check = jobs["build"]["steps"]
    assert use["with"]["flake"] == check["working-directory"] == "nix code"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--system", "riscv64-linux"), "there is no runner for riscv64-linux"),
        (("--ref", "v1; rm -rf /"), "'v1; rm -rf /' is no tag, branch or commit"),
        (("--ref", "../x"), "'../x' is no tag, branch or commit"),
        (("--ref", "0a13026"), "'0a13026' may be part of a commit"),
        (("--ref", "a" * 39), "name all 40 digits"),
        (("--branch", "a b"), "'a b' is no branch"),
        (("--branch", "refs/heads/main"), "'refs/heads/main' is no branch"),
    ],
)
def test_wrong_words(repository: Path, arguments: tuple[str, ...], words: str) -> None:
    result = init(repository, "--yes", *arguments)
    assert result.returncode == 2
    assert words in result.stderr


def test_wrong_places(tmp_path: Path) -> None:
    need("git")
    result = init(tmp_path, "--yes")
    assert result.returncode == 2
    assert f"{tmp_path} lies in no Git repository" in result.stderr
    git(tmp_path, "init", "-q")
    result = init(tmp_path, "--yes")
    assert f"there is no flake.nix in {tmp_path}" in result.stderr
    (tmp_path / "flake.nix").write_bytes(b'{ description = "\xff"; }')
    result = init(tmp_path, "--yes")
    assert f"{tmp_path}/flake.nix is not text in UTF-8" in result.stderr


def test_without_nix_it_still_helps(repository: Path, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "git").symlink_to(need("git"))
    environment = nix_env() | {"PATH": str(programs)}
    result = init(repository, "--yes", "--json", env=environment)
    assert result.returncode == 0, result.stderr
    said = json.loads(result.stdout)
    assert said["systems"] == ["x86_64-linux"]
    assert any("could not be asked for its systems" in note for note in said["notes"])
    assert said["written"] is True


def test_modes_stay_what_they_are(repository: Path) -> None:
    done(repository, "--yes")
    path = repository / WORKFLOW
    path.write_text("mine\n")
    path.chmod(0o600)
    done(repository, "--yes", "--force")
    assert path.read_text() != "mine\n"
    assert path.stat().st_mode & 0o777 == 0o600
