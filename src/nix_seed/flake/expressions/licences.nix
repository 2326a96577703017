# What `meta` says of an image's derivations: of all that are reachable as values, and of those that
# the package set has by name. What else a text may name, other-packages.nix looks for.
{ roots      # derivations, in lists or sets
, pkgs       # the package set
, names      # names to look up in it: what the image holds, without versions
}:
let meta = import ./meta.nix; in
meta.facts (meta.derivationsIn 4 roots ++ meta.byName pkgs names)
