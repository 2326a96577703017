"""Who may publish: every kind of event there is, and what forks, bots and liars make of it."""

from __future__ import annotations

from typing import Any

import pytest

from nix_seed.setup.rules.ci_inputs import evaluate_event, host_of

OURS, FORK = "Owner/Project", "stranger/Project"


def github(name: str, **more: str) -> dict[str, str]:
    return {
        "GITHUB_ACTIONS": "true",
        "GITHUB_EVENT_NAME": name,
        "GITHUB_REPOSITORY": OURS,
        "GITHUB_ACTOR": "someone",
        "GITHUB_REF": "refs/heads/main",
        "GITHUB_SHA": "a" * 40,
    } | more


def pull(repo: Any) -> dict[str, Any]:
    return {"pull_request": {"head": {"repo": repo}}}


def run_after(event: str, repo: str | None) -> dict[str, Any]:
    origin = None if repo is None else {"full_name": repo}
    return {"workflow_run": {"event": event, "head_repository": origin}}


MAIN = {"repository": {"default_branch": "main"}}

# event, payload, what is said of it; None where it may publish
GITHUB = [
    ("push", MAIN, None),
    ("schedule", {}, None),
    ("workflow_dispatch", MAIN, None),
    ("repository_dispatch", MAIN, None),
    ("release", MAIN, None),
    ("pull_request", pull({"full_name": FORK}), "a pull request from stranger/Project has no"),
    ("pull_request", pull({"full_name": OURS}), "a pull request is not merged yet"),
    ("pull_request", pull(None), "a pull request from a fork has no secrets"),
    ("pull_request", {}, "a pull request from a fork has no secrets"),
    ("pull_request", {"pull_request": "lies"}, "a pull request from a fork has no secrets"),
    ("pull_request_target", pull({"full_name": FORK}), "from stranger/Project has no secrets"),
    ("pull_request_target", pull({"full_name": OURS}), "is not merged yet"),
    ("pull_request_review", pull({"full_name": FORK}), "from stranger/Project has no secrets"),
    ("merge_group", {}, "a pull request is not merged yet"),
    ("workflow_run", run_after("push", OURS), None),
    ("workflow_run", run_after("schedule", OURS), None),
    ("workflow_run", run_after("pull_request", OURS), "a run after one for the event pull_request"),
    ("workflow_run", run_after("push", FORK), "a run after one for stranger/Project"),
    ("workflow_run", run_after("pull_request", FORK), "a run after one for stranger/Project"),
    ("workflow_run", run_after("push", None), "a run after one for a fork"),
    ("workflow_run", {}, "a run after one for a fork"),
    ("workflow_run", {"workflow_run": []}, "a run after one for a fork"),
    ("issue_comment", MAIN, "events of the kind issue_comment never publish"),
    ("issues", MAIN, "events of the kind issues never publish"),
    ("fork", MAIN, "events of the kind fork never publish"),
    ("watch", MAIN, "events of the kind watch never publish"),
    ("page_build", MAIN, "events of the kind page_build never publish"),
    ("", MAIN, "events of the kind (none) never publish"),
    ("something_new", MAIN, "events of the kind something_new never publish"),
    # A push whose payload speaks of a pull request is none that GitHub makes.
    ("push", pull({"full_name": FORK}), "from stranger/Project has no secrets"),
]


@pytest.mark.parametrize(("name", "event", "refused"), GITHUB)
def test_github(name: str, event: dict[str, Any], refused: str | None) -> None:
    found = evaluate_event(github(name), event)
    assert found.host == "github"
    assert found.publish is (refused is None)
    assert (refused or "may publish") in found.why
    assert (found.repository, found.commit) == (OURS, "a" * 40)
    if refused is not None:
        assert found.release is False


@pytest.mark.parametrize("event", [None, [], "text", 7, {"repository": None}])
@pytest.mark.parametrize("name", ["pull_request", "workflow_run", "issue_comment"])
def test_a_broken_payload_never_helps(name: str, event: Any) -> None:
    assert evaluate_event(github(name), event).publish is False


