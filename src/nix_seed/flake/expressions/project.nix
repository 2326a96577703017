# The project's own derivations: what its outputs of four kinds are made by. Nothing of them enters
# a seed; what they are built from does.
{ self, system, pkgs, include ? null, exclude ? [ ]
  # The outputs themselves, rather than what is said of them.
, values ? false
}:
let
  util = import ./util.nix;

  # `packages`, and the singular spelling of flakes written before Nix 2.7.
  outputs = plural: singular:
    (util.optionalAttrs (self ? ${singular} && self.${singular} ? ${system}) {
      default = self.${singular}.${system};
    }) // util.attrPath [ plural system ] { } self;

  # "packages" names a kind, "packages.foo" one output.
  named = names: kind: name: util.elem kind names || util.elem "${kind}.${name}" names;
  wanted = kind: name: (include == null || named include kind name) && !(named exclude kind name);

  entries = kind: set: toContext:
    util.map
      (name: if values then set.${name} else {
        output = "${kind}.${name}";
        context = hinting kind name (toContext set.${name});
        foreign = hinting kind name (isForeign name set.${name});
      })
      (util.filter (name: wanted kind name && !(hinting kind name (isSeed set.${name}))) (util.attrNames set));

  hinting = kind: name: builtins.addErrorContext
    "while looking at ${kind}.${system}.${name} (leave it out of the seed with exclude = [ \"${kind}.${name}\" ])";

  # Passed on from the package set as it is: not the project's, though an output names it.
  isForeign = name: value: util.isDerivation value && util.filter
    (candidate: pkgs ? ${candidate} && util.isDerivation pkgs.${candidate}
      && pkgs.${candidate}.drvPath == value.drvPath)
    [ name (value.pname or name) ] != [ ];

  # A seed among the packages is not part of what it is made from.
  isSeed = value: util.isAttrs value && value ? nixSeed;

  # The .drv itself, by name only: nothing of the project is to be built here.
  derivationContext = value:
    if util.isDerivation value then { ${builtins.unsafeDiscardStringContext value.drvPath} = { outputs = [ "out" ]; }; }
    else { };
  programContext = app: util.contextOf (app.program or "");
in
{
  packages = entries "packages" (outputs "packages" "defaultPackage") derivationContext;
  apps = entries "apps" (outputs "apps" "defaultApp") programContext;
  checks = entries "checks" (outputs "checks" "") derivationContext;
  devShells = entries "devShells" (outputs "devShells" "devShell") derivationContext;
}
