"""What evaluating writes, sent beside an image by whoever may push there."""

import hashlib

import msgspec
import pytest
import zstandard
from hypothesis import given, strategies as st

from nix_seed.core.errors import InputError
from nix_seed.formats.nix.addressed import AddressedFile
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.use.rules import written
from nix_seed.use.rules.written import choose_sent, dump_written, parse_written, prove_written
from support.specs import addressed


def a_derivation(name: str, *inputs: str) -> tuple[str, bytes]:
    digits = hashlib.sha256(name.encode()).hexdigest()[:32].replace("e", "f")  # no e in base 32
    out = f"/nix/store/{digits}-{name}"
    drvs = ",".join(f'("/nix/store/{i}",["out"])' for i in sorted(inputs) if i.endswith(".drv"))
    srcs = ",".join(f'"/nix/store/{i}"' for i in sorted(inputs) if not i.endswith(".drv"))
    text = f'Derive([("out","{out}","","")],[{drvs}],[{srcs}],"any","/bin/sh",[],[])'.encode()
    kind = ":".join(["text", *(f"/nix/store/{each}" for each in sorted(inputs))])
    return addressed(kind, hashlib.sha256(text).hexdigest(), f"{name}.drv"), text


def a_text(name: str, data: bytes) -> tuple[str, bytes]:
    return addressed("text", hashlib.sha256(data).hexdigest(), name), data


def names(files: object) -> set[str]:
    return {file.info.path.name for file in files}  # type: ignore[attr-defined]


def test_what_is_proved_and_closed_is_kept() -> None:
    valid = StorePath.parse(f"/nix/store/{'0' * 32}-in-the-image")
    script = a_text("script", b"echo")
    lib = a_derivation("lib", script[0], valid.base_name)
    app = a_derivation("app", lib[0])
    stray = a_derivation("stray", f"{'1' * 32}-absent")
    above = a_derivation("above", stray[0], lib[0])
    files = dict([script, lib, app, stray, above])
    assert names(prove_written(files, {valid})) == {"script", "lib.drv", "app.drv"}
    # A lie takes what needs it along, and nothing else.
    lie = files | {script[0]: b"rm"}
    assert names(prove_written(lie, {valid})) == set()
    assert names(prove_written(lie | {"nonsense": b""}, {valid, StorePath(script[0])})) == {
        "lib.drv",
        "app.drv",
    }


def test_a_chain_that_begins_with_a_lie_is_left_out_at_once() -> None:
    chain = [a_derivation("d0", f"{'1' * 32}-absent")]
    for number in range(1, 3000):
        chain.append(a_derivation(f"d{number}", chain[-1][0]))
    assert prove_written(dict(reversed(chain)), ()) == ()
    assert len(prove_written(dict(chain), {StorePath(f"{'1' * 32}-absent")})) == 3000


def test_only_what_makes_the_image_is_sent() -> None:
    script, secret = a_text("script", b"echo"), a_text("secret", b"mine")
    lib = a_derivation("lib", script[0])
    own = a_derivation("own", lib[0], secret[0])
    files = prove_written(dict([script, secret, lib, own]), ())
    held = {o.path for f in files if f.derivation for o in f.derivation.outputs.values()}
    made = {path for path in held if path is not None and path.name == "lib"}
    assert names(choose_sent(files, made)) == {"script", "lib.drv"}
    assert choose_sent(files, ()) == []


def test_it_reads_back_and_is_a_function_of_its_files() -> None:
    files = [AddressedFile.parse(*a_text(f"t{n}", b"%d" % n)) for n in range(9)]
    data = dump_written(files)
    assert dump_written(reversed(files)) == data
    assert prove_written(parse_written(data), ()) == tuple(
        sorted(files, key=lambda file: file.info.path)
    )


def test_what_is_larger_than_any_hint_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(written, "LARGEST", 100)
    files = [AddressedFile.parse(*a_text(f"t{n}", b"%d" % n)) for n in range(99)]
    assert dump_written(files) == b""


def packed(value: object) -> bytes:
    return zstandard.compress(msgspec.msgpack.encode(value))


@pytest.mark.parametrize(
    "data",
    [
        packed({str(number): b"" for number in range(50_001)}),
        *(b"", b"garbage", packed([]), packed({"a": "text"}), packed({1: b""}), packed({})[:-1]),
        # It claims a terabyte.
        b"\x28\xb5\x2f\xfd\xe0" + (1 << 40).to_bytes(8, "little") + b"\x01\x00\x00",
        zstandard.compress(b"\x81\xa1\xff\xc4\x00"),
    ],
)
def test_what_is_no_hint_is_refused(data: bytes) -> None:
    with pytest.raises(InputError):
        parse_written(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_hint_or_refused(data: bytes) -> None:
    for each in (data, zstandard.compress(data)):
        try:
            prove_written(parse_written(each), ())
        except InputError:
            continue
