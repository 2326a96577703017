"""The report of a real release in a real browser, by mouse and by keyboard."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, expect

from nix_seed.core.words import human_size
from support.browser import CONTRAST, DESKTOP, PHONE, Seen, axe, chromium, opened
from support.report_demo import Demo, demo
from support.report_pages import HOSTILE, hostile_page, large_page
from support.seeds import nix_seed

SECTIONS = ["At a glance", "Size", "Changes", "Licences", "Trust", "Releases", "Trust roots"]


# The columns of a table that cannot be brought into its box, beside the one that stays, as a whole.
REACHED = """(box) => {
  const [stays, ...others] = box.querySelectorAll("thead th");
  return others.filter((column) => {
    box.scrollLeft = 0;
    box.scrollLeft = column.offsetLeft - stays.offsetWidth;
    const inside = box.getBoundingClientRect(), { left, right } = column.getBoundingClientRect();
    return left < stays.getBoundingClientRect().right - 1 || right > inside.right + 1;
  }).map((column) => column.textContent);
}"""


def edge(seen: Seen, box: Locator, left: int) -> bytes:
    """A picture of what is *left* pixels from the right edge of *box*, above its caption's text."""
    box.evaluate("box => scrollTo(0, box.getBoundingClientRect().top + scrollY - 100)")
    at = box.evaluate(
        "box => { const all = box.getBoundingClientRect(); return [all.right, all.top]; }"
    )
    x, y = at[0] - left - 3, at[1] + 12
    return seen.page.screenshot(clip={"x": x, "y": y, "width": 2, "height": 2})


@pytest.fixture(scope="module")
def release() -> Demo:
    made = demo()
    made.full()
    return made


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def seen(browser: Browser, release: Demo) -> Iterator[Seen]:
    with opened(browser, release.directory / "full.html") as page:
        yield page
        assert page.requests == [(release.directory / "full.html").as_uri()] * len(page.requests)
        assert page.messages == []


def asked(release: Demo, *arguments: str) -> Any:
    """What another command says of the same, as JSON."""
    ran = nix_seed(*arguments, "--json", cache=release.directory / "cache", cwd=release.directory)
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


def test_all_sections_are_there(seen: Seen) -> None:
    assert seen.page.locator("h2").all_inner_texts() == SECTIONS
    assert seen.page.locator("nav a").all_inner_texts() == SECTIONS
    assert seen.text("h1") == "greet"
    assert seen.page.title() == "greet: report of a seed"
    verdict = seen.text(".badge")
    agreed = "2 builders agree (alice, bob), 2 are wanted; promoted by rita"
    assert re.fullmatch(rf"verified for commit [0-9a-f]{{12}} of \S+: {re.escape(agreed)}", verdict)
    assert seen.text("#glance li:first-child") == f"Do its builders agree? {verdict}"


def test_it_begins_with_where_it_is_from(seen: Seen) -> None:
    names = seen.page.locator(".banner .facts dt").all_inner_texts()
    assert names[:3] == ["Commit", "Source", "Image"]
    commit = seen.text(".banner .facts .digest >> nth=0")
    assert re.fullmatch("[0-9a-f]{40}", commit)
    assert commit[:12] in seen.text(".badge")


def test_what_is_long_is_copied(browser: Browser, release: Demo) -> None:
    leave = ["clipboard-read", "clipboard-write"]
    with opened(browser, release.directory / "full.html", permissions=leave) as seen:
        seen.page.get_by_role("button", name="Copy Digest").click()
        copied = seen.evaluate("() => navigator.clipboard.readText()")
        assert copied == asked(release, "inspect", release.image)["digest"]
        seen.page.get_by_role("button", name="Copy the command").click()
        copied = seen.evaluate("() => navigator.clipboard.readText()")
        assert copied == f"nix-seed run --image {release.image} -- nix build"


