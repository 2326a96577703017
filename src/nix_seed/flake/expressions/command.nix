# What `nix-seed` evaluates. The answer is data: { outline = …; } or { problem = …; … }, so that the
# command can tell a wrong argument from a flake that fails.
{ mkSeed, mkRun }:
{ flake       # the flake, as builtins.getFlake gives it
, system
, kind        # "seed" | "run"
, attr        # where the flake may have its own
, required    # true: the user asked for this attribute by name
, exclude ? [ ] # outputs, and kinds of them, left out beside what the flake's own leaves out
}:
let
  util = import ./util.nix;
  path = util.splitOn "\\." attr;
  found = util.filter (value: required || !(util.isOther value))
    (util.concatMap (at path) [ [ "packages" system ] [ "legacyPackages" system ] [ ] ]);
  # What is at the path below the prefix, if anything is; a set that throws has nothing.
  at = path: prefix:
    let
      above = util.init (prefix ++ path);
      tried = builtins.tryEval (util.attrPath above { } flake);
      set = if tried.success && util.isAttrs tried.value then tried.value else { };
    in
    util.optional (set ? ${util.last path}) set.${util.last path};

  kinds = [ "packages" "apps" "checks" "devShells" "formatter" ];
  named = name: if util.isAttrs (flake.${name} or null) then util.attrNames flake.${name} else [ ];
  isSystem = name: builtins.match "[^-]+-.+" name != null;
  systems = util.filter isSystem (util.unique (util.concatMap named kinds));
  # What people write who have one system in mind.
  misplaced = util.concatMap (kind: util.map (name: "${kind}.${name}") (util.filter (name: !(isSystem name)) (named kind))) kinds;
  # What a seed is for only where `include` names it.
  asked = util.concatMap (kind: util.map (name: "${kind}.${name}") (named kind)) configurations;
  configurations = [ "nixosConfigurations" "darwinConfigurations" "homeConfigurations" ];
  # One that does not evaluate is told of by the seed, with how to leave it out.
  isEmpty = !(util.any (name: (flake.${name} or { }) ? ${system}) kinds)
    && !(flake ? defaultPackage) && !(flake ? devShell);

  # What names neither an output nor a kind of them. Those of a kind may not evaluate.
  unknown = util.filter (name: !(isThere (kindOf name) name)) exclude;
  kindOf = name: builtins.head (util.splitOn "\\." name);
  isThere = of: name: util.elem name kinds || util.elem of further
    || (util.elem of kinds && (!(canName of) || util.elem name (namesOf of)));
  further = configurations ++ [ "legacyPackages" "hydraJobs" ];
  canName = of: (builtins.tryEval (namesOf of)).success;
  namesOf = of: util.map (name: "${of}.${name}") (util.attrNames (
    util.optionalAttrs ((flake.${alone.${of} or ""} or { }) ? ${system}) { default = null; }
    // util.optionalAttrs (of != "formatter") (util.attrPath [ of system ] { } flake)));
  # A formatter, and the spelling before Nix 2.7, are outputs themselves.
  alone = { packages = "defaultPackage"; apps = "defaultApp"; devShells = "devShell"; formatter = "formatter"; };
  available = of: if util.elem of kinds then namesOf of else kinds;

  make = if kind == "run" then mkRun else mkSeed;
  whole = if found != [ ] then builtins.head found else make { self = flake; inherit system; };
  canLeaveOut = whole ? nixSeedExclusion;
  seed = if exclude == [ ] || !canLeaveOut then whole else whole.nixSeedExclusion.beside exclude;
  # What the flake's own leaves out anyway is no other image.
  excluded = util.filter (name: !(util.isNamed (whole.nixSeedExclusion.names or [ ]) name)) exclude;
in
if found == [ ] && required then {
  problem = "attribute";
  available = util.attrNames (util.attrPath [ "packages" system ] { } flake);
}
else if found == [ ] && isEmpty then { problem = "system"; inherit systems asked misplaced; }
else if found == [ ] && import ./packages.nix { self = flake; inherit system; } == null then { problem = "packages"; }
else if found == [ ] && kind == "run" && !(util.attrPath [ "packages" system ] { } flake ? default) then {
  problem = "package";
  available = util.attrNames (util.attrPath [ "packages" system ] { } flake);
}
else if !(util.isAttrs seed && seed ? nixSeed) then { problem = "foreign"; }
else if seed.nixSeed.kind != kind then { problem = "kind"; kind = seed.nixSeed.kind; }
else if exclude != [ ] && !canLeaveOut then { problem = "exclusion"; }
else {
  outline = seed.nixSeed // util.optionalAttrs (excluded != [ ]) { inherit excluded; };
  inherit unknown;
  available = util.concatMap available (util.unique (util.map kindOf unknown));
  # Not data: for the Nix half alone. A seed made by an older release has none.
  values = seed.nixSeedValues or { pkgs = { }; roots = [ ]; };
}
