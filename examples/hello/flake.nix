{
  description = "One C program";

  # `make project` writes the distribution's path here. With the network, nixpkgs does as well:
  # "github:NixOS/nixpkgs/nixos-24.11".
  inputs.nixpkgs.url = "path:/path/to/distribution";

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
      packages = forAllSystems (pkgs: rec {
        hello = import ./hello.nix { inherit pkgs; };
        default = hello;
      });
    };
}
