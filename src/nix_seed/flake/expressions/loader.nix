# The libraries of a distribution, where programs that Nix did not build look for them. GitHub mounts
# such a Node into every job container.
#
# nixpkgs' dynamic loader searches its own package's lib/ and nothing else. The copy made here has
# that one directory replaced, in place, by the system's, padded with slashes to the same length: so
# foreign programs find libstdc++ too, and Nix's own programs, which name the loader in the store,
# never see any of it. A loader that searches /lib already is left as it is.
{ pkgs, system, ccLib }:
let
  names = {
    x86_64-linux = { directory = "/lib64/"; file = "ld-linux-x86-64.so.2"; };
    aarch64-linux = { directory = "/lib/"; file = "ld-linux-aarch64.so.1"; };
    i686-linux = { directory = "/lib/"; file = "ld-linux.so.2"; };
    armv7l-linux = { directory = "/lib/"; file = "ld-linux-armhf.so.3"; };
    riscv64-linux = { directory = "/lib/"; file = "ld-linux-riscv64-lp64d.so.1"; };
    powerpc64le-linux = { directory = "/lib64/"; file = "ld64.so.2"; };
  };
  inherit (names.${system} or (throw "nix-seed knows no dynamic loader for ${system}")) directory file;
in
derivation {
  name = "distribution-loader";
  inherit system directory file;
  libc = "${pkgs.glibc}";
  cc = if ccLib == null then "" else "${ccLib}";
  builder = "${pkgs.bash}/bin/bash";
  PATH = "${pkgs.coreutils}/bin:${pkgs.gnused}/bin";
  LC_ALL = "C";
  args = [ "-euc" ''
    mkdir -p "$out/lib"
    own="$libc/lib/"
    padded="$directory"
    while [ "''${#padded}" -lt "''${#own}" ]; do padded="$padded/"; done
    sed "s|$own|$padded|g" "$libc/lib/$file" > "$out/lib/$file"
    chmod 555 "$out/lib/$file"
    for name in libc.so.6 libm.so.6 libdl.so.2 libpthread.so.0 librt.so.1 libresolv.so.2 libutil.so.1; do
      if [ -e "$libc/lib/$name" ]; then ln -s "$libc/lib/$name" "$out/lib/$name"; fi
    done
    for name in libstdc++.so.6 libgcc_s.so.1; do
      if [ -n "$cc" ] && [ -e "$cc/lib/$name" ]; then ln -s "$cc/lib/$name" "$out/lib/$name"; fi
    done
  '' ];
} // { inherit directory; }
