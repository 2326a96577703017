# An ordinary nixpkgs flake with a seed. The lines marked (1) to (3) are all that is added.
{
  description = "A nixpkgs project whose CI starts from a seed";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-24.11";
  inputs.nix-seed.url = "github:0compute/nix-seed"; # (1)

  outputs =
    {
      self,
      nixpkgs,
      nix-seed, # (2)
    }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
        "aarch64-darwin"
      ];
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

          # (3) The image to build in: everything that this flake's outputs are built from.
          seed = nix-seed.lib.mkSeed { inherit self system; };
        }
      );

      devShells = forAllSystems (system: {
        default = nixpkgs.legacyPackages.${system}.mkShell {
          packages = [ nixpkgs.legacyPackages.${system}.gdb ];
        };
      });
    };
}
