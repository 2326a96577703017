{
  description = "Debian packages as Nix derivations, under the names that nixpkgs uses";

  outputs =
    { self }:
    let
      # Written by `make distribution`: versions, hashes and dependencies of every package.
      lock = builtins.fromJSON (builtins.readFile ./packages.json);

      # x86_64-linux is real. The other three are a fixture: the same files and the same builder
      # under another label, so that what is *said* about a system (evaluation, layers, indexes)
      # can be tried on one machine (`extra-platforms` lets x86_64 Linux build them).
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
            value = make system;
          }) systems
        );
    in
    {
      # As in nixpkgs: bash, coreutils, stdenv.mkDerivation, …
      legacyPackages = forAllSystems (system: import ./nixpkgs.nix { inherit lock system; });

      # Every Debian package under its own name, one store path each.
      debianPackages = forAllSystems (system: self.legacyPackages.${system}.debianPackages);
    };
}
