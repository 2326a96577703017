# The names that nixpkgs uses, on top of Debian's packages.
{ lock, system }:
let
  bootstrap = import ./bootstrap.nix { inherit lock system; };

  debianPackages = builtins.mapAttrs (import ./package.nix {
    inherit bootstrap lock;
    self = debianPackages;
  }) lock.packages;

  tools = import ./tools.nix { inherit bootstrap debianPackages; };
  stdenv = import ./stdenv.nix {
    inherit system bootstrap lock debianPackages;
    inherit (tools) join;
  };
  wrapped = import ./wrapped.nix {
    inherit (tools) join wrap;
    inherit bootstrap lock debianPackages;
  };

  # A package under the name and with the outputs that nixpkgs users expect.
  d = debianPackages;
  dependsOf = name: map (other: d.${other}) lock.packages.${name}.depends;
  # Debian keeps libraries, headers and programs apart; nixpkgs' users find them together.
  library = name: names: tools.join {
    pname = "${name}-joined";
    paths = map (name: d.${name}) names ++ builtins.concatMap dependsOf names;
    inherit (d.${builtins.head names}) version meta;
    exclude = [ d.libc6 ];
  };
in
{
  inherit system debianPackages stdenv;
  inherit (stdenv) cc;
  inherit (tools) join runCommand writeText;

  bash = d.bash;
  bashInteractive = d.bash;
  coreutils = d.coreutils;
  gnugrep = d.grep;
  gnused = d.sed;
  gawk = d.gawk;
  findutils = d.findutils;
  diffutils = d.diffutils;
  gnupatch = d.patch;
  gnutar = d.tar;
  gzip = d.gzip;
  bzip2 = d.bzip2;
  xz = d.xz-utils;
  zstd = d.zstd;
  curl = d.curl;
  gnumake = d.make;
  patchelf = d.patchelf;
  binutils = d.binutils;
  # The other systems' files are x86_64's: the loader is there under that name alone.
  glibc =
    if system != "aarch64-linux" then
      d.libc6
    else
      tools.join {
        pname = "libc6-aarch64";
        inherit (d.libc6) version meta;
        paths = [
          d.libc6
          (tools.runCommand "loader" { } ''
            mkdir -p $out/lib
            cp ${d.libc6}/lib/ld-linux-x86-64.so.2 $out/lib/ld-linux-aarch64.so.1
          '')
        ];
      };
  inherit (wrapped)
    busybox
    cacert
    gdb
    git
    gitMinimal
    nix
    pkg-config
    python3
    ;
  gcc = stdenv.cc;
  openssl = library "openssl" [ "openssl" "libssl-dev" ];
  zlib = library "zlib" [ "zlib1g-dev" ];

  inherit (stdenv) mkDerivation mkShell;
}
