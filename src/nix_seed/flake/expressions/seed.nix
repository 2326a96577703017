# mkSeed: the outline of a seed, as a derivation that any flake can have among its packages.
# tools/make-reference makes docs/reference/recipe.md from what stands above each argument.
arguments@{ # The flake.
  self
  # The Nix system of the image.
, system
  # The package set that the image's own tools come from [found among the inputs].
, pkgs ? import ./packages.nix { inherit self system; }
  # The image's name: lower-case letters, digits, `.`, `_`, `-`.
, name ? "seed"
  # Kinds (`"checks"`) or single outputs (`"packages.docs"`) whose needs the seed holds; null: all.
, include ? null
  # Kinds or outputs to leave out.
, exclude ? [ ]
  # Paths of inputs (`"utils/systems"`) whose source evaluation does not need.
, excludeInputs ? [ ]
  # Derivations that are the project's own though no output names them.
, extraProject ? [ ]
  # More for a tier: `{ toolchain = [ pkgs.gdb ]; packages = [ … ]; }`
, contents ? { }
  # The Nix to ship.
, nix ? pkgs.nix
  # Lines to add to its configuration.
, nixConf ? ""
  # true: Nix works for whatever user the container runs as, not for root alone.
, anyUser ? false
  # What may be passed on: `{ accept = [ "LicenseRef-x" "package" ]; withhold = [ … ]; unknown = "refuse"; }`
, licences ? { }
  # Image configuration: `env`, `entrypoint`, `cmd`, `workingDir`, `user`, `labels`.
, config ? { }
}:
let
  util = import ./util.nix;
  tools = import ./tools.nix { inherit pkgs system; };
  project = import ./project.nix { inherit self system include exclude; };
  extra = tier: contents.${tier} or [ ];
  unknown = util.filter (tier: !(util.elem tier tierNames)) (util.attrNames contents);
  tierNames = [ "base" "toolchain" "inputs" "packages" "apps" "checks" "devShells" ];

  tier = name: roots: { inherit name; roots = util.contextOf (roots ++ extra name); };
in
if unknown != [ ]
then throw "mkSeed: contents names no tier of a seed: ${toString unknown}; tiers are ${toString tierNames}"
else
  import ./outline.nix {
    inherit name system pkgs;
    exclusion = {
      names = exclude;
      beside = more: import ./seed.nix (arguments // { exclude = exclude ++ more; });
    };
    values = tools.base ++ tools.toolchain ++ tools.compilers ++ [ nix ] ++ extraProject
      ++ builtins.attrValues contents
      ++ builtins.attrValues (import ./project.nix { inherit self system include exclude; values = true; });
    outline = {
      inherit name system config;
      kind = "seed";
      source = builtins.unsafeDiscardStringContext "${self}";
      inputs = import ./inputs.nix { inherit self; exclude = excludeInputs; };
      project = project // {
        extra = util.map (drv: { output = drv.name; context = util.contextOf drv; }) extraProject;
      };
      tiers = [
        (tier "base" tools.base)
        (tier "toolchain" (tools.toolchain ++ [ nix ]))
        (tier "inputs" [ ])
        (tier "packages" [ ])
        (tier "apps" [ ])
        (tier "checks" [ ])
        (tier "devShells" [ ])
      ];
      # Baked into `toolchain` rather than a later tier, if the project is built from them.
      compilers = util.contextOf tools.compilers;
      container = import ./container.nix { inherit pkgs system tools nix nixConf anyUser; kind = "seed"; };
    } // util.optionalAttrs (licences != { }) { inherit licences; };
  }
