# The first tools, made of nothing but files that are already in the store: a static busybox, the
# packages' .deb files, and a patchelf that runs through its own unpacked loader.
{ lock, system }:
rec {
  # A fixed output that `make distribution` has put into the store. The URL is never asked: Nix
  # fetches only what is absent, and there is no such host.
  fetchDeb =
    package:
    derivation {
      name = package.storeName;
      builder = "builtin:fetchurl";
      # Fixed outputs do not depend on the system, and "builtin" runs on any.
      system = "builtin";
      url = "mirror://debian/${package.filename}";
      outputHashMode = "flat";
      outputHashAlgo = "sha256";
      outputHash = package.sha256;
      preferLocalBuild = true;
    };

  busybox = derivation {
    inherit (lock.busybox) name;
    builder = "builtin:fetchurl";
    system = "builtin";
    url = "mirror://debian/${lock.packages.busybox-static.filename}#bin";
    outputHashMode = "recursive";
    outputHashAlgo = "sha256";
    outputHash = lock.busybox.sha256;
    preferLocalBuild = true;
  };

  # Run a script of ours with busybox' shell and applets, before there is anything else.
  runBusybox =
    name: script: attrs:
    derivation (
      {
        inherit name system busybox;
        builder = "${busybox}/bin/sh";
        args = [
          "-euf"
          script
        ];
      }
      // attrs
    );

  # patchelf with the three libraries it needs, as unpacked.
  patchelf = runBusybox "patchelf-bootstrap" ./bootstrap.sh {
    debs = map (name: fetchDeb lock.packages.${name}) [
      "libc6"
      "libgcc-s1"
      "libstdc++6"
      "patchelf"
    ];
  };
}
