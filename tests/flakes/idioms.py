"""Flakes as people write them, small, on the demo's packages: what a seed of each must hold.

What they take from another flake is in ``other_flake``.
"""

from __future__ import annotations

from collections.abc import Mapping

from flakes.file_idioms import FILE_IDIOMS
from flakes.idiom import APP, MAIN, Idiom
from flakes.other_flake import OTHER_FILES

IDIOMS: Mapping[str, Idiom] = {
    "a package of ./src": Idiom(APP, MAIN, baked=("bash",), opened=("app",)),
    "a library that is passed on under another name": Idiom(
        APP + "packages.x86_64-linux.compression = pkgs.zlib;", MAIN, baked=("zlib-joined",)
    ),
    "the compiler, passed on": Idiom(
        "packages.x86_64-linux = { compiler = pkgs.stdenv.cc; default = pkgs.stdenv.mkDerivation"
        ' { name = "app"; src = ./src; }; };',
        MAIN,
        baked=("gcc", "stdenv"),
        opened=("app",),
    ),
    # As fenix does, so that `nix flake show` has something to show.
    "a set of packages that calls itself a derivation": Idiom(
        APP
        + 'packages.x86_64-linux.toolchain = { type = "derivation"; name = "toolchain"; outputs ='
        " [ ]; cc = pkgs.stdenv.cc; };",
        MAIN,
        opened=("app",),
    ),
    "a tool of another flake, passed on": Idiom(
        "packages.x86_64-linux.tool = inputs.other.packages.${system}.default;",
        baked=("their-tool",),
    ),
    "a tool of another flake, used": Idiom(
        'packages.x86_64-linux.default = pkgs.runCommand "app" { src = ./src;'
        ' tool = inputs.other.packages.${system}.default; } "cp -r $src $out";',
        MAIN,
        baked=("their-tool",),
        opened=("app",),
    ),
    "an app of another flake": Idiom(
        "apps.${system} = inputs.other.apps.${system};", baked=("their-tool",)
    ),
    "a set within the package set": Idiom(
        "packages.x86_64-linux.thing = pkgs.debianPackages.libipt2;", baked=("libipt2",)
    ),
    "a second package set": Idiom(
        APP + "packages.x86_64-linux.new = inputs.other.legacyPackages.${system}.gdb;",
        MAIN,
        baked=("gdb-wrapped",),
    ),
    "an overlay of another flake": Idiom(
        "packages.x86_64-linux = let all = pkgs // inputs.other.overlays.default all pkgs; in"
        ' { default = all.runCommand "app" { src = ./src; t = all.their-tool; } "cp -r $src'
        ' $out"; };',
        MAIN,
        baked=("their-tool",),
        opened=("app",),
    ),
    "an overlay of its own": Idiom(
        'overlays.default = final: prev: { app = prev.runCommand "app" { src = ./src; } "";};'
        "packages.x86_64-linux.default = (pkgs // self.overlays.default pkgs pkgs).app;",
        MAIN,
        opened=("app",),
    ),
    "text read into a helper without a name": Idiom(
        "packages.x86_64-linux.default = let gen ="
        ' inputs.other.lib.runText "gen" (builtins.readFile ./gen.sh);'
        ' in pkgs.runCommand "app" { inherit gen; } "cp $gen $out";',
        {"gen.sh": "echo one\n"},
        opened=("gen", "app"),
    ),
    "text read without its line end": Idiom(
        "devShells.${system}.default = pkgs.mkShell { packages = [ (inputs.other.lib.runText"
        ' "gen" (inputs.other.lib.fileContents ./gen.sh)) ]; };',
        {"gen.sh": "echo one"},
        opened=("gen",),
    ),
    "the revision in a helper": Idiom(
        "packages.x86_64-linux.default = let version ="
        ' inputs.other.lib.runText "version" "echo ${self.shortRev or "dirty"}";'
        ' in pkgs.runCommand "app" { inherit version; } "";',
        opened=("version", "app"),
    ),
    "the time of the commit in a helper": Idiom(
        "packages.x86_64-linux.default = inputs.other.lib.runText"
        ' "stamp" "${toString self.lastModified} ${self.lastModifiedDate}";',
        opened=("stamp",),
    ),
    "a text of its own": Idiom(
        'packages.x86_64-linux.default = pkgs.runCommand "app" { conf ='
        ' inputs.other.lib.runText "conf" "cat ${builtins.toFile "c" (builtins.readFile'
        ' ./conf)}";} "";',
        {"conf": "a = b\n"},
        opened=("conf", "app"),
    ),
    "a script written in flake.nix": Idiom(
        "devShells.${system}.default = pkgs.mkShell { packages = [ pkgs.zstd"
        ' (inputs.other.lib.writeShellScript "lint" "exec gdb ${pkgs.gdb}") ]; };',
        baked=("zstd", "gdb-wrapped"),
        opened=("lint",),
    ),
    "a source of empty files": Idiom(
        APP, {"src/__init__.py": "", "src/deep/py.typed": ""}, opened=("app",)
    ),
    "a file with the bytes of another flake's": Idiom(
        APP + "packages.x86_64-linux.tool = inputs.other.packages.${system}.default;",
        MAIN | {"copied/tool.sh": OTHER_FILES["tool.sh"]},
        baked=("their-tool",),
        opened=("app",),
    ),
    "a builder copied from the package set": Idiom(
        'packages.x86_64-linux.default = pkgs.stdenv.mkDerivation { name = "app"; src = ./src; };',
        MAIN | {"builder.sh": 'source "$stdenv/setup"\ngenericBuild\n'},
        baked=("stdenv",),
        opened=("app",),
    ),
    "a version in a file": Idiom(
        "packages.x86_64-linux.default = let helper = inputs.other.lib.runText"
        ' "helper-${inputs.other.lib.fileContents ./VERSION}" "true";'
        ' in pkgs.runCommand "app" { inherit helper; } "";',
        {"VERSION": "1.0.9\n"},
        opened=("helper", "app"),
    ),
    "a version of a language in a file": Idiom(
        "packages.x86_64-linux.default ="
        " let chosen = inputs.other.lib.series.${inputs.other.lib.fileContents ./SERIES}.package;"
        ' in pkgs.runCommand "app" { inherit chosen; src = ./src; } "";',
        MAIN | {"SERIES": "1.2\n"},
        baked=("language1.2-package",),
        opened=("app",),
        keeps=("SERIES",),
    ),
    # As tailscale does: its own fork of a compiler, which every machine would compile.
    "a toolchain of its own by its version": Idiom(
        # As nixpkgs' fileContents, which takes one line end away.
        "packages.x86_64-linux.default = let read = name: let text = builtins.readFile"
        ' (./. + "/${name}"); in builtins.substring 0 (builtins.stringLength text - 1) text;'
        ' compiler = pkgs.runCommand "compiler-${read "go.toolchain.version"}"'
        ' { rev = read "go.toolchain.rev"; } "";'
        ' in pkgs.runCommand "app" { inherit compiler; src = ./src; } "";',
        MAIN | {"go.toolchain.version": "1.26.1\n", "go.toolchain.rev": "5b5cb0db47535a0a8d2f\n"},
        baked=("compiler-1.26.1",),
        opened=("app",),
        keeps=("go.toolchain.version", "go.toolchain.rev"),
    ),
    "values in files": Idiom(
        "packages.x86_64-linux.default = let"
        " web = builtins.fromTOML (builtins.readFile ./web.toml);"
        ' served = inputs.other.lib.runText "served" "${web.name} at ${toString web.port}";'
        ' image = builtins.fromJSON (builtins.readFile (./. + "/image.json"));'
        ' layer = inputs.other.lib.runText "layer" (toString image.config.command);'
        " build = builtins.match \".*version: '([0-9.]+)'.*\" (builtins.readFile ./build.in);"
        ' manual = inputs.other.lib.runText "manual-${builtins.head build}" "";'
        ' in pkgs.runCommand "app" { inherit served layer manual; tool = pkgs.zlib; } "";',
        {
            "web.toml": 'name = "web"\nport = 8080\n',
            "image.json": '{"config": {"command": ["serve", "1.2.3"]}}\n',
            "build.in": "project('app', version: '1.2')\n",
        },
        baked=("zlib",),
        opened=("served", "layer", "manual", "app"),
        becomes={
            "web.toml": 'name = "site"\nport = 80\n',
            "image.json": '{"config": {"command": ["run", "all"]}}\n',
            "build.in": "project('app', version: '2.0')\n",
        },
    ),
    "values that choose": Idiom(
        "packages.x86_64-linux.default = let"
        " tools = builtins.fromTOML (builtins.readFile ./tools.toml);"
        ' listed = inputs.other.lib.runText "listed" (toString (builtins.attrNames'
        ' (builtins.readDir ./src))); in pkgs.runCommand "app" {'
        ' inherit listed; tools = map (name: pkgs.${name}) tools.names; } "";',
        MAIN | {"tools.toml": 'names = ["zlib", "zstd"]\n'},
        baked=("zlib", "zstd"),
        opened=("listed", "app"),
        keeps=("tools.toml",),
    ),
    "a version in a manifest": Idiom(
        "packages.x86_64-linux.default = let"
        " manifest = builtins.fromJSON (builtins.readFile ./package.json);"
        ' in inputs.other.lib.runText "${manifest.name}-${manifest.version}" "true";',
        {"package.json": '{\n  "name": "app",\n  "version": "1.2.3"\n}\n'},
        opened=("app",),
    ),
    "a Cargo manifest": Idiom(
        "packages.x86_64-linux.default = let"
        " manifest = builtins.fromTOML (builtins.readFile ./Cargo.toml);"
        ' in inputs.other.lib.runText "${manifest.package.name}-${manifest.package.version}" "";',
        {"Cargo.toml": '[package]\nname = "app"\nversion = "0.1.0"\n'},
        opened=("app",),
    ),
    "a download by a lock file": Idiom(
        'packages.x86_64-linux.default = let vendored = derivation { name = "vendored";'
        ' inherit system; builder = "${pkgs.bash}/bin/bash"; args = [ "-c" "echo fetched > $out" ];'
        ' src = ./src; outputHashMode = "flat"; outputHashAlgo = "sha256";'
        ' outputHash = builtins.hashString "sha256" "fetched\\n"; };'
        ' unpacked = pkgs.runCommand "unpacked" { inherit vendored; } "cp $vendored $out";'
        ' in pkgs.runCommand "app" { inherit unpacked; src = ./src; } "";',
        MAIN,
        baked=("unpacked",),
        opened=("app",),
    ),
    "a download whose name holds the commit": Idiom(
        "packages.x86_64-linux.default = let fetched = of: derivation { name ="
        ' "modules-${of}"; inherit system; builder = "${pkgs.bash}/bin/bash";'
        ' args = [ "-c" "echo fetched > $out" ]; tool = pkgs.zstd; outputHashMode = "flat";'
        ' outputHashAlgo = "sha256"; outputHash = builtins.hashString "sha256" "fetched\n"; };'
        ' commit = fetched (self.rev or "dirty");'
        " day = fetched (builtins.substring 0 8 self.lastModifiedDate);"
        ' still = fetched "1.0"; in pkgs.runCommand "app" { inherit commit day still; } "";',
        baked=("modules-1.0", "zstd"),
        opened=("modules-2", "modules-dirty", "app"),
    ),
    "the day of the commit in a helper": Idiom(
        "packages.x86_64-linux.default = let stamp = inputs.other.lib.runText"
        ' "stamp" (builtins.substring 0 8 self.lastModifiedDate);'
        ' in pkgs.runCommand "app" { inherit stamp; } "";',
        opened=("stamp", "app"),
    ),
    "packages by the names of files": Idiom(
        "packages.x86_64-linux = builtins.mapAttrs (name: _:"
        ' import (./pkgs + "/${name}") { inherit pkgs; }) (builtins.readDir ./pkgs);',
        {
            "pkgs/one.nix": '{ pkgs }: pkgs.runCommand "one" { src = ./one.nix; } ""',
            "pkgs/two.nix": '{ pkgs }: pkgs.runCommand "two" { z = pkgs.zstd; src = ./.; } ""',
        },
        baked=("zstd",),
        opened=("one", "two"),
    ),
    "a file that decides how many packages there are": Idiom(
        "packages.x86_64-linux = inputs.other.lib.genAttrs (builtins.fromJSON"
        ' (builtins.readFile ./names.json)) (name: pkgs.runCommand name { src = ./src; } "");',
        MAIN | {"names.json": '["one", "two"]\n'},
        opened=("one", "two"),
    ),
    "a filtered source": Idiom(
        'packages.x86_64-linux.default = pkgs.runCommand "app"'
        ' { src = inputs.other.lib.cleanSource ./.; } "";',
        MAIN,
        opened=("app", "source-copy"),
    ),
    "the flake itself as the source": Idiom(
        'packages.x86_64-linux.default = pkgs.runCommand "app" { src = self; } "cp -r $src $out";',
        MAIN,
        opened=("app",),
    ),
    "callPackage": Idiom(
        "packages.x86_64-linux.default = inputs.other.lib.callPackage ./nix/app.nix { };",
        MAIN
        | {
            "nix/app.nix": "{ stdenv, zstd }: stdenv.mkDerivation"
            ' { name = "app"; src = ../src; buildInputs = [ zstd ]; }'
        },
        baked=("zstd", "stdenv"),
        opened=("app",),
    ),
    "recursive attributes": Idiom(
        'packages.x86_64-linux = rec { lib = pkgs.runCommand "lib" { src = ./src; } "";'
        ' app = pkgs.runCommand "app" { inherit lib; gdb = pkgs.gdb; } ""; default = app; };',
        MAIN,
        baked=("gdb-wrapped",),
        opened=("lib", "app"),
    ),
    "structured attributes": Idiom(
        'packages.x86_64-linux.default = derivation { name = "app"; inherit system;'
        ' builder = "${pkgs.bash}/bin/bash"; __structuredAttrs = true; tools = [ pkgs.zstd ];'
        " list = [ 1 2 ]; src = ./src; };",
        MAIN,
        baked=("zstd",),
        opened=("app",),
    ),
    "several outputs": Idiom(
        'packages.x86_64-linux.default = pkgs.runCommand "app" { outputs = [ "out" "doc" ];'
        ' src = ./src; a = pkgs.zlib; } "touch $out $doc";',
        MAIN,
        baked=("zlib-joined",),
        opened=("app",),
    ),
    "flake-utils": Idiom(
        "} // inputs.other.lib.eachDefaultSystem (system: let pkgs ="
        ' nixpkgs.legacyPackages.${system}; in { packages.default = pkgs.runCommand "app"'
        ' { src = ./src; z = pkgs.zstd; } ""; devShells.default = pkgs.mkShell'
        " { packages = [ pkgs.gdb ]; }; }) // {",
        MAIN,
        baked=("zstd", "gdb-wrapped"),
        opened=("app",),
    ),
    "flake-parts": Idiom(
        "} // inputs.other.lib.mkFlake { inherit inputs; } { systems = [ system ];"
        ' perSystem = { pkgs, inputs\', ... }: { packages.default = pkgs.runCommand "app"'
        ' { src = ./src; tool = inputs\'.other.packages.default; } ""; }; } // {',
        MAIN,
        baked=("their-tool",),
        opened=("app",),
    ),
    "a shell alone": Idiom(
        "devShells.${system}.default = pkgs.mkShell { packages = [ pkgs.zstd pkgs.gdb ]; };",
        baked=("zstd", "gdb-wrapped", "stdenv"),
        opened=("nix-shell",),
    ),
    "inputsFrom": Idiom(
        APP + "devShells.${system}.default = pkgs.mkShell { packages = [ pkgs.gdb ];"
        ' inputsFrom = [ (pkgs.stdenv.mkDerivation { name = "a"; src = ./src;'
        " buildInputs = [ pkgs.zlib ]; }) ]; };",
        MAIN,
        baked=("gdb-wrapped", "zlib-joined"),
        opened=("app", "nix-shell"),
    ),
    "a shell of another flake": Idiom(
        "devShells.${system} = inputs.other.devShells.${system};", baked=("gdb-wrapped",)
    ),
    "a shell with a hook that reads": Idiom(
        "devShells.${system}.default = pkgs.mkShell { shellHook = builtins.readFile ./hook.sh;"
        ' packages = [ pkgs.zstd (inputs.other.lib.runText "gen" (builtins.readFile'
        " ./hook.sh)) ];};",
        {"hook.sh": "echo hello\n"},
        baked=("zstd",),
        opened=("nix-shell", "gen"),
    ),
    "checks": Idiom(
        'checks.${system}.lint = pkgs.runCommand "lint" { src = ./src; tools = [ pkgs.gdb ];} "";',
        MAIN,
        baked=("gdb-wrapped",),
        opened=("lint",),
    ),
    "an app that starts a package of its own": Idiom(
        APP + 'apps.${system}.default = { type = "app"; program ='
        ' "${pkgs.runCommand "wrapper" { own = self.packages.${system}.default; } ""}/bin/x"; };',
        MAIN,
        opened=("app", "wrapper"),
    ),
    "a formatter": Idiom(
        APP + "formatter.${system} = pkgs.gdb;", MAIN, baked=("gdb-wrapped",), opened=("app",)
    ),
    "a formatter with a configuration": Idiom(
        'formatter.${system} = inputs.other.lib.runText "fmt" "${pkgs.gdb} ${./treefmt.toml}";',
        {"treefmt.toml": "[formatter.nix]\n"},
        baked=("gdb-wrapped",),
        opened=("fmt",),
    ),
    "the old spelling": Idiom(
        'defaultPackage.${system} = pkgs.runCommand "app" { src = ./src; } "";'
        " devShell.${system} = pkgs.mkShell { packages = [ pkgs.zstd ]; };",
        MAIN,
        baked=("zstd",),
        opened=("app",),
    ),
    "a package called like a removed one": Idiom(
        'packages.x86_64-linux.renamed = pkgs.runCommand "renamed" { src = ./src; } "";',
        MAIN,
        inputs=' inputs.set.follows = "other";',
        opened=("renamed",),
    ),
    "unfree packages that are allowed": Idiom(
        "packages.x86_64-linux = let pkgs = import inputs.other { inherit system;"
        " config.allowUnfree = true; pkgs = nixpkgs.legacyPackages.${system}; }; in"
        ' { unfree = pkgs.unfree; default = pkgs.runCommand "app" { src = ./src;'
        ' tool = pkgs.unfree; } "cp -r $src $out"; };',
        MAIN,
        inputs=' inputs.set.follows = "other";',
        baked=("unfree-1.0",),
        opened=("app",),
    ),
    "an input that follows the flake itself": Idiom(
        APP, MAIN, inputs=' inputs.other.inputs.nixpkgs.follows = "";', opened=("app",)
    ),
    "inputs that go in circles": Idiom(
        APP,
        MAIN,
        inputs=' inputs.again.url = "path:@other@"; inputs.again.inputs.nixpkgs.follows = "other";'
        ' inputs.other.inputs.nixpkgs.follows = "again";',
        opened=("app",),
    ),
    "a source that is no flake": Idiom(
        'packages.x86_64-linux.default = pkgs.runCommand "app" { theirs ='
        ' pkgs.runCommand "theirs" { src = "${inputs.plain}"; } ""; src = ./src; } "";',
        MAIN,
        inputs=' inputs.plain = { url = "path:@other@"; flake = false; };',
        baked=("theirs",),
        opened=("app",),
    ),
    "import from derivation": Idiom(
        "packages.x86_64-linux.default = import (pkgs.runCommand"
        ' "generated.nix" { code = "pkgs: src: pkgs.runCommand \\"app\\" { inherit src; }'
        ' \\"\\""; }'
        ' "echo \\"$code\\" > $out") pkgs ./src;',
        MAIN,
        opened=("app",),
    ),
    "for several systems": Idiom(
        'packages = inputs.other.lib.genAttrs [ system "aarch64-linux" ] (system: { default ='
        ' nixpkgs.legacyPackages.${system}.runCommand "app" { src = ./src; } ""; });',
        MAIN,
        opened=("app",),
    ),
    "packages that are called seed and run": Idiom(
        APP + 'packages.x86_64-linux.seed = pkgs.runCommand "database" { src = ./src; } "";'
        " packages.x86_64-linux.run = pkgs.zlib; seed = 1;",
        MAIN,
        baked=("zlib",),
        opened=("app", "database"),
    ),
    "whether there is a commit": Idiom(
        "packages.x86_64-linux.default ="
        ' inputs.other.lib.runText "stamp" (if self ? rev then "clean" else "dirty");',
        MAIN,
        opened=("stamp",),
        dirty=True,
    ),
    "an output that fails": Idiom(
        APP + 'packages.x86_64-linux.broken = pkgs.runCommand "broken" { src = ./src; '
        'x = if builtins.pathExists ./nix-seed-further-file.txt then throw "not this file" else "";'
        ' z = pkgs.zstd; } "";',
        MAIN,
        baked=("zstd",),
        opened=("app", "broken"),
    ),
    **FILE_IDIOMS,
}
