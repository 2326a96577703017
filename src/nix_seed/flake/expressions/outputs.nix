# What a proof plans, as lines of "kind.name<TAB>derivation": all outputs of the flake, or those that
# its seed is for. What that leaves out is named only (its derivation is "-"): it may not evaluate.
# `extra` are derivations that are the project's own though no output names them.
{ ref     # the flake
, system
, attr    # where the flake may have its own seed
, known   # the outputs that are meant, or null: ask the flake's own seed
}:
let
  flake = builtins.getFlake ref;
  # The spelling of flakes written before Nix 2.7 beside each kind.
  kinds = { packages = "defaultPackage"; apps = "defaultApp"; checks = null; devShells = "devShell"; };
  old = name: if name != null && flake ? ${name}.${system} then { default = flake.${name}.${system}; } else { };
  of = kind: old kinds.${kind} // (flake.${kind} or { }).${system} or { };
  isDrv = path: builtins.match ".*[.]drv" path != null;
  inContext = text: builtins.filter isDrv (builtins.attrNames (builtins.getContext text));
  drvs = value:
    if value ? program then inContext value.program
    else if value ? drvPath then [ value.drvPath ]
    else [ ];

  attrPath = builtins.filter builtins.isString (builtins.split "[.]" attr);
  find = value: path:
    if path == [ ] then value
    else if builtins.isAttrs value && value ? ${builtins.head path}
    then find value.${builtins.head path} (builtins.tail path)
    else { };
  seeds = builtins.filter (value: builtins.isAttrs value && value ? nixSeed)
    (map (prefix: find flake (prefix ++ attrPath)) [ [ "packages" system ] [ "legacyPackages" system ] [ ] ]);
  project = (builtins.head seeds).nixSeed.project;
  wanted =
    if known != null then known
    else if seeds == [ ] then null
    else map (entry: entry.output) (builtins.concatMap (kind: project.${kind}) (builtins.attrNames kinds));
  extra = if known != null || seeds == [ ] then [ ] else project.extra or [ ];

  plain = builtins.unsafeDiscardStringContext;
  line = kind: name:
    let value = (of kind).${name}; in
    if wanted != null && !(builtins.elem "${kind}.${name}" wanted)
    then [ "${kind}.${name}\t-\n" ]
    else if value ? nixSeed then [ ]
    else map (drv: "${kind}.${name}\t${plain drv}\n") (drvs value);
  isSeed = kind: name: kind == "packages" && seeds != [ ] && name == attr;
  lines = kind: builtins.concatMap (name: if isSeed kind name then [ ] else line kind name)
    (builtins.attrNames (of kind));
  extraLines = entry: map (drv: "${plain drv}\n") (builtins.filter isDrv (builtins.attrNames entry.context));
in
{
  outputs = builtins.concatStringsSep "" (builtins.concatMap lines [ "packages" "apps" "checks" "devShells" ]);
  extra = builtins.concatStringsSep "" (builtins.concatMap extraLines extra);
}
