# What a proof plans, in lines that end in "<TAB>derivation": all outputs of the flake, or those that
# its seed is for, by name, and "<TAB>foreign" after it where no file of the flake defines them. What
# that leaves out is named only (its derivation is "-"): it may not evaluate. Without a name: what is
# the project's own though no output names it.
{ flake
, system
, attr    # where the flake may have its own seed
, known   # the outputs that are meant, or null: ask the flake's own seed
, exclude ? [ ] # what the image says that it leaves out beside
}:
let
  util = import ./util.nix;
  path = util.splitOn "[.]" attr;
  seeds = util.filter (value: util.isAttrs value && value ? nixSeed)
    (util.map (prefix: util.attrPath (prefix ++ path) { } flake) [ [ "packages" system ] [ "legacyPackages" system ] [ ] ]);
  hasOwn = known == null && seeds != [ ];
  project =
    if hasOwn then (without (builtins.head seeds)).nixSeed.project
    else import ./project.nix { self = flake; inherit system exclude; include = known; };
  without = seed: if seed ? nixSeedExclusion then seed.nixSeedExclusion.beside exclude else seed;
  entries = project.packages ++ project.apps ++ project.checks ++ project.devShells;

  # The spelling of flakes written before Nix 2.7 beside each kind.
  kinds = { packages = "defaultPackage"; apps = "defaultApp"; checks = "-"; devShells = "devShell"; };
  # Those of a kind that is left out may not evaluate.
  namesOf = kind:
    let tried = builtins.tryEval (util.attrNames (
      util.optionalAttrs (flake ? ${kinds.${kind}}.${system}) { default = null; }
      // util.attrPath [ kind system ] { } flake)); in
    if tried.success then tried.value else [ ];
  named = kind: util.map (name: "${kind}.${name}") (namesOf kind);
  meant = util.map (entry: entry.output) entries;
  leftOut =
    if known == null && !hasOwn && exclude == [ ] then [ ]
    else util.filter (name: !(util.elem name meant) && !(seeds != [ ] && name == "packages.${attr}"))
      (util.concatMap named [ "packages" "apps" "checks" "devShells" ]
      ++ util.optional (flake ? formatter.${system}) "formatter.default");

  isDrv = path: builtins.match ".*[.]drv" path != null;
  drvs = entry: util.filter isDrv (util.attrNames entry.context);
  lines = label: entry: util.map (drv: "${label}\t${builtins.unsafeDiscardStringContext drv}\n") (drvs entry);
  label = entry: entry.output + (if entry.foreign or false then "\tforeign" else "");
in
builtins.concatStringsSep "" (
  util.concatMap (entry: lines (label entry) entry) entries
  ++ util.map (name: "${name}\t-\n") leftOut
  ++ util.concatMap (lines "") (if hasOwn then project.extra or [ ] else [ ]))
