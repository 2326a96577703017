"""Results come out of the container: store paths into the host's store or a directory, and links.

Inside, a shell script finds what was built: store paths that were not there before and have a
deriver, and the links that Nix registered as garbage collector roots, which are exactly the
``result`` links it made, wherever they lie. It exports what the host's store does not have yet.
"""

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import field
from functools import partial
from pathlib import Path, PurePosixPath

from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError, foreign
from nix_seed.core.files import explained, open_regular
from nix_seed.core.values import dataclass
from nix_seed.flake.nix import Nix
from nix_seed.formats.nix.store_path import STORE_DIR, StorePath
from nix_seed.formats.oci.manifest import MediaType
from nix_seed.image.read import safe_root
from nix_seed.image.read.stream import TarPieces
from nix_seed.image.read.unpack import unpack_layer
from nix_seed.registry.layout import Image
from nix_seed.use.engines.base import EXCHANGE, SOURCE
from nix_seed.use.engines.host import has_daemon
from nix_seed.use.sandboxed import Inside

# Runs a program on the lines of a file: as many at once as arguments may be.
BATCHED = """
batched() {
  list=$1
  shift
  rm -f "$list".part-*
  split -a 4 -l 500 "$list" "$list".part- || return
  for part in "$list".part-*; do
    test ! -s "$part" || "$@" $(cat "$part") || return
  done
}
"""

# $@ is the command. Before and after, the store's directory is listed: no Nix is needed for that.
# Nix is asked for all new paths at once: evaluation alone may make thousands.
SCRIPT = rf"""{BATCHED}
x={EXCHANGE}
store() {{
  ls -A /nix/store 2>/dev/null |
    grep -v -e '\.drv$' -e '\.lock$' -e '\.chroot$' -e '^\.' | LC_ALL=C sort
}}
store > $x/before
# Nix overwrites no link that leads elsewhere, as those to an earlier run's directory do.
for link in ./* ./.[!.]* ./*/*; do
  test -L "$link" || continue
  case $(readlink "$link") in
  /nix/store/*) ;;
  */nix/store/*) rm -f "$link" ;;
  esac
done
date +%s.%N > $x/begin
# The shell's own words on a command that it cannot run would name a line of this script.
problem= code=126
case $1 in
*/*)
  if test ! -e "$1"; then problem='no such file' code=127
  elif test -d "$1"; then problem='that is a directory'
  elif test ! -x "$1"; then problem='that file is not executable'
  fi ;;
*)
  if ! (unset -f store batched; command -v -- "$1") > /dev/null; then
    problem="no such command in the seed; mkSeed's contents.toolchain adds one" code=127
  fi ;;
esac
if test -z "$problem"; then
  (unset -f store batched; "$@")
  code=$?
else
  printf 'nix-seed: %s: %s\n' "$1" "$problem" >&2
fi
date +%s.%N > $x/end
printf '%s' $code > $x/code
# A builder's log is made when it starts, and closed when it ends.
for log in /nix/var/log/nix/drvs/*/*; do stat -c '%n %.3W %.3Y' "$log"; done > $x/times 2>/dev/null
test $code = 0 || exit $code
command -v nix-store >/dev/null || exit 0
for root in /nix/var/nix/gcroots/auto/*; do
  link=$(readlink "$root") && path=$(readlink "$link") || continue
  case $link in {SOURCE}/*) ;; *) continue ;; esac
  case $path in /nix/store/*) printf '%s\t%s\n' "${{link#{SOURCE}/}}" "$path" ;; esac
done > $x/links
cut -f 2 $x/links | cut -d / -f 1-4 > $x/wanted
store > $x/after
LC_ALL=C comm -13 $x/before $x/after | grep '^[0-9a-z]\{{32\}}-' |
  sed 's,^,/nix/store/,' > $x/new
# What is not valid has no deriver to ask for, and is rare: a build that was stopped left it.
if ! batched $x/new nix-store --query --deriver > $x/derivers 2>/dev/null; then
  batched $x/new nix-store --check-validity --print-invalid > $x/unsorted || exit 125
  LC_ALL=C sort $x/unsorted > $x/invalid
  LC_ALL=C comm -23 $x/new $x/invalid > $x/valid
  batched $x/valid nix-store --query --deriver > $x/derivers || exit 125
  mv $x/valid $x/new
fi
paste $x/new $x/derivers | while read -r path deriver; do
  case $deriver in *.drv) printf '%s\n' "$path" ;; esac
done >> $x/wanted
LC_ALL=C sort -u -o $x/wanted $x/wanted
test -s $x/wanted || exit 0
if test -e $x/host-has; then
  batched $x/wanted nix-store --query --requisites > $x/unsorted || exit 125
  LC_ALL=C sort -u $x/unsorted > $x/closure
  LC_ALL=C comm -23 $x/closure $x/host-has > $x/export-list
  sed 's,^,/nix/store/,' $x/before > $x/image-has
  LC_ALL=C comm -12 $x/export-list $x/image-has > $x/from-image
  LC_ALL=C comm -23 $x/export-list $x/image-has > $x/from-run
  test ! -s $x/from-run || nix-store --export $(cat $x/from-run) > $x/export || exit 125
else
  sed 's,^/,,' $x/wanted > $x/export-list
  tar -C / -cf $x/export.tar --files-from $x/export-list || exit 125
fi
"""

