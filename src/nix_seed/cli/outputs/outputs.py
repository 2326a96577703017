"""``nix-seed outputs``: keep what a project builds, serve it to Nix, compare and clean it."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from nix_seed.cli import options as shared
from nix_seed.cli.command import (
    FILE,
    PORT,
    argument,
    exit_with,
    option,
    progress,
    seed_group,
    serve,
)
from nix_seed.cli.lazily import lazily
from nix_seed.cli.outputs.options import branch_at_hand, event_text, seed_named, tell_pushed
from nix_seed.cli.say import answer, columns, manner, say, table
from nix_seed.cli.trust.options import attester_of, signer_of, signing_options
from nix_seed.core.files import write_output
from nix_seed.core.processes import current_system
from nix_seed.core.words import human_size, members, plural
from nix_seed.formats.oci.reference import parse_reference
from nix_seed.release.attester import SourceTree

with lazily():
    from nix_seed.flake import checkout
    from nix_seed.outputs import check, clean, offer, open as opening, push, rebuild, server
    from nix_seed.outputs.rules import findings
    from nix_seed.release import load
    from nix_seed.report.page import outputs as pages


_MOST_SHOWN = 60  # lines


@seed_group("outputs")
def command() -> None:
    """Keep what a project builds in its registry, serve it to Nix, and compare it."""


@command.command("push", short_help="Keep what this machine built in the registry.")
@argument("installables", "[INSTALLABLE]…", nargs=-1)
@option("--to REF", "Where they are kept.", into="target", required=True)
@option("--image REF", "The seed they were built in [the one built here].")
@shared.project_option("The checkout they were built from.")
@shared.attr_option
@option("--builder ID", "This builder's id in the policy [the one whose signer this is].")
@signing_options
@shared.store_option
@shared.jobs_option
@shared.registry_options
@shared.json_option
def _push(**options: Any) -> None:
    """Keep what this machine built of the project in the registry's REF, signed.

    Of the INSTALLABLEs, or of all packages and checks, that is each output of the project's own
    derivations that the store has, and what it refers to beyond the seed. What is there already is
    not sent again. A tree with changes is refused: its outputs belong to no commit.
    """
    target = parse_reference(options["target"])
    push.check_commit(options["src"])
    signer = signer_of(options["key"], options["sigstore"])
    attester = attester_of(signer, options["builder"], options["policy_file"])
    nix = shared.nix_of(options)
    with progress():
        done = push.push_outputs(
            push.OutputsTarget(shared.stores_of(options), target, nix),
            seed_named(options, nix),
            SourceTree(options["src"], options["source"]),
            attester,
            push.OutputChoice(options["installables"], ref=branch_at_hand()),
        )
    tell_pushed(done)


@command.command("serve", short_help="Serve kept outputs to this machine's Nix.")
@argument("reference", "REF")
@shared.policy_option("Whose outputs are served.")
@option("--port PORT", "Port; 0 takes any that is free.", type=PORT, default=7090)
@option("--hours N", "End after so many hours.", type=click.IntRange(1, 168))
@shared.state_option(
    "Where the key it signs by, and what logs showed, is kept [~/.local/state/nix-seed]."
)
@shared.registry_options
def _serve(**options: Any) -> None:
    """Serve the outputs kept in REF to this machine's Nix, as a binary cache.

    Only what the policy lets be taken is served: its `outputs` is "own", "quorum" or "none". Each
    NAR is checked while it is sent. Whatever cannot be asked, or is refused, is a miss, and is said
    here; Nix then builds.
    """
    state = options["state"] or shared.state_directory()
    loaded = shared.policy_of(options)
    by = load.verifiers_of(loaded, shared.stores_of(options), state)
    key, told = opening.kept_key(state), offer.Told()

    def on_event(event: object) -> None:
        told(event)
        text = event_text(event)
        if text is not None and not manner().quiet:
            say(text, err=True)

    reference = parse_reference(options["reference"])
    cache = opening.open_cache(by, reference, key, None, on_event)
    serving = server.CacheServer(cache, options["port"], told=told.dump)
    say(f"serving: {serving.url}")
    say(f"key:     {key.public}")
    say(f"use:     nix build --extra-substituters {serving.url} --fallback")
    say(f"         --extra-trusted-public-keys {key.public}")
    signal.alarm(3600 * (options["hours"] or 0))
    serve(serving.run, signal.SIGALRM)


@command.command("check", short_help="Show which outputs independent builders reproduced.")
@argument("commit")
@option(
    "--from REF",
    "Where outputs are kept: host/name or oci:DIR; may be repeated [image of seed.lock].",
    into="places",
    multiple=True,
)
@shared.policy_option("Whom to believe.")
@option("--system SYSTEM", "Only what was built for this system.")
@option("--page FILE", "Write the report as a page for people, too.", type=FILE)
@option("--badge FILE", "Write how many outputs are reproducible as an SVG image.", type=FILE)
@shared.state_option("Where what logs showed before is kept [~/.local/state/nix-seed].")
@shared.registry_options
@shared.json_option
def _check(**options: Any) -> None:
    """Show which outputs of COMMIT independent builders reproduced, and which differ.

    A difference is named where it begins, with its derivation and files, and not at what follows
    from it. Where diffoscope is installed, it shows what differs in them.

    Exit 1: something differs, or nobody said anything. 3: not everything could be read.
    """
    now = datetime.now(UTC)
    loaded = load.load_policy(options["policy_file"], now)
    commit = shared.commit_named(options["commit"])
    places = options["places"] or (
        shared.locked_image("the repository that keeps the outputs is not named"),
    )
    references = [parse_reference(each) for each in places]
    with progress():
        state = shared.state_of(options)
        by = load.verifiers_of(loaded, shared.stores_of(options), state, ledgers=False)
        found = check.check_outputs(by, references, commit, options["system"])
    answer(report_json(found), report_lines(found), verdict=True)
    if options["page"] is not None:
        write_output(options["page"], pages.outputs_page(found, now).encode())
    if options["badge"] is not None:
        write_output(options["badge"], pages.outputs_badge(found).encode())
    exit_with(found.fate.exit_code)


@command.command("clean")
@argument("reference", "REF")
@option("--keep AGE", "Keep what was pushed in that time: 30d, 12h, 8w.", into="age", default="30d")
@option("--keep-tags", "Keep what was built from a tagged commit, too.")
@shared.project_option("The checkout whose tags are meant.")
@shared.registry_options
@shared.json_option
def _clean(**options: Any) -> None:
    """Drop outputs from REF that nobody has pushed for long.

    Safe beside running jobs: what they push is new, and what they miss is built. A registry frees
    the space when it collects its garbage.
    """
    oldest = datetime.now(UTC) - clean.parse_age(options["age"])
    commits = checkout.tagged_commits(options["src"]) if options["keep_tags"] else frozenset()
    store = shared.stores_of(options).open(parse_reference(options["reference"]))
    done = clean.clean_outputs(store, oldest, commits)
    text = f"{plural(done.dropped, 'output')} dropped, {done.kept} kept"
    if not (done.dropped or done.kept or done.troubles):
        text = f"{store} lists no outputs: nothing was kept there, or it lists no tags"
    text += f"; {human_size(done.freed)} freed" if done.freed else ""
    text += "".join(f"\nleft as it is: {each}" for each in done.troubles)
    answer(members(done, "dropped", "kept", "freed", "troubles"), text)


@command.command("rebuild", short_help="Build a commit's outputs again, and compare.")
@argument("commit")
@option("--to REF", "Where outputs are kept.", into="target", required=True)
@option(
    "--from REF",
    "Where COMMIT's seed is: host/name or oci:DIR [the image of seed.lock].",
    into="seed",
)
@option("--builder ID", "This builder's id [the one whose signer this is].")
@shared.project_option("A checkout that has COMMIT.")
@shared.accept_option
@signing_options
@shared.registry_options
@shared.json_option
def _rebuild(**options: Any) -> None:
    """Build COMMIT's packages and checks again, in its verified seed, and push what came out.

    As an independent builder does: from a clone of its own, in a store that holds the seed alone,
    with no network and no output that anyone made before. What came out is signed whatever others
    got; `nix-seed outputs check COMMIT` then compares.
    """
    policy_file = options["policy_file"] or checkout.DEFAULT_POLICY
    loaded = load.load_policy(policy_file)
    signer = signer_of(options["key"], options["sigstore"])
    attester = attester_of(signer, options["builder"], policy_file)
    target = parse_reference(options["target"])
    request = rebuild.RebuildRequest(
        shared.commit_named(options["commit"]),
        current_system(),
        parse_reference(
            options["seed"]
            or shared.locked_image("the repository of the commit's seed is not named")
        ),
        options["src"],
        options["source"],
        (*options["accept_licence"], *loaded.policy.licences),
    )
    with progress():
        by = load.verifiers_of(loaded, shared.stores_of(options), shared.state_directory())
        done = rebuild.rebuild(by, request, target, attester)
    tell_pushed(done)


def report_json(found: findings.OutputsReport) -> dict[str, Any]:
    """Return the report of ``outputs check`` as one object."""
    about = ("system", "path", "names", "deriver", "state", "begins", "follows")
    fields = (*about, "unread", "diffoscope")
    return members(found, "commit", "reason", "silent", "unchecked", verdict="fate") | {
        "outputs": [
            members(each, *fields)
            | {
                "answers": [members(a, "nar_hash", "builders", "seeds") for a in each.answers],
                "files": [members(file, "file", "how") for file in each.files],
            }
            for each in found.outputs
        ],
        "setAside": [members(each, "signer", "reason") for each in found.set_aside],
    }


def report_lines(found: findings.OutputsReport) -> Iterator[str]:
    """Yield the verdict, every output in a table, and where differences begin."""
    yield f"verdict: {found.fate.value.upper()}: {found.reason}"
    systems = {each.system for each in found.outputs}
    rows = [
        (_name(each, systems), each.state.value, " | ".join(map(_who, each.answers)))
        for each in found.outputs
    ]
    if rows:
        yield ""
        yield from table(("OUTPUT", "STATE", "BUILDERS"), rows, width=columns())
    for each in found.outputs:
        if each.begins:
            yield ""
            yield from _beginning(each, systems)
    following = [_name(each, systems) for each in found.outputs if each.follows]
    if following:
        yield ""
        yield f"follows from that: {', '.join(following)}"
    for system, names in found.silent.items():
        if names:
            yield f"not heard for {system}: {', '.join(names)}"
    for aside in found.set_aside:
        yield f"set aside: {aside.reason}"
    for reason in found.unchecked:
        yield f"could not check: {reason}"


def _beginning(found: findings.OutputFinding, systems: set[str]) -> Iterator[str]:
    yield f"the difference begins in {_name(found, systems)}"
    yield f"  derivation  {found.deriver or 'not stated'}"
    for each in found.answers:
        yield f"  {each.nar_hash}  {_who(each)}"
    if len({each.seeds for each in found.answers}) > 1:
        yield "  they were built in different seeds"
    for file in found.files:
        yield f"  {file.file}: {file.how}"
    if found.unread:
        yield f"  {found.unread}"
    shown: Sequence[str] = found.diffoscope.splitlines()
    for line in shown[:_MOST_SHOWN]:
        yield f"    {line}".rstrip()
    if len(shown) > _MOST_SHOWN:
        yield f"    … {len(shown) - _MOST_SHOWN} more lines of diffoscope: --page FILE shows them"


def _name(found: findings.OutputFinding, systems: set[str]) -> str:
    return found.label if len(systems) < 2 else f"{found.label} ({found.system})"


def _who(said: Any) -> str:
    return ", ".join(said.builders)
