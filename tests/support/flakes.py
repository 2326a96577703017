"""Flakes as people write them, for what edits them. *SYSTEMS* are those that each one serves."""

from __future__ import annotations

__all__ = ["SHAPES", "STRANGE"]

# name -> (the systems that get a seed, flake.nix)
SHAPES: dict[str, tuple[list[str], str]] = {
    "dotted package": (
        ["x86_64-linux"],
        """{
  description = "inputs = { these = are not; }";
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-24.11"; # the stable one
  outputs = { self, nixpkgs }: {
    packages.x86_64-linux.default = nixpkgs.legacyPackages.x86_64-linux.hello;
  };
}
""",
    ),
    "two systems, dotted": (
        ["aarch64-linux", "x86_64-linux"],
        """{
  inputs = { nixpkgs.url = "nixpkgs"; };
  outputs = { self, nixpkgs, ... }: {
    packages.x86_64-linux.default = nixpkgs.legacyPackages.x86_64-linux.hello;
    packages."aarch64-linux".default = nixpkgs.legacyPackages.aarch64-linux.hello;
    devShells.x86_64-linux.default = nixpkgs.legacyPackages.x86_64-linux.hello;
  };
}
""",
    ),
    "let system": (
        ["x86_64-linux"],
        """{
  inputs = {
    nixpkgs.url = "nixpkgs";
    # inputs.nix-seed.url = "github:not/this";
  };

  outputs = { self, nixpkgs }@inputs:
    let
      system = "x86_64-linux";
      pkgs = nixpkgs.legacyPackages.${system};
      text = ''
        outputs = { self, ''${nix-seed} }: { packages = ${system}; }
      '';
    in
    {
      packages.${system} = rec {
        hello = pkgs.hello;
        default = hello; # the one
        note = text;
      };
    };
}
""",
    ),
    "genAttrs": (
        ["aarch64-darwin", "x86_64-linux"],
        """# A comment: outputs = { }: { packages = { }; };
{
  inputs.nixpkgs.url = "nixpkgs";
  outputs =
    {
      self,
      nixpkgs,
    }:
    let
      systems = [ "x86_64-linux" "aarch64-darwin" ];
      forAllSystems = nixpkgs.lib.genAttrs systems;
    in
    {
      packages = forAllSystems (
        system:
        let
          pkgs = nixpkgs.legacyPackages.${system};
        in
        {
          default = pkgs.hello;
        }
      );
      overlays.default = final: prev: { packages.default = prev.hello; };
    };
}
""",
    ),
    "genAttrs with pkgs": (
        ["aarch64-linux", "x86_64-linux"],
        """{
  inputs.nixpkgs.url = "nixpkgs";
  outputs = inputs@{ self, nixpkgs, ... }:
    let
      eachSystem = f: nixpkgs.lib.genAttrs [ "x86_64-linux" "aarch64-linux" ]
        (system: f nixpkgs.legacyPackages.${system});
    in {
      packages = eachSystem (pkgs: { default = pkgs.hello; });
      devShells = eachSystem (pkgs: { default = pkgs.hello; });
    };
}
""",
    ),
    "flake-utils": (
        ["aarch64-linux", "x86_64-linux"],
        """{
  inputs = {
    nixpkgs.url = "nixpkgs";
    flake-utils.url = "github:numtide/flake-utils";
  };
  outputs = { self, nixpkgs, flake-utils }:
    flake-utils.lib.eachDefaultSystem (system:
      let pkgs = nixpkgs.legacyPackages.${system};
      in {
        packages = {
          default = pkgs.hello;
        };
        devShells.default = pkgs.hello;
      });
}
""",
    ),
    "flake-utils, dotted": (
        ["aarch64-linux", "x86_64-linux"],
        """{
  inputs.nixpkgs.url = "nixpkgs";
  inputs.flake-utils.url = "github:numtide/flake-utils";

  outputs =
    { self
    , nixpkgs
    , flake-utils
    , ...
    }:
    flake-utils.lib.eachDefaultSystem (system: with nixpkgs.legacyPackages.${system}; {
      packages.default = hello;
      apps.default = { type = "app"; program = "${hello}"; };
    }) // {
      overlays.default = self: super: { };
    };
}
""",
    ),
    "flake-utils, only a shell": (
        ["aarch64-linux", "x86_64-linux"],
        """{
  inputs.nixpkgs.url = "nixpkgs";
  inputs.flake-utils.url = "github:numtide/flake-utils";
  outputs = { nixpkgs, flake-utils, ... }:
    flake-utils.lib.eachSystem [ "x86_64-linux" "aarch64-linux" ] (system: {
      devShells.default = nixpkgs.legacyPackages.${system}.hello;
    });
}
""",
    ),
    "flake-parts": (
        ["x86_64-linux"],
        """{
  inputs = {
    nixpkgs.url = "nixpkgs";
    flake-parts = {
      url = "github:hercules-ci/flake-parts";
      inputs.nixpkgs-lib.follows = "nixpkgs";
    };
  };
  outputs = inputs@{ flake-parts, ... }:
    flake-parts.lib.mkFlake { inherit inputs; } {
      systems = [ "x86_64-linux" ];
      perSystem = { config, self', inputs', pkgs, ... }: {
        packages.default = pkgs.hello;
      };
    };
}
""",
    ),
    "flake-parts with system": (
        ["x86_64-linux"],
        """{
  inputs.nixpkgs.url = "nixpkgs";
  inputs.flake-parts.url = "github:hercules-ci/flake-parts";
  outputs = { self, flake-parts, ... }@inputs:
    flake-parts.lib.mkFlake { inherit inputs; } ({
      systems = [ "x86_64-linux" ];
      perSystem = { system, pkgs, ... }: {
        packages = { default = pkgs.hello; };
      };
    });
}
""",
    ),
    "flake-parts without either": (
        ["x86_64-linux"],
        """{
  inputs.nixpkgs.url = "nixpkgs";
  inputs.flake-parts.url = "github:hercules-ci/flake-parts";
  outputs = inputs@{ flake-parts, ... }:
    flake-parts.lib.mkFlake { inherit inputs; } {
      systems = [ "x86_64-linux" ];
      perSystem = { self', inputs', ... }: {
        packages.default = derivation {
          name = "a"; system = "x86_64-linux"; builder = "/bin/sh";
        };
      };
    };
}
""",
    ),
    "flake-utils, of the older kind": (
        ["aarch64-linux", "x86_64-linux"],
        """{
  inputs = {
    nixpkgs.url = "nixpkgs";
    flake-utils.url = "github:numtide/flake-utils";
  };
  outputs = { self, nixpkgs, flake-utils }:
    flake-utils.lib.eachDefaultSystem (system:
      let
        pkgs = nixpkgs.legacyPackages.${system};
      in
      {
        defaultPackage = pkgs.hello;
        devShell = with pkgs; hello;
      }
    );
}
""",
    ),
    "only shells": (
        ["aarch64-linux", "x86_64-linux"],
        """{
  inputs.nixpkgs.url = "nixpkgs"; # the unstable one
  outputs =
    { self, ... }@inputs:
    let
      forEachSupportedSystem =
        f:
        inputs.nixpkgs.lib.genAttrs [ "x86_64-linux" "aarch64-linux" ] (
          system:
          f {
            inherit system;
            pkgs = inputs.nixpkgs.legacyPackages.${system};
          }
        );
    in
    {
      overlays.default = final: prev: { };

      devShells = forEachSupportedSystem (
        { pkgs, system }:
        {
          default = pkgs.hello;
        }
      );

      formatter = forEachSupportedSystem ({ pkgs, ... }: pkgs.hello);
    };
}
""",
    ),
    "one argument": (
        ["x86_64-linux"],
        """{
  inputs.nixpkgs.url = "nixpkgs";
  outputs = inputs: {
    packages.x86_64-linux = { default = inputs.nixpkgs.legacyPackages.x86_64-linux.hello; };
  };
}
""",
    ),
    "no inputs": (
        ["x86_64-linux"],
        """{
  outputs = { self }: {
    packages.x86_64-linux.default = derivation {
      name = "a"; system = "x86_64-linux"; builder = "/bin/sh";
    };
  };
}
""",
    ),
    "everything on one line": (
        ["x86_64-linux"],
        """{ inputs = { }; outputs = { ... }: { packages = { x86_64-linux = { }; }; }; }""",
    ),
    "mapAttrs": (
        ["aarch64-linux", "x86_64-linux"],
        """{
  inputs.nixpkgs = { url = "nixpkgs"; };
  outputs = { nixpkgs, self, ... }: {
    packages = builtins.mapAttrs (system: pkgs: {
      default = pkgs.hello;
      /* seed = "not this one"; */
    }) nixpkgs.legacyPackages;
  };
}
""",
    ),
    "only checks": (
        ["x86_64-linux"],
        """{
  description = ''
    inputs.nix-seed.url = "github:in/a/string";
  '';
  outputs = { self, ... }: {
    checks.x86_64-linux.one = derivation {
      name = "a"; system = "x86_64-linux"; builder = "/bin/sh";
    };
  };
}
""",
    ),
    "set of systems": (
        ["aarch64-linux", "x86_64-linux"],
        """{
  inputs.nixpkgs.url = "nixpkgs";
  outputs = { self, nixpkgs }: let
    common = pkgs: { default = pkgs.hello; };
  in {
    packages = {
      x86_64-linux = common nixpkgs.legacyPackages.x86_64-linux // {
        extra = nixpkgs.legacyPackages.x86_64-linux.hello;
      };
      aarch64-linux.default = nixpkgs.legacyPackages.aarch64-linux.hello;
    };
  };
}
""",
    ),
}

