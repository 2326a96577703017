# The derivations that make the flake's own outputs, by kind and name, as in an outline's `project`.
# It takes no package set: a flake that has none has outputs too.
{ flake, system, name ? null }:
let
  include = if name == null then null else [ name "packages.${name}" ];
in
import ./project.nix { self = flake; inherit system include; pkgs = { }; }
