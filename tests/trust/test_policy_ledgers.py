"""The ledgers of a policy: read exactly, refused with their line, part of what a change shows."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from nix_seed.core.errors import InputError
from nix_seed.trust.rules.policy import LedgerSpec, Policy
from nix_seed.trust.rules.policy_change import compare_policies
from nix_seed.trust.rules.policy_checks import policy_warnings
from nix_seed.trust.rules.policy_file import parse_policy
from support.trust import World

NOW = datetime(2026, 6, 1, tzinfo=UTC)
ADDRESS = "0xCcCCccccCCCCcCCCCCCcCcCccCcCCCcCcccccccC"
LEDGER = f"""
[[ledgers]]
id = "mainnet"
kind = "evm"
chainId = 1
address = "{ADDRESS}"
rpc = ["https://one.example/v3/key", "http://127.0.0.1:8545"]
confirmations = 12
fromBlock = 20000000
"""


@pytest.fixture
def text(tmp_path: Path) -> str:
    return World(tmp_path).policy()


def parse(text: str) -> Policy:
    return parse_policy(text.encode(), "trust.toml", NOW)


def test_a_ledger_is_read(text: str) -> None:
    rpc = ("https://one.example/v3/key", "http://127.0.0.1:8545")
    wanted = LedgerSpec("mainnet", "evm", 1, ADDRESS, rpc, 12, 20000000)
    assert parse(text + LEDGER).ledgers == (wanted,)
    assert parse(text).ledgers == ()


def test_one_node_alone_is_warned_of(text: str) -> None:
    words = "ledger mainnet: one node alone, in rpc, is believed whatever it says"
    assert words not in policy_warnings(parse(text + LEDGER), NOW)
    one = LEDGER.replace(', "http://127.0.0.1:8545"', "")
    assert words in policy_warnings(parse(text + one), NOW)


def test_what_may_be_left_out(text: str) -> None:
    lines = LEDGER.splitlines(keepends=True)
    short = "".join(
        line for line in lines if not line.startswith(("rpc", "confirmations", "fromBlock"))
    )
    [spec] = parse(text + short).ledgers
    assert (spec.rpc, spec.confirmations, spec.from_block) == ((), None, 0)


@pytest.mark.parametrize(
    ("old", "new", "line", "problem"),
    [
        ('id = "mainnet"\n', "", 1, "[[ledgers]] needs id, a string"),
        ('kind = "evm"', 'kind = "solana"', 3, "kind is 'solana'"),
        ("chainId = 1", "chainId = 0", 4, "chainId must be from 1 to 9007199254740992"),
        ("chainId = 1", "chainId = true", 4, "chainId must be a whole number"),
        ("chainId = 1\n", "", 1, "[[ledgers]] needs chainId, a whole number"),
        (ADDRESS, "0x12", 5, "'0x12' is no address of a contract"),
        (ADDRESS, ADDRESS + "0", 5, f"'{ADDRESS}0' is no address of a contract"),
        (ADDRESS, "0x" + "0" * 40, 5, "no contract is at the zero address"),
        (
            "https://one",
            "http://one",
            6,
            "rpc: 'http://one.example/v3/key' is no address of a node",
        ),
        ("http://127.0.0.1:8545", "https://one.example/v3/key", 6, "rpc names something twice"),
        ("= 12", "= -1", 7, "confirmations must be from 0 to 100000"),
        ("= 20000000", "= -1", 8, "fromBlock must be from 0 to 9007199254740992"),
        ("confirmations", "confirmation", 7, "[[ledgers]] has no key 'confirmation'"),
    ],
)
def test_a_ledger_that_is_none_is_refused_with_its_line(
    text: str, old: str, new: str, line: int, problem: str
) -> None:
    whole = text + LEDGER.replace(old, new)
    begin = whole[: whole.index("[[ledgers]]")].count("\n")
    with pytest.raises(InputError) as raised:
        parse(whole)
    assert raised.value.message == f"trust.toml, line {begin + line}: {problem}"


def test_one_contract_under_two_names_is_refused(text: str) -> None:
    again = LEDGER.replace('"mainnet"', '"other"').replace(ADDRESS, ADDRESS.lower())
    with pytest.raises(InputError, match="two ledgers are one contract under two names"):
        parse(text + LEDGER + again)
    with pytest.raises(InputError, match="two ledgers have the id Mainnet"):
        parse(text + LEDGER + LEDGER.replace('"mainnet"', '"Mainnet"').replace("= 1\n", "= 2\n"))
    assert len(parse(text + LEDGER + again.replace("= 1\n", "= 2\n")).ledgers) == 2


def test_a_change_of_ledgers_is_shown(text: str) -> None:
    with_one, without = parse(text + LEDGER), parse(text)
    assert list(compare_policies(without, with_one)) == ["ledgers: mainnet is new"]
    assert list(compare_policies(with_one, without)) == ["ledgers: mainnet is gone"]
    final = parse(text + LEDGER.replace("confirmations = 12\n", ""))
    assert list(compare_policies(with_one, final)) == ["ledgers: mainnet: confirmations: 12 → none"]