def test_its_numbers_are_those_of_the_image(seen: Seen, release: Demo) -> None:
    image = asked(release, "inspect", release.image)
    plan = asked(release, "plan", release.project, "--base", release.base)
    assert plan["narHash"] == image["narHash"]
    facts = seen.text(".banner")
    for value in (image["digest"], image["narHash"], image["inputKey"], image["system"]):
        assert value in facts
    paths = sum(len(layer["paths"]) for layer in plan["layers"])
    unpacked = sum(layer["narSize"] for layer in plan["layers"])
    assert seen.text("#size .lead") == (
        f"{human_size(image['size'])} to pull, {human_size(unpacked)} unpacked: "
        f"{paths} store paths in {len(image['layers'])} layers."
    )
    assert seen.page.locator("#paths tbody tr").count() == paths
    assert seen.page.locator("#layers tbody tr").count() == len(image["layers"])
    tiers = {
        row.split("\t")[0]: row.split("\t")[-1]
        for row in seen.page.locator("#tiers tbody tr").all_inner_texts()
    }
    assert tiers == {tier: human_size(size) for tier, size in image["tiers"].items()}
    # The map shows each path once, alone or among the small ones.
    names = seen.evaluate(
        "() => [...document.querySelectorAll('#map-wide .p')].map(t => t.ariaLabel)"
    )
    together = sum(int(found[1]) for name in names if (found := re.match(r"(\d+) smaller,", name)))
    alone = sum(" smaller," not in name for name in names)
    assert alone + together == paths


def test_it_says_what_changed_and_who_caused_it(seen: Seen, release: Demo) -> None:
    before = {layer["digest"] for layer in asked(release, "inspect", release.base)["layers"]}
    image = asked(release, "inspect", release.image)
    pulled = [layer["size"] for layer in image["layers"] if layer["digest"] not in before]
    assert 1 < len(pulled) < len(image["layers"])
    assert seen.text("#changes .lead") == (
        f"Whoever has {release.base} pulls {len(pulled)} layers, {human_size(sum(pulled))} of "
        f"{human_size(sum(layer['size'] for layer in image['layers']))}, "
        "because the input nixpkgs changed."
    )
    assert "zlib1g" in seen.text("#culprits tbody tr:first-child")
    marks = seen.page.locator("#layers tbody").text_content()
    assert marks is not None
    assert marks.count("pulled") == len(pulled)
    changed = seen.page.locator("#map-wide .p rect[fill]")
    assert changed.count() > 5
    assert "zlib1g" in "".join(seen.page.locator("#all-changes tbody tr").all_text_contents())


def test_it_says_what_may_be_passed_on(seen: Seen, release: Demo) -> None:
    judged = asked(release, "licences", release.project)["paths"]
    count = {s: sum(p["status"] == s for p in judged) for s in ("unknown", "redistributable")}
    assert seen.text("#licences .lead") == (
        f"1 store path withheld; of what is in it, {count['unknown']} unknown,"
        f" {count['redistributable']} redistributable."
    )
    withheld = seen.text("#withheld tbody")
    assert withheld.startswith("codec-3.1 ")
    assert "codec-eula https://vendor.example/codec-3.1.bin" in withheld
    assert "Homegrown unknown 1" in seen.text("#licence-names tbody")


def test_it_shows_every_check_with_its_evidence(seen: Seen) -> None:
    checks = [
        " ".join(each.split())
        for each in seen.page.locator("#trust .checks > li").all_inner_texts()
    ]
    ends = [
        re.match(r"(verified|not asked|checked and false|could not check) (\w+)", c) for c in checks
    ]
    assert [found and found.groups() for found in ends] == [
        ("verified", "Signatures"),
        ("verified", "Logs"),
        ("verified", "Quorum"),
        ("verified", "Contents"),
        *[("verified", "Promotion")] * 5,
    ]
    for row in ("alice agrees alice log", "bob agrees bob log", "carol nothing carol"):
        assert row in seen.text("#builders-0 tbody")
    evidence = seen.page.locator("#trust .checks summary")
    assert evidence.count() == 4
    for number in range(4):
        evidence.nth(number).click()
    assert "log.example/greet, size 5" in seen.text("#trust")
    assert "quorum met" in seen.text("#trust")
    assert "rita, in log: counts" in seen.text("#trust")


