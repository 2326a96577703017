{
  description = "Debian packages of several architectures as Nix derivations";

  outputs =
    { self }:
    let
      # Each directory is a whole distribution, of one architecture.
      entries = builtins.readDir ./.;
      systems = builtins.filter (name: entries.${name} == "directory") (builtins.attrNames entries);
      outputsOf = system: (import (./. + "/${system}/flake.nix")).outputs { inherit self; };

      # A system without a directory is the first one's files under another label.
      each =
        kind:
        (outputsOf (builtins.head systems)).${kind}
        // builtins.listToAttrs (
          map (name: {
            inherit name;
            value = (outputsOf name).${kind}.${name};
          }) systems
        );
    in
    {
      legacyPackages = each "legacyPackages";
      debianPackages = each "debianPackages";
    };
}
