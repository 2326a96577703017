# The seed's own tools, from the flake's package set. A set that lacks one (a small one of the user's
# own) makes a seed without it, but for those that no container can do without.
{ pkgs, system }:
let
  util = import ./util.nix;
  # A name may be there only to throw: a removed alias, a broken or unfree package.
  have = util.concatMap (name:
    let tried = builtins.tryEval (pkgs.${name} or null); in
    util.optional (tried.success && tried.value != null) tried.value);
  isLinux = util.endsWith "-linux" system;
  ccLib = util.attrPath [ "stdenv" "cc" "cc" "lib" ] null pkgs;
in
rec {
  inherit isLinux;
  git = pkgs.gitMinimal or pkgs.git or null;
  loader = if isLinux then import ./loader.nix { inherit pkgs system ccLib; } else null;

  base = [ pkgs.bash ] ++ have [ "cacert" ] ++ util.optional isLinux loader;

  onPath = [ pkgs.bash pkgs.coreutils ]
    ++ have [ "gnugrep" "gnused" "findutils" "gnutar" "gzip" "zstd" ]
    ++ util.optional (git != null) git;
  # `nix develop` looks for this one in the flake's package set.
  toolchain = onPath ++ have [ "bashInteractive" ] ++ util.optional (ccLib != null) ccLib;

  # Looking at more (clang, gdb) would make every evaluation pay for sets that few projects use.
  compilers = util.optional (pkgs ? stdenv) pkgs.stdenv
    ++ util.optional (pkgs ? stdenv && pkgs.stdenv ? cc) pkgs.stdenv.cc;
}
