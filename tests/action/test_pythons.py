"""Each Python that the launcher takes reads and writes the same, and has nothing to warn of."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from support.pythons import OTHERS, Python, other_python

_IMPORT_ALL = """
import dataclasses, importlib, json, warnings
from pathlib import Path
root = Path("src")
names = []
for path in sorted(root.rglob("*.py")):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compile(path.read_text(), path, "exec", dont_inherit=True)
    if path.name != "__main__.py" and "evm" not in path.parts:
        name = ".".join(path.relative_to(root).with_suffix("").parts)
        names.append(name.removesuffix(".__init__"))
warnings.filterwarnings("error", module="nix_seed")
for name in names:
    importlib.import_module(name)

# Which members a document has is read from annotations, and from 3.14 on those are kept otherwise.
from nix_seed.core import declared
def below(kind):
    for each in kind.__subclasses__():
        yield each
        yield from below(each)
print(json.dumps({
    f"{kind.__module__}.{kind.__qualname__}": [
        f"{member.field}: {'.'.join((*member.path, member.name))}"
        for member in declared._shape(kind).members
    ]
    for kind in below(declared.Declared)
    if dataclasses.is_dataclass(kind)
}))
"""
# Where bytes are made and judged: golden vectors, documents, tars, databases.
_TESTS = ("tests/core", "tests/formats", "tests/image/test_layer.py", "tests/image/test_spec.py")


@pytest.fixture(scope="module", params=OTHERS)
def python(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Python:
    return other_python(request.param, tmp_path_factory.mktemp("packages"))


def test_it_warns_of_nothing_and_knows_the_same_members(python: Python) -> None:
    own = Python(Path(sys.executable), python.packages / "none")
    done, here = (each.run("-c", _IMPORT_ALL) for each in (python, own))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(here.stdout)


def test_it_makes_and_judges_the_same_bytes(python: Python) -> None:
    options = ("-q", "-p", "no:cacheprovider", f"--basetemp={python.packages}-work")
    done = python.run("-m", "pytest", *options, "-m", "check and not slow", *_TESTS)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
