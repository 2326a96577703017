{ pkgs }:
pkgs.stdenv.mkDerivation {
  pname = "hello";
  version = "1.0";
  src = ./.;
  doCheck = true;
  meta = {
    description = "Greets";
    license = {
      spdxId = "MIT";
      free = true;
    };
    mainProgram = "hello";
  };
}
