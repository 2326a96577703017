"""Who says under which licence a path is, on graphs made by hand."""

from __future__ import annotations

from nix_seed.formats.nix.derivation import Derivation, Output
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.rules.licence import Fact, Licence, LicencePolicy
from nix_seed.rules.licence_judge import Judgement, judge
from nix_seed.rules.roots import find_roots

MIT = Licence("MIT", "redistributable")
GPL = Licence("GPL-3.0-only", "redistributable")
UNFREE = Licence("unfree", "withheld")


def path(name: str) -> StorePath:
    return StorePath(f"{'0' * 32}-{name}")


def drv(
    name: str, *inputs: str, fixed: bool = False, builder: str = "", stdenv: str = ""
) -> tuple[StorePath, Derivation]:
    made = Derivation(
        outputs={"out": Output(path(name), "sha256" if fixed else "", "00" if fixed else "")},
        input_drvs={path(f"{item}.drv"): ("out",) for item in inputs},
        input_srcs=(),
        system="x86_64-linux",
        builder=str(path(builder)) + "/bin/sh" if builder else "builtin:x",
        args=(),
        env={"stdenv": str(path(stdenv)), "url": f"mirror://{name}"} if stdenv or fixed else {},
    )
    return path(f"{name}.drv"), made


def judged(
    *derivations: tuple[StorePath, Derivation],
    policy: LicencePolicy | None = None,
    trees: dict[StorePath, tuple[str, Licence]] | None = None,
    only: tuple[str, ...] = (),
    **stated: Licence,
) -> Judgement:
    graph = dict(derivations)
    facts = {str(path(f"{name.replace('_', '-')}.drv")): Fact(it) for name, it in stated.items()}
    roots = find_roots(graph, graph.__getitem__, trees or ())
    known = {*roots.makers, *(end.path for end in roots.ends)}
    paths = {path(name) for name in only} or known
    return judge(paths, roots, graph.__getitem__, facts, trees or {}, policy or LicencePolicy())


def statuses(judgement: Judgement) -> dict[str, str]:
    return {at.name: item.licence.status for at, item in judgement.paths.items()}


def test_a_fetched_file_is_what_is_built_from_it() -> None:
    found = judged(drv("app", "src"), drv("src", fixed=True), app=UNFREE)
    assert statuses(found) == {"app": "withheld", "src": "withheld"}
    assert [item.url for item in found.withheld] == ["mirror://src", "mirror://src"]


def test_who_shares_the_source_of_a_withheld_package_contradicts_itself() -> None:
    found = judged(
        drv("app", "src"), drv("liar", "src"), drv("src", fixed=True), app=UNFREE, liar=MIT
    )
    [conflict] = found.conflicts
    assert (conflict.path.name, conflict.fetched.name) == ("liar", "src")
    assert conflict.others == (path("app.drv"),)
    accepted = judged(
        *(drv("app", "src"), drv("liar", "src"), drv("src", fixed=True)),
        policy=LicencePolicy(accept=("liar",)),
        app=UNFREE,
        liar=MIT,
    )
    assert accepted.conflicts == ()


def test_a_wrapper_is_what_it_wraps_and_not_what_made_it() -> None:
    graph = [
        drv("wrapper", "app", "gpl", "sh", "env", builder="sh", stdenv="env"),
        drv("app"),
        drv("gpl"),
        drv("sh", fixed=True),
        drv("env", "sh"),
    ]
    found = judged(*graph, app=MIT, gpl=GPL)
    assert found.paths[path("wrapper")].licence == Licence(
        "GPL-3.0-only AND MIT", "redistributable"
    )
    assert statuses(found)["sh"] == "unknown"
    assert statuses(judged(*graph, app=UNFREE, gpl=GPL))["wrapper"] == "withheld"
    assert statuses(judged(*graph, gpl=GPL))["wrapper"] == "unknown"


def test_a_long_chain_and_a_circle_end() -> None:
    chain = [drv(f"n{i}", f"n{i + 1}") for i in range(3000)]
    found = judged(*chain, drv("n3000"), n3000=MIT)
    assert set(statuses(found).values()) == {"redistributable"}
    circle = judged(drv("a", "b"), drv("b", "a"))
    assert statuses(circle) == {"a": "unknown", "b": "unknown"}


def test_another_stage_of_the_same_version_tells() -> None:
    stage = (path("bash-5.2.drv"), drv("bash-5.2")[1])
    other = str(path("bash-5.2.drv")).replace("0" * 32, "1" * 32)
    roots = find_roots([stage[0]], dict([stage]).__getitem__)
    facts = {other: Fact(GPL)}
    read = dict([stage]).__getitem__
    found = judge([path("bash-5.2")], roots, read, facts, {}, LicencePolicy())
    assert found.paths[path("bash-5.2")].licence == GPL
    facts[other.replace("1" * 32, "2" * 32)] = Fact(UNFREE)
    split = judge([path("bash-5.2")], roots, read, facts, {}, LicencePolicy())
    assert split.paths[path("bash-5.2")].licence.status == "unknown"


def test_trees_go_by_the_inputs_name() -> None:
    trees = {path("source"): ("nixpkgs", Licence("", "unknown"))}
    assert statuses(judged(drv("app"), trees=trees, app=MIT))["source"] == "unknown"
    policy = LicencePolicy(accept=("input:nixpkgs",))
    found = judged(drv("app"), trees=trees, policy=policy, app=MIT)
    assert statuses(found) == {"app": "redistributable", "source": "redistributable"}


def test_what_is_withheld_beside_the_image_is_known_too() -> None:
    found = judged(drv("app", "tool"), drv("tool"), only=("app",), app=MIT, tool=UNFREE)
    assert statuses(found) == {"app": "redistributable"}
    assert [item.path.name for item in found.withheld_elsewhere] == ["tool"]


def test_what_meta_itself_states_is_told_from_what_follows() -> None:
    found = judged(
        drv("app", "lib", "src"), drv("lib"), drv("src", fixed=True), drv("hook", "lib"), lib=MIT
    )
    assert found.paths[path("lib")].declared == "MIT"
    hook = found.paths[path("hook")]
    assert (hook.licence, hook.declared) == (MIT, "")


def test_a_remark_is_not_declared() -> None:
    malformed = Licence("malformed (int)", "unknown")
    assert judged(drv("app"), app=malformed).paths[path("app")].declared == ""


def test_what_follows_from_several_is_one_expression() -> None:
    either = Licence("MIT OR Apache-2.0", "redistributable")
    found = judged(drv("hook", "lib", "app"), drv("lib"), drv("app"), lib=either, app=GPL)
    assert found.paths[path("hook")].licence.name == "GPL-3.0-only AND (MIT OR Apache-2.0)"
