# The flake in the directory `dir` of a `tree` (as fetchTree gives it), as builtins.getFlake gives it.
# That takes a directory of a plain path only since Nix 2.14.
{ tree, dir }:
let
  below = root: sub: if sub == "" then root else "${root}/${sub}";
  file = below tree.outPath dir + "/flake.lock";
  lock =
    if builtins.pathExists file then builtins.fromJSON (builtins.readFile file)
    else { root = "root"; nodes.root = { }; };

  # What an input names: a node, or the way to one from the root.
  resolve = spec: if builtins.isList spec then walk lock.root spec else spec;
  walk = node: path:
    if path == [ ] then node
    else walk (resolve lock.nodes.${node}.inputs.${builtins.head path}) (builtins.tail path);

  # Inside of the tree of the flake that asks for it (Nix 2.26).
  isRelative = node: node ? parent && node.locked.type == "path" && builtins.substring 0 1 node.locked.path == ".";
  made = builtins.mapAttrs
    (name: node:
      let
        isRoot = name == lock.root;
        parent = made.${walk lock.root node.parent};
        sourceInfo =
          if isRoot then tree
          else if isRelative node then parent.sourceInfo
          else builtins.fetchTree (node.info or { } // builtins.removeAttrs node.locked [ "dir" ]);
        sub =
          if isRoot then dir
          else if isRelative node then "${parent.sub}/${node.locked.path}"
          else node.locked.dir or "";
        outPath = below sourceInfo.outPath sub;
        code = import (outPath + "/flake.nix");
        inputs = builtins.mapAttrs (_: spec: made.${resolve spec}.value) (node.inputs or { });
        outputs = code.outputs (inputs // { self = value; });
        value = outputs // sourceInfo // {
          inherit outPath inputs outputs sourceInfo;
          _type = "flake";
        };
      in
      {
        inherit sourceInfo sub;
        value = if node.flake or true then value else sourceInfo // { inherit sourceInfo; };
      })
    lock.nodes;
in
made.${lock.root}.value
