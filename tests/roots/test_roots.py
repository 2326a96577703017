from __future__ import annotations

from collections.abc import Mapping

import pytest

from nix_seed.core.errors import InputError
from nix_seed.flake.rules.signatures import Signers
from nix_seed.formats.nix.store_path import Derivation, Output, StorePath
from nix_seed.roots.rules.policy import Binary, Findings, RootsPolicy, Substituted, evaluate_roots
from nix_seed.roots.rules.roots import HostProgram, Impurity, Roots, find_roots, roots_digest
from support.large_graph import measured


def path(name: str) -> StorePath:
    return StorePath(f"{'0' * 32}-{name}")


def drv(
    name: str,
    *inputs: str,
    srcs: tuple[str, ...] = (),
    builder: str = "",
    args: tuple[str, ...] = (),
    env: Mapping[str, str] | None = None,
    fixed: bool = False,
) -> Derivation:
    """A derivation that makes the path *name*, of derivations and sources of these names."""
    return Derivation(
        outputs={"out": Output(path(name), "sha256" if fixed else "", "ab" * 32 if fixed else "")},
        input_drvs={path(f"{item}.drv"): ("out",) for item in inputs},
        input_srcs=tuple(map(path, srcs)),
        system="x86_64-linux",
        builder=builder or str(path("busybox")) + "/bin/sh",
        args=args,
        env=env or {},
    )


def graph(*derivations: Derivation) -> dict[StorePath, Derivation]:
    found = {}
    for derivation in derivations:
        made = derivation.outputs["out"].path
        assert made is not None
        found[path(f"{made.name}.drv")] = derivation
    return found


BUSYBOX = drv("busybox", builder="builtin:fetchurl", env={"url": "mirror://b"}, fixed=True)
TARBALL = drv("a.tar", "curl", builder="/bin/sh", env={"urls": "one two"}, fixed=True)
APP = drv("app", "lib", "busybox", srcs=("script.sh",), args=("-e", str(path("script.sh"))))
LIB = drv("lib", "a.tar", "busybox", srcs=("patch",))


def roots_of(*derivations: Derivation, root: str = "app") -> Roots:
    return find_roots([path(f"{root}.drv")], graph(*derivations).__getitem__)


def test_ends_tell_how_they_are_used() -> None:
    roots = roots_of(APP, LIB, BUSYBOX, TARBALL)
    ends = {end.path.name: end for end in roots.ends}
    assert {name: (end.kind, end.use) for name, end in ends.items()} == {
        "busybox": ("fetched", "builder"),
        "a.tar": ("fetched", "input"),
        "script.sh": ("added", "argument"),
        "patch": ("added", "input"),
    }
    assert ends["busybox"].files == (("bin/sh", "builder"),)
    assert ends["busybox"].urls == ("mirror://b",)
    assert ends["a.tar"].urls == ("one", "two")
    assert ends["a.tar"].hash == f"sha256:{'ab' * 32}"
    assert ends["patch"].used_by == path("lib.drv")
    # Whoever fetches by hash need not be trusted: neither its host's shell nor its curl counts.
    assert roots.host == ()
    assert roots.derivations == 4
    assert set(roots.makers) == {path("app"), path("lib")}


def test_the_way_to_an_end_is_the_shortest() -> None:
    long = [drv("app", "a", "b"), drv("a", "c"), drv("c", "d"), drv("b", "d"), drv("d", "e")]
    roots = roots_of(*long, drv("e", srcs=("file",)))
    names = [step.name for step in roots.why(path("file"))]
    assert names == ["app.drv", "b.drv", "d.drv", "e.drv", "file"]
    assert [step.name for step in roots.why(path("c"))] == ["app.drv", "a.drv", "c.drv", "c"]
    assert roots.why(path("app.drv")) == (path("app.drv"),)
    with pytest.raises(InputError, match="is nothing that this rests on"):
        roots.why(path("stranger"))


