"""Pages for people: one file each, that fetches nothing and reads well without its script.

A page is made of ``parts``, whose markup lies in templates that escape whatever is put into them::

    table = data_table("entries", "Entries", [number("Entry")], [[1], [2]])
    checks = check_list([ShownCheck("Signature", State.VERIFIED, "by alice", table)])
    section = PageSection("checks", "Checks", "All is well.", checks)
    page("A ledger", badge(State.VERIFIED), [section])
"""
