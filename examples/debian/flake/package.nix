# One Debian package as one derivation.
{
  bootstrap,
  lock,
  self, # all packages, by name
}:
name: package:
let
  depends = map (other: self.${other}) package.depends;

  # The closure of a package, by name, as Debian's dependencies say.
  closureOf =
    start:
    map (item: item.key) (
      builtins.genericClosure {
        startSet = [ { key = start; } ];
        operator = item: map (key: { inherit key; }) (lock.packages.${item.key}.depends or [ ]);
      }
    );
  # Every Debian package may use /bin/sh and bash without saying so. What these two are made of
  # cannot, or there would be a cycle.
  shells = [
    "bash"
    "dash"
  ];
  belowShells = builtins.elem name (builtins.concatMap closureOf shells);
  unlessBelow = shell: if belowShells then null else self.${shell};

  # Debian's version as store names allow it: without the epoch ("1:"), "-" for "~".
  version = builtins.replaceStrings [ "~" ] [ "-" ] (
    builtins.elemAt (builtins.match "([0-9]+:)?(.*)" package.version) 1
  );
in
bootstrap.runBusybox "${name}-${version}" ./package.sh {
  inherit version;
  pname = name;
  deb = bootstrap.fetchDeb package;
  inherit depends;
  inherit (bootstrap) patchelf;
  libc = if name == "libc6" then null else self.libc6;
  dash = unlessBelow "dash";
  bash = unlessBelow "bash";
}
// {
  meta = {
    inherit (package) description homepage;
    license = [
      (
        {
          inherit (package) free;
          fullName = "see share/doc/${name}/copyright";
        }
        // (if package.spdxId == null then { } else { inherit (package) spdxId; })
      )
    ];
  };
}
