"""What must not be passed on is left out, refused without acceptance, and used with it."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from support.distribution import nix_env
from support.programs import need
from support.registries import PASSWORD, USER, docker_registry
from support.seeds import (
    Ran,
    build,
    edit,
    names,
    nix_seed,
    product_flake,
    remove_tree,
    write_project,
)
from support.web import answering

# New bytes each time: Nix has to get them from the vendor.
VENDOR = os.urandom(5000)

OUTPUTS = """
      packages.${system} =
        let
          # What is downloaded from the vendor, and never built.
          src = derivation {
            name = "vendor-1.0.bin";
            system = "builtin";
            builder = "builtin:fetchurl";
            url = "@vendor@";
            outputHashMode = "flat";
            outputHashAlgo = "sha256";
            outputHash = "@hash@";
            preferLocalBuild = true;
          };
          eula = { fullName = "Vendor EULA"; shortName = "vendor-eula"; free = false; };
          vendor = pkgs.runCommand "vendor-tool-1.0" { inherit src; } ''
            mkdir -p $out/share
            cp $src $out/share/blob
          '' // { meta.license = eula; };
          mystery = pkgs.runCommand "mystery-2.0" { } "echo mystery > $out"
            // { meta.license = { fullName = "Homegrown"; }; };
          # Refers to what is withheld, holds nothing of it.
          wrapper = pkgs.runCommand "vendor-wrapper-1.0" { inherit vendor; } "echo $vendor > $out"
            // { meta.license = { spdxId = "MIT"; }; };
          more = [ ];
        in
        {
          default = pkgs.runCommand "app" {
            inherit vendor mystery wrapper more;
            own = ./own.txt;
          } ''
            wc -c < $vendor/share/blob > $out
            cat $mystery $own >> $out
            cmp $vendor/share/blob $(cat $wrapper)/share/blob && echo same >> $out
          '';
        };
"""


class Vendor(http.server.BaseHTTPRequestHandler):
    """Gives its one file to whoever asks."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(VENDOR)))
        self.end_headers()
        self.wfile.write(VENDOR)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def vendor() -> Iterator[str]:
    with answering(Vendor) as server:
        yield f"http://127.0.0.1:{server.server_port}/vendor.bin"


