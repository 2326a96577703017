{ pkgs, libgreet }:
pkgs.stdenv.mkDerivation {
  pname = "greet";
  version = "1.0";
  src = ../greet;
  buildInputs = [ libgreet ];
  meta = {
    description = "A program that greets";
    license = {
      spdxId = "MIT";
      free = true;
    };
    mainProgram = "greet";
  };
}
