"""JSON-RPC over the project's own HTTP: HTTPS or loopback only, bounded, patient, discreet.

A node's address often holds a key to it, so no more of it than the host is ever shown.
"""

from __future__ import annotations

import os
from typing import Any, Final
from urllib.parse import urlsplit

from web3.providers.base import JSONBaseProvider
from web3.types import RPCEndpoint, RPCResponse

from nix_seed.clients.registry.failures import Unreachable, retryable
from nix_seed.clients.registry.patience import Patience
from nix_seed.clients.registry.transport import Transport
from nix_seed.ground import canonical_json
from nix_seed.ground.errors import CouldNotCheck, InputError
from nix_seed.rules.policy_ledgers import check_rpc

__all__ = ["HttpProvider"]

_LARGEST_ANSWER: Final = 1 << 26
_HEADERS: Final = {"Content-Type": "application/json", "Accept": "application/json"}


class HttpProvider(JSONBaseProvider):
    """A node at *url*. Every request may be repeated: a transaction sent again is the same one."""

    def __init__(self, url: str, patience: Patience | None = None) -> None:
        super().__init__()
        check_rpc(url)
        self._url = url
        self.host = urlsplit(url).netloc.rpartition("@")[2]
        self._patience = patience or Patience(attempts=4)
        self._transport = Transport(self._patience, os.environ)

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        """Ask, again if the node is busy; ``CouldNotCheck`` if there is no usable answer."""
        body = self.encode_rpc_request(method, params)
        return self._patience.retry(lambda: self._once(body, method))

    def _once(self, body: bytes, method: str) -> RPCResponse:
        try:
            answer = self._transport.send("POST", self._url, _HEADERS, body)
            if retryable(answer.status):
                answer.close()
                raise Unreachable(
                    f"the node {self.host} answered {answer.status} to {method}",
                    hint="try again later, or ask another node",
                    retry_after=answer.headers.get("Retry-After"),
                )
            found = answer.read(_LARGEST_ANSWER)
        except Unreachable as error:
            raise self._discreet(error) from None
        if found is None:
            raise CouldNotCheck(f"the node {self.host} answered {method} with far too much")
        return self._parsed(answer.status, found, method)

    def _parsed(self, status: int, body: bytes, method: str) -> RPCResponse:
        try:
            value = canonical_json.loads(body, what="the answer")
        except InputError:
            value = None
        if not isinstance(value, dict) or not ({"result", "error"} & value.keys()):
            raise CouldNotCheck(
                f"the node {self.host} answered {status} to {method}, and not as JSON-RPC does",
                hint="is the address that of an Ethereum node, and the key in it valid?",
            )
        return value  # type: ignore[return-value]

    def _discreet(self, error: Unreachable) -> Unreachable:
        """Return *error* without the path, which may be a secret."""
        path = urlsplit(self._url).path
        message = error.message
        if len(path) > 1:
            message = message.replace(f"{self.host}{path}", self.host)
        return Unreachable(
            message, hint=error.hint, retry_after=error.retry_after, not_done=error.not_done
        )
