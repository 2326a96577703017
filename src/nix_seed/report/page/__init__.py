"""Pages for people: one file each, that fetches nothing and reads well without its script.

A page is made of ``parts``; all markup lies in templates, which escape whatever is put into them::

    checks = check_list([ShownCheck("Signature", State.VERIFIED, "by alice")])
    section = PageSection("checks", "Checks", "All is well.", checks)
    page("A ledger", macro("badge", State.VERIFIED), [section])
"""
