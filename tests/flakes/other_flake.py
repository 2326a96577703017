"""Another flake, of which the idioms take a library, builders, packages and an overlay."""

from __future__ import annotations

OTHER = """{
  inputs.nixpkgs.url = "path:%s";
  outputs = { self, nixpkgs }:
    let
      system = "x86_64-linux";
      pkgs = nixpkgs.legacyPackages.${system};
    in
    {
      lib = rec {
        genAttrs = names: make: builtins.listToAttrs
          (map (name: { inherit name; value = make name; }) names);
        # flake-utils
        eachSystem = systems: make: builtins.foldl'
          (all: system: let one = make system; in all // builtins.mapAttrs
            (name: value: (all.${name} or { }) // { ${system} = value; }) one)
          { } systems;
        eachDefaultSystem = eachSystem [ "x86_64-linux" "aarch64-linux" ];
        # flake-parts
        mkFlake = { inputs }: module: (module.flake or { }) // eachSystem module.systems (system:
          module.perSystem {
            inherit system;
            pkgs = inputs.nixpkgs.legacyPackages.${system};
            inputs' = builtins.mapAttrs (_: input:
              builtins.mapAttrs (_: value: value.${system} or null)
                (removeAttrs input [ "inputs" "outputs" "sourceInfo" ])) inputs;
          });
        # nixpkgs' trivial builders, which Nix never substitutes
        writeText = name: text: derivation {
          inherit name system text;
          passAsFile = [ "text" ];
          builder = "${pkgs.bash}/bin/bash";
          args = [ "-c" "${pkgs.coreutils}/bin/cp $textPath $out" ];
          preferLocalBuild = true;
          allowSubstitutes = false;
        };
        writeShellScript = name: text: writeText name "#!${pkgs.bash}/bin/bash\\n${text}";
        # what is built, and substituted, from a text
        runText = name: text: pkgs.runCommand name { } text;
        # a language in several versions, and a package for each
        series = builtins.mapAttrs (version: language: {
          inherit language;
          package = pkgs.runCommand "language${version}-package-1.0" { inherit language; } "";
        }) { "1.2" = pkgs.zlib; "1.3" = pkgs.zstd; };
        callPackage = path: arguments: let function = import path; in function
          (builtins.intersectAttrs (builtins.functionArgs function) pkgs // arguments);
        cleanSource = path: builtins.path {
          inherit path;
          name = "source";
          filter = name: type: baseNameOf name != ".git";
        };
        hasSuffix = end: name:
          let skip = builtins.stringLength name - builtins.stringLength end; in
          skip >= 0 && builtins.substring skip (builtins.stringLength end) name == end;
        fileContents = path:
          let
            text = builtins.readFile path;
            size = builtins.stringLength text;
            last = builtins.substring (size - 1) 1 text;
          in
          if last == "\\n" then builtins.substring 0 (size - 1) text else text;
      };
      packages.${system} = rec {
        their-tool = pkgs.runCommand "their-tool" { src = ./tool.sh; } "cp $src $out";
        default = their-tool;
      };
      apps.${system}.default = {
        type = "app";
        program = "${self.packages.${system}.their-tool}/bin/tool";
      };
      devShells.${system}.default = pkgs.mkShell { packages = [ pkgs.gdb ]; };
      overlays.default = final: prev: { their-tool = self.packages.${system}.their-tool; };
      # A package set that throws on names, as nixpkgs does on removed, unfree and broken ones.
      legacyPackages.${system} = pkgs // {
        renamed = throw "renamed was removed";
        unfree = throw "unfree has an unfree licence";
      };
    };
}
"""
# As nixpkgs is imported with a configuration.
IMPORTED = """{ system, pkgs, config ? { } }:
pkgs // {
  unfree =
    if config.allowUnfree or false
    then pkgs.runCommand "unfree-1.0" { inherit system; } "echo 1 > $out"
    else throw "unfree-1.0 has an unfree licence, refusing to evaluate";
}
"""
OTHER_FILES = {"tool.sh": "echo theirs\n", "data": "same bytes\n", "default.nix": IMPORTED}
