"""What a library makes of foreign bytes is caught where it is called, and never silently.

A call that parses is guarded, by ``foreign`` or a ``try``; a net that catches everything says what
it caught; locks and trees are gone through by the helpers that no planted name misleads.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import nix_seed

ROOT = Path(nix_seed.__file__).parent
PARSERS = {
    "json.load",
    "json.loads",
    "tomllib.loads",
    "urlsplit",
    "urlparse",
    "urljoin",
    "load_der_x509_certificate",
    "load_pem_x509_certificate",
    "load_der_public_key",
    "load_pem_public_key",
    "load_der_private_key",
    "load_pem_private_key",
    "decode_timestamp_response",
    "b64decode",
    "exact_base64",
    "urlsafe_b64decode",
}
# What is parsed there was read and judged before, is made by us, or is guarded by its only caller.
READ_BEFORE = {
    "core/digests.py _of_base64",
    "flake/rules/alter.py _alter_text",
    "formats/tlog/note.py _signature",
    "sbom/cyclonedx.py _serialised",
    "sbom/rules/sbom.py _read_spdx",
    "trust/rules/claims.py _time",
    "trust/sigstore.py public_root",
    "trust/sigstore.py who",
}
# Nets around one of many, and boundaries of libraries that promise nothing: `foreign` elsewhere.
NETS = {
    *("audit/audit", "audit/gather", "audit/judge", "audit/logs", "audit/monitor", "audit/read"),
    *("trust/attestations", "trust/watch_logs", "trust/rules/bundle"),
    *("trust/rules/claims", "trust/sigstore", "release/records", "setup/doctor"),
    *("setup/doctor_image", "evm/node", "evm/signatures", "flake/rules/licence"),
    *("core/errors", "cli/main", "use/mount/fuse"),
}
# The helper to be used instead, and who may go without, for what it is not made for.
HELPERS = {
    "flock": {"core/files", "registry/layout", "registry/layout_store", "use/store"}
    | {"use/engines/bwrap", "use/engines/mounted", "use/mount/store", "flake/leftovers"},
    "rmtree": {"logs/embedded", "flake/experiment"},
    "walk": {"flake/experiment", "cli/image/clean"},
    # Pythons differ in what they read besides the one spelling: what decides nothing may.
    "b64decode": {"core/digests", "registry/credentials"} | {"release/rules/signed_entries"},
}


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(ROOT.rglob("*.py")):
        yield str(path.relative_to(ROOT)), ast.parse(path.read_text())


def name_of(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return f"{name_of(function.value)}.{function.attr}"
    return function.id if isinstance(function, ast.Name) else ""


def unguarded(node: ast.AST, within: str = "", guarded: bool = False) -> Iterator[str]:
    """Yield the functions that call a parser with neither ``try`` nor ``foreign`` around it."""
    if isinstance(node, ast.Call) and not guarded:
        name = name_of(node.func)
        if name in PARSERS or name.rpartition(".")[2] in PARSERS:
            yield within
    if isinstance(node, ast.FunctionDef):
        within, guarded = node.name, False
    if isinstance(node, ast.Try):
        for tried in node.body:
            yield from unguarded(tried, within, True)
        for rest in (*node.handlers, *node.orelse, *node.finalbody):
            yield from unguarded(rest, within, guarded)
        return
    if isinstance(node, ast.With):
        called = (each.context_expr for each in node.items)
        names = {name_of(each.func) for each in called if isinstance(each, ast.Call)}
        guarded = guarded or bool(names & {"foreign", "suppress"})
    for child in ast.iter_child_nodes(node):
        yield from unguarded(child, within, guarded)


def test_what_parses_foreign_bytes_is_guarded() -> None:
    found = {f"{module} {where}" for module, tree in modules() for where in unguarded(tree)}
    assert found - READ_BEFORE == set(), "use foreign(...), or canonical_json.loads"
    assert READ_BEFORE - found == set(), "these are guarded now: take them off the list"


def catches_all(handler: ast.ExceptHandler) -> bool:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(each is None or name_of(each) in ("Exception", "BaseException") for each in kinds)


def says_so(handler: ast.ExceptHandler) -> bool:
    """Whether what was caught is raised again, or used."""
    inside = [each for part in handler.body for each in ast.walk(part)]
    used = any(isinstance(each, ast.Name) and each.id == handler.name for each in inside)
    return used or any(isinstance(each, ast.Raise) for each in inside)


def test_a_net_that_catches_all_is_on_the_list_and_says_what_it_caught() -> None:
    unknown, silent, known = set(), set(), set()
    for module, tree in modules():
        handlers = (each for each in ast.walk(tree) if isinstance(each, ast.ExceptHandler))
        for handler in filter(catches_all, handlers):
            raises = isinstance(handler.body[-1], ast.Raise) and handler.body[-1].exc is None
            where = f"{module}:{handler.lineno}"
            if module.removesuffix(".py") in NETS:
                known.add(module.removesuffix(".py"))
                if not says_so(handler) and "# " not in source_of(module, handler):
                    silent.add(where)
            elif not raises and not says_so(handler):
                unknown.add(where)
    assert unknown == set(), "use foreign(...) or caught(...)"
    assert silent == set(), "what was caught is neither said nor raised, and nothing says why"
    assert NETS - known == set(), "these catch less now: take them off the list"


def source_of(module: str, handler: ast.ExceptHandler) -> str:
    return "\n".join(
        (ROOT / module).read_text().splitlines()[handler.lineno - 1 : handler.end_lineno]
    )


def test_no_lock_nor_tree_is_gone_through_without_the_helpers() -> None:
    found: dict[str, set[str]] = {name: set() for name in HELPERS}
    for module, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                name = name_of(node.func)
                if name in ("fcntl.flock", "shutil.rmtree", "os.walk", "base64.b64decode"):
                    found[name.rpartition(".")[2]].add(module.removesuffix(".py"))
    for name, modules_found in found.items():
        assert modules_found - HELPERS[name] == set(), (
            f"{name}: use core/files' locked, safe_root's remove, core/files' files_below, "
            "core/digests' exact_base64"
        )