def test_a_file_from_two_addresses_has_both() -> None:
    here = drv("a.tar", builder="/bin/sh", env={"urls": "one two"}, fixed=True)
    there = drv("a.tar", builder="/bin/sh", env={"urls": "two three"}, fixed=True)
    read = graph(drv("app", "lib"), drv("lib")) | {path("1.drv"): here, path("2.drv"): there}
    read[path("app.drv")] = drv("app", "1", "lib")
    read[path("lib.drv")] = drv("lib", "2")
    [end] = find_roots([path("app.drv")], read.__getitem__).ends
    assert end.derivations == (path("1.drv"), path("2.drv"))
    assert (end.derivation, end.used_by) == (path("1.drv"), path("app.drv"))
    assert end.urls == ("one", "two", "three")
    one = {**read, path("lib.drv"): drv("lib", "1")}
    roots = [find_roots([path("app.drv")], some.__getitem__) for some in (read, one)]
    assert roots_digest(roots[0]) == roots_digest(roots[1])


def test_a_hostile_circle_ends() -> None:
    circle = [drv("app", "a"), drv("a", "b"), drv("b", "a", "app")]
    roots = roots_of(*circle)
    assert roots.derivations == 3
    assert [step.name for step in roots.why(path("b"))] == ["app.drv", "a.drv", "b.drv", "b"]


@pytest.mark.parametrize(
    ("env", "reason"),
    [
        ({"__noChroot": "1"}, "__noChroot"),
        ({"__impure": "1"}, "__impure"),
        ({"impureEnvVars": "TOKEN HOME"}, "impureEnvVars HOME TOKEN"),
        ({"__json": '{"impureEnvVars":["TOKEN"]}'}, "impureEnvVars TOKEN"),
        ({"__impureHostDeps": "/usr/lib/x.dylib"}, "__impureHostDeps /usr/lib/x.dylib"),
    ],
)
def test_impure_derivations_are_named(env: dict[str, str], reason: str) -> None:
    roots = roots_of(drv("app", "busybox", env=env), BUSYBOX)
    assert roots.impure == (Impurity(path("app.drv"), reason),)


@pytest.mark.parametrize("env", [{"__noChroot": ""}, {"__json": "{"}, {"__json": "[1]"}])
def test_pure_and_malformed_ones_are_not(env: dict[str, str]) -> None:
    assert roots_of(drv("app", "busybox", env=env), BUSYBOX).impure == ()


def test_the_hosts_own_shell_is_named() -> None:
    roots = roots_of(drv("app", builder="/bin/sh"))
    assert roots.host == (HostProgram("/bin/sh", path("app.drv")),)


def test_a_builder_that_no_input_provides_is_the_hosts() -> None:
    assert roots_of(drv("app")).host == (HostProgram(f"{path('busybox')}/bin/sh", path("app.drv")),)


def test_the_digest_names_no_derivation() -> None:
    """Another Nix fetches by other derivations, and everything above has another path then."""
    graphs = []
    for name in ("lib", "lib-of-another-nix"):
        found = graph(drv("app", name, "busybox", env={"__noChroot": "1"}), BUSYBOX)
        found[path(f"{name}.drv")] = drv("lib", "busybox", env={"impureEnvVars": "TOKEN"})
        graphs.append(find_roots([path("app.drv")], found.__getitem__))
    assert {item.derivation for item in graphs[0].impure} != {
        i.derivation for i in graphs[1].impure
    }
    assert roots_digest(graphs[0]) == roots_digest(graphs[1])
    tame = graph(
        drv("app", "lib", "busybox", env={"__noChroot": "1"}), drv("lib", "busybox"), BUSYBOX
    )
    assert roots_digest(find_roots([path("app.drv")], tame.__getitem__)) != roots_digest(graphs[0])


def test_the_digest_is_of_what_it_rests_on_alone() -> None:
    plain = roots_digest(roots_of(APP, LIB, BUSYBOX, TARBALL))
    elsewhere = drv("a.tar", builder="/bin/sh", env={"urls": "three"}, fixed=True)
    assert roots_digest(roots_of(APP, LIB, BUSYBOX, elsewhere)) == plain
    more = drv("lib", "a.tar", "busybox", srcs=("patch", "patch2"))
    impure = drv("lib", "a.tar", "busybox", srcs=("patch",), env={"__noChroot": "1"})
    run = drv("lib", "a.tar", "busybox", srcs=("patch",), args=(str(path("a.tar")),))
    changed = [
        roots_digest(roots_of(APP, other, BUSYBOX, TARBALL)) for other in (more, impure, run)
    ]
    assert len({plain, *changed}) == 4
    assert str(plain) == ("sha256:38f8444a8447f222b77202043632a5e6bcacfccae9d8ca4a471d0dc4557966eb")


