# The source trees of all the flake's inputs, theirs included: evaluation inside the seed reads them.
# { "nixpkgs" = "/nix/store/…-source"; "utils/systems" = …; }
#
# An input may follow the flake itself (follows = "") or go in circles: what lies on the way to it
# is not entered again. The project's own tree, and a sub-directory of it, is no input's.
{ self, exclude ? [ ] }:
let
  util = import ./util.nix;
  below = prefix: above: node:
    util.concatMap
      (name:
        let
          path = if prefix == "" then name else "${prefix}/${name}";
          input = node.inputs.${name};
          identity = identityOf input;
        in
        if util.elem path exclude || util.elem identity above then [ ]
        else util.optional (!(isOwn input)) { name = path; value = source input; }
          ++ below path (above ++ [ identity ]) input)
      (util.attrNames (node.inputs or { }));
  # An input that is a sub-directory flake lies inside the tree that was fetched.
  source = input: "${input.sourceInfo.outPath or input.outPath}";
  # Two flakes of one tree differ in what they are made from.
  identityOf = input: util.map source ([ input ] ++ builtins.attrValues (input.inputs or { }));
  own = source self;
  isOwn = input: source input == own || util.startsWith "${own}/" (source input);
in
util.listToAttrs (below "" [ (identityOf self) ] self)
