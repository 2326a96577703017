"""Nix's own log, of an old and a new Nix: what is told, and that nothing is lost."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from nix_seed.core.errors import NixFailed
from nix_seed.core.events import listening
from nix_seed.flake.nix import Nix
from nix_seed.flake.rules.nix_log import NixLog, NixSaid, NixWork
from nix_seed.formats.nix.store_path import StorePath
from support.distribution import nix_env
from support.engines import trixie_nix
from support.programs import need
from support.web import Reply, lying

SHELL = "/bin/sh"
LINES = 60
# Log lines, then an end that fails or one that does not; a name of its own each time.
DERIVATION = f"""derivation {{{{
  name = "{{name}}";
  system = builtins.currentSystem;
  builder = "{SHELL}";
  args = [ "-c" "i=0; while [ $i -lt {LINES} ]; do echo line $i; i=$((i+1)); done; {{end}}" ];
  nonce = "{{nonce}}";
}}}}"""


@pytest.fixture(params=["system", "trixie"])
def nix(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Nix:
    """The machine's Nix and a newer one, on the machine's store: builders need a shell."""
    need("nix-store")
    for name in ("NIX_CONFIG", "NIX_USER_CONF_FILES"):
        monkeypatch.setenv(name, nix_env(sandbox="false")[name])
    return Nix(bin_dir=trixie_nix() if request.param == "trixie" else None)


def instantiate(nix: Nix, name: str, end: str) -> StorePath:
    # The machine's store outlives the tests and their directories: no name of those is new twice.
    text = DERIVATION.format(name=name, end=end, nonce=uuid.uuid4())
    path = nix.run("nix-instantiate", ["--expr", text], "instantiating")
    return StorePath.parse(path.strip())


def build(nix: Nix, name: str, end: str) -> list[object]:
    path = instantiate(nix, name, end)
    told: list[object] = []
    with listening(told.append):
        nix.realise({path: ["out"]}, [])
    return told


def test_nix_is_asked_for_what_is_not_there_alone(
    nix: Nix, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, other = (instantiate(nix, name, "echo > $out") for name in ("made", "other"))
    nix.realise({made: ["out"]}, [made])
    asked: list[str] = []

    def run(_: Nix, _program: str, arguments: list[str], _doing: str) -> str:
        asked.extend(arguments)
        return ""

    monkeypatch.setattr(Nix, "run", run)
    nix.realise({made: ["out"]}, [made, other])
    assert asked == []
    absent = StorePath(f"{'0' * 32}-absent")
    nix.realise({made: ["out", "more"], other: ["out"]}, [other, absent])
    assert asked[3:] == [str(absent), *sorted((f"{made}!more", f"{other}!out"))]
    # Where the database cannot be read, Nix looks for itself.
    asked.clear()
    monkeypatch.setenv("NIX_REMOTE", "ssh-ng://elsewhere")
    nix.realise({made: ["out"]}, [other])
    assert asked[3:] == [str(other), f"{made}!out"]


def test_a_build_is_told_with_its_log(nix: Nix) -> None:
    told = build(nix, "fine", "echo > $out")
    work = [each for each in told if isinstance(each, NixWork)]
    assert {"building fine"} in [set(each.running) for each in work]
    assert (0, 1) in [each.builds for each in work]
    assert work[-1].builds == (1, 1)
    log = [each.text for each in told if isinstance(each, NixSaid) and each.name == "fine"]
    assert log == [f"line {n}" for n in range(LINES)]


def test_a_failing_build_is_shown_whole(nix: Nix) -> None:
    """All lines of the builder's log, of which Nix itself shows the last ten, and Nix's words."""
    with pytest.raises(NixFailed, match="nix-store failed") as caught:
        build(nix, "broken", "exit 3")
    detail = (caught.value.detail or "").splitlines()
    assert detail[: LINES + 1] == ["log of broken:", *(f"  line {n}" for n in range(LINES))]
    words = "\n".join(detail[LINES + 1 :])
    assert "broken.drv' failed" in words
    assert "exit code 3" in words
    assert "\x1b" not in words


def test_an_evaluation_that_fails_is_shown_whole(nix: Nix) -> None:
    with pytest.raises(NixFailed) as caught:
        nix.evaluate('throw "one\ntwo ${toString 3}"', "asking")
    assert "one" in (caught.value.detail or "")
    assert "two 3" in (caught.value.detail or "")


def test_fetching_is_told_in_paths_and_bytes(nix: Nix, tmp_path: Path) -> None:
    size = 300_000
    (tmp_path / "big").write_bytes(bytes(size))
    source = Nix(store=tmp_path / "source", bin_dir=nix.bin_dir)
    path = source.run("nix-store", ["--add", str(tmp_path / "big")], "adding").strip()
    cache = f"file://{tmp_path}/cache?compression=none"
    source.run("nix", ["copy", "--to", cache, path], "copying")
    told: list[object] = []

    def answer(_method: str, path: str) -> Reply:
        file = tmp_path / "cache" / path.lstrip("/")
        return (200, {}, file.read_bytes()) if file.is_file() else (404, {}, b"")

    with lying(answer) as url, listening(told.append):
        settings = {"substituters": url, "require-sigs": "false"}
        target = Nix(store=tmp_path / "target", bin_dir=nix.bin_dir, settings=settings)
        target.realise({}, [StorePath.parse(path)])
    work = [each for each in told if isinstance(each, NixWork)]
    assert ("fetching big",) in [each.running for each in work]
    assert (0, 1) in [each.paths for each in work]
    assert work[-1].paths == (1, 1)
    done, of = work[-1].fetched
    assert done == of
    assert size < done < size + 5000


def test_what_is_no_log_line_is_passed_on_or_over() -> None:
    log = NixLog()
    assert list(log.read(b"a hook's \xff words")) == [NixSaid("a hook's \ufffd words")]
    for line in (b"@nix {", b"@nix []", b"@nix 3", b'@nix {"action":"dance"}', b"@nix {}"):
        assert list(log.read(line)) == []
    for fields in ("[]", '["x","y"]', "[-1,2,3,4]", "null", "{}", '"text"', "[[], {}]", "3"):
        for start in ('"start","type":104', '"result","type":105', '"result","type":106'):
            list(log.read(f'@nix {{"action":{start},"id":1,"fields":{fields}}}'.encode()))
    list(log.read(b'@nix {"action":"start","id":{},"type":{},"fields":{"a":1}}'))
    assert log.work == NixWork((0, 0), (0, 0), (0, 0), ())
    assert log.error == "a hook's \ufffd words"
