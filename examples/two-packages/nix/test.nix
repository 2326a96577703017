# A test of the finished program, as `nix flake check` runs it. It fails if a greeting is wrong.
{ pkgs, greet }:
pkgs.stdenv.mkDerivation {
  name = "greet-test";
  nativeBuildInputs = [
    greet
    pkgs.python3
  ];
  buildCommand = ''
    python3 ${./test_greet.py}
    echo passed > $out
  '';
}