SEED = Binary(path("hex0"), "", 283, "ab", "ELF")
FINDINGS = Findings(
    executed=[SEED],
    binaries=[Binary(path("a.deb"), "", 5000, None, "archive", "bin/x")],
    substituted=[
        Substituted(path("gcc"), Signers(("cache-1",))),
        Substituted(path("zlib"), Signers()),
        Substituted(path("make"), Signers((), ("cache-1",), ("cache-2",))),
    ],
    host=[HostProgram("/bin/sh", path("app.drv"))],
    impure=[Impurity(path("app.drv"), "__noChroot")],
)


@pytest.mark.parametrize(
    ("rules", "broken"),
    [
        ("executed-seed-max=1KiB", ()),
        ("executed-seed-max=283", ()),
        (
            "executed-seed-max=282",
            (f"executed-seed-max: {path('hex0')} has 283 bytes, more than 282",),
        ),
        ("binary-max=1KiB", (f"binary-max: {path('a.deb')} has 5000 bytes, more than 1024",)),
        (
            "built-here",
            (
                f"built-here: {path('gcc')} was not built here: signed by cache-1",
                f"built-here: {path('zlib')} was not built here: copied, with no signature",
                f"built-here: {path('make')} was not built here: a signature of cache-1 does not"
                " verify; a signature of cache-2 was not checked",
            ),
        ),
        (
            "no-impure,no-host",
            (
                f"no-impure: {path('app.drv')}: __noChroot",
                f"no-host: /bin/sh, by {path('app.drv')}",
            ),
        ),
    ],
)
def test_policy(rules: str, broken: tuple[str, ...]) -> None:
    assert evaluate_roots(RootsPolicy.parse(rules), FINDINGS).broken == broken


def test_what_is_not_here_is_neither_kept_nor_broken() -> None:
    away = Findings(
        executed=[Binary(path("hex0"), "", None, None, None)],
        unseen=[path("b.tar")],
        absent=[path("gcc")],
        unknown=[path("what")],
        unread=[f"{path('bash')}/bin/sh"],
    )
    rules = "executed-seed-max=1,binary-max=1,built-here,no-host"
    verdict = evaluate_roots(RootsPolicy.parse(rules), away)
    assert verdict.broken == ()
    assert verdict.unjudged == (
        f"executed-seed-max: {path('hex0')} is not here to be looked at",
        f"binary-max: {path('hex0')} is not here to be looked at",
        f"binary-max: {path('b.tar')} is not here to be looked at",
        f"built-here: {path('gcc')} is not here",
        f"no-host: {path('bash')}/bin/sh is not here to be looked at",
        f"nothing is known of where {path('what')} comes from",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no rule in it, so nothing could break it"),
        ("built-there", "there is no rule built-there"),
        ("built-here=1", "built-here takes no value"),
        ("executed-seed-max", "needs a size"),
        ("binary-max=much", "'much' is no size"),
        ("binary-max=-1", "'-1' is no size"),
    ],
)
def test_policies_that_mean_nothing_are_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        RootsPolicy.parse(text)


def test_policy_file() -> None:
    text = '[roots]\nexecuted-seed-max = "1 KiB"\nbuilt-here = true\nno-host = false\n'
    policy = RootsPolicy.parse_file(text, "p.toml")
    assert policy == RootsPolicy.parse("executed-seed-max=1024 built-here")
    for wrong, message in {
        "[roots": "is not TOML",
        "[other]\n": "has no table",
        "[roots]\n": "no rule",
    }.items():
        with pytest.raises(InputError, match=message):
            RootsPolicy.parse_file(wrong, "p.toml")


LARGE = """
import time
from pathlib import Path
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.roots.rules.roots import find_roots, roots_digest
from support.large_graph import at, read

start = time.process_time()
roots = find_roots([StorePath.parse(at(0) + ".drv")], read)
roots_digest(roots)
assert roots.derivations == len(roots.ends) == 50_000
# Not getrusage, whose figure a child inherits from a large parent.
peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
print(time.process_time() - start, peak / 1000)
"""


@pytest.mark.slow
def test_fifty_thousand_derivations_in_ten_seconds_and_500_mb() -> None:
    seconds, megabytes = measured(LARGE, 10)
    assert megabytes < 500
    assert seconds < 10
