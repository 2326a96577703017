"""Who says under which licence a path is, on graphs made by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping

from nix_seed.flake.rules.licence import Fact, Licence, LicencePolicy
from nix_seed.formats.nix.store_path import Derivation, Output, StorePath
from nix_seed.licences.rules.judge import Judgement, judge
from nix_seed.roots.rules.roots import find_roots

MIT = Licence("MIT", "redistributable")
GPL = Licence("GPL-3.0-only", "redistributable")
UNFREE = Licence("unfree", "withheld")
NOTHING = Licence("", "unknown")


def path(name: str) -> StorePath:
    return StorePath(f"{'0' * 32}-{name}")


def drv(
    name: str,
    *inputs: str,
    fixed: bool = False,
    builder: str = "",
    stdenv: str = "",
    srcs: tuple[str, ...] = (),
    args: tuple[str, ...] = (),
    out: str = "",
    env: Mapping[str, str] | None = None,
) -> tuple[StorePath, Derivation]:
    """A derivation *name* that makes *out*, by default a path of its name."""
    given = {"stdenv": str(path(stdenv)), "url": f"mirror://{name}"} if stdenv or fixed else {}
    made = Derivation(
        outputs={
            "out": Output(path(out or name), "sha256" if fixed else "", "00" if fixed else "")
        },
        input_drvs={path(f"{item}.drv"): ("out",) for item in inputs},
        input_srcs=tuple(map(path, srcs)),
        system="x86_64-linux",
        builder=str(path(builder)) + "/bin/sh" if builder else "builtin:x",
        args=args,
        env=given | dict(env or {}),
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
    return judge(paths, roots, facts, trees or {}, policy or LicencePolicy())


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
    found = judge([path("bash-5.2")], roots, facts, {}, LicencePolicy())
    assert found.paths[path("bash-5.2")].licence == GPL
    facts[other.replace("1" * 32, "2" * 32)] = Fact(UNFREE)
    split = judge([path("bash-5.2")], roots, facts, {}, LicencePolicy())
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


TREES = {path("source"): ("nixpkgs", MIT)}


def test_what_is_added_where_nobody_could_read_meta_may_be_anything() -> None:
    graph = [drv("tool", "lib", srcs=("blob",)), drv("lib")]
    # A vendor's tool that is only named in a text: what it links to says nothing of its blob.
    assert statuses(judged(*graph, trees=TREES, lib=MIT))["tool"] == "unknown"
    # What holds something withheld is left out all the same, and not only unknown.
    assert statuses(judged(*graph, trees=TREES, lib=UNFREE))["tool"] == "withheld"
    assert statuses(judged(drv("tool", "lib"), drv("lib"), lib=MIT))["tool"] == "redistributable"


def test_what_is_added_to_what_states_nothing_joins_in() -> None:
    graph = [drv("hook", "lib", srcs=("setup.sh",)), drv("lib"), drv("alone", srcs=("setup.sh",))]
    found = judged(*graph, trees=TREES, lib=GPL, hook=NOTHING, alone=NOTHING)
    assert found.paths[path("hook")].licence.name == "GPL-3.0-only AND MIT"
    assert found.paths[path("alone")].licence == MIT
    strange = {**TREES, path("vendor"): ("vendor", Licence("see LICENSE", "unknown"))}
    found = judged(*graph, trees=strange, lib=GPL, hook=NOTHING, alone=NOTHING)
    assert (statuses(found)["hook"], statuses(found)["alone"]) == ("unknown", "unknown")
    tree = drv("hook", "lib", srcs=("vendor",))
    found = judged(tree, drv("lib"), trees=strange, lib=GPL, hook=NOTHING)
    assert found.paths[path("hook")].licence.name == "see LICENSE"


def test_a_script_that_builds_stated_packages_too_is_no_content() -> None:
    srcs, args = ("builder.sh",), ("-e", str(path("builder.sh")))
    graph = [drv("text", "lib", srcs=srcs, args=args), drv("lib", srcs=srcs, args=args)]
    assert statuses(judged(*graph, lib=MIT))["text"] == "redistributable"
    # One of its own may be what is copied: cp blob $out.
    own = drv("text", "lib", srcs=("blob",), args=(str(path("blob")),))
    assert statuses(judged(own, drv("lib"), lib=MIT))["text"] == "unknown"
    # So may one that a stated package only mentions in a longer argument.
    within = drv("lib", srcs=("blob",), args=("-c", f"wc {path('blob')}"))
    assert statuses(judged(own, within, lib=MIT))["text"] == "unknown"


def test_one_file_from_two_addresses_is_what_all_say_that_use_it() -> None:
    graph = [
        drv("a-free", "here"),
        drv("z-vendor", "there"),
        drv("wrapper", "here"),
        drv("here", fixed=True, out="file"),
        drv("there", fixed=True, out="file"),
    ]
    found = judged(*graph, a_free=MIT, z_vendor=UNFREE)
    assert statuses(found)["file"] == statuses(found)["wrapper"] == "withheld"
    [conflict] = found.conflicts
    assert (conflict.path.name, conflict.fetched.name) == ("a-free", "file")
    assert conflict.others == (path("z-vendor.drv"),)
    assert statuses(judged(*graph, a_free=MIT, there=UNFREE))["file"] == "withheld"


def test_who_is_built_from_an_unpacked_file_contradicts_itself_too() -> None:
    graph = [
        drv("app", "src"),
        drv("liar", "patched"),
        drv("patched", "unpacked"),
        drv("unpacked", "src"),
        drv("src", fixed=True),
    ]
    found = judged(*graph, app=UNFREE, liar=MIT)
    assert statuses(found)["unpacked"] == "withheld"
    [conflict] = found.conflicts
    assert (conflict.path.name, conflict.fetched.name) == ("liar", "src")
    assert conflict.others == (path("app.drv"),)
    # A package that says of itself that it is withheld may be used: only its bytes tell more.
    assert judged(*graph, app=UNFREE, unpacked=UNFREE, liar=MIT).conflicts == ()
    accepting = LicencePolicy(accept=("unpacked",))
    assert judged(*graph, policy=accepting, app=UNFREE, liar=MIT).conflicts == ()


def test_what_is_named_only_to_be_forbidden_is_no_content() -> None:
    forbids = {"disallowedRequisites": str(path("boot"))}
    graph = [drv("boot"), drv("lib")]
    stdenv = drv("stdenv", "boot", "lib", env=forbids)
    assert statuses(judged(stdenv, *graph, lib=MIT))["stdenv"] == "redistributable"
    used = drv("stdenv", "boot", "lib", env={**forbids, "shell": f"{path('boot')}/bin/sh"})
    assert statuses(judged(used, *graph, lib=MIT))["stdenv"] == "unknown"
    structured = {"__json": json.dumps({**forbids, "shell": [f"{path('boot')}/bin/sh"]})}
    used = drv("stdenv", "boot", "lib", env=structured)
    assert statuses(judged(used, *graph, lib=MIT))["stdenv"] == "unknown"


def test_what_the_recipe_accepts_by_name_is_marked() -> None:
    policy = LicencePolicy(accept=("app", "input:nixpkgs"))
    found = judged(drv("app"), drv("lib"), trees=TREES, policy=policy, app=MIT, lib=MIT)
    assert {at.name for at, item in found.paths.items() if item.accepted} == {"app", "source"}
    both = judged(drv("app-1.0"), drv("lib-1.0"), policy=policy)
    assert {at.name for at, item in both.paths.items() if item.accepted} == {"app-1.0"}
