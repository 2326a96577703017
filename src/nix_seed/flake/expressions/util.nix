# Small helpers that nixpkgs' lib would give, had we it.
rec {
  inherit (builtins) any attrNames concatLists concatMap elem filter isAttrs listToAttrs map;

  optional = condition: value: if condition then [ value ] else [ ];
  optionalAttrs = condition: value: if condition then value else { };

  last = list: builtins.elemAt list (builtins.length list - 1);
  init = list: builtins.genList (builtins.elemAt list) (builtins.length list - 1);

  attrPath = path: default: set:
    if path == [ ] then set
    else if isAttrs set && set ? ${builtins.head path}
    then attrPath (builtins.tail path) default set.${builtins.head path}
    else default;

  # Some flakes call more by that type, such as sets of packages: there is nothing to build of those.
  isDerivation = value: isAttrs value && (value.type or null) == "derivation" && value ? drvPath;

  # Whether an output is among names, as `include` and `exclude` take them: by itself, or by its kind.
  isNamed = names: output: elem output names || elem (builtins.head (splitOn "\\." output)) names;

  # Whether it evaluates to what neither mkSeed nor mkRun made: a stranger's package called `seed`.
  isOther = value:
    let tried = builtins.tryEval (isAttrs value && value ? nixSeed); in
    tried.success && !tried.value;

  # Every derivation output and source path that a value, written as JSON, speaks of:
  # { "/nix/store/…-x.drv" = { outputs = [ "out" ]; }; "/nix/store/…-source" = { path = true; }; }
  # Exact and pure, whatever the value is made of.
  contextOf = value: builtins.getContext (builtins.toJSON value);

  endsWith = suffix: text:
    let n = builtins.stringLength text; m = builtins.stringLength suffix; in
    n >= m && builtins.substring (n - m) m text == suffix;

  startsWith = prefix: text: builtins.substring 0 (builtins.stringLength prefix) text == prefix;

  splitOn = separator: text: filter builtins.isString (builtins.split separator text);

  unique = builtins.foldl' (seen: x: if elem x seen then seen else seen ++ [ x ]) [ ];
}
