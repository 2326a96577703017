{
  description = "Turn a Nix flake into layered, offline OCI build images that anyone can check";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

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
            value = make nixpkgs.legacyPackages.${system};
          }) systems
        );
    in
    {
      # mkSeed { inherit self system; } and mkRun { inherit self system; }: see docs/recipe.md.
      # They use plain builtins, and the package set of the flake that calls them.
      lib = {
        inherit (import ./src/nix_seed/nix) mkSeed mkRun;
      };

      packages = forAllSystems (pkgs: rec {
        default = nix-seed;
        nix-seed = pkgs.python3Packages.buildPythonApplication {
          pname = "nix-seed";
          version = (builtins.fromTOML (builtins.readFile ./pyproject.toml)).project.version;
          pyproject = true;
          src = self;
          build-system = [ pkgs.python3Packages.hatchling ];
          dependencies = with pkgs.python3Packages; [
            click
            deflate
            msgspec
            rfc8785
            rich
            urllib3
            zstandard
          ];
          # The compressors' versions decide digests: another one is refused when an image is
          # written, with the version that is wanted, rather than here.
          pythonRelaxDeps = [
            "deflate"
            "zstandard"
          ];
          # `nix` itself is taken from PATH: the one that runs this.
          meta = {
            description = "Layered, offline OCI build images from Nix flakes";
            mainProgram = "nix-seed";
            license = pkgs.lib.licenses.mit;
          };
        };
      });

      apps = forAllSystems (pkgs: {
        default = {
          type = "app";
          program = "${self.packages.${pkgs.system}.nix-seed}/bin/nix-seed";
        };
      });
    };
}
