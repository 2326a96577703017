# mkRun: the outline of the image to ship: one package and what it needs at run time.
arguments@{ # The flake.
  self
  # The Nix system of the image.
, system
  # The package set that the image's own tools come from [found among the inputs].
, pkgs ? import ./packages.nix { inherit self system; }
  # What the image ships.
, package ? self.packages.${system}.default
  # The image's name: lower-case letters, digits, `.`, `_`, `-`.
, name ? package.pname or (builtins.parseDrvName package.name).name
  # The program in the package's bin/ that the container starts.
, program ? package.meta.mainProgram or package.pname or (builtins.parseDrvName package.name).name
  # Kinds or outputs that need not evaluate, as for mkSeed.
, exclude ? [ ]
  # More for a tier: `base`, `lib` or `app`.
, contents ? { }
  # What may be passed on, as for mkSeed.
, licences ? { }
  # Image configuration, as for mkSeed; the entrypoint is the program.
, config ? { }
}:
let
  util = import ./util.nix;
  tools = import ./tools.nix { inherit pkgs system; };
  tier = tierName: roots: { name = tierName; roots = util.contextOf (roots ++ contents.${tierName} or [ ]); };
in
import ./outline.nix {
  inherit name system pkgs;
  exclusion = {
    names = exclude;
    beside = more: import ./run.nix (arguments // { exclude = exclude ++ more; });
  };
  values = tools.base ++ [ package ] ++ builtins.attrValues contents
    ++ builtins.attrValues (import ./project.nix { inherit self system exclude; values = true; });
  outline = {
    inherit name system;
    kind = "run";
    source = builtins.unsafeDiscardStringContext "${self}";
    inputs = { };
    project = import ./project.nix { inherit self system exclude; };
    tiers = [
      (tier "base" tools.base)
      (tier "lib" [ ])
      (tier "app" [ package ])
    ];
    compilers = { };
    config = { entrypoint = [ "${package}/bin/${program}" ]; } // config;
    container = import ./container.nix { inherit pkgs system tools; kind = "run"; };
  } // util.optionalAttrs (licences != { }) { inherit licences; };
}