# What the image had already is taken from a fresh copy of it: the command may have been root, whom
# modes do not keep from writing into the store (Python puts its caches beside its modules).
_TIMES = re.compile(r".*/drvs/(\w\w/\S+\.drv)(?:\.\w+)? ([\d.]{1,20}) ([\d.]{1,20})\Z", re.ASCII)
_EXPORT_FROM_IMAGE = f"nix-store --export $(cat {EXCHANGE}/from-image) > {EXCHANGE}/export-image"


@dataclass(frozen=True, slots=True)
class Link:
    """A link that Nix made: *path* on the host, *target* a store path or a file in one."""

    path: Path
    target: str


@dataclass(frozen=True, slots=True)
class Brought:
    """What came out: *paths* new on the host, *links* as made there; *into* the store or where.

    *problem* is why they are not in the store, where a directory was not asked for.
    *made* is what the command has added to the store inside, or linked to: built or substituted.
    *millis* says how many milliseconds derivations took to build, where the system tells.
    """

    paths: tuple[StorePath, ...]
    links: tuple[Link, ...]
    into: str
    made: tuple[StorePath, ...] = ()
    millis: Mapping[StorePath, int] = field(default_factory=dict)
    problem: str | None = None


def store_problem(nix: Nix) -> str | None:
    """Why the host's store cannot take the results; ``None`` where it can."""
    if not nix.is_at_hand():
        return "Nix is not installed here"
    store = nix.at(STORE_DIR)
    if os.geteuid() == 0 or os.access(store if store.exists() else nix.root, os.W_OK):
        return None
    if nix.store is not None or not has_daemon():
        return f"{store} is not writable for this user"
    return None if nix.takes_unsigned() else "this user is none of the trusted-users of nix.conf"


def offer_host_paths(nix: Nix, work: Inside) -> None:
    """Tell the inside which paths the host's store has, so that only the others come out."""
    (work.exchange / "host-has").write_text(nix.all_paths(), "utf-8", "surrogateescape")


def bring_out(work: Inside, nix: Nix, root: Path, out: Path | None) -> Brought:
    """Take what the script left: into the store of *nix*, or below the directory *out*.

    *root* is the host's tree that was mounted at ``/src``; links are made in the same places there.
    """
    paths = tuple(StorePath.parse(f"/{line.lstrip('/')}") for line in _lines(work, "export-list"))
    links = tuple(_link(root, line) for line in _lines(work, "links"))
    for link in links:
        if link.path.exists() and not link.path.is_symlink():
            raise InputError(
                f"{link.path} is in the way of the link to {link.target}",
                hint="move it away, or give nix build another --out-link",
            )
    if out is None:
        return _into_store(work, nix, paths, links)
    return _into_directory(work, out, paths, links)


def _into_store(
    work: Inside, nix: Nix, paths: tuple[StorePath, ...], links: tuple[Link, ...]
) -> Brought:
    if _lines(work, "from-image"):
        if work.run(("/bin/sh", "-c", _EXPORT_FROM_IMAGE), None) != 0:
            raise CouldNotCheck(
                f"what the results need of {work.image.name} could not be exported from it",
                hint="its own message is above; is there room in the temporary directory?",
            )
        _import(work, nix, "export-image")
    if _lines(work, "from-run"):
        _import(work, nix, "export")
    for link in links:
        link.path.unlink(missing_ok=True)
        target = StorePath.containing(link.target)
        nix.add_root(link.path, target)
        if link.target != str(target):  # a link to a file inside of a store path
            link.path.unlink()
            link.path.symlink_to(link.target)
    made = tuple(StorePath.parse(line) for line in _lines(work, "wanted"))
    return Brought(paths, links, "store", made, dict(_build_times(_lines(work, "times"))))


def _build_times(lines: Iterable[str]) -> Iterator[tuple[StorePath, int]]:
    """Read ``…/drvs/ab/REST.drv.bz2 BIRTH END``; what cannot be read is passed over."""
    for line in lines:
        found = _TIMES.match(line)
        if found is not None and float(found[2]) > 0:
            seconds = float(found[3]) - float(found[2])
            with suppress(InputError):
                path = StorePath.parse(f"{STORE_DIR}/{found[1].replace('/', '', 1)}")
                # Files are dated by a clock that ticks every few milliseconds.
                yield path, max(1, round(seconds * 1000))


