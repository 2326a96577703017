"""The registry client against Debian's docker-registry, over real HTTP."""

from __future__ import annotations

import hashlib
import ssl
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError
from nix_seed.formats.oci.manifest import Descriptor, Index, Manifest, MediaType, mark_tag
from nix_seed.registry.client import Repository
from nix_seed.registry.credentials import Credential, Keyring
from nix_seed.registry.errors import Denied, Patience, Unreachable
from nix_seed.registry.manifests import MANIFEST_LIMIT
from support.registries import PASSWORD, USER, Running, certificate, docker_registry
from support.repositories import Registry
from support.web import PlainHandler, answering

US = Keyring(given=Credential("the test", USER, PASSWORD))
QUICK = Patience(attempts=3, base=0.01)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture
def repository(running: Running, request: pytest.FixtureRequest) -> Repository:
    name = "test/" + hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]
    return Registry(running.host, keyring=US, patience=QUICK).repository(name)


def blob(data: bytes, media_type: str = MediaType.LAYER) -> Descriptor:
    return Descriptor(media_type, Digest.of(data), len(data))


def push_image(repository: Repository, *layers: bytes, config: bytes = b"{}") -> bytes:
    """Push an image of *layers*; return the manifest's bytes, not yet pushed."""
    for data in (config, *layers):
        repository.push_blob(blob(data), lambda data=data: [data])  # type: ignore[misc]
    return Manifest(blob(config, MediaType.CONFIG), tuple(blob(layer) for layer in layers)).dump()


def test_a_blob_comes_back_as_it_went(repository: Repository) -> None:
    data = bytes(range(256)) * 5000
    wanted = blob(data)
    assert not repository.has_blob(wanted.digest)
    repository.push_blob(wanted, lambda: [data[:7], data[7:70_000], b"", data[70_000:]])
    assert repository.has_blob(wanted.digest)
    assert b"".join(repository.open_blob(wanted)) == data


def test_a_stream_of_unknown_length_is_named_by_what_it_proved_to_be(
    repository: Repository,
) -> None:
    data = [b"x" * 100_000, b"y" * 200_000, b"z"]
    stored = repository.push_stream(lambda: iter(data), MediaType.LAYER_ZSTD)
    assert stored == blob(b"".join(data), MediaType.LAYER_ZSTD)
    assert b"".join(repository.open_blob(stored)) == b"".join(data)


def test_an_empty_blob(repository: Repository) -> None:
    stored = repository.push_stream(lambda: [], MediaType.LAYER)
    assert stored == blob(b"")
    repository.push_blob(stored, lambda: [])
    assert list(repository.open_blob(stored)) == []


def test_ranges(repository: Repository) -> None:
    data = bytes(range(256)) * 10
    repository.push_blob(blob(data), lambda: [data])
    assert repository.read_range_unverified(blob(data), 100, 300) == data[100:400]
    assert repository.read_range_unverified(blob(data), len(data) - 1, 1) == data[-1:]
    assert repository.read_range_unverified(blob(data), 5, 0) == b""
    with pytest.raises(InputError, match="has no bytes 2559 to 2561: it is 2560 long"):
        repository.read_range_unverified(blob(data), len(data) - 1, 2)


def test_a_source_with_other_bytes_is_checked_and_false(repository: Repository) -> None:
    wanted = blob(b"right")
    with pytest.raises(CheckedFalse, match="local data has other bytes than its digest names"):
        repository.push_blob(wanted, lambda: [b"wrong"])
    for short_or_long in (b"righ", b"rightt"):
        with pytest.raises(CheckedFalse, match="local data has other bytes"):
            repository.push_blob(wanted, lambda short_or_long=short_or_long: [short_or_long])  # type: ignore[misc]
    assert not repository.has_blob(wanted.digest)


def test_an_unreadable_source_is_not_taken_for_a_bad_network(repository: Repository) -> None:
    calls = []

    def source() -> Iterator[bytes]:
        calls.append(1)
        yield b"some"
        raise OSError(5, "Input/output error")

    with pytest.raises(CouldNotCheck, match=r"the data to be pushed cannot be read: .*Input/out"):
        repository.push_stream(source, MediaType.LAYER)
    assert len(calls) == 1


def test_manifests_by_tag_and_digest(repository: Repository) -> None:
    body = push_image(repository, b"layer")
    assert repository.get_manifest("v1") is None
    assert repository.head_manifest("v1") is None
    stored = repository.put_manifest(body, MediaType.MANIFEST, "v1")
    assert stored == Descriptor(MediaType.MANIFEST, Digest.of(body), len(body))
    for name in ("v1", stored.digest):
        fetched = repository.get_manifest(name)
        assert fetched is not None
        assert (fetched.descriptor, fetched.body) == (stored, body)
        assert repository.head_manifest(name) == stored
    repository.put_manifest(body, MediaType.MANIFEST, stored.digest)
    with pytest.raises(InputError, match="this manifest is sha256:"):
        repository.put_manifest(body, MediaType.MANIFEST, Digest.of(b"other"))


