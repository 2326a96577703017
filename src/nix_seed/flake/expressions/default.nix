# The Nix half of Nix Seed. One code base serves a flake's own `mkSeed` / `mkRun` and the command on
# a flake that has neither. Plain builtins only, so that it needs no nixpkgs and runs on Nix 2.8.
rec {
  # mkSeed { self, system, ... } -> derivation: the image to build in.
  mkSeed = import ./seed.nix;

  # mkRun { self, system, ... } -> derivation: the image to ship.
  mkRun = import ./run.nix;

  # What the command evaluates: a flake in, an outline (or a named problem) out.
  outline = arguments: builtins.removeAttrs (command arguments) [ "values" ];
  command = import ./command.nix { inherit mkSeed mkRun; };

  # The same arguments, and names to look up -> what `meta` says of the image's derivations.
  licences = { names, ... }@arguments:
    let inherit (command (builtins.removeAttrs arguments [ "names" ])) values; in
    import ./licences.nix { inherit (values) pkgs roots; inherit names; };

  # { flake, system, names } -> packages of the flake and its inputs that may be these; with `some` of
  # them -> what `meta` says of those that are.
  otherPackages = { flake, system, names, some ? null }:
    let packages = import ./other-packages.nix { self = flake; inherit system names; }; in
    if some == null then packages.candidates else packages.factsOf some;

  # { flake, attr } -> the systems a flake is for.
  systems = import ./systems.nix;

  # { flake, system } -> the flake's own outputs, where no image is asked for.
  ownOutputs = import ./own-outputs.nix;
}
