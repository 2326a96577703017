# The systems a flake is for: those with a seed of their own, or else with outputs of any kind.
{ flake, attr }:
let
  util = import ./util.nix;
  kinds = [ "packages" "apps" "checks" "devShells" ];
  declared = util.unique (util.concatMap (name: util.attrNames (flake.${name} or { })) kinds);
  withSeed = util.filter (system: util.attrPath [ "packages" system ] { } flake ? ${attr}) declared;
in
if withSeed != [ ] then withSeed else declared
