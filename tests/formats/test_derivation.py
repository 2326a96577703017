from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from nix_seed.core.errors import InputError
from nix_seed.formats.nix.store_path import Derivation, Output, StorePath
from support.distribution import nix_env
from support.programs import need, run

HASH = "0123456789abcdfghijklmnpqrsvwxyz"
A, B, OUT = (StorePath(f"{HASH}-{name}") for name in ("a.drv", "b.sh", "out"))
GOOD = (
    f'Derive([("out","{OUT}","","")],[("{A}",["dev","out"])],["{B}"],'
    '"x86_64-linux","/bin/sh",["-c","echo \\"hi\\""],[("a","1\\n\\t\\r\\\\n"),("out","x")])'
)


def quote(text: str) -> str:
    """Quote as Nix does (derivations.cc, printString)."""
    for character, escape in {
        "\\": "\\\\",
        '"': '\\"',
        "\n": "\\n",
        "\r": "\\r",
        "\t": "\\t",
    }.items():
        text = text.replace(character, escape)
    return f'"{text}"'


def listed(items: list[str]) -> str:
    return f"[{','.join(items)}]"


def test_every_member_is_read() -> None:
    assert Derivation.parse(GOOD, "x") == Derivation(
        outputs={"out": Output(OUT, "", "")},
        input_drvs={A: ("dev", "out")},
        input_srcs=(B,),
        system="x86_64-linux",
        builder="/bin/sh",
        args=("-c", 'echo "hi"'),
        env={"a": "1\n\t\r\\n", "out": "x"},
    )


@given(st.lists(st.text()), st.dictionaries(st.text(), st.text()), st.text(), st.text(), st.text())
def test_any_text_is_read_as_it_was_written(
    args: list[str], env: dict[str, str], system: str, builder: str, name: str
) -> None:
    text = (
        f"Derive([({quote(name)},{quote('')},{quote('r:sha256')},{quote('')})],[],[],"
        f"{quote(system)},{quote(builder)},{listed(list(map(quote, args)))},"
        f"{listed([f'({quote(key)},{quote(value)})' for key, value in env.items()])})"
    )
    read = Derivation.parse(text, "x")
    assert read.outputs == {name: Output(None, "r:sha256", "")}
    assert (read.args, dict(read.env)) == (tuple(args), env)
    assert (read.system, read.builder) == (system, builder)


@pytest.mark.parametrize(
    ("hash_algorithm", "hash_", "fixed"),
    [
        ("", "", False),
        ("sha256", "00" * 32, True),
        ("r:sha256", "00" * 32, True),
        ("r:sha256", "", False),  # content-addressed when it is built
        ("r:sha256", "impure", False),
    ],
)
def test_a_fixed_output_has_a_hash(hash_algorithm: str, hash_: str, fixed: bool) -> None:
    text = GOOD.replace('"","")]', f'"{hash_algorithm}","{hash_}")]', 1)
    assert Derivation.parse(text, "x").is_fixed_output is fixed


@given(st.data())
def test_a_damaged_file_is_refused_or_read(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(GOOD)))
    end = data.draw(st.integers(start, min(len(GOOD), start + 3)))
    text = GOOD[:start] + data.draw(st.text('()[]",\\nD/e', max_size=3)) + GOOD[end:]
    try:
        Derivation.parse(text, "some.drv")
    except InputError as error:
        assert str(error).startswith("some.drv is not a store derivation")  # noqa: PT017


@pytest.mark.parametrize("end", range(len(GOOD)))
def test_a_file_cut_short_is_refused(end: int) -> None:
    with pytest.raises(InputError, match=r"some\.drv is not a store derivation"):
        Derivation.parse(GOOD[:end], "some.drv")