def test_a_manifest_whose_blobs_are_missing_is_refused_by_the_registry(
    repository: Repository,
) -> None:
    body = Manifest(blob(b"{}", MediaType.CONFIG), (blob(b"never pushed"),)).dump()
    with pytest.raises(CouldNotCheck, match="400: MANIFEST_BLOB_UNKNOWN"):
        repository.put_manifest(body, MediaType.MANIFEST, "v1")
    assert repository.list_tags() == ()


def test_a_missing_blob_is_checked_and_false(repository: Repository) -> None:
    with pytest.raises(CheckedFalse, match="is missing in the registry, although a manifest"):
        list(repository.open_blob(blob(b"absent")))


def test_mounting(repository: Repository, running: Running) -> None:
    data = b"shared layer"
    repository.push_blob(blob(data), lambda: [data])
    other = Registry(running.host, keyring=US, patience=QUICK).repository("test/mounted")
    assert other.mount_blob(blob(data).digest, repository.path)
    assert b"".join(other.open_blob(blob(data))) == data
    assert not other.mount_blob(blob(b"nowhere").digest, repository.path)


def test_tags_over_several_pages(repository: Repository) -> None:
    assert repository.list_tags() == ()
    body = push_image(repository, b"layer")
    wanted = [f"t{number:03}" for number in range(120)]
    for tag in wanted:
        repository.put_manifest(body, MediaType.MANIFEST, tag)
    assert repository.list_tags() == tuple(wanted)


def test_referrers_without_the_api(repository: Repository) -> None:
    body = push_image(repository, b"layer")
    subject = repository.put_manifest(body, MediaType.MANIFEST, "v1")
    assert repository.referrers(subject.digest) == ()
    entries = []
    for number in range(3):
        payload = b"attestation %d" % number
        kind = "application/vnd.test.a" if number else "application/vnd.test.b"
        for data in (b"{}", payload):
            repository.push_blob(blob(data), lambda data=data: [data])  # type: ignore[misc]
        artifact = Manifest(
            blob(b"{}", MediaType.EMPTY), (blob(payload),), {"n": str(number)}, kind, subject
        )
        entries.append(repository.attach(artifact.dump()))
        repository.attach(artifact.dump())  # the same again adds nothing
    expected = tuple(sorted(entries, key=lambda entry: entry.digest))
    assert repository.referrers(subject.digest) == expected
    assert repository.referrers(subject.digest, "application/vnd.test.b") == (entries[0],)
    own = (mark_tag(subject.digest, entry.digest) for entry in entries)
    assert repository.list_tags() == tuple(sorted((*own, f"sha256-{subject.digest.hex}", "v1")))


def artifact(repository: Repository, subject: Descriptor, text: str) -> bytes:
    for data in (b"{}", text.encode()):
        repository.push_blob(blob(data), lambda data=data: [data])  # type: ignore[misc]
    config = blob(b"{}", MediaType.EMPTY)
    return Manifest(config, (blob(text.encode()),), {}, "application/vnd.test", subject).dump()


