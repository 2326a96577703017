"""Flakes in which it matters which files there are, and what is in them."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256

from flakes.idiom import APP, MAIN, Idiom

FILE_IDIOMS: Mapping[str, Idiom] = {
    "files with strange names": Idiom(
        APP,
        {"src/with space": "a\n", "src/ünïcode.txt": "b\n", "src/a+b=c": "c\n", "src/-x": "d\n"},
        opened=("app",),
    ),
    "a generated file": Idiom(
        "packages.x86_64-linux.default = import ./generated.nix { inherit pkgs; };",
        {"generated.nix": '# do not edit\n{ pkgs }: pkgs.runCommand "app" { src = ./.; } ""'},
        opened=("app",),
    ),
    "content by a hash of a file": Idiom(
        "packages.x86_64-linux.default = inputs.other.lib.runText"
        ' "stamp" (builtins.hashFile "sha256" ./src/main.c);',
        MAIN,
        opened=("stamp",),
    ),
    "a file that may be added": Idiom(
        'packages.x86_64-linux.default = pkgs.runCommand "app" { helper = inputs.other.lib.runText'
        ' "helper" (if builtins.pathExists ./optional then "with" else "without"); } "";',
        opened=("helper", "app"),
        adds={"optional": "text\n"},
    ),
    "a file that may be removed": Idiom(
        "packages.x86_64-linux.default = let told = inputs.other.lib.runText"
        ' "told" (if builtins.pathExists (./. + "/deep/optional") then "with" else "without");'
        ' helper = inputs.other.lib.runText "helper" "cat ${told}"; in'
        ' pkgs.runCommand "app" { inherit helper; } "";',
        {"deep/optional": "text\n", "deep/other": "text\n"},
        opened=("told", "helper", "app"),
        removes=("deep/optional",),
    ),
    "code that may be added": Idiom(
        "packages.x86_64-linux.default = let local = if builtins.pathExists ./nix/local.nix then"
        " import ./nix/local.nix else { flags = null; }; in"
        ' inputs.other.lib.runText "app" (builtins.toJSON local);',
        {"nix/a": "a\n"},
        opened=("app",),
        adds={"nix/local.nix": "{ flags = 1; }\n"},
    ),
    "a dependency that only a file brings": Idiom(
        'packages.x86_64-linux.default = pkgs.runCommand "app" { src = ./src; extra ='
        " if builtins.pathExists ./with-zlib then [ pkgs.zlib ] else [ ]; } "
        '"";',
        MAIN | {"with-zlib": ""},
        baked=("zlib-joined",),
        opened=("app",),
    ),
    "names of files of one kind": Idiom(
        "packages.x86_64-linux.default = let scripts = builtins.filter (name:"
        ' builtins.match ".*[.]sh" name != null) (builtins.attrNames (builtins.readDir ./bin));'
        ' in inputs.other.lib.runText "list" (toString scripts);',
        {"bin/one.sh": "true\n", "bin/README": "\n"},
        opened=("list",),
        adds={"bin/two.sh": "false\n"},
    ),
    "files that each have to hold something": Idiom(
        "packages.x86_64-linux.default = let lib = inputs.other.lib; locks = builtins.filter"
        ' (lib.hasSuffix "-lock.json") (builtins.attrNames (builtins.readDir ./fixtures));'
        ' read = name: (builtins.fromJSON (builtins.readFile (./fixtures + "/${name}"))).package;'
        ' in pkgs.runCommand "app" { fixtures = lib.runText "fixtures"'
        " (toString (map read locks)); } "
        '"";',
        {"fixtures/a-lock.json": '{ "package": "a" }\n', "fixtures/README": "\n"},
        opened=("fixtures", "app"),
        adds={"fixtures/b-lock.json": '{ "package": "b" }\n'},
    ),
    "modules that are all files of a directory": Idiom(
        "packages.x86_64-linux.default = let"
        ' all = map (name: import (./modules + "/${name}")) (builtins.attrNames'
        ' (builtins.readDir ./modules)); isText = name: builtins.match ".*[.]txt" name != null;'
        " names = builtins.filter isText (builtins.attrNames (builtins.readDir ./src));"
        ' list = inputs.other.lib.runText "list" (toString names);'
        ' in builtins.deepSeq all (pkgs.runCommand "app" { inherit list; src = ./src; } "");',
        MAIN | {"modules/one.nix": "{ }\n", "src/one.txt": "one\n"},
        adds={"src/two.txt": "two\n"},
        opened=("list", "app"),
    ),
    # As blueprint does: without the file that is asked for, the library itself is gone.
    "a library that asks for a file called like its own": Idiom(
        "packages.x86_64-linux.default = let lib = import ./lib/default.nix;"
        ' list = inputs.other.lib.runText "list" (toString (lib.named ./src));'
        ' in pkgs.runCommand "app" { inherit list; } "";',
        {
            "lib/default.nix": '{ named = dir: if builtins.pathExists (dir + "/default.nix")'
            ' then [ ] else builtins.filter (name: builtins.match ".*[.]c" name != null)'
            " (builtins.attrNames (builtins.readDir dir)); }\n",
            "src/main.c": "int main;\n",
        },
        opened=("list", "app"),
        adds={"src/two.c": "int two;\n"},
    ),
    "a lock file by its hash": Idiom(
        'packages.x86_64-linux.default = if builtins.hashFile "sha256" ./Cargo.lock =='
        f' "{sha256(b"version = 4").hexdigest()}" then let'
        ' gen = inputs.other.lib.runText "gen" (builtins.readFile ./gen.sh);'
        ' in pkgs.runCommand "app" { inherit gen; src = ./src; tool = pkgs.zlib; } ""'
        ' else throw "the lock file is another";',
        MAIN | {"Cargo.lock": "version = 4", "gen.sh": "true\n"},
        baked=("zlib",),
        opened=("gen", "app"),
        keeps=("Cargo.lock",),
    ),
    "names in a list": Idiom(
        "packages.x86_64-linux.default = let"
        " lines = builtins.filter builtins.isString"
        ' (builtins.split "\\n" (builtins.readFile ./tools.txt));'
        ' words = pkgs.runCommand "words" { words = ./words; } "";'
        ' gen = inputs.other.lib.runText "gen" (builtins.readFile ./gen.sh);'
        ' in pkgs.runCommand "app" { inherit gen words; tools = map (name: pkgs.${name}) lines; }'
        ' "";',
        {"tools.txt": "zlib\nzstd", "gen.sh": "true\n", "words/list.txt": "one\n"},
        baked=("zlib", "zstd"),
        opened=("gen", "words", "app"),
        keeps=("tools.txt",),
    ),
    # What is read is named nowhere, or begins a pipe.
    "values of files that no text names": Idiom(
        "packages.x86_64-linux.default = let"
        ' load = name: builtins.fromJSON (builtins.readFile (./. + "/${name}.json"));'
        ' served = inputs.other.lib.runText "served" (toString (load "web").port);'
        ' flags = inputs.other.lib.runText "flags" (if (load "flags").debug then "-g" else "-O");'
        ' in pkgs.runCommand "app" { inherit served flags; tool = pkgs.zlib; } "";',
        {"web.json": '{"port": 8080}\n', "flags.json": '{"debug": true}\n'},
        baked=("zlib",),
        opened=("served", "flags", "app"),
        becomes={"web.json": '{"port": 80}\n', "flags.json": '{"debug": false}\n'},
    ),
    "a version that code has": Idiom(
        "packages.x86_64-linux.default = let"
        " version = builtins.head (builtins.match \".*__version__ = '([0-9.]+)'.*\""
        ' (builtins.readFile ./app.py)); manual = inputs.other.lib.runText "manual" version;'
        ' in pkgs.runCommand "app" { inherit manual; src = ./src; } "";',
        MAIN | {"app.py": "import sys\n__version__ = '1.2'\n"},
        opened=("manual", "app"),
        becomes={"app.py": "import sys\n__version__ = '2.0'\n"},
    ),
    "manifests of a workspace and its members": Idiom(
        "packages.x86_64-linux.default = let lib = inputs.other.lib;"
        " toml = name: builtins.toJSON (builtins.fromTOML (builtins.readFile (./. + name)));"
        ' all = lib.runText "all" (toml "/Cargo.toml"); one = lib.runText "one"'
        ' (toml "/one/Cargo.toml"); web = lib.runText "web" (builtins.toJSON (builtins.fromJSON'
        " (builtins.readFile ./package.json)));"
        ' in pkgs.runCommand "app" { inherit all one web; tool = pkgs.zlib; } "";',
        {
            "Cargo.toml": '[workspace]\nmembers = ["one"]\n',
            "one/Cargo.toml": '[package]\nname = "one"\nversion.workspace = true\n',
            "package.json": '{ "name": "web", "private": true }\n',
        },
        baked=("zlib",),
        opened=("all", "one", "web", "app"),
        becomes={
            "Cargo.toml": '[workspace]\nmembers = ["one"]\n[profile.release]\nlto = true\n',
            "one/Cargo.toml": '[package]\nname = "one"\nversion.workspace = true\n'
            "[features]\nall = []\n",
            "package.json": '{ "name": "web", "scripts": { "start": "serve" } }\n',
        },
    ),
    # As uv2nix's scripts: each has a lock file called like it.
    "files that go in pairs": Idiom(
        "packages.x86_64-linux.default = let"
        ' names = builtins.filter (name: builtins.match ".*[.]py" name != null)'
        " (builtins.attrNames (builtins.readDir ./scripts));"
        ' read = name: builtins.readFile (./scripts + "/${name}.lock");'
        ' list = inputs.other.lib.runText "list" (toString (map (name:'
        " builtins.seq (read name) name) names));"
        ' in pkgs.runCommand "app" { inherit list; } "";',
        {"scripts/a.py": "pass\n", "scripts/a.py.lock": "{ }\n"},
        opened=("list", "app"),
        adds={"scripts/b.py": "pass\n", "scripts/b.py.lock": "{ }\n"},
    ),
}
