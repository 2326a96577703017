"""Where a registry sends its client, and what that takes along: redirects, and plain HTTP."""

from __future__ import annotations

from pathlib import Path

import pytest

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CouldNotCheck
from nix_seed.formats.oci.manifest import Descriptor, MediaType
from nix_seed.registry.client import Repository
from nix_seed.registry.credentials import Keyring
from nix_seed.registry.errors import Patience
from support.faults import BLOBS, DATA, US, Fault, Proxy, fault_proxy
from support.registries import Running, certificate
from support.repositories import Registry


def test_credentials_do_not_follow_a_redirect(
    repository: Repository, proxy: Proxy, stored: Descriptor, running: Running
) -> None:
    with fault_proxy(running.host) as elsewhere:
        # The other host wants a password too, and is not told one, even when it asks.
        target = f"http://{elsewhere.host}/v2/{repository.path}/blobs/{stored.digest}"
        elsewhere.faults += [Fault("GET", "blobs", status=200, body=DATA)]
        proxy.faults += [Fault("GET", BLOBS, status=307, headers=(("Location", target),))]
        assert b"".join(repository.open_blob(stored)) == DATA
        assert ["authorization" in seen.headers for seen in elsewhere.seen] == [False]
        proxy.faults += [Fault("GET", BLOBS, None, status=307, headers=(("Location", target),))]
        challenge = (("WWW-Authenticate", 'Basic realm="tell me"'),)
        elsewhere.faults += [Fault("GET", "blobs", None, status=401, headers=challenge)]
        with pytest.raises(CouldNotCheck, match="denied \\(401\\)"):
            list(repository.open_blob(stored))
        assert all("authorization" not in seen.headers for seen in elsewhere.seen)
    assert all("authorization" in seen.headers for seen in proxy.seen)


def test_uploads_to_another_host_carry_no_credentials(
    repository: Repository, proxy: Proxy, running: Running
) -> None:
    with fault_proxy(running.host) as storage:
        storage.faults += [Fault("PUT", "bucket", status=201)]

        def elsewhere(headers: dict[str, str]) -> None:
            headers["Location"] = f"http://{storage.host}/bucket?signature=abc"

        proxy.faults += [Fault("POST", "/blobs/uploads/", None, edit=elsewhere)]
        blob = Descriptor(MediaType.LAYER, Digest.of(DATA), len(DATA))
        repository.push_blob(blob, lambda: [DATA])
        assert storage.paths("PUT") == [f"/bucket?signature=abc&digest=sha256%3A{blob.digest.hex}"]
        assert "authorization" not in storage.seen[0].headers
        assert storage.seen[0].received == len(DATA)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("http://192.0.2.1/blob", "refused to speak to 192.0.2.1 over plain HTTP"),
        ("file:///etc/passwd", "is no address that can be followed"),
    ],
)
def test_redirects_that_are_not_followed(
    repository: Repository, proxy: Proxy, stored: Descriptor, target: str, message: str
) -> None:
    proxy.faults += [Fault("GET", BLOBS, None, status=302, headers=(("Location", target),))]
    with pytest.raises(CouldNotCheck, match=message):
        list(repository.open_blob(stored))


def test_a_redirect_from_https_to_http_is_refused(running: Running, tmp_path: Path) -> None:
    made = certificate(tmp_path)
    with fault_proxy(running.host, tls=made) as proxy:
        registry = Registry(proxy.host, keyring=US, ca_file=str(made.ca))
        stored = registry.repository("test/tls").push_stream(lambda: [DATA], MediaType.LAYER)
        location = (("Location", f"http://{running.host}/v2/test/tls/blobs/{stored.digest}"),)
        proxy.faults += [Fault("GET", BLOBS, None, status=307, headers=location)]
        with pytest.raises(CouldNotCheck, match="to http, which is refused") as caught:
            list(registry.repository("test/tls").open_blob(stored))
        assert "X-Forwarded-Proto" in (caught.value.hint or "")
        # Its own host in plain HTTP is the registry's, which a proxy speaks TLS for.
        proxy.forwarded_proto = False
        again = registry.repository("test/tls").push_stream(lambda: [DATA], MediaType.LAYER)
        assert again == stored


def test_redirects_in_a_circle_end(
    repository: Repository, proxy: Proxy, stored: Descriptor
) -> None:
    location = (("Location", f"/v2/{repository.path}/blobs/{stored.digest}"),)
    proxy.faults += [Fault("GET", BLOBS, None, status=302, headers=location)]
    with pytest.raises(CouldNotCheck, match="more than 5 redirects"):
        list(repository.open_blob(stored))


def test_plain_http_needs_its_flag(tmp_path: Path) -> None:
    # 192.0.2.0/24 is for documentation: the refusal comes before any connection.
    patience = Patience(attempts=1, connect=0.2)
    with pytest.raises(CouldNotCheck) as caught:
        Registry("192.0.2.1:5000", keyring=US, patience=patience).repository("o/r").list_tags()
    assert caught.value.message.startswith("https://192.0.2.1:5000/")


def test_plain_http_by_flag_through_a_proxy(running: Running) -> None:
    # The name exists for the proxy only; with the flag, and by http_proxy, it is reached.
    with fault_proxy(running.host) as proxy:
        environ = {"http_proxy": f"http://{proxy.host}", "no_proxy": "other.test"}
        keyring = Keyring(environ, given=US.given)
        registry = Registry("registry.test:5000", keyring=keyring, plain_http=True)
        proxy.faults += [Fault("GET", "^http://registry.test:5000/v2/o/r/tags/list$", status=404)]
        assert registry.repository("o/r").list_tags() == ()
