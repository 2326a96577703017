# The Nix half of Nix Seed. One code base serves a flake's own `mkSeed` / `mkRun` and the command on
# a flake that has neither. Plain builtins only, so that it needs no nixpkgs and runs on Nix 2.8.
rec {
  # mkSeed { self, system, ... } -> derivation: the image to build in.
  mkSeed = import ./seed.nix;

  # mkRun { self, system, ... } -> derivation: the image to ship.
  mkRun = import ./run.nix;

  # What the command evaluates: a flake in, an outline (or a named problem) out.
  outline = arguments:
    let answer = command arguments; in
    if !(answer ? outline) then answer
    else if answer.unknown != [ ] then { problem = "exclude"; inherit (answer) unknown available; }
    else {
      outline = answer.outline // {
        project = told answer.outline.project;
        tiers = builtins.trace "nix-seed evaluates" answer.outline.tiers;
      };
    };

  # The same arguments, for a flake whose files were altered -> its outputs, its and its inputs' trees.
  # An output that throws then has no context. One that is to be left out may not be there.
  twin = arguments:
    let
      inherit (command arguments) outline;
      tried = entry:
        let context = builtins.tryEval (builtins.deepSeq entry.context entry.context); in
        { inherit (entry) output; }
        // (if context.success then { context = context.value; } else { });
    in
    {
      inherit (outline) source inputs;
      outputs = builtins.concatMap (map tried) (builtins.attrValues (told outline.project));
    };

  # Says on standard error which output is evaluated (rules/nix_log.py): one may take minutes.
  told = builtins.mapAttrs (_: map (entry: entry // {
    context = builtins.trace "nix-seed evaluates ${entry.output}" entry.context;
  }));

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

  # { flake, system, name, exclude } -> the flake's outputs, or the one of that name, as in an outline's
  # `project`. It takes no package set: a flake that has none has outputs too.
  ownOutputs = { flake, system, name ? null, exclude ? [ ] }: import ./project.nix {
    self = flake;
    inherit system exclude;
    include = if name == null then null else [ name "packages.${name}" ];
  };
}