def test_dependabot_may_only_read() -> None:
    found = evaluate_event(github("push", GITHUB_ACTOR="dependabot[bot]"), MAIN)
    assert found.publish is False
    assert found.why == "jobs that dependabot[bot] started have a token that may only read"


@pytest.mark.parametrize(
    ("name", "ref", "event", "release"),
    [
        ("push", "refs/heads/main", MAIN, True),
        ("push", "refs/heads/feature", MAIN, False),
        ("push", "refs/tags/main", MAIN, False),
        ("push", "refs/heads/trunk", {"repository": {"default_branch": "trunk"}}, True),
        ("push", "refs/heads/main", {"repository": {"default_branch": "trunk"}}, False),
        ("push", "refs/heads/master", {}, True),
        ("push", "refs/heads/feature", {}, False),
        ("schedule", "refs/heads/odd", {}, True),
        ("workflow_dispatch", "refs/heads/feature", MAIN, False),
    ],
)
def test_latest_moves_on_the_default_branch(
    name: str, ref: str, event: dict[str, Any], release: bool
) -> None:
    assert evaluate_event(github(name, GITHUB_REF=ref), event).release is release


def gitlab(source: str, **more: str) -> dict[str, str]:
    return {
        "GITLAB_CI": "true",
        "CI_PIPELINE_SOURCE": source,
        "CI_PROJECT_PATH": OURS,
        "CI_COMMIT_SHA": "b" * 40,
        "CI_COMMIT_BRANCH": "main",
        "CI_DEFAULT_BRANCH": "main",
    } | more


@pytest.mark.parametrize(
    ("environ", "publish", "release"),
    [
        (gitlab("push"), True, True),
        (gitlab("push", CI_COMMIT_BRANCH="feature"), True, False),
        (gitlab("schedule"), True, True),
        (gitlab("web"), True, True),
        (gitlab("merge_request_event"), False, False),
        (gitlab("external_pull_request_event"), False, False),
        (gitlab("push", CI_MERGE_REQUEST_IID="7"), False, False),
        (gitlab("parent_pipeline"), False, False),
        (gitlab("parent_pipeline", CI_COMMIT_REF_PROTECTED="true"), True, True),
        (gitlab("merge_request_event", CI_COMMIT_REF_PROTECTED="true"), False, False),
        (gitlab(""), False, False),
    ],
)
def test_gitlab(environ: dict[str, str], publish: bool, release: bool) -> None:
    found = evaluate_event(environ)
    assert (found.host, found.publish, found.release) == ("gitlab", publish, release)
    assert (found.repository, found.commit) == (OURS, "b" * 40)


@pytest.mark.parametrize(
    ("environ", "publish"),
    [
        ({}, True),
        ({"BUILDKITE_PULL_REQUEST": "false"}, True),
        ({"BUILDKITE_PULL_REQUEST": "7"}, False),
        ({"CHANGE_ID": "PR-7"}, False),
        ({"TRAVIS_PULL_REQUEST": "false"}, True),
        ({"TRAVIS_PULL_REQUEST": "12"}, False),
        ({"CIRCLE_PULL_REQUEST": "https://example.org/7"}, False),
        ({"CI_PIPELINE_EVENT": "pull_request"}, False),
        ({"CI_PIPELINE_EVENT": "push"}, True),
        ({"BITBUCKET_PR_ID": "3"}, False),
    ],
)
def test_other_services(environ: dict[str, str], publish: bool) -> None:
    found = evaluate_event(environ)
    assert (found.host, found.publish) == ("other", publish)
    if not publish:
        assert "says that this is a pull request" in found.why


def test_whose_job_it_is() -> None:
    assert host_of({"GITHUB_ACTIONS": "true", "GITLAB_CI": "true"}) == "github"
    assert host_of({"GITHUB_ACTIONS": "1"}) == "other"
