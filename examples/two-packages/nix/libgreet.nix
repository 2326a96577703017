{ pkgs }:
pkgs.stdenv.mkDerivation {
  pname = "libgreet";
  version = "1.0";
  src = ../libgreet;
  meta = {
    description = "A library that greets";
    license = {
      spdxId = "MIT";
      free = true;
    };
  };
}