def test_referrers_attached_at_once_are_all_listed(repository: Repository) -> None:
    body = push_image(repository, b"layer")
    subject = repository.put_manifest(body, MediaType.MANIFEST, "v1")
    bodies = [artifact(repository, subject, f"number {number}") for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        entries = list(pool.map(repository.attach, bodies))
    assert {item.digest for item in repository.referrers(subject.digest)} == {
        entry.digest for entry in entries
    }


def test_a_list_of_referrers_that_others_overwrite_is_written_again(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = push_image(repository, b"layer")
    subject = repository.put_manifest(body, MediaType.MANIFEST, "v1")
    empty, tag = Index(()).dump(), f"sha256-{subject.digest.hex}"
    put, spoiled = repository.put_manifest, list[Descriptor]()

    def overwritten(body: bytes, media_type: str, name: str | Digest | None = None) -> Descriptor:
        # Another writer had read before us.
        done = put(body, media_type, name)
        if name == tag and len(spoiled) < times:
            spoiled.append(put(empty, MediaType.INDEX, tag))
        return done

    monkeypatch.setattr(repository, "put_manifest", overwritten)
    times = 20
    entry = repository.attach(artifact(repository, subject, "first"))
    assert [item.digest for item in repository.referrers(subject.digest)] == [entry.digest]
    times = 100
    with pytest.raises(CouldNotCheck, match="is being rewritten by others; what was pushed may"):
        repository.attach(artifact(repository, subject, "second"))


def test_wrong_password_is_denied_with_what_it_needs(running: Running) -> None:
    wrong = Keyring(given=Credential("the test", USER, "hunter2"))
    repository = Registry(running.host, keyring=wrong, patience=QUICK).repository("o/r")
    with pytest.raises(Denied) as caught:
        repository.push_stream(lambda: [b"x"], MediaType.LAYER)
    assert "it needs pull and push on o/r, as seeder (from the test)" in caught.value.message
    assert "hunter2" not in f"{caught.value!r} {wrong!r} {caught.value.hint}"


def test_no_credentials_are_denied_with_how_to_log_in(running: Running) -> None:
    repository = Registry(running.host, keyring=Keyring(), patience=QUICK).repository("o/r")
    with pytest.raises(Denied, match="it needs pull on o/r, as anonymous") as caught:
        repository.get_manifest("v1")
    assert "docker login" in (caught.value.hint or "")


def test_nobody_listens() -> None:
    silent = Registry("127.0.0.1:1", keyring=US, patience=QUICK).repository("o/r")
    with pytest.raises(Unreachable, match=r"https://127.0.0.1:1/v2/: .* made: Connection refused"):
        silent.get_manifest("v1")
    nowhere = Registry("registry.invalid", keyring=US, patience=QUICK).repository("o/r")
    with pytest.raises(Unreachable, match=r"no connection could be made: .*[Nn]ame"):
        nowhere.get_manifest("v1")


def test_tls_is_used_and_checked(tmp_path: Path) -> None:
    made = certificate(tmp_path / "ca")
    with docker_registry(tmp_path / "registry", tls=made) as running:
        trusting = Keyring({"SSL_CERT_FILE": str(made.ca)}, given=US.given)
        repository = Registry(running.host, keyring=trusting, patience=QUICK).repository("o/r")
        stored = repository.push_stream(lambda: [b"over TLS"], MediaType.LAYER)
        assert b"".join(repository.open_blob(stored)) == b"over TLS"
        # Loopback falls back to plain HTTP for who does not speak TLS, never for a bad certificate.
        doubting = Registry(running.host, keyring=US, patience=QUICK).repository("o/r")
        with pytest.raises(Unreachable, match="its certificate was not accepted") as caught:
            doubting.has_blob(stored.digest)
        assert "SSL_CERT_FILE" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("made", "said", "hint"),
    [
        ({"usage": False}, "does not include key usage", "Python 3.13 and newer want this of a CA"),
        ({"days": -1}, "accepted: certificate has expired", "this machine's clock says 20"),
    ],
)
def test_a_certificate_that_newer_pythons_refuse_is_said_to_be_one(
    made: dict[str, Any], said: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A private CA's, above all: a seed works on one runner, and not on the next."""

    def newer(file: str) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=file)
        context.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from 3.13 on
        return context

    monkeypatch.setattr("nix_seed.registry.http._tls", newer)
    files = certificate(tmp_path, **made)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(files.certificate, files.key)
    with answering(PlainHandler, tls) as server:
        host = f"127.0.0.1:{server.server_port}"
        asked = Registry(host, keyring=US, patience=QUICK, ca_file=str(files.ca)).repository("o/r")
        with pytest.raises(Unreachable, match=said) as caught:
            asked.get_manifest("v1")
    assert hint in (caught.value.hint or "")


def test_a_ca_file_that_cannot_be_read() -> None:
    with pytest.raises(InputError, match="the CA file /nonexistent cannot be read"):
        Registry("127.0.0.1:1", keyring=Keyring({"SSL_CERT_FILE": "/nonexistent"}))


def test_authorities_are_read_for_tls_alone(tmp_path: Path) -> None:
    (tmp_path / "ca").write_text("no certificate")
    keyring = Keyring({"SSL_CERT_FILE": str(tmp_path / "ca")}, given=US.given)
    with docker_registry(tmp_path / "registry") as running:
        plain = Registry(running.host, keyring=keyring, patience=QUICK).repository("o/r")
        assert not plain.has_blob(Digest.of(b"nothing"))
    secure = Registry("registry.invalid", keyring=keyring, patience=QUICK).repository("o/r")
    with pytest.raises(InputError, match=r"the CA file .*/ca cannot be read"):
        secure.has_blob(Digest.of(b"nothing"))


def test_the_limit_of_manifests_is_that_of_the_specification() -> None:
    assert MANIFEST_LIMIT == 4 * 1024 * 1024


def test_memory_stays_bounded(running: Running) -> None:
    # In a process of its own, because memory once used by others counts too.
    program = f"""
import resource
from nix_seed.formats.oci.reference import Reference
from nix_seed.registry.open import Stores
from nix_seed.registry.credentials import Credential, Keyring
keyring = Keyring(given=Credential("the test", {USER!r}, {PASSWORD!r}))
repository = Stores(keyring).repository(Reference({running.host!r}, "test/memory"))
repository.push_stream(lambda: [b"warm"], "x")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
stored = repository.push_stream(lambda: (b"%d" % n * 500_000 for n in range(100, 250)), "x")
assert sum(map(len, repository.open_blob(stored))) == stored.size == 225_000_000
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    scale = 1024 if sys.platform == "darwin" else 1
    assert int(done.stdout) / scale < 24_000, "kilobytes for 225 MB out and in"
