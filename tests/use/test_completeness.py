"""Plans in the words of Nix 2.8 and of newer ones, and what is missing in them."""

from __future__ import annotations

from nix_seed.formats.nix.store_path import Derivation, StorePath
from nix_seed.use.rules.completeness import Gap, OfflinePlan, find_gaps, parse_outputs, parse_plan


def path(name: str) -> StorePath:
    digit = {"app": "a", "lib": "b", "openssl-3.0": "c", "perl-5": "d", "src.tar": "f"}
    return StorePath(digit[name] * 32 + f"-{name}.drv")


def derivation(*inputs: str, fixed: bool = False) -> Derivation:
    needs = ",".join(f'("{path(name)}",["out"])' for name in inputs)
    output = '"sha256","00"' if fixed else '"",""'
    text = f'Derive([("out","/nix/store/{"g" * 32}-x",{output})],[{needs}],[],"s","b",[],[])'
    return Derivation.parse(text, "a test")


A, B, C = (f"/nix/store/{digit * 32}" for digit in "abc")


def test_the_words_of_nix() -> None:
    old = f"these 2 derivations will be built:\n  {A}-app.drv\n  {B}-lib.drv\n"
    old += f"these 1 paths will be fetched (0.10 MiB download, 0.45 MiB unpacked):\n  {C}-zlib\n"
    new = f"this derivation will be built:\n  {A}-app.drv\n"
    new += f"this path will be fetched (0.10 MiB download, 0.45 MiB unpacked):\n  {C}-zlib\n"
    lost = f"warning: something\ndon't know how to build these paths:\n  {C}-zlib\n"
    zlib = (StorePath("c" * 32 + "-zlib"),)
    assert parse_plan(old) == OfflinePlan((path("app"), path("lib")), zlib)
    assert parse_plan(new) == OfflinePlan((path("app"),), zlib)
    assert parse_plan(lost) == OfflinePlan((), (), zlib)
    assert parse_plan("") == OfflinePlan()
    assert parse_plan(f"unrelated:\n  {A}-app.drv\n") == OfflinePlan()


def test_the_projects_own_work_is_no_gap() -> None:
    outputs = parse_outputs(f"packages.default\t{A}-app.drv\nchecks.lib\t{B}-lib.drv\n")
    derivations = {path("app"): derivation("lib"), path("lib"): derivation()}
    assert find_gaps(outputs, OfflinePlan((path("app"), path("lib"))), derivations) == ()


def test_only_causes_are_gaps() -> None:
    outputs = parse_outputs(f"packages.default\t{A}-app.drv\nchecks.lib\t{B}-lib.drv\n")
    derivations = {
        path("app"): derivation("lib", "openssl-3.0"),
        path("lib"): derivation("openssl-3.0", "src.tar"),
        path("openssl-3.0"): derivation("perl-5"),
        path("perl-5"): derivation("src.tar"),
        path("src.tar"): derivation(fixed=True),
    }
    assert find_gaps(outputs, OfflinePlan(tuple(derivations)), derivations) == (
        Gap(path("openssl-3.0"), "derivation", ("packages.default", "checks.lib"), behind=2),
        Gap(path("src.tar"), "download", ("checks.lib",)),
    )


def test_what_no_output_asks_for_directly_is_still_a_gap() -> None:
    gap = Gap(path("perl-5"), "derivation", ())
    assert find_gaps((), OfflinePlan((path("perl-5"),)), {path("perl-5"): derivation()}) == (gap,)
    assert gap.hint == "add it: mkSeed { contents.packages = [ perl ]; }"


def test_the_hint_names_the_tier_that_needs_it() -> None:
    gap = Gap(path("openssl-3.0"), "derivation", ("devShells.default",))
    assert gap.name == "openssl-3.0"
    assert gap.hint == "add it: mkSeed { contents.devShells = [ openssl ]; }"


def test_paths_known_only_to_a_cache_are_gaps() -> None:
    zlib = StorePath("c" * 32 + "-zlib-1.3")
    assert find_gaps((), OfflinePlan(fetch=(zlib,)), {}) == (Gap(zlib, "path", ()),)
    assert find_gaps((), OfflinePlan(unknown=(zlib,)), {}) == (Gap(zlib, "path", ()),)


def test_what_is_fetched_by_the_projects_own_script_is_a_gap() -> None:
    """A fixed output's content is agreed on, whatever fetches it: no source changes it."""
    outputs = parse_outputs(f"packages.default\t{A}-app.drv\n")
    derivations = {path("app"): derivation(), path("src.tar"): derivation("app", fixed=True)}
    derivations[path("lib")] = derivation("src.tar")
    assert find_gaps(outputs, OfflinePlan(tuple(derivations)), derivations) == (
        Gap(path("lib"), "derivation", (), behind=1),
    )
