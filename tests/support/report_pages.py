"""Reports made by hand of real parts: hostile words everywhere, or fifty thousand store paths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from nix_seed.core.digests import Digest, NarHash, encode_nix32
from nix_seed.flake.rules.licence import Licence
from nix_seed.flake.rules.outline import ImageConfig
from nix_seed.flake.rules.signatures import Signers
from nix_seed.formats.nix.store_path import PathInfo, StorePath
from nix_seed.formats.oci.manifest import Descriptor, MediaType
from nix_seed.formats.oci.reference import parse_reference
from nix_seed.image.inspect import InspectedImage, InspectedLayer
from nix_seed.image.rules.changes import evaluate_plan
from nix_seed.image.rules.frames import Compressor
from nix_seed.image.rules.partition.plan import Group
from nix_seed.image.rules.spec import Spec
from nix_seed.licences.rules.judge import Judged, Withheld
from nix_seed.release.load import load_policy, verifiers_of
from nix_seed.release.verify import Query, verify_image
from nix_seed.report.page.document import report_page
from nix_seed.report.report import (
    Absent,
    Change,
    FoundRoots,
    ImageReport,
    JudgedPaths,
    ListedFile,
    ListedFiles,
    ListedRelease,
    ListedReleases,
    TrustAnswer,
)
from nix_seed.roots.roots import RootsReport, SourceEnd
from nix_seed.roots.rules.policy import Binary, Findings, Substituted
from nix_seed.roots.rules.roots import End, HostProgram, Impurity, Roots, Stop, Walk
from support.trust import COMMIT, World

HOSTILE = (
    "<script>window.pwned = 1</script>",
    '"><img src=x onerror="window.pwned = 1">',
    "' onmouseover='window.pwned = 1",
    "</code></td></table></main><h1>gone",
    "javascript:window.pwned=1",
    "\u202egnp.exe\u2066\u200b\x00\x1b[31m",
    "long " + "n" * 10_000,
    "spread " * 1500,
)
NOT_ASKED = Absent("not asked", "Nobody asked.", "ask: --so")


def store_path(name: str, number: int = 0) -> StorePath:
    """A path whose name may be anything, as none that was parsed is."""
    return StorePath(f"{encode_nix32(Digest.of(f'{name}{number}'.encode()).raw[:20])}-{name}")


def spec_of(layers: Sequence[tuple[str, Sequence[tuple[str, int]]]], name: str = "made") -> Spec:
    """A spec of tiers and their layers of (name, size)."""
    groups, closure = [], {}
    for number, (tier, members) in enumerate(layers):
        paths = []
        for each, size in members:
            path = store_path(each, number)
            closure[path] = PathInfo(path, NarHash("0" * 64), size, ())
            paths.append(path)
        groups.append(Group(tier, tuple(sorted(paths))))
    return Spec(
        kind="seed",
        name=name,
        system="x86_64-linux",
        config=ImageConfig(),
        files=(),
        inputs={},
        tiers=tuple(dict.fromkeys(tier for tier, _ in layers)),
        paths=closure,
        layers=tuple(groups),
        compressor=Compressor.at_hand(),
    )


def image_of(spec: Spec) -> InspectedImage:
    """What a manifest would say of it."""
    tiers = [group.tier for group in spec.layers] + ["container"]
    layers = tuple(
        InspectedLayer(
            Descriptor(MediaType.LAYER_ZSTD, Digest.of(str(number).encode()), 1000 + number),
            None,
            tier,
        )
        for number, tier in enumerate(tiers)
    )
    return InspectedImage(
        reference="oci:made",
        digest=Digest.of(b"made"),
        platform=None,
        kind=spec.kind,
        name=spec.name,
        system=spec.system,
        nar_hash=str(spec.nar_hash),
        input_key=None,
        format="1",
        layers=layers,
        size=sum(layer.descriptor.size for layer in layers),
    )


def plain_report(spec: Spec) -> ImageReport:
    """A report with nothing but the image."""
    image = image_of(spec)
    return ImageReport("oci:made", image, spec, NOT_ASKED, NOT_ASKED, NOT_ASKED, NOT_ASKED)


def large_page(paths: int) -> str:
    """A page about an image of so many store paths, with all their licences and changes."""
    sizes = [int(10**9 / (1 + n) ** 1.1) + 200 for n in range(paths)]
    layers: list[tuple[str, list[tuple[str, int]]]] = [
        (tier, []) for tier in ("base", "toolchain", "packages", "devShells") for _ in range(16)
    ]
    for number, size in enumerate(sizes):
        layers[number * 7919 % 64][1].append((f"package-number-{number}-1.{number % 90}.3", size))
    spec = spec_of(layers)
    statuses = [Licence("MIT", "redistributable"), Licence("", "unknown"), Licence("X", "withheld")]
    judged = tuple(Judged(path, statuses[n % 3]) for n, path in enumerate(sorted(spec.paths)))
    old = {path: info for n, (path, info) in enumerate(spec.paths.items()) if n % 4}
    diff = evaluate_plan(spec.layers, (), spec.paths, old)
    count = range(len(spec.layers) + 1)
    change = Change("oci:old", Digest.of(b"old"), diff, tuple(1000 for _ in count), tuple(count))
    licences = JudgedPaths(".", judged, ())
    return report_page(replace(plain_report(spec), licences=licences, change=change))


def hostile_spec(text: str) -> Spec:
    """A spec in which every free text is *text*."""
    spec = spec_of([(text, [(text, 9000), ("b", 3000)]), ("t", [("c", 100)])], name=text)
    path = store_path(text, 77)
    return replace(spec, withheld=(Withheld(path, text, text, text, text),))


def hostile_page(text: str, directory: Path) -> str:
    """A page on which *text* stands wherever any text can."""
    spec = hostile_spec(text)
    paths = sorted(spec.paths)
    judged = JudgedPaths(
        text, (Judged(paths[0], Licence(text, "unknown"), None, text),), (paths[1],), text
    )
    diff = evaluate_plan(
        spec.layers,
        (),
        spec.paths,
        {},
        {text: [paths[0]]},
        changed_causes=[text],
    )
    change = Change(text, Digest.of(b"old"), diff, (1, 1, 1), (0, 1))
    report = ImageReport(
        reference=text,
        command=text,
        image=replace(image_of(spec), input_key=text),
        spec=spec,
        change=change,
        licences=judged,
        trust=hostile_trust(text, directory),
        roots=hostile_roots(text, paths),
        files=ListedFiles((ListedFile(1, 1, f"{text}/{text}"),), 2),
        releases=ListedReleases((ListedRelease(COMMIT, None, (text,), Digest.of(b"other")),), 2),
    )
    return report_page(report)


def hostile_trust(text: str, directory: Path) -> TrustAnswer:
    """What ``verify`` says where a builder calls itself *text*, and another lies beside it."""
    world = World(directory)
    world.publish("alice")
    world.attach(world.bundle(world.sign(world.says("bob", builder=text), key="bob")))
    world.attach(text.encode("utf-8", "replace"))
    world.publish("carol", image=world.other)
    return trust_in(world)


def trust_in(world: World) -> TrustAnswer:
    """What ``verify`` says of the image of *world*."""
    now = datetime.now(UTC)
    loaded = load_policy(world.write_policy(), now)
    found = verify_image(verifiers_of(loaded), parse_reference(world.reference), Query())
    return TrustAnswer(loaded.policy, found, now)


def hostile_roots(text: str, paths: Sequence[StorePath]) -> FoundRoots:
    """Roots that are called *text* and come from there."""
    drv = store_path(text, 5)
    end = End(paths[0], "fetched", "builder", ((text, "builder"),), drv, (text,), text)
    roots = Roots((end,), (HostProgram(text, drv),), (Impurity(drv, text),), {drv: None}, {})
    binary = Binary(paths[0], text, 12, text, text, text, (text,), drv)
    findings = Findings(
        executed=[binary],
        binaries=[binary],
        unseen=[paths[1]],
        unknown=[paths[1]],
        substituted=[Substituted(paths[1], Signers((text,), (text,), (text,)))],
        absent=[paths[1]],
        host=roots.host,
        impure=roots.impure,
    )
    report = RootsReport(roots, Digest.of(b"roots"), findings, [SourceEnd(end, None)], 0)
    stops = (
        Stop(drv, "derivation", 1, (paths[0],), (), 3, None),
        Stop(paths[0], "fetched", 2, (), (drv,), 0, drv),
    )
    return FoundRoots(report, Walk(stops, (drv,), 2, 9, {stop.path: stop for stop in stops}))