@pytest.mark.parametrize(
    "text",
    [
        GOOD + "\n",
        " " + GOOD,
        GOOD.replace("Derive", "DrvWithVersion"),
        GOOD.replace('["dev","out"]', '["dev" "out"]'),
        GOOD.replace('["dev","out"]', '["dev","out",]'),
        GOOD.replace(f'"{A}"', f'["{A}"]'),
        GOOD.replace(str(A), "/tmp/a"),
        GOOD.replace(str(B), ""),
        GOOD.replace(str(OUT), "out"),
        GOOD.replace('("a",', "("),
        "Derive([],[],[])",
        "Derive(" + "[" * 100_000,
        'Derive([],[],[],"","",[],[' + '("a","' + "\\",
    ],
)
def test_what_is_no_derivation_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"some\.drv is not a store derivation"):
        Derivation.parse(text, "some.drv")


def test_a_large_file_costs_no_more_than_its_size() -> None:
    pairs = ",".join(f'("k{i}","{"v" * 20}\\n")' for i in range(200_000))
    start = time.process_time()
    good = f'Derive([],[],[],"","",[],[{pairs}])'
    assert len(Derivation.parse(good, "x").env) == 200_000
    with pytest.raises(InputError):
        Derivation.parse(good[:-2] + ",)", "x")
    with pytest.raises(InputError):
        Derivation.parse('Derive([],[],[],"","",["' + "\\\\" * 1_000_000, "x")
    assert time.process_time() - start < 10


def shown(drv: Derivation) -> dict[str, Any]:
    """Spell *drv* as `nix show-derivation` of Nix 2.8 does."""
    outputs: dict[str, Any] = {}
    for name, output in drv.outputs.items():
        outputs[name] = {} if output.path is None else {"path": str(output.path)}
        if output.hash_algorithm:
            outputs[name]["hashAlgo"] = output.hash_algorithm
        if output.hash:
            outputs[name]["hash"] = output.hash
    return {
        "outputs": outputs,
        "inputDrvs": {str(path): list(names) for path, names in drv.input_drvs.items()},
        "inputSrcs": list(map(str, drv.input_srcs)),
        "system": drv.system,
        "builder": drv.builder,
        "args": list(drv.args),
        "env": dict(drv.env),
    }


def test_a_graph_is_read_as_nix_reads_it(tmp_path: Path) -> None:
    need("nix")
    root, env = tmp_path / "root", nix_env()
    (tmp_path / "src").write_text("echo hi\n")
    expression = tmp_path / "graph.nix"
    expression.write_text(GRAPH)
    at = ("--store", str(root))
    top = run(need("nix-instantiate"), *at, str(expression), env=env).decode().strip()
    told = json.loads(run("nix", "show-derivation", "--recursive", *at, top, env=env))
    assert len(told) == 4
    for path, wanted in told.items():
        text = (root / path.lstrip("/")).read_text("utf-8", "surrogateescape")
        assert shown(Derivation.parse(text, path)) == wanted


GRAPH = r"""
let
  drv = name: more: derivation ({
    inherit name; system = "x86_64-linux"; builder = "/bin/sh";
  } // more);
  fetched = drv "fetched" {
    outputHash = "0000000000000000000000000000000000000000000000000000";
    outputHashAlgo = "sha256"; outputHashMode = "recursive";
  };
  many = drv "many" { outputs = [ "out" "dev" "lib" ]; src = ./src; inherit fetched; };
  odd = drv "odd" {
    args = [ "-c" "echo \"a\\b\" \n\t\r \${x} ü (],[\",\")" ];
    empty = ""; "quote\"name" = "x\\"; raw = "\\n";
  };
in drv "top" { inherit odd; inherit (many) dev lib; src = ./src; }
"""


def test_the_store_at_hand_is_read_as_nix_reads_it() -> None:
    need("nix")
    some = sorted(Path("/nix/store").glob("*.drv"))[::40][:60]
    texts = {path: path.read_text("utf-8", "surrogateescape") for path in some}
    read = {path: Derivation.parse(text, path.name) for path, text in texts.items()}
    # Nix shows none whose outputs are addressed by their content, unless that is switched on.
    read = {path: drv for path, drv in read.items() if all(o.path for o in drv.outputs.values())}
    if not read:
        pytest.skip("needs derivations in /nix/store: nix-instantiate something")
    told = json.loads(run("nix", "show-derivation", *map(str, read), env=nix_env()))
    assert {str(path): shown(drv) for path, drv in read.items()} == told