def _import(work: Inside, nix: Nix, name: str) -> None:
    with open_regular(work.exchange / name) as export:
        nix.import_paths(export)


def _into_directory(
    work: Inside, out: Path, paths: tuple[StorePath, ...], links: tuple[Link, ...]
) -> Brought:
    out = out.resolve()
    new = tuple(path for path in paths if not (out / str(path).lstrip("/")).exists())
    if new:
        _extract(work.exchange / "export.tar", out, new, work.image)
    made = []
    for link in links:
        target = out / link.target.lstrip("/")
        link.path.unlink(missing_ok=True)
        link.path.symlink_to(target)
        made.append(Link(link.path, str(target)))
    return Brought(new, tuple(made), str(out))


def hold(place: Path, links: Iterable[Link]) -> None:
    """Keep from ``clear_results`` what *links* lead to below *place*, while they do."""
    held = place / _HELD
    held.mkdir(parents=True, exist_ok=True)
    for link in links:
        # By a digest: a path may be longer than a name.
        name = held / hashlib.sha256(os.fsencode(link.path)).hexdigest()
        name.unlink(missing_ok=True)
        name.symlink_to(link.path.absolute())


def clear_results(place: Path, before: float, *, dry: bool = False) -> tuple[str, ...]:
    """Remove results that came before the time *before* and no link leads to; return their names.

    *dry* removes nothing.
    """
    live = set()
    with explained(f"clearing {place}"):
        store = (place / "nix/store").resolve()
        for name in (place / _HELD).glob("*"):
            target = Path(os.path.realpath(name))
            if target.is_relative_to(store):
                live.add(target.relative_to(store).parts[0])
            elif not dry:
                name.unlink()
        removed = [
            path
            for path in sorted(store.glob("*"))
            if path.name not in live and path.lstat().st_ctime < before
        ]
        for path in () if dry else removed:
            safe_root.remove_tree(path)
    return tuple(path.name for path in removed)


_HELD = "links"


def _extract(archive: Path, out: Path, new: Sequence[StorePath], image: Image) -> None:
    """Unpack the tar beside *out*, then move each new store path into place."""
    store = out / "nix/store"
    store.mkdir(parents=True, exist_ok=True)
    with safe_root.scratch_directory(".partial-", out) as directory:
        label, limit = f"results from {image.name}", 8_000_000
        with open_regular(archive) as file:
            chunks = iter(partial(file.read, 1 << 20), b"")
            with TarPieces(chunks, MediaType.LAYER, 1 << 40, label, 0) as pieces:
                unpack_layer(pieces, directory, label, limit)
        with explained(f"moving {label} into {store}"), _store_below(directory, label) as at:
            for path in new:
                _move(path.base_name, at, store / path.base_name)


@contextmanager
def _store_below(directory: Path, label: str) -> Iterator[int]:
    """Open the store in what came out. No link on the way is followed: it could be the host's."""
    with ExitStack() as held:
        top = held.enter_context(safe_root.opened_directory(directory))
        words = f"{label} have a link, or nothing, where their nix/store should be"
        with foreign(words, OSError, as_=CheckedFalse, quoted=False):
            store = held.enter_context(safe_root.walk(top, b"nix/store"))
        yield store


def _move(name: str, at: int, target: Path) -> None:
    # Moving a directory needs write permission on it, which store paths do not give their owner.
    mode = os.stat(name, dir_fd=at, follow_symlinks=False).st_mode
    if stat.S_ISDIR(mode):
        os.chmod(name, 0o755, dir_fd=at)
    os.rename(name, target, src_dir_fd=at)
    if stat.S_ISDIR(mode):
        target.chmod(stat.S_IMODE(mode))


def _lines(work: Inside, name: str) -> list[str]:
    return work.read(name).splitlines()


def _link(root: Path, line: str) -> Link:
    """Place a link on the host; what came out of the container is not trusted to stay in *root*."""
    relative, _, target = line.partition("\t")
    parts = PurePosixPath(relative).parts
    path = root.joinpath(*parts)
    StorePath.containing(target)
    if ".git" in map(str.lower, parts):
        raise CheckedFalse(f"the container asked for a link where Git runs programs: {relative!r}")
    if ".." in parts or ".." in target.split("/") or relative.startswith("/"):
        raise CheckedFalse(f"the container asked for a link outside of the project: {relative!r}")
    if not path.parent.resolve().is_relative_to(root.resolve()):
        raise CheckedFalse(f"the link {path} would lie outside of the project")
    os.close(safe_root.open_directory(path.parent))
    return Link(path, target)