@pytest.fixture(scope="module")
def project(distribution: Path, vendor: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = OUTPUTS.replace("@vendor@", vendor)
    outputs = outputs.replace("@hash@", hashlib.sha256(VENDOR).hexdigest())
    directory = tmp_path_factory.mktemp("licences") / "project"
    return write_project(directory, distribution, outputs, {"own.txt": "own\n"})


@pytest.fixture(scope="module")
def layout(project: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("image") / "seed"
    image = build(project, "-o", directory, "--tag", "seed", cache=cache)
    assert {"mystery-2.0", "vendor-wrapper-1.0"} <= names(image)
    assert "vendor-tool-1.0" not in names(image)
    return directory


def copy_of(project: Path, directory: Path, old: str, new: str) -> Path:
    # A link `result` leads into the store of the test that built it, which may be gone.
    shutil.copytree(project, directory, symlinks=True)
    return edit(directory, "flake.nix", old, new)


def table(project: Path, cache: Path) -> dict[str, dict[str, Any]]:
    ran = nix_seed("licences", project, "--json", cache=cache)
    assert ran.code == 0, ran.err
    return {item["path"][44:]: item for item in json.loads(ran.out)["paths"]}


def holds_vendors_bytes(blob: bytes) -> bool:
    """Tell whether any 64 bytes of the vendor's file stand in a blob, packed or not."""
    data = blob
    if blob[:4] == b"\x28\xb5\x2f\xfd":
        reader = zstandard.ZstdDecompressor().stream_reader(
            io.BytesIO(blob), read_across_frames=True
        )
        data = reader.read()
    parts = [VENDOR[start : start + 64] for start in range(0, len(VENDOR) - 64, 997)]
    return any(part in data or part in blob for part in parts)


def test_the_search_would_find_them() -> None:
    packed = zstandard.compress(b"before" + VENDOR + b"after")
    assert holds_vendors_bytes(packed)
    assert holds_vendors_bytes(b"x" + VENDOR)
    assert not holds_vendors_bytes(zstandard.compress(b"else"))


def test_the_table(project: Path, vendor: str, cache: Path) -> None:
    found = table(project, cache)
    tool = found["vendor-tool-1.0"]
    assert (tool["status"], tool["licence"]) == ("withheld", "vendor-eula")
    assert tool["url"] == vendor
    assert found["mystery-2.0"]["status"] == "unknown"
    assert found["mystery-2.0"]["licence"] == "Homegrown"
    bash = next(name for name in found if name.startswith("bash-"))
    assert found[bash]["status"] == "redistributable"
    # The package set has no licence text of its own, and its first busybox no meta.
    unknown = {name for name, item in found.items() if item["status"] == "unknown"}
    busybox = next(name for name in unknown if name.startswith("busybox-static"))
    assert unknown == {"mystery-2.0", "source", busybox}
    text = nix_seed("licences", project, cache=cache).out.splitlines()
    assert text[0].split() == ["status", "name", "licence"]
    assert text[1].split() == ["withheld", "vendor-tool-1.0", "vendor-eula"]
    assert text[-1].startswith("1 withheld, 3 unknown, ")


def test_no_byte_of_it_is_in_the_image(layout: Path, vendor: str, cache: Path) -> None:
    blobs = list((layout / "blobs" / "sha256").iterdir())
    assert len(blobs) > 5
    assert not any(holds_vendors_bytes(blob.read_bytes()) for blob in blobs)
    assert not any(holds_vendors_bytes(f.read_bytes()) for f in cache.rglob("*") if f.is_file())
    ran = nix_seed("licences", f"oci:{layout}:seed", "--json", cache=cache)
    [item] = json.loads(ran.out)["withheld"]
    assert item["path"].endswith("-vendor-tool-1.0")
    assert item["derivation"].endswith("-vendor-tool-1.0.drv")
    assert (item["licence"], item["url"]) == ("vendor-eula", vendor)
    shown = nix_seed("licences", f"oci:{layout}:seed", cache=cache).out
    assert shown.startswith(f"withheld  vendor-tool-1.0  vendor-eula, from {vendor}\n")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    root = tmp_path_factory.mktemp("registry")
    with docker_registry(root) as running:
        yield running.host, root


def test_no_pushed_blob_holds_a_file_of_it(
    project: Path, cache: Path, registry: tuple[str, Path]
) -> None:
    host, root = registry
    login = {"NIX_SEED_REGISTRY_USERNAME": USER, "NIX_SEED_REGISTRY_PASSWORD": PASSWORD}
    target = f"{host}/demo/withheld:dev"
    # Loopback: what is unknown is reported, and not refused.
    ran = nix_seed("build", project, "--push", target, "--json", cache=cache, env=login)
    assert ran.code == 0, ran.err
    blobs = [file for file in root.rglob("data") if file.is_file()]
    assert len(blobs) > 5
    assert not any(holds_vendors_bytes(blob.read_bytes()) for blob in blobs)


def test_unknown_licences_are_refused_elsewhere(project: Path, cache: Path) -> None:
    target = "registry.example/demo/seed:dev"
    ran = nix_seed("build", project, "--push", target, "--no-reuse", cache=cache)
    assert ran.code == 1, ran.err
    assert (
        "the licences of 3 store paths are not known, so they are not sent to registry.example"
        in ran.err
    )
    assert "mystery-2.0: Homegrown" in ran.err
    assert "source: none stated" in ran.err
    assert 'licences.accept = [ "name" ]' in ran.err


def refused(ran: Ran) -> None:
    assert ran.code == 1, ran.err
    assert "so they are not sent to registry.example" in ran.err
    assert "mystery-2.0: Homegrown" in ran.err


ELSEWHERE = "registry.example/demo/seed:dev"


def test_unknown_licences_are_refused_from_disk_too(
    layout: Path, cache: Path, tmp_path: Path
) -> None:
    refused(nix_seed("push", f"oci:{layout}:seed", ELSEWHERE, cache=cache))
    refused(nix_seed("index", ELSEWHERE, f"oci:{layout}:seed", cache=cache))
    here = nix_seed("index", f"oci:{tmp_path / 'index'}:dev", f"oci:{layout}:seed", cache=cache)
    assert here.code == 0, here.err
    refused(nix_seed("push", f"oci:{tmp_path / 'index'}:dev", ELSEWHERE, cache=cache))


def test_a_copy_by_other_tools_is_refused_as_well(
    layout: Path, cache: Path, registry: tuple[str, Path], tmp_path: Path
) -> None:
    skopeo = [need("skopeo"), "copy", "--quiet", f"oci:{layout}:seed"]
    subprocess.run([*skopeo, f"oci:{tmp_path / 'copy'}:seed"], check=True)
    refused(nix_seed("push", f"oci:{tmp_path / 'copy'}:seed", ELSEWHERE, cache=cache))
    host, _ = registry
    login = {"NIX_SEED_REGISTRY_USERNAME": USER, "NIX_SEED_REGISTRY_PASSWORD": PASSWORD}
    local = f"{host}/demo/copied:dev"
    sent = nix_seed("push", f"oci:{layout}:seed", local, cache=cache, env=login)
    assert sent.code == 0, sent.err
    refused(nix_seed("push", local, ELSEWHERE, cache=cache, env=login))
    refused(nix_seed("index", ELSEWHERE, local, cache=cache, env=login))


def test_a_copy_that_lost_its_annotations_is_refused_as_well(
    project: Path, cache: Path, tmp_path: Path
) -> None:
    """Docker's format, which takes no zstd, has annotations nowhere."""
    built = f"oci:{tmp_path / 'gzip'}:seed"
    how = ("--tag", "seed", "--compressor", "gzip", "--level", "1")
    build(project, "-o", tmp_path / "gzip", *how, cache=cache)
    archive = f"docker-archive:{tmp_path / 'seed.tar'}"
    for source, target in ((built, f"{archive}:seed:dev"), (archive, "oci:again:seed")):
        quick = ("--dest-compress-format", "gzip", "--dest-compress-level", "1")
        command = [need("skopeo"), "copy", "--quiet", *quick, source, target]
        subprocess.run(command, check=True, cwd=tmp_path)
    manifest = json.loads(
        subprocess.run(
            [need("skopeo"), "inspect", "--raw", "oci:again:seed"],
            check=True,
            cwd=tmp_path,
            capture_output=True,
        ).stdout
    )
    assert not manifest.get("annotations")
    refused(nix_seed("push", f"oci:{tmp_path / 'again'}:seed", ELSEWHERE, cache=cache))


def test_the_image_tells_what_is_unknown_unless_the_recipe_lets_it_pass(
    project: Path, layout: Path, cache: Path, distribution: Path, tmp_path: Path
) -> None:
    ran = nix_seed("licences", f"oci:{layout}:seed", "--json", cache=cache)
    found = {item["path"][44:]: item["licence"] for item in json.loads(ran.out)["unknown"]}
    assert len(found) == 3
    assert (found["mystery-2.0"], found["source"]) == ("Homegrown", None)
    assert (
        "unknown   mystery-2.0  Homegrown"
        in nix_seed("licences", f"oci:{layout}:seed", cache=cache).out
    )
    seed = """
      packages.${system} = {
        seed = seeds.mkSeed { inherit self system; licences.unknown = "report"; };
        default = pkgs.runCommand "app" {
          own = ./own.txt;
          mystery = pkgs.runCommand "mystery-2.0" { } "echo > $out"
            // { meta.license = { fullName = "Homegrown"; }; };
        } "cat $mystery $own > $out";
      };"""
    passing = write_project(
        tmp_path / "passing",
        distribution,
        seed,
        {"own.txt": "own\n"},
        product=product_flake(tmp_path / "product"),
    )
    build(passing, "-o", tmp_path / "image", "--tag", "seed", cache=cache)
    image = f"oci:{tmp_path / 'image'}:seed"
    ran = nix_seed("licences", image, "--json", cache=cache)
    assert json.loads(ran.out) == {"schema": 1, "withheld": [], "unknown": []}
    # Not refused for what it holds: the registry of that name cannot be reached.
    pushed = nix_seed("push", image, "registry.invalid/demo/seed:dev", cache=cache)
    assert pushed.code == 3, pushed.err


def run(project: Path, layout: Path, cache: Path, *arguments: str | Path) -> Ran:
    return nix_seed(
        *("run", "--engine", "bwrap", "--image", f"oci:{layout}:seed", "--flake", project),
        *arguments,
        *("--", "nix", "build"),
        cache=cache,
    )


def test_without_acceptance_it_is_refused_and_says_what_and_from_where(
    project: Path, layout: Path, vendor: str, cache: Path
) -> None:
    if shutil.which("bwrap") is None:
        pytest.skip("needs bwrap: apt-get install bubblewrap")
    ran = run(project, layout, cache)
    assert ran.code == 2
    assert (
        "lacks what it must not pass on (1 in all); that comes from its vendors, once you"
        in ran.err
    )
    assert f"vendor-tool-1.0: licence vendor-eula, from {vendor}" in ran.err
    assert "--accept-licence vendor-eula" in ran.err
    other = run(project, layout, cache, "--accept-licence", "another-eula")
    assert other.code == 2


def test_with_acceptance_it_builds(
    project: Path, layout: Path, cache: Path, tmp_path: Path
) -> None:
    if shutil.which("bwrap") is None:
        pytest.skip("needs bwrap: apt-get install bubblewrap")
    out = tmp_path / "out"
    ran = run(project, layout, cache, "--accept-licence", "vendor-eula", "--out", out)
    assert ran.code == 0, ran.err
    [app] = out.rglob("*-app")
    assert app.read_text() == "5000\nmystery\nown\nsame\n"


def test_what_is_withheld_is_no_gap(project: Path, layout: Path, cache: Path) -> None:
    if shutil.which("bwrap") is None:
        pytest.skip("needs bwrap: apt-get install bubblewrap")
    image = f"oci:{layout}:seed"
    ran = nix_seed("prove", "--engine", "bwrap", "--image", image, "--flake", project, cache=cache)
    assert ran.code == 0, ran.err


def test_hydrating_takes_the_same_acceptance(
    project: Path, layout: Path, cache: Path, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    arguments = ("hydrate", f"oci:{layout}:seed", "--root", root, "--flake", project)
    refused = nix_seed(*arguments, cache=cache)
    assert refused.code == 2
    assert "--accept-licence vendor-eula" in refused.err
    assert not list(root.glob("nix/store/*"))
    ran = nix_seed(*arguments, "--accept-licence", "vendor-tool", cache=cache)
    assert ran.code == 0, ran.err
    [wrapper] = root.glob("nix/store/*-vendor-wrapper-1.0")
    query = ["nix-store", "--store", str(root), "--query", "--references"]
    done = subprocess.run(
        [*query, f"/nix/store/{wrapper.name}"],
        env=nix_env(),
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip().endswith("-vendor-tool-1.0")
    [blob] = root.glob("nix/store/*-vendor-tool-1.0/share/blob")
    assert blob.read_bytes() == VENDOR
    remove_tree(root)


def test_a_policy_accepts_for_good_and_the_host_engine_asks_as_well(
    project: Path, layout: Path, cache: Path, tmp_path: Path
) -> None:
    policy = tmp_path / "trust.toml"
    key = tmp_path / "me.key"
    assert nix_seed("key", "generate", key, cache=cache).code == 0
    made = nix_seed("policy", "init", policy, "--key", f"me={tmp_path / 'me.pub'}", cache=cache)
    assert made.code == 0, made.err
    host = ("run", "--engine", "host", "--image", f"oci:{layout}:seed", "--flake", project)
    hydrate = ("hydrate", f"oci:{layout}:seed", "--root", tmp_path / "root", "--flake", project)
    by = ("--policy", policy, "--no-verify")
    refused = nix_seed(*host, *by, "--", "true", cache=cache)
    assert refused.code == 2
    assert "--accept-licence vendor-eula" in refused.err
    assert nix_seed(*hydrate, *by, cache=cache).code == 2
    policy.write_text(policy.read_text() + '\n[licences]\naccept = ["vendor-eula"]\n')
    ran = nix_seed(*hydrate, *by, cache=cache)
    assert ran.code == 0, ran.err
    remove_tree(tmp_path / "root")


LIAR = """more = [
            (pkgs.runCommand "liar-1.0" { inherit src; } "cp $src $out"
              // { meta.license = { spdxId = "MIT"; free = true; }; })
          ];"""
COPIER = """more = [
            (pkgs.runCommand "copier-1.0" { inherit vendor; }
              "mkdir $out; cp $vendor/share/blob $out/renamed"
              // { meta.license = { spdxId = "MIT"; free = true; }; })
          ];"""


def test_a_lying_meta_is_refused(project: Path, cache: Path, tmp_path: Path) -> None:
    liar = copy_of(project, tmp_path / "liar", "more = [ ];", LIAR)
    ran = nix_seed("build", liar, "-o", tmp_path / "image", cache=cache)
    assert ran.code == 1, ran.err
    assert "liar-1.0 may be passed on by its own word, but is built from" in ran.err
    assert "vendor-1.0.bin, whose licence is vendor-eula" in ran.err
    assert 'mkSeed { licences.withhold = [ "name" ]; }' in ran.err
    assert not (tmp_path / "image").exists()


def test_a_copy_is_caught_by_its_bytes(project: Path, cache: Path, tmp_path: Path) -> None:
    copier = copy_of(project, tmp_path / "copier", "more = [ ];", COPIER)
    ran = nix_seed("build", copier, "-o", tmp_path / "image", cache=cache)
    assert ran.code == 1, ran.err
    assert "copier-1.0: renamed is share/blob of" in ran.err


MALFORMED = {
    "none": "{ }",
    "null": "{ license = null; }",
    "text": '{ license = "MIT"; }',
    "expression": '{ license = "GPL-3.0-or-later WITH GCC-exception-3.1 OR nonsense"; }',
    "number": "{ license = 7; }",
    "throws": '{ license = throw "no"; }',
    "throwing": '{ license = { spdxId = throw "no"; free = throw "no"; }; }',
    "function": "{ license = x: x; }",
    "nested": '{ license = [ [ "MIT" ] { spdxId = "ISC"; } ]; }',
    "mixed": '{ license = [ "MIT" { shortName = "unfree"; } ]; }',
    "empty": "{ license = [ ]; }",
    "oddset": "{ license = { spdxId = 3; free = 4; }; }",
    "deep": "{ license = [ [ [ [ [ [ [ 1 ] ] ] ] ] ] ]; }",
    "hostile": '{ license = "\\u001b[31m<script>"; }',
}
EXPECTED = {
    "text": "redistributable",
    "expression": "redistributable",
    "nested": "redistributable",
    "mixed": "withheld",
}


def test_bad_meta_of_all_kinds_never_fails(distribution: Path, cache: Path, tmp_path: Path) -> None:
    packages = "".join(
        f'(pkgs.runCommand "odd-{name}" {{ inherit (pkgs) zlib; }} "echo {name} > $out"'
        f" // {{ meta = {meta}; }})\n"
        for name, meta in MALFORMED.items()
    )
    packages += '(pkgs.runCommand "odd-meta" { } "echo > $out" // { meta = 3; })'
    packages += '(pkgs.runCommand "odd-throw" { } "echo > $out" // { meta = throw "no"; })'
    outputs = f"""
      packages.${{system}}.default = pkgs.runCommand "app" {{
        own = ./own.txt;
        all = [ {packages} ];
      }} "echo $all > $out";
    """
    project = write_project(tmp_path / "odd", distribution, outputs, {"own.txt": "own\n"})
    found = {name.removeprefix("odd-"): item for name, item in table(project, cache).items()}
    assert {name: found[name]["status"] for name in EXPECTED} == EXPECTED
    # Those that state nothing are made of their inputs alone, zlib here.
    assert found["none"]["status"] == found["null"]["status"] == "redistributable"
    assert found["empty"]["status"] == "redistributable"
    for name in ("number", "throws", "throwing", "function", "oddset", "deep", "hostile"):
        assert found[name]["status"] == "unknown", name
    assert "\x1b" not in nix_seed("licences", project, cache=cache).out


def test_meta_that_aborts_costs_its_own_answer_only(
    distribution: Path, cache: Path, tmp_path: Path
) -> None:
    outputs = """
      packages.${system}.default = pkgs.runCommand "app" {
        own = ./own.txt;
        bad = pkgs.runCommand "bad" { } "echo > $out" // { meta.license = abort "stop"; };
      } "echo $bad > $out";
    """
    project = write_project(tmp_path / "bad", distribution, outputs, {"own.txt": "own\n"})
    ran = nix_seed("licences", project, cache=cache)
    assert ran.code == 0, ran.err
    assert "not all licences could be read" in ran.out
    image = build(project, "-o", tmp_path / "image", cache=cache)
    assert "bad" in names(image)