def test_it_names_the_roots(seen: Seen, release: Demo) -> None:
    roots = asked(release, "roots", release.project)
    assert seen.text("#roots .facts").startswith(f"Roots digest {roots['rootsDigest']} ")
    assert [each["file"] for each in roots["executed"]] == ["bin/sh"]
    executed = seen.text("#executed tbody")
    assert executed.startswith("busybox-static")
    assert roots["executed"][0]["sha256"] in executed
    assert seen.page.locator("#binaries tbody tr").count() == len(roots["binaries"])
    assert seen.page.locator("#sources tbody tr").count() == len(roots["sources"])
    assert "libxml2" in (seen.page.locator("#binaries").text_content() or "")


def test_the_graph_is_walked_from_the_image_to_its_ends(seen: Seen) -> None:
    seen.follow(seen.page.locator("#walk .find a"))
    assert seen.text(".stop.here h4") == "The image"
    steps = []
    for name in ("gdb-wrapped", "gdb-", "busybox-static"):
        seen.follow(seen.page.locator(".stop.here .side a", has_text=name).first)
        steps.append(seen.text(".stop.here h4"))
    assert steps[-1].startswith("busybox-static")
    assert "executed, not built" in seen.text(".stop.here .marked")
    assert seen.page.locator(".stop:visible").count() == 1
    # However one came here, the way shown is the shortest: the image holds busybox itself.
    way = "#walk > ol.way a"
    assert seen.page.locator(way).all_inner_texts() == ["the image", steps[-1]]
    seen.page.go_back()
    expect(seen.page.locator(".stop.here h4")).to_have_text(steps[-2])
    assert seen.page.locator(way).all_inner_texts() == ["the image", steps[0], steps[1]]
    seen.page.fill("#walk input", "zlib1g")
    seen.page.wait_for_selector("#walk .find [role=status]:not(:empty)")
    seen.follow(seen.page.locator("#walk > ul.way a").first)
    assert "zlib1g" in seen.text(".stop.here h4")


def test_the_keyboard_reaches_everything(seen: Seen) -> None:
    seen.key("Tab")
    assert seen.focused == "Skip to the content"
    seen.key("Enter", "Tab")
    assert seen.evaluate("() => document.activeElement.closest('#glance') !== null")
    reached = set()
    for _ in range(400):
        seen.key("Tab")
        place = seen.evaluate(
            "() => document.activeElement.closest('section')?.id ?? document.activeElement.tagName"
        )
        reached.add(place)
        if place == "BODY":
            break
        ring = seen.evaluate(
            """() => { const node = document.activeElement, style = getComputedStyle(node);
              const tile = node.closest('svg') && node.querySelector('rect');
              if (tile) return getComputedStyle(tile).strokeWidth === '7px';
              return style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2; }"""
        )
        assert ring, seen.focused
    assert {"size", "changes", "licences", "trust", "roots", "BODY"} <= reached


def _megabytes(label: str) -> float:
    """The size in a tile's label; 0 below a megabyte."""
    found = re.search(r", ([\d.]+) MB, ", label)
    return float(found[1]) if found else 0.0


def test_the_map_is_walked_and_zoomed_by_keys(seen: Seen) -> None:
    seen.page.locator("#map-wide [tabindex='0']").focus()
    first = seen.focused
    labels = seen.page.locator("#map-wide .p").evaluate_all(
        "all => all.map(each => each.getAttribute('aria-label'))"
    )
    assert first == labels[0]
    # It is the largest of its layer; a path of another layer may be larger.
    layer = first.split(", ")[2]
    assert _megabytes(first) == max(_megabytes(each) for each in labels if f", {layer}, " in each)
    seen.key("ArrowRight")
    second = seen.focused
    assert second != first
    assert seen.text(".readout").startswith(second.split(",")[0])
    seen.key("ArrowLeft")
    assert seen.focused == first
    seen.key("ArrowDown")
    assert seen.focused != first
    tiles = "#map-wide .p:visible"
    whole = seen.page.locator(tiles).count()
    seen.key("Enter")
    assert seen.text(".where") == "toolchain"
    tier = seen.page.locator(tiles).count()
    assert tier < whole
    assert tier == seen.page.locator("#map-wide [data-tier=toolchain] .p").count()
    seen.key("Enter")
    assert re.fullmatch(r"toolchain › layer \d+", seen.text(".where"))
    assert seen.page.locator(tiles).count() < tier
    seen.key("Escape", "Escape")
    assert seen.text(".where") == "The whole image"
    assert seen.page.locator(tiles).count() == whole
    assert seen.page.locator("#size button.button").is_disabled()


