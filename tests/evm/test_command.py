"""``nix-seed ledger evm`` on a real node: the runbook as it stands, and what goes wrong."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nix_seed.cli.main import main
from nix_seed.evm.signatures import EvmKey
from support import warm
from support.chains import Anvil, anvil
from support.evm import digest

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs/ledger-evm.md"
BLOCK = re.compile(r"^```sh evm\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMMAND = Path(sys.executable).with_name("nix-seed")
COMMIT = "c0ffee" + "0" * 34
ROOT_DIGEST, RECORD = str(digest("root")), str(digest("record"))


@dataclass(frozen=True)
class Done:
    """What a command answered."""

    returncode: int
    stdout: str
    stderr: str


def run(place: Path, *arguments: str, code: int = 0) -> Done:
    """Run the command in *place*, in this process: the libraries take a second to load."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(place)
        patch.setattr(sys, "argv", ["nix-seed", "ledger", "evm", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
    done = Done(int(ended.value.code or 0), out.getvalue(), err.getvalue())
    assert done.returncode == code, f"{arguments}\n{done.stdout}{done.stderr}"
    return done


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, node: Anvil) -> Path:
    """A directory with the key files of two builders, a stranger, and one who pays."""
    place = tmp_path_factory.mktemp("commands")
    for name in ("alice", "bob", "eve", "payer"):
        (place / name).write_text(os.urandom(32).hex())
    node.fund(EvmKey.open(place / "payer").address)
    return place


def account(place: Path, name: str) -> str:
    return EvmKey.open(place / name).address


@pytest.fixture(scope="module")
def contract(place: Path, node: Anvil) -> dict[str, Any]:
    assert node.url is not None
    done = run(
        place, "deploy", "--chain-id", str(node.chain_id), "--threshold", "2", "--key", "payer",
        "--builder", f"alice={account(place, 'alice')}",
        "--builder", f"bob={account(place, 'bob')}",
        "--rpc", node.url, "--confirmations", "0", "--json",
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def which(contract: dict[str, Any], node: Anvil) -> list[str]:
    assert node.url is not None
    return [
        "--chain-id", str(contract["chainId"]), "--address", contract["address"],
        "--rpc", node.url, "--confirmations", "0",
    ]  # fmt: skip


def sign(place: Path, which: list[str], name: str, out: str, *more: str) -> None:
    what = ["--commit", COMMIT, "--root", ROOT_DIGEST, "--record", RECORD]
    run(place, "sign", *what, "--key", name, "-o", out, *which, *more)


def test_a_release_from_signatures_to_a_look_up(place: Path, which: list[str]) -> None:
    offline = which[:4]
    sign(place, offline, "alice", "release.alice", "--epoch", "1")
    sign(place, which, "bob", "release.bob")
    what = ["--commit", COMMIT, "--root", ROOT_DIGEST, "--record", RECORD]
    eve = run(place, "sign", *what, "--key", "eve", "-o", "never", *which, code=2)
    assert f"{account(place, 'eve')} is no builder of epoch 1\n" in eve.stderr
    assert f"bob {account(place, 'bob')}" in eve.stderr
    both = ["--signature", "release.alice", "--signature", "release.bob"]
    few = run(place, "publish", *both[:2], "--key", "payer", *which, code=1)
    assert "1 of the 2 builders of epoch 1 that must sign did; missing: bob" in few.stderr
    assert run(place, "show", COMMIT, *which, code=1).stderr == "there is no such entry\n"
    entered = json.loads(run(place, "publish", *both, "--key", "payer", *which, "--json").stdout)
    assert entered["root"] == ROOT_DIGEST
    again = json.loads(run(place, "publish", *both, "--key", "payer", *which, "--json").stdout)
    assert again["record"] == RECORD
    for how in ([COMMIT], ["--root", ROOT_DIGEST], ["--all"]):
        shown = json.loads(run(place, "show", *how, *which, "--json").stdout)
        assert [entry["root"] for entry in shown["entries"]] == [ROOT_DIGEST]
        assert (shown["count"], shown["threshold"], shown["epoch"]) == (1, 2, 1)
        assert {each["id"] for each in shown["builders"]} == {"alice", "bob"}
    assert f"root     {ROOT_DIGEST}" in run(place, "show", COMMIT, *which).stdout
    both_ways = run(place, "show", COMMIT, "--all", *which, code=2)
    assert "say one of COMMIT, --root and --all" in both_ways.stderr


def test_builders_are_changed_and_old_signatures_count_no_more(
    place: Path, which: list[str]
) -> None:
    new = ["--threshold", "1", "--builder", f"eve={account(place, 'eve')}"]
    for name in ("alice", "bob"):
        run(place, "builders", "sign", *new, "--key", name, "-o", f"next.{name}", *which)
    files = ["--signature", "next.alice", "--signature", "next.bob", "--key", "payer"]
    changed = json.loads(run(place, "builders", "set", *files, *which, "--json").stdout)
    assert (changed["epoch"], changed["threshold"]) == (2, 1)
    refused = run(place, "builders", "set", *files, *which, code=1)
    assert "are for epoch 2, and the contract's next is 3" in refused.stderr
    history = run(place, "builders", "show", *which).stdout
    assert "epoch    1: 2 of 2 builders must sign" in history
    assert "epoch    2: 1 of 1 builders must sign" in history
    assert f"{account(place, 'eve')}  eve" in history
    other = ["--commit", "badbad" + "0" * 34, "--root", str(digest("x")), "--record", RECORD]
    run(place, "sign", *other, "--epoch", "1", "--key", "alice", "-o", "old.alice", *which)
    old = ["--signature", "old.alice", "--key", "payer"]
    late = run(place, "publish", *old, *which, code=1)
    assert "missing: eve" in late.stderr
    assert "signatures of epoch 1 count no more: the builders have changed" in late.stderr
    run(place, "sign", *other, "--epoch", "2", "--key", "bob", "-o", "now.bob", *which)
    gone = run(place, "publish", "--signature", "now.bob", "--key", "payer", *which, code=1)
    assert f"no builders of this epoch: {account(place, 'bob')}" in gone.stderr


def test_mistakes_are_named(place: Path, which: list[str], node: Anvil) -> None:
    nodes = which[4:]
    what = ["--commit", COMMIT, "--root", ROOT_DIGEST, "--record", RECORD, "--key", "alice"]
    out, epoch = ["-o", "never"], ["--epoch", "1"]
    cases: list[tuple[list[str], str]] = [
        (["sign", *what, *out, *nodes], "there is no policy at trust.toml"),
        (["sign", *what, *out, *which[:2]], "--chain-id needs --address"),
        (["sign", *what, *out, *which[2:]], "--address needs --chain-id"),
        (
            ["sign", *what, *out, *which[:2], *epoch, "--address", "0x12"],
            "the ledger evm: '0x12' is no",
        ),
        (["sign", *what, *out, *which[:4]], "no node to ask"),
        (["sign", *what, "--commit-key", ROOT_DIGEST, *out, *which], "say either --commit or"),
        (["sign", *what[:4], "--record", "12", *what[6:], *out, *which], "'12' is not a digest"),
        (["sign", *what[:-1], "nobody", *out, *which], "there is no key nobody"),
        (["publish", "--signature", "payer", "--key", "payer", *which], "payer is not valid JSON"),
        (["show", "--rpc", "http://node.example", *which[:4]], "is no address of a node"),
    ]
    for arguments, message in cases:
        done = run(place, *arguments, code=2)
        assert message in done.stderr, done.stderr
    assert not (place / "never").exists()
    down = run(place, "show", *which[:4], "--rpc", "http://127.0.0.1:9/secret", code=3)
    assert "secret" not in down.stderr
    assert "no connection could be made" in down.stderr
    other = ["--chain-id", "1", *which[2:]]
    assert "follows chain 31337, not 1" in run(place, "show", *other, code=1).stderr


def test_signatures_of_different_things_are_not_mixed(place: Path, which: list[str]) -> None:
    for number in (1, 2):
        what = ["--commit", COMMIT, "--root", str(digest(str(number))), "--record", RECORD]
        run(place, "sign", *what, "--epoch", "1", "--key", "alice", "-o", f"mix.{number}", *which)
    mixed = ["--signature", "mix.1", "--signature", "mix.2", "--key", "payer"]
    done = run(place, "publish", *mixed, *which, code=2)
    assert "these are not signatures of one and the same release" in done.stderr
    done = run(place, "builders", "set", *mixed, *which, code=2)
    assert "these are not signatures of one and the same set of builders" in done.stderr
    again = ["--commit", COMMIT, "--root", ROOT_DIGEST, "--record", RECORD, "--epoch", "1"]
    done = run(place, "sign", *again, "--key", "alice", "-o", "mix.1", *which, code=2)
    assert "mix.1 exists already" in done.stderr


def test_a_set_that_is_none_is_never_signed(place: Path, which: list[str]) -> None:
    alice, bob = account(place, "alice"), account(place, "bob")
    cases = [
        (["--threshold", "0", "--builder", f"a={alice}"], "a threshold of 0 of 1 builders"),
        (["--threshold", "2", "--builder", f"a={alice}"], "a threshold of 2 of 1 builders"),
        (
            ["--threshold", "1", "--builder", f"a={alice}", "--builder", f"b={alice.lower()}"],
            "two builders have the account",
        ),
        (
            ["--threshold", "1", "--builder", f"a={alice}", "--builder", f"a={bob}"],
            "two builders have the id a",
        ),
        (["--threshold", "1", "--builder", alice], "is not of the form ID=0x…"),
    ]
    for arguments, message in cases:
        for command in (["builders", "sign", "-o", "never"], ["deploy"]):
            where = which if command[0] == "builders" else [*which[:2], *which[4:]]
            done = run(place, *command, *arguments, "--key", "payer", *where, code=2)
            assert message in done.stderr


def test_the_policy_names_the_contract(place: Path, which: list[str], node: Anvil) -> None:
    write_policy(place / "trust.toml")
    policy = place / "trust.toml"
    show = ["show", "--policy", "trust.toml"]
    assert "trust.toml names no ledger" in run(place, *show, code=2).stderr
    table = f"""
[[ledgers]]
id = "ID"
kind = "evm"
chainId = {node.chain_id}
address = "{which[3]}"
rpc = ["{node.url}"]
confirmations = 0
"""
    text = policy.read_text()
    policy.write_text(text + table.replace("ID", "one"))
    assert which[3] in run(place, *show).stdout
    shown = subprocess.run([COMMAND, "policy", "show"], cwd=place, capture_output=True, check=True)
    assert f"ledger one: {which[3]} on chain {node.chain_id}" in shown.stdout.decode()
    two = table.replace("ID", "two").replace(which[3], "0x" + "12" * 20)
    policy.write_text(text + table.replace("ID", "one") + two)
    many = run(place, *show, code=2)
    assert "trust.toml has the ledgers one, two" in many.stderr
    assert which[3] in run(place, *show, "--ledger", "one").stdout
    assert "there is no contract at" in run(place, *show, "--ledger", "two", code=1).stderr
    policy.unlink()


def test_without_the_extra_it_is_named(place: Path, which: list[str]) -> None:
    """As if web3 had never been installed."""
    program = textwrap.dedent("""
        import importlib.util, sys
        find = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *more: None if name == "web3" else find(name, *more)
        sys.modules["web3"] = sys.modules["eth_account"] = None
        from nix_seed.cli.main import main
        main()
    """)
    for arguments in (["show"], ["key", "show", "payer"], ["key", "generate", "new"]):
        more = which if arguments == ["show"] else []
        command = [sys.executable, "-c", program, "ledger", "evm", *arguments, *more]
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
        assert done.returncode == 2, done.stderr
        assert done.stderr == (
            "error: a ledger on an EVM chain needs the library web3, which is not installed\n"
            "hint: install it with: pip install 'nix-seed[evm]'\n"
        )


def write_policy(path: Path) -> None:
    """As 'nix-seed policy init' writes it, for one builder."""
    subprocess.run([COMMAND, "key", "generate", "signer.key"], cwd=path.parent, check=True)
    subprocess.run(
        [COMMAND, "policy", "init", path.name, "--key", "alice=signer.pub"],
        cwd=path.parent,
        check=True,
    )


@pytest.fixture
def quick() -> Iterator[Anvil]:
    """A node that makes a block a second, and calls one final two blocks later."""
    with anvil("--block-time", "1", "--slots-in-an-epoch", "1") as node:
        yield node


@pytest.mark.timeout(900)
def test_the_runbook_works_as_it_stands(tmp_path: Path, quick: Anvil) -> None:
    assert quick.url is not None
    write_policy(tmp_path / "trust.toml")
    env = os.environ | {
        "PATH": warm.path(tmp_path / "bin", "nix_seed.evm.contract", "eth_account"),
        "NIX_SEED_KEY_PASSPHRASE": "correct horse battery staple",
        "NIX_SEED_EVM_RPC": quick.url,
        "CHAIN": str(quick.chain_id),
        "COMMIT": COMMIT,
        "ROOT": ROOT_DIGEST,
        "RECORD": RECORD,
    }
    blocks = BLOCK.findall(DOCUMENT.read_text())
    assert len(blocks) == 4
    printed = ""
    for number, block in enumerate(blocks):
        if number == 1:
            payer = EvmKey.open(tmp_path / "payer.json", env["NIX_SEED_KEY_PASSPHRASE"])
            quick.fund(payer.address)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=tmp_path, env=env, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"
        printed += done.stdout
    assert "entry 0, block" in printed
    assert "epoch    2: 2 of 3 builders must sign" in printed
    assert ROOT_DIGEST in printed
