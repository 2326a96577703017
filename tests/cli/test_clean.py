from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

from nix_seed.image.layer_cache import LayerCache
from nix_seed.image.read.unpack import clear_unpacked
from nix_seed.image.rules.frames import Compressor
from nix_seed.image.rules.layer import write_entries_layer
from support.seeds import nix_seed


def test_unpacked_images_go_by_last_use_and_stay_while_in_use(tmp_path: Path) -> None:
    old, new = tmp_path / "sha256-old", tmp_path / "sha256-new"
    for root in (old, new):
        (root / "nix/store").mkdir(parents=True)
        (root / "nix/store").chmod(0o555)
    os.utime(old, (0, 0))
    assert clear_unpacked(tmp_path, time.time() - 60) == ("sha256-old",)
    assert not old.exists()
    assert new.is_dir()


def test_the_command_clears_layers_and_says_so(tmp_path: Path) -> None:
    compressor = Compressor.at_hand()
    cache = LayerCache(tmp_path)
    layer = cache.write("0" * 64, lambda sink: write_entries_layer([], compressor, sink))
    (tmp_path / "images").mkdir()
    ran = nix_seed("clean", cache=tmp_path)
    assert (ran.code, ran.err) == (0, "")
    assert cache.blob_path(layer.descriptor.digest).is_file()
    assert f"what stays in {tmp_path}:" in ran.out
    assert "up to 20 GB, those used last (--layers)" in ran.out
    assert "images used in the last 14 days (--days)" in ran.out
    assert "(--images removes them)" in ran.out
    (tmp_path / "images/blob").write_bytes(bytes(8192))
    (tmp_path / "roots/sha256-old").mkdir(parents=True)
    everything = ("--layers", "0", "--days", "0", "--images")
    ran = nix_seed("clean", *everything, "--dry-run", cache=tmp_path)
    assert ran.code == 0
    assert re.match(
        r"\d+ bytes of layers, 1 unpacked image, 8.2 kB of images would be cleared\n", ran.out
    )
    assert f"what is in {tmp_path}:" in ran.out
    asked = json.loads(nix_seed("clean", *everything, "--dry-run", "--json", cache=tmp_path).out)
    assert asked["dryRun"] is True
    assert asked["freed"] > 0
    assert cache.blob_path(layer.descriptor.digest).is_file()
    assert (tmp_path / "images/blob").is_file()
    assert (tmp_path / "roots/sha256-old").is_dir()
    ran = nix_seed("clean", "--layers", "0", "--images", cache=tmp_path)
    assert ran.code == 0
    assert "of layers, 0 unpacked images, 8.2 kB of images cleared" in ran.out
    assert not cache.blob_path(layer.descriptor.digest).exists()
    assert not (tmp_path / "images").exists()
    ran = nix_seed("clean", "--json", cache=tmp_path)
    assert json.loads(ran.out)["kept"] == {
        "layers": 0,
        "unpacked": 0,
        "images": 0,
        "results": 0,
    }