def test_the_map_is_zoomed_by_the_mouse(seen: Seen) -> None:
    seen.page.locator("#map-wide [data-tier=devShells] .p").first.click()
    assert seen.text(".where") == "devShells"
    seen.page.click("text=Zoom out")
    assert seen.text(".where") == "The whole image"


def test_tables_are_searched_and_sorted(seen: Seen) -> None:
    seen.page.click("summary:has-text('store paths'):visible >> nth=0")
    field = seen.page.locator("#size details:has(#paths) .find input")
    field.fill("zlib1g")
    seen.page.wait_for_selector("#size details:has(#paths) .find [role=status]:not(:empty)")
    shown = seen.page.locator("#paths tbody tr:visible .name").all_inner_texts()
    assert shown
    assert all("zlib1g" in name for name in shown)
    field.fill("")
    seen.page.wait_for_selector(
        "#size details:has(#paths) .find [role=status]:empty", state="attached"
    )
    seen.page.click("#paths thead button:has-text('Unpacked')")
    sizes = (
        "() => [...document.querySelectorAll('#paths tbody tr')].map(r => +r.cells[3].dataset.key)"
    )
    falling = seen.evaluate(sizes)
    assert falling == sorted(falling, reverse=True)
    seen.page.click("#paths thead button:has-text('Unpacked')")
    assert seen.evaluate(sizes) == falling[::-1]
    assert seen.page.get_attribute("#paths th[aria-sort]", "aria-sort") == "ascending"
    seen.page.click("summary:has-text('largest of'):visible")
    seen.page.fill("#size details:has(#files) .find input", "libz")
    seen.page.wait_for_selector("#size details:has(#files) .find [role=status]:not(:empty)")
    files = seen.page.locator("#files tbody tr:visible .path").all_inner_texts()
    assert files
    assert all("libz" in name for name in files)
    seen.page.fill("#size figure > .find input", "gcc")
    seen.page.wait_for_selector("#size figure > .find .hint:not(:empty)")
    assert "tiles" in seen.text("#size figure > .find .hint")
    assert (
        seen.page.locator("#map-wide .p:not(.dim)").count()
        < seen.page.locator("#map-wide .p").count()
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_it_is_readable(
    browser: Browser, release: Demo, size: tuple[int, int], scheme: str
) -> None:
    """Contrast of WCAG's level AA, and no scrolling sideways."""
    with opened(browser, release.directory / "full.html", size=size, scheme=scheme) as seen:
        seen.evaluate("() => document.querySelectorAll('details').forEach(d => { d.open = true; })")
        found = seen.evaluate(CONTRAST)
        assert found["seen"] > 1000
        assert found["poor"] == []
        assert seen.evaluate("() => document.documentElement.scrollWidth") == size[0]
        assert seen.messages == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_column_is_reached_on_a_phone(browser: Browser, release: Demo, scheme: str) -> None:
    """Where a table is wider than the phone, its edge says so until its last column is seen."""
    with opened(browser, release.directory / "full.html", size=PHONE, scheme=scheme) as seen:
        seen.evaluate("() => document.querySelectorAll('details').forEach(d => { d.open = true; })")
        seen.page.emulate_media(reduced_motion="reduce")  # nothing moves while it is looked at
        boxes = seen.page.locator(".scroll:visible")
        assert boxes.count() > 12
        wide = 0
        # Places are the same in both; of the cue's colours in the dark a few tables tell.
        looked_at = boxes.count() if scheme == "light" else 6
        for number in range(looked_at):
            box = boxes.nth(number)
            name = box.locator("caption").inner_text()
            assert seen.evaluate(REACHED, box.element_handle()) == [], name
            if box.evaluate("box => box.scrollWidth <= box.clientWidth"):
                assert edge(seen, box, 1) == edge(seen, box, 30), name
                continue
            wide += 1
            box.evaluate("box => { box.scrollLeft = 0; }")
            assert box.get_attribute("tabindex") == "0"
            assert edge(seen, box, 1) != edge(seen, box, 60), f"{name}: no cue"
            box.evaluate("box => { box.scrollLeft = box.scrollWidth; }")
            assert edge(seen, box, 1) == edge(seen, box, 60), f"{name}: a cue at its end"
        assert wide > (8 if scheme == "light" else 2)


def test_a_wide_table_is_scrolled_by_keys(browser: Browser, release: Demo) -> None:
    with opened(browser, release.directory / "full.html", size=PHONE) as seen:
        box = seen.page.get_by_role("region", name="Tiers, lowest first")
        last = box.locator("thead th").last
        expect(last).not_to_be_in_viewport()
        box.focus()
        for _ in range(20):
            seen.key("ArrowRight")
        expect(last).to_be_in_viewport(ratio=1)
        expect(box.locator("tbody th").first).to_be_in_viewport(ratio=1)
        expect(box.locator("caption span")).to_be_in_viewport(ratio=1)


def test_axe_finds_nothing(browser: Browser, release: Demo) -> None:
    """Contrast in the dark, which no other rule sees, is for ``test_it_is_readable``."""
    rules = axe()
    page = release.directory / "full.html"
    with opened(browser, page, bypass_csp=True) as seen:
        seen.evaluate(
            "() => document.querySelectorAll('.checks details').forEach(d => { d.open = true; })"
        )
        seen.evaluate(rules)
        found = seen.evaluate("() => axe.run()")
        problems = [
            (each["id"], node["html"][:120])
            for each in found["violations"]
            for node in each["nodes"]
        ]
        assert problems == []
        assert len(found["passes"]) > 20


def test_it_is_all_there_without_a_script(browser: Browser, release: Demo) -> None:
    page = release.directory / "full.html"
    with opened(browser, page, java_script_enabled=False, anchor="#stop-image") as seen:
        assert seen.page.locator("h2").all_inner_texts() == SECTIONS
        # The anchor has opened what it lies in.
        assert seen.page.locator("#stop-image").is_visible()
        seen.page.locator("#stop-image a", has_text="gdb-wrapped").click()
        expect(seen.page.locator(".stop:target h4")).to_have_text(re.compile("^gdb-wrapped"))
        assert not seen.page.locator("input, button").count()
        assert seen.page.locator("#map-wide title").first.text_content()
        assert seen.messages == []


def test_print_shows_what_the_screen_does(seen: Seen) -> None:
    seen.page.emulate_media(media="print", color_scheme="dark")
    paper = "() => getComputedStyle(document.body).backgroundColor"
    assert seen.evaluate(paper) == "rgb(255, 255, 255)"
    assert seen.page.locator(".stop:visible").count() == 1
    assert not seen.page.locator("nav").is_visible()
    assert not seen.page.locator(".find").first.is_visible()
    assert seen.page.locator("h2").all_inner_texts() == SECTIONS


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_words_do_nothing(browser: Browser, text: str, tmp_path: Path) -> None:
    page = tmp_path / "hostile.html"
    page.write_text(hostile_page(text, tmp_path / "world"), "utf-8")
    with opened(browser, page, size=PHONE) as seen:
        seen.evaluate("() => document.querySelectorAll('details').forEach(d => { d.open = true; })")
        seen.page.hover("h1")
        assert seen.evaluate("() => window.pwned") is None
        assert seen.page.locator("script").count() == 1
        assert seen.page.locator("h1").count() == 1
        assert seen.requests == [page.as_uri()]
        assert seen.messages == []
        assert seen.evaluate("() => document.documentElement.scrollWidth") == PHONE[0]


def test_a_large_image_can_be_looked_at(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "large.html"
    page.write_text(large_page(5000), "utf-8")
    with opened(browser, page) as seen:
        assert seen.text("#size .lead").endswith("5000 store paths in 65 layers.")
        seen.page.click("#size summary:has-text('store paths')")
        seen.page.fill("#size details .find input", "number-4999")
        seen.page.wait_for_selector("#size details .find [role=status]:not(:empty)")
        assert seen.text("#size details .find [role=status]") == "1 of 5000"
        assert seen.messages == []
