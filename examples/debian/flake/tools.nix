# Small ways to make a derivation: trees of links, wrappers, texts, commands.
{ bootstrap, debianPackages }:
let
  inherit (bootstrap) runBusybox;
in
rec {
  # One tree of links to several packages' trees. The first package that has a file wins.
  join =
    {
      pname,
      version,
      meta,
      paths,
      exclude ? [ ], # packages that are not linked although they are in `paths`
      only ? [ ], # top-level directories to link; all of them if empty
    }:
    let
      excluded = map (path: path.outPath) exclude;
    in
    runBusybox "${pname}-${version}" ./join.sh {
      inherit pname version only;
      unfolded = [ ];
      paths = builtins.filter (path: !(builtins.elem path.outPath excluded)) paths;
    }
    // {
      inherit meta;
    };

  # A package whose programs run with further environment variables.
  #   set: { NAME = value; }; "@out@" in a value is the package itself.
  wrap =
    {
      pname,
      package, # supplies programs, version and meta
      paths ? [ package ], # trees joined into the result
      programs, # names in bin, wrapped
      set,
    }:
    runBusybox "${pname}-${package.version}" ./wrap.sh {
      inherit pname paths programs;
      inherit (package) version;
      only = [ ];
      unfolded = [ "bin" ];
      join = ./join.sh;
      inherit (debianPackages) bash;
      exports = map (name: "${name}=${set.${name}}") (builtins.attrNames set);
    }
    // {
      inherit (package) meta;
    };

  writeText =
    name: text:
    runBusybox name ./write-text.sh {
      inherit text;
      passAsFile = [ "text" ];
    };

  runCommand =
    name: env: script:
    runBusybox name ./run-command.sh (
      env
      // {
        inherit script;
        passAsFile = [ "script" ];
      }
    );
}
