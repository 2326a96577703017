"""Pages for people: one file each, that fetches nothing and reads well without its script.

A page is made of a ``frame`` and of ``parts``; whatever text is put into them is escaped by
``nix_seed.formats.html.element``, which knows no other way::

    table = data_table("Entries", [Column("Entry", number=True)], [[1], [2]], name="entries")
    checks = check_list([Check("Signature", State.VERIFIED, "by alice", table)])
    page("A ledger", badge(State.VERIFIED), [Section("checks", "Checks", "All is well.", checks)])
"""

from __future__ import annotations
