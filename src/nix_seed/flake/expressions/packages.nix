# Finds the package set that the seed's own tools come from: the flake's, so that they share its
# libc and cost next to nothing. `nixpkgs` wins; else the nearest input that looks like it.
{ self, system }:
let
  util = import ./util.nix;
  packagesOf = input: util.attrPath [ "legacyPackages" system ] { } input;
  suits = input: let found = packagesOf input; in found ? bash && found ? coreutils && found ? nix;
  children = input:
    let inputs = input.inputs or { }; in
    (if inputs ? nixpkgs then [ inputs.nixpkgs ] else [ ]) ++ builtins.attrValues inputs;

  # The first that suits; what comes after it may not even evaluate.
  first = inputs:
    if inputs == [ ] then null
    else if suits (builtins.head inputs) then packagesOf (builtins.head inputs)
    else first (builtins.tail inputs);

  # Breadth first; five generations are more than any flake has, and keep a cycle from hanging us.
  search = depth: level:
    let
      next = builtins.concatMap children level;
      found = first next;
    in
    if found != null then found
    else if depth == 0 || next == [ ] then null
    else search (depth - 1) next;
in
search 5 [ self ]
