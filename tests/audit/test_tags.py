"""Tags beside those that releases have, and tags that cannot be read."""

from __future__ import annotations

from nix_seed.formats.oci.manifest import Index, MediaType
from support.audits import Ledger, commit, dangle


def test_outputs_that_are_kept_beside_releases_are_no_moved_tags(ledger: Ledger) -> None:
    """Any other tag of an index is one."""
    path = f"out-{'0' * 32}"
    for tag in (path, f"{path}.{'ab' * 8}", "out-newest"):
        ledger.layout.put_manifest(Index(()).dump(), MediaType.INDEX, tag)
    found = ledger.audit()
    assert (found.code, found.report["findings"]) == (0, [])
    for tag in ("out-other", f"{path}.x", "out-newest-2"):
        ledger.layout.put_manifest(Index(()).dump(), MediaType.INDEX, tag)
    assert ledger.audit().found() == [("tag", "alarm")] * 3


def test_the_tag_of_a_release_that_cannot_be_read_is_not_called_missing(ledger: Ledger) -> None:
    dangle(ledger.layout, str(commit(2)))
    found = ledger.audit()
    assert (found.code, found.found()) == (3, [("unread", "could not check")])
