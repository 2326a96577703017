# The flake's outputs, by kind: the derivations that make them, by name only, since nothing of the
# project is to be built here. What they are built from belongs in a seed.
{ self, system, include ? null, exclude ? [ ]
  # The outputs themselves, rather than what is said of them.
, values ? false
}:
let
  util = import ./util.nix;
  at = path: util.attrPath path { } self;

  # `packages`, and the singular spelling of flakes written before Nix 2.7.
  outputs = plural: singular:
    (util.optionalAttrs (singular != "" && self ? ${singular} && self.${singular} ? ${system}) {
      default = self.${singular}.${system};
    }) // at [ plural system ];
  formatter = util.optionalAttrs (self ? formatter && self.formatter ? ${system}) {
    default = self.formatter.${system};
  };

  # Kinds that only `include` asks for: they may be large, for other systems, or not evaluate.
  asked = kind: names: util.listToAttrs (util.map (name: { inherit name; value = names.${name}; })
    (util.filter (name: include != null && named include kind name && names ? ${name}) (util.attrNames names)));
  isAsked = kind: include != null && util.filter (entry: entry == kind || util.startsWith "${kind}." entry) include != [ ];
  configurations = kind: derivationOf: util.optionalAttrs (isAsked kind)
    (builtins.mapAttrs (_: derivationOf) (asked kind (at [ kind ])));
  # hydraJobs.<name>, hydraJobs.<name>.<system> or hydraJobs.<system>.<name>
  jobs = util.optionalAttrs (isAsked "hydraJobs") (asked "hydraJobs"
    (at [ "hydraJobs" system ] // builtins.mapAttrs (_: job: job.${system} or job)
      (builtins.removeAttrs (at [ "hydraJobs" ]) [ system ])));
  legacy =
    if include != null && util.elem "legacyPackages" include
    then throw "mkSeed: include must name single outputs of legacyPackages, such as \"legacyPackages.hello\""
    else util.optionalAttrs (isAsked "legacyPackages") (asked "legacyPackages" (at [ "legacyPackages" system ]));

  # "packages" names a kind, "packages.foo" one output.
  named = names: kind: name: util.isNamed names "${kind}.${name}";
  wanted = kind: name: (include == null || named include kind name) && !(named exclude kind name);

  # The names of a kind that is left out may not evaluate.
  entries = kind: set: toContext: if util.elem kind exclude || !(include == null || isAsked kind) then [ ] else
    util.map
      (name: if values then set.${name} else {
        output = "${kind}.${name}";
        context = hinting kind name (toContext set.${name});
        foreign = hinting kind name (isForeign set.${name});
      })
      (util.filter (name: wanted kind name && !(hinting kind name (isSeed set.${name})))
        (hint "${kind}.${system}" kind (util.attrNames set)));

  hinting = kind: name: hint "${kind}.${system}.${name}" "${kind}.${name}";
  hint = where: name: builtins.addErrorContext
    "while looking at ${where} (leave it out of the seed with exclude = [ \"${name}\" ])";

  # Defined elsewhere and passed on: none of its attributes was written in a file of the flake. It
  # decides only where the experiment (frontier.py) finds no source that does.
  isForeign = value: util.isDerivation value && value ? drvAttrs
    && !(util.any (name: isOwnFile (builtins.unsafeGetAttrPos name value.drvAttrs)) (util.attrNames value.drvAttrs));
  isOwnFile = position: position != null && util.startsWith "${source}/" position.file;
  source = builtins.unsafeDiscardStringContext "${self.sourceInfo.outPath or self.outPath}";

  # A seed among the packages is not part of what it is made from. What throws is no seed.
  isSeed = value:
    let tried = builtins.tryEval (util.isAttrs value && value ? nixSeed); in
    tried.success && tried.value;

  derivationContext = value:
    if util.isDerivation value then { ${builtins.unsafeDiscardStringContext value.drvPath} = { outputs = [ "out" ]; }; }
    else { };
  programContext = app: util.contextOf (app.program or "");
in
{
  packages = entries "packages" (outputs "packages" "defaultPackage") derivationContext
    ++ entries "legacyPackages" legacy derivationContext
    ++ entries "nixosConfigurations" (configurations "nixosConfigurations" (it: it.config.system.build.toplevel)) derivationContext
    ++ entries "darwinConfigurations" (configurations "darwinConfigurations" (it: it.system)) derivationContext
    ++ entries "homeConfigurations" (configurations "homeConfigurations" (it: it.activationPackage)) derivationContext;
  apps = entries "apps" (outputs "apps" "defaultApp") programContext
    ++ entries "formatter" formatter derivationContext;
  checks = entries "checks" (outputs "checks" "") derivationContext
    ++ entries "hydraJobs" jobs derivationContext;
  devShells = entries "devShells" (outputs "devShells" "devShell") derivationContext;
}
