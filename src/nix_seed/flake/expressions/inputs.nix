# The source trees of all the flake's inputs, theirs included: evaluation inside the seed reads them.
# { "nixpkgs" = "/nix/store/…-source"; "utils/systems" = …; }
{ self, exclude ? [ ] }:
let
  util = import ./util.nix;
  below = prefix: node:
    util.concatMap
      (name:
        let
          path = if prefix == "" then name else "${prefix}/${name}";
          input = node.inputs.${name};
        in
        if util.elem path exclude then [ ]
        else [ { name = path; value = source input; } ] ++ below path input)
      (util.attrNames (node.inputs or { }));
  # An input that is a sub-directory flake lies inside the tree that was fetched.
  source = input: "${input.sourceInfo.outPath or input.outPath}";
in
util.listToAttrs (below "" self)
