{
  description = "A library, a program that uses it, a test, an app and a development shell";

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
            value = make nixpkgs.legacyPackages.${system} self.packages.${system};
          }) systems
        );
    in
    {
      packages = forAllSystems (
        pkgs: own: {
          libgreet = import ./nix/libgreet.nix { inherit pkgs; };
          greet = import ./nix/greet.nix {
            inherit pkgs;
            inherit (own) libgreet;
          };
          default = own.greet;
        }
      );

      checks = forAllSystems (
        pkgs: own: {
          greet = import ./nix/test.nix {
            inherit pkgs;
            inherit (own) greet;
          };
        }
      );

      apps = forAllSystems (
        pkgs: own: {
          default = {
            type = "app";
            program = "${own.greet}/bin/greet";
          };
        }
      );

      devShells = forAllSystems (
        pkgs: own: {
          default = pkgs.mkShell {
            inputsFrom = [ own.greet ];
            packages = [ pkgs.gdb ];
          };
        }
      );
    };
}
