{
  description = "Turn a Nix flake into layered, offline OCI build images that anyone can check";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";

  outputs =
    { self, nixpkgs }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
        "x86_64-darwin"
        "aarch64-darwin"
      ];
      forAllSystems =
        make:
        builtins.listToAttrs (
          map (system: {
            name = system;
            value = make system nixpkgs.legacyPackages.${system};
          }) systems
        );
      project = (builtins.fromTOML (builtins.readFile ./pyproject.toml)).project;

      # Not in nixpkgs. Its version decides the digests of gzip images, so that it is the locked one.
      deflate =
        pkgs:
        pkgs.python3Packages.buildPythonPackage rec {
          pname = "deflate";
          version = "0.9.0";
          pyproject = true;
          src = pkgs.fetchPypi {
            inherit pname version;
            hash = "sha256-li4Kbx6jqUuQCo6gzhOPqSv8uv2luGNnEEoln/zTRis=";
          };
          build-system = [ pkgs.python3Packages.scikit-build-core ];
          nativeBuildInputs = [
            pkgs.cmake
            pkgs.ninja
          ];
          # scikit-build-core calls it.
          dontUseCmakeConfigure = true;
          pythonImportsCheck = [ "deflate" ];
        };

      # Another release of CycloneDX's library writes other bytes, and SPDX needs none.
      cyclonedx =
        pkgs:
        let
          library = pkgs.python3Packages.cyclonedx-python-lib;
        in
        pkgs.lib.optional (
          pkgs.lib.versionAtLeast library.version "11.5" && pkgs.lib.versionOlder library.version "12"
        ) library;
    in
    {
      # mkSeed { inherit self system; } and mkRun { inherit self system; }: see docs/recipe.md.
      # They use plain builtins, and the package set of the flake that calls them.
      lib = {
        inherit (import ./src/nix_seed/flake/expressions) mkSeed mkRun;
      };

      # `nix flake init -t github:0compute/nix-seed`
      templates.default = {
        path = ./examples/nixpkgs;
        description = "A flake with a seed";
      };

      # For flake-parts: imports = [ nix-seed.flakeModules.default ]; what `seed` is given goes to mkSeed.
      flakeModules.default = import ./src/nix_seed/flake/expressions/flake-module.nix {
        inherit (self.lib) mkSeed;
      };

      overlays.default = final: _: {
        nix-seed = self.packages.${final.stdenv.hostPlatform.system}.nix-seed;
      };

      packages = forAllSystems (
        system: pkgs: rec {
          default = nix-seed;
          nix-seed = pkgs.python3Packages.buildPythonApplication {
            pname = "nix-seed";
            inherit (project) version;
            pyproject = true;
            src = self;
            build-system = with pkgs.python3Packages; [
              hatch-fancy-pypi-readme
              hatchling
            ];
            dependencies =
              (with pkgs.python3Packages; [
                click
                cryptography
                jinja2
                license-expression
                msgspec
                rfc8785
                sigstore
                tomlkit
                urllib3
                zstandard
              ])
              ++ [ (deflate pkgs) ]
              ++ cyclonedx pkgs;
            # The compressors' versions decide digests: another one is refused when an image is
            # written, with the version that is wanted, rather than here.
            pythonRelaxDeps = [
              "deflate"
              "sigstore"
              "zstandard"
            ];
            # The right one, or none.
            pythonRemoveDeps = [ "cyclonedx-python-lib" ];
            # `nix` itself is taken from PATH: the one that runs this.
            meta = {
              inherit (project) description;
              mainProgram = "nix-seed";
              license = pkgs.lib.licenses.mit;
            };
          };
        }
      );

      apps = forAllSystems (
        system: _: {
          default = {
            type = "app";
            program = "${self.packages.${system}.nix-seed}/bin/nix-seed";
          };
        }
      );
    };
}
