"""``nix-seed report``: what it writes, what it refuses, and that a page is no verdict."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest

from nix_seed.core.words import human_size
from nix_seed.formats.oci.manifest import Index, MediaType, platform_of
from nix_seed.formats.oci.reference import LayoutReference
from nix_seed.image.read.spec import read_spec
from nix_seed.registry.credentials import Keyring
from nix_seed.registry.layout import open_image
from support import built
from support.audits import Ledger
from support.distribution import commit
from support.registries import docker_registry
from support.report_demo import demo
from support.repositories import Registry
from support.seeds import Ran, nix_seed
from support.trust import COMMIT, SOURCE, TREES, MadeImage, World, make_image


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "world")


def report(world: World, *arguments: str | Path, **env: str) -> tuple[Ran, str]:
    """Run the command; return also the text of the page, without its tags."""
    page = world.root / "report.html"
    ran = nix_seed(
        *("report", world.reference, "-o", page, *arguments),
        cache=world.root / "cache",
        env=env,
    )
    return ran, words(page) if page.exists() else ""


def words(page: Path) -> str:
    return words_of(page.read_text().partition("<body>")[2].partition("<script>")[0])


def words_of(body: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())


def test_of_an_image_alone_it_says_what_was_not_asked(world: World) -> None:
    ran, text = report(world, "--no-roots")
    assert (ran.code, ran.err.splitlines()[0]) == (0, f"nix-seed: reading {world.reference}")
    assert re.fullmatch(r"\S+/report\.html  \d+ kB  trust: not asked\n", ran.out)
    assert f"Digest {world.image.descriptor.digest} narHash {world.image.spec.nar_hash}" in text
    for hint in (
        "name one: nix-seed report … --base REF",
        "name the flake: nix-seed report … --flake .",
        "name one: nix-seed report … --policy trust.toml",
        "leave out --no-roots",
    ):
        assert hint in text


def test_it_lists_files_and_what_paths_need(tmp_path: Path) -> None:
    layout = built.layout("seed")
    page = tmp_path / "report.html"
    ran = nix_seed("report", f"oci:{layout}", "-o", page, "--no-roots", cache=tmp_path / "cache")
    assert ran.code == 0, ran.err
    spec = read_spec(open_image(LayoutReference(str(layout))))
    [files] = re.findall(r'<table id="files".*?</table>', page.read_text(), re.DOTALL)
    rows = re.findall(
        r'class="name">([^<]+)</span> <span>([^<]+)</span>.*?data-key="(\d+)"', files, re.DOTALL
    )
    sizes = [int(size) for *_, size in rows]
    assert len(rows) == 1000
    assert sizes == sorted(sizes, reverse=True)
    bases = {path.base_name for path in spec.paths}
    for name, place, size in rows[:50]:
        base, _, below = f"{place}/{name}".partition("/")
        assert base in bases
        on_disk = Path("/nix/store", base, below)
        assert not on_disk.exists() or on_disk.stat().st_size == int(size)
    assert re.search(r"The largest of \d+ files", words(page))
    largest = max(spec.paths.values(), key=lambda info: info.nar_size)
    closure, ahead = {largest.path}, [largest.path]
    while ahead:
        for each in spec.paths[ahead.pop()].references:
            if each not in closure:
                closure.add(each)
                ahead.append(each)
    whole = human_size(sum(spec.paths[each].nar_size for each in closure))
    [paths] = re.findall(r'<table id="paths".*?</table>', page.read_text(), re.DOTALL)
    row = paths.partition(f">{largest.path.name}<")[2].partition("</tr>")[0]
    assert f">{len(closure) - 1}</td>" in row
    assert f">{whole}</td>" in row


def test_it_is_the_same_each_time(world: World) -> None:
    report(world)
    first = (world.root / "report.html").read_bytes()
    report(world)
    assert (world.root / "report.html").read_bytes() == first


def test_a_dissent_is_shown_and_the_page_written_all_the_same(world: World) -> None:
    world.publish("alice", "bob")
    world.publish("carol", image=world.other)
    ran, text = report(world, "--policy", world.write_policy())
    assert ran.code == 0, ran.err
    assert ran.out.endswith(
        f"  trust: checked and false for commit {COMMIT.hex[:12]} of {SOURCE}\n"
    )
    assert re.search(r"checked and false for commit \w+ of \S+: carol built something else", text)
    assert "In what the image of carol differs" in text
    assert "carol dissents" in text


def test_too_few_builders_are_no_quorum(world: World) -> None:
    world.publish("alice")
    ran, text = report(world, "--policy", world.write_policy(), "--commit", str(COMMIT), "--deep")
    assert ran.code == 0, ran.err
    short = r"checked and false for commit \w+ of \S+: 1 of the 2 builders wanted agree"
    assert re.search(short, text)
    assert "bob nothing bob ltd nothing of it was found" in text
    assert re.search(r"verified Contents 3 layers, 2 store paths, .* read: every NAR hash", text)


def test_what_this_machine_knows_nothing_of_could_not_be_checked(world: World) -> None:
    ran, text = report(world)
    assert ran.code == 0, ran.err
    assert "could not check this machine's store knows none of the derivations behind" in text
    assert "name the flake that the image was built from, with --flake" in text


def test_without_nix_the_rest_is_told(world: World) -> None:
    without = [
        each for each in os.environ["PATH"].split(":") if not Path(each, "nix-store").exists()
    ]
    ran, text = report(world, PATH=":".join(without))
    assert ran.code == 0, ran.err
    assert "there is no Nix on this machine, which knows the derivations" in text


def test_a_base_is_compared(world: World) -> None:
    trees = {name: TREES[name] for name in ("glibc-2.36",)}
    old = make_image(world.store, world.root / "old", "old", trees)
    ran, text = report(world, "--base", f"oci:{world.directory}:old", "--no-roots")
    assert ran.code == 0, ran.err
    assert f"Its digest {old.descriptor.digest}" in text
    assert "pulls 2 layers" in text
    assert "because gcc-12.2.0 is new" in text


def test_a_base_with_the_same_layers_costs_nothing(world: World) -> None:
    _, text = report(world, "--base", world.reference, "--no-roots")
    assert f"Nothing: whoever has {world.reference} has every layer." in text
    assert "0.0 % of the image's bytes are pulled again" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--base", "oci:{root}/images:nowhere"], "images:nowhere does not exist"),
        (["--base", "oci:{root}/images:arm"], "is for aarch64-linux, the image for x86_64-linux"),
        (["--policy", "{root}/none.toml"], "there is no policy at"),
        (["--policy", "{root}/images/index.json"], "index.json"),
    ],
)
def test_what_cannot_be_is_refused(world: World, arguments: list[str], message: str) -> None:
    make_image(world.store, world.root / "arm", "arm", TREES, "aarch64-linux")
    ran, _ = report(world, "--no-roots", *(each.format(root=world.root) for each in arguments))
    assert ran.code == 2
    assert message in ran.err
    assert not (world.root / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--deep"], "--deep asks about trust: name a --policy"),
        (["--commit", str(COMMIT)], "--commit asks about trust: name a --policy"),
        (["--evidence", "oci:x"], "--evidence asks about trust: name a --policy"),
        (["--attr", "x"], "--attr is of a flake: name the --flake"),
        (["--policy", "trust.toml", "--commit", "c0ffee"], "c0ffee"),
    ],
)
def test_what_would_not_be_answered_is_refused(
    world: World, arguments: list[str], message: str
) -> None:
    if "--policy" in arguments:
        world.write_policy()
    ran = nix_seed(
        *("report", world.reference, "-o", "report.html", *arguments),
        cache=world.root / "cache",
        cwd=world.root,
    )
    assert ran.code == 2
    assert message in ran.err
    assert not (world.root / "report.html").exists()


def test_a_page_that_cannot_be_written_is_said(world: World) -> None:
    page = world.write_policy() / "report.html"
    ran = nix_seed("report", world.reference, "--no-roots", "-o", page, cache=world.root / "cache")
    assert ran.code == 3
    assert f"writing {page}" in ran.err


def test_an_image_that_is_no_seed_is_refused(world: World) -> None:
    ran = nix_seed("report", "oci:/nowhere", "-o", "x.html", cache=world.root / "cache")
    assert ran.code == 2


def test_an_image_in_a_registry_and_one_of_an_index(tmp_path: Path) -> None:
    with docker_registry(tmp_path / "registry", password=False) as running:
        registry = Registry(running.host, keyring=Keyring())
        world = World(tmp_path / "world", registry.repository("owner/seed"))
        world.publish("alice", "bob")
        arm = make_image(world.store, world.root / "arm", "arm", TREES, "aarch64-linux")
        described = [
            replace(image.descriptor, platform=platform_of(image.spec.system))
            for image in (world.image, arm)
        ]
        world.store.put_manifest(Index(tuple(described)).dump(), MediaType.INDEX, "all")
        ran, text = report(world, "--policy", world.write_policy(), "--no-roots")
        assert ran.code == 0, ran.err
        about = f"for commit {COMMIT.hex[:12]} of {SOURCE}"
        agreed = "2 builders agree (alice, bob), 2 are wanted"
        assert f"verified {about}: {agreed} Commit {COMMIT.hex}" in text
        assert f"Image {running.host}/owner/seed:seed " in text
        world.reference = world.reference.removesuffix(":seed") + ":all"
        ran, text = report(world, "--system", "aarch64-linux", "--no-roots")
        assert ran.code == 0, ran.err
        assert "for aarch64-linux not asked No policy says" in text
        assert str(arm.descriptor.digest) in text
        ran, _ = report(world, "--system", "x86_64-darwin", "--no-roots")
        assert (ran.code, "has no images for x86_64-darwin" in ran.err) == (2, True)


def test_what_else_was_released_is_listed_and_what_it_made_people_pull(tmp_path: Path) -> None:
    ledger = Ledger.fresh(tmp_path / "ledger", releases=2)
    honest, changed = ledger.image, ledger.other
    ledger.image = changed
    ledger.release()
    page = tmp_path / "page.html"

    def at(made: MadeImage) -> LayoutReference:
        return LayoutReference(str(ledger.directory)).at(made.descriptor.digest)

    asked = f"{ledger.repository}@{honest.descriptor.digest}"
    ran = nix_seed(
        *("report", asked, "-o", page, "--no-roots", "--policy", ledger.write_policy()),
        cache=tmp_path / "cache",
    )
    assert ran.code == 0, ran.err
    text = words(page)
    assert "noted 3 releases; 1 came after the last with this image." in text
    [listed] = re.findall(r'<table id="release-list".*?</table>', page.read_text(), re.DOTALL)
    rows = [words_of(each) for each in re.findall(r"<tr>.*?</tr>", listed, re.DOTALL)[1:]]
    assert [row.split()[0] for row in rows] == [ledger.said(n).commit.hex[:12] for n in (3, 2, 1)]
    assert [row.endswith("rita this image") for row in rows] == [False, True, True]
    assert str(changed.descriptor.digest) in rows[0]
    # The second is the first again; the third has the layers that another tree changed.
    pulled = [re.findall(r'data-key="(\d+)"', row) for row in listed.split("<tr>")[2:]]
    there, had = (
        {each.digest: each.size for each in open_image(at(made)).manifest.layers}
        for made in (changed, honest)
    )
    new = sum(size for layer, size in there.items() if layer not in had)
    assert 0 < new < sum(there.values())
    all_of = f"{sum(had.values())}"
    assert pulled == [[f"{sum(there.values())}", f"{new}"], [all_of, "0"], [all_of, all_of]]


def test_a_ledger_that_cannot_be_read_is_no_empty_one(tmp_path: Path) -> None:
    ledger = Ledger.fresh(tmp_path / "ledger", releases=1)
    page = tmp_path / "page.html"
    asked = f"{ledger.repository}@{ledger.image.descriptor.digest}"
    ran = nix_seed(
        *("report", asked, "-o", page, "--no-roots", "--policy", ledger.write_policy()),
        *("--evidence", "localhost:1/absent"),
        cache=tmp_path / "cache",
    )
    assert ran.code == 0, ran.err
    assert "What else was released? could not check" in words(page)


def test_the_policy_here_and_the_bill_of_materials_attached_are_asked(tmp_path: Path) -> None:
    """What README writes: no option but where the page is to lie."""
    release = demo()
    page = tmp_path / "r"
    text = words(page) if release.report("--no-roots", to=str(page)) else ""
    assert re.search(
        r"Do its builders agree\? verified for commit \w+ of \S+: 2 builders agree", text
    )
    assert "1 store path withheld; of what is in it, 4 unknown, 146 redistributable." in text
    assert "noted By the bill of materials that is attached to the image." in text
    assert "Homegrown" in text


def test_what_the_image_says_of_licences_is_told_where_nothing_else_is(tmp_path: Path) -> None:
    release = demo()
    ran = nix_seed(
        *("report", release.base, "--no-roots", "-o", tmp_path / "r"),
        cache=release.directory / "cache",
        cwd=release.directory,
    )
    assert ran.code == 0, ran.err
    text = words(tmp_path / "r")
    assert "1 store path withheld; 4 unknown licences; other licences: not asked." in text
    assert "Of these nobody knows whether they may be passed on" in text


def test_a_flake_that_moved_on_does_not_cover_the_image(tmp_path: Path) -> None:
    release = demo()
    ran = nix_seed(
        *("report", release.base, "--flake", release.project, "--no-roots", "-o", tmp_path / "r"),
        cache=release.directory / "cache",
        cwd=release.directory,
    )
    assert ran.code == 0, ran.err
    assert re.search(
        r"could not check \./project knows nothing of \d+ store", words(tmp_path / "r")
    )


def test_the_lock_of_a_flake_names_the_base(tmp_path: Path) -> None:
    """Where the flake pins its seed, that is what consumers have."""
    release = demo()
    project = tmp_path / "project"
    subprocess.run(["git", "clone", "-q", release.directory / "project", project], check=True)
    cache = release.directory / "cache"
    pinned = f"oci:{release.directory}/greet:v1"
    ran = nix_seed("lock", pinned, "--no-verify", "-o", project / "seed.lock", cache=cache)
    assert ran.code == 0, ran.err
    commit(project, "Pin the seed")
    ran = nix_seed(
        *("report", release.image, "--flake", project, "--no-roots", "-o", tmp_path / "r"),
        cache=cache,
        cwd=release.directory,
    )
    assert ran.code == 0, ran.err
    assert re.search(r"Whoever has oci:\S+@sha256:\w{64} pulls 23 layers", words(tmp_path / "r"))
