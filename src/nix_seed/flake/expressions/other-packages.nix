# The packages of a flake and of its inputs, theirs included: where one may be that only a text names,
# so that it is no value among another's attributes. First which there may be, then what `meta` says
# of some: one that does not evaluate can be left out.
{ self
, system
, names      # of the packages that are looked for, with and without versions
}:
let
  util = import ./util.nix;
  meta = import ./meta.nix;
  source = flake: builtins.unsafeDiscardStringContext "${flake.sourceInfo.outPath or flake.outPath}";
  inputsOf = flake: builtins.attrValues (flake.inputs or { });
  # An input that follows another is the same flake once more.
  node = flake: {
    key = builtins.concatStringsSep " " (util.map source ([ flake ] ++ inputsOf flake));
    inherit flake;
  };
  flakes = builtins.genericClosure {
    startSet = [ (node self) ];
    operator = item: util.map node (inputsOf item.flake);
  };

  wanted = util.listToAttrs (util.map (name: { inherit name; value = null; }) names);
  setOf = kind: flake:
    let set = meta.safe { } (util.attrPath [ kind system ] { } flake); in
    if util.isAttrs set then set else { };
  # `default` tells no name; a package set that is as large as nixpkgs is only asked.
  namesIn = {
    packages = util.attrNames;
    legacyPackages = set: util.filter (name: set ? ${name}) names;
  };
  candidates = kind: item:
    util.map (name: { inherit (item) key; inherit kind name; }) (namesIn.${kind} (setOf kind item.flake));

  byKey = util.listToAttrs (util.map (item: { name = item.key; value = item.flake; }) flakes);
  chosen = { key, kind, name }:
    let value = meta.safe { } (setOf kind byKey.${key}).${name}; in
    if meta.safe false (util.isDerivation value && wanted ? ${builtins.unsafeDiscardStringContext value.name})
    then meta.derivationsIn 0 value
    else [ ];
in
{
  candidates = util.concatMap (item: candidates "packages" item ++ candidates "legacyPackages" item) flakes;
  factsOf = some: meta.facts (util.concatMap chosen some);
}