# name -> (part of the reason, flake.nix): these are left alone.
STRANGE: dict[str, tuple[str, str]] = {
    "outputs elsewhere": (
        "outputs is not a function written in flake.nix",
        "{ inputs = { }; outputs = import ./outputs.nix; }",
    ),
    "packages elsewhere": (
        "no place where packages are defined",
        "{ outputs = { self, ... }: { packages = import ./packages.nix; }; }",
    ),
    "packages by a variable": (
        "no place where packages are defined",
        "{ outputs = { self }: let p = { }; in { packages = p; }; }",
    ),
    "an unknown library": (
        "no place where packages are defined",
        "{ outputs = { self, blueprint }: blueprint { prefix = self; }; }",
    ),
    "only shells, of a computed function": (
        "no place where packages are defined",
        "{ outputs = { self, f }: { devShells = (f self) (system: { a = system; }); }; }",
    ),
    "only shells, with a comment": (
        "no place where packages are defined",
        "{ outputs = { self, f }: { devShells = f /* each */ (system: { a = system; }); }; }",
    ),
    "a strange name for the system": (
        "the name of the system is not in sight",
        "{ outputs = { self, each }: { packages = each (s: { default = s; }); }; }",
    ),
    "self is something else": (
        "self means something else there",
        "{ outputs = { self, each }: { packages = each ({ system, self }: { a = self; }); }; }",
    ),
    "inputs computed": (
        "inputs is not an attribute set",
        "{ inputs = import ./inputs.nix; outputs = { self }: { packages.x86_64-linux = { }; }; }",
    ),
    "a function": ("the flake is not an attribute set", "{ self }: { outputs = x: { }; }"),
    "not Nix": ("line 2: ", "{ outputs =\n; }"),
    "no end": ("line 1: a string has no end", '{ description = "'),
    "no outputs": ("outputs is not a function", "{ description = ''no''; }"),
}
