# The systems a flake is for: those with a seed of their own, or else with outputs of any kind.
{ flake, attr }:
let
  util = import ./util.nix;
  kinds = [ "packages" "apps" "checks" "devShells" ];
  declared = util.unique (util.concatMap (name: util.attrNames (flake.${name} or { })) kinds);
  hasSeed = packages: packages ? ${attr} && !(util.isOther packages.${attr});
  withSeed = util.filter (system: hasSeed (util.attrPath [ "packages" system ] { } flake)) declared;
in
if withSeed != [ ] then withSeed else declared
