"""Pages for people: one file each, that fetches nothing and reads well without its script.

A page is made of a ``frame`` and of ``parts``; whatever text is put into them is escaped by
``nix_seed.formats.html.element``, which knows no other way.
"""
