# What `meta` says of derivations, and of every derivation that is reachable from them as a value:
# through whatever their own attributes hold (inputs in lists and sets, sources, wrapped packages).
# Data comes out, however little sense `meta` makes; the command judges it.
let
  util = import ./util.nix;

  # tryEval stops throw and assert. What it cannot stop (abort, a type error) makes the command try
  # again with less, and then do without.
  safe = default: value:
    let tried = builtins.tryEval value; in
    if tried.success then tried.value else default;
  isDerivation = value: safe false (util.isDerivation value && builtins.isString value.drvPath);

  derivationsIn = depth: value:
    let forced = safe null value; in
    if isDerivation forced then [ forced ]
    else if depth == 0 then [ ]
    else if builtins.isList forced then util.concatMap (derivationsIn (depth - 1)) forced
    else if util.isAttrs forced then util.concatMap (name: derivationsIn (depth - 1) forced.${name}) (util.attrNames forced)
    else [ ];

  node = value: { key = builtins.unsafeDiscardStringContext value.drvPath; inherit value; };
  closure = start: builtins.genericClosure {
    startSet = util.map node start;
    operator = item: util.map node (derivationsIn 4 (safe { } (item.value.drvAttrs or { })));
  };

  text = value: safe null (if builtins.isString value then builtins.unsafeDiscardStringContext value else null);
  bool = value: safe null (if builtins.isBool value then value else null);
  part = name: set: read: let value = read (set.${name} or null); in util.optionalAttrs (value != null) { ${name} = value; };

  # A licence is a set, a string, or a list of these that all apply.
  licences = depth: value:
    let forced = safe { malformed = "an error"; } value; in
    if builtins.isString forced then [ { text = text forced; } ]
    else if builtins.isList forced && depth > 0 then util.concatMap (licences (depth - 1)) forced
    else if util.isAttrs forced then [
      (part "spdxId" forced text // part "shortName" forced text // part "fullName" forced text
        // part "free" forced bool // part "redistributable" forced bool // part "malformed" forced text)
    ]
    else [ { malformed = builtins.typeOf forced; } ];

  fact = item:
    let
      given = safe { } (item.value.meta or { });
      meta = if util.isAttrs given then given else { };
    in
    {
      drv = item.key;
      licences = if safe false (meta ? license && meta.license == null) || !(meta ? license) then [ ] else licences 4 meta.license;
    } // part "homepage" meta text;
in
{
  inherit safe;

  # A value -> the derivations that it is, or holds in so many sets and lists inside each other.
  inherit derivationsIn;

  # A package set -> those of its packages that go by these names.
  byName = set: util.concatMap (name: if safe false (set ? ${name}) then derivationsIn 0 set.${name} else [ ]);

  # Derivations -> what `meta` says of them and of what they are made of.
  facts = start: util.map fact (closure start);
}
