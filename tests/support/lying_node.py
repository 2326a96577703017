"""A node that lies: it passes every question on to a real one, and alters what comes back."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from nix_seed.evm.contract import EvmLedger
from nix_seed.evm.node import EvmNode
from nix_seed.evm.nodes import Nodes
from support import web
from support.chains import PATIENCE
from support.evm import Evm

Alter = Callable[[str, list[Any], Any], Any]
"""(method, parameters, true result) -> what to answer; or ``Answer`` for a whole reply."""


class Answer(Exception):
    """Raised by an ``Alter``: the reply's status and body, whatever they are."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


@contextmanager
def lying(url: str, alter: Alter, path: str = "") -> Iterator[str]:
    """Serve the node at *url*, altered; give the liar's address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            question = json.loads(body)
            ask = urllib.request.Request(url, body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(ask, timeout=30) as answer:
                reply = json.load(answer)
            try:
                if "result" in reply:
                    method, parameters = question["method"], question["params"]
                    reply["result"] = alter(method, parameters, reply["result"])
                status, text = 200, json.dumps(reply).encode()
            except Answer as given:
                status, text = given.status, given.body
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    with web.answering(Handler) as server:
        yield f"http://127.0.0.1:{server.server_port}{path}"


def ledger_of(world: Evm, urls: Sequence[str], confirmations: int | None = 0) -> EvmLedger:
    nodes = [EvmNode.connect(url, PATIENCE) for url in urls]
    return EvmLedger(world.spec, Nodes(nodes, world.chain.chain_id, confirmations))


@contextmanager
def told(world: Evm, *alters: Alter) -> Iterator[EvmLedger]:
    """The ledger as seen through one liar each for *alters*, and nobody else."""
    with ExitStack() as stack:
        assert world.chain.url is not None
        urls = [stack.enter_context(lying(world.chain.url, alter)) for alter in alters]
        yield ledger_of(world, urls)


def answering(name: str, value: Any) -> Alter:
    def alter(method: str, parameters: list[Any], result: Any) -> Any:
        return value if method == name else result

    return alter


def events(change: Any) -> Alter:
    """Alter the list of releases that the node shows."""

    def alter(method: str, parameters: list[Any], result: Any) -> Any:
        return change(result) if method == "eth_getLogs" else result

    return alter


def called(function: str, value: str) -> Alter:
    """Answer calls of a view with *value*."""
    from eth_utils.crypto import keccak

    selector = "0x" + keccak(text=function)[:4].hex()

    def alter(method: str, parameters: list[Any], result: Any) -> Any:
        if method != "eth_call":
            return result
        data = parameters[0].get("data") or parameters[0].get("input")
        return value if data.startswith(selector) else result

    return alter


ANOTHER = "0x" + "55" * 64
