"""A tiny spec, made by hand."""

from __future__ import annotations

import hashlib

from nix_seed.core.digests import NarHash, encode_nix32
from nix_seed.flake.rules.outline import File, ImageConfig
from nix_seed.formats.nix.store_path import PathInfo, StorePath
from nix_seed.image.rules.frames import Compressor
from nix_seed.image.rules.partition.plan import Group
from nix_seed.image.rules.spec import Spec
from nix_seed.licences.rules.judge import Withheld


def store_path(name: str) -> StorePath:
    """A store path of this name; its hash part is made of the name, too."""
    return StorePath(f"{NarHash.of(name.encode()).nix32[7:39]}-{name}")


def addressed(kind: str, content: str, name: str) -> str:
    """The base name of a path whose *content*, a SHA-256 in hexadecimal, is what names it."""
    text = f"{kind}:sha256:{content}:/nix/store:{name}"
    whole = hashlib.sha256(text.encode()).digest()
    folded = bytes(whole[n] ^ (whole[n + 20] if n < 12 else 0) for n in range(20))
    return f"{encode_nix32(folded)}-{name}"


def path_info(name: str, size: int, *references: str) -> PathInfo:
    """What Nix would know of a path of this name."""
    inside = tuple(sorted(map(store_path, references)))
    return PathInfo(store_path(name), NarHash.of(name.encode()), size, inside)


def tiny_spec() -> Spec:
    """Three paths in two tiers, with every member of a spec set."""
    infos = [
        path_info("glibc-2.36", 3000, "glibc-2.36"),
        path_info("bash-5.2", 2000, "glibc-2.36"),
        path_info("gcc-12.2.0", 9000, "glibc-2.36", "bash-5.2"),
    ]
    return Spec(
        kind="seed",
        name="tiny",
        system="x86_64-linux",
        config=ImageConfig(
            env={"PATH": "/bin", "HOME": "/root"},
            entrypoint=("/bin/sh",),
            cmd=("-l",),
            working_dir="/src",
            user="1000:100",
            labels={"org.example": "x"},
        ),
        files=(
            File("bin", link="usr/bin"),
            File("etc/motd", text="hi\n"),
            File("tmp", mode="1777"),
        ),
        inputs={"nixpkgs": "/nix/store/00000000000000000000000000000000-source"},
        tiers=("base", "toolchain", "packages"),
        paths={info.path: info for info in infos},
        layers=(
            Group("base", tuple(sorted([infos[0].path, infos[1].path]))),
            Group("toolchain", (infos[2].path,)),
        ),
        compressor=Compressor("zstd", "1.5.7", 3),
        withheld=(Withheld(store_path("cuda-12.0"), "cuda-12.0", "unfree", "/nix/store/x.drv"),),
    )
