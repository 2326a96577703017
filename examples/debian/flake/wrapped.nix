# Packages that need more than patching, because Debian's paths are compiled into them or because
# Debian makes the file after installation.
{
  bootstrap,
  lock,
  debianPackages,
  join,
  wrap,
}:
# They are named otherwise than the Debian packages they are made of: in a closure that holds both,
# one can tell them apart.
let
  inherit (bootstrap) runBusybox;
  d = debianPackages;
  dependsOf = name: map (other: d.${other}) lock.packages.${name}.depends;

  git = wrap {
    pname = "git-wrapped";
    package = d.git;
    programs = [ "git" ];
    set = {
      GIT_EXEC_PATH = "@out@/lib/git-core";
      GIT_TEMPLATE_DIR = "@out@/share/git-core/templates";
    };
  };

  # Debian spreads Python over five packages; the interpreter finds its library beside itself.
  python3 =
    let
      minor = builtins.head (
        builtins.filter (name: builtins.match "python3\\.[0-9]+" name != null) lock.packages.python3.depends
      );
      parts = [
        "python3"
        minor
        "${minor}-minimal"
        "lib${minor}-minimal"
        "lib${minor}-stdlib"
      ];
    in
    runBusybox "python3-joined-${d.${minor}.version}" ./python.sh {
      pname = "python3-joined";
      inherit (d.${minor}) version;
      paths = map (name: d.${name}) parts;
      only = [ ];
      unfolded = [ "bin" ];
      join = ./join.sh;
      program = minor;
    }
    // {
      inherit (d.${minor}) meta;
    };
in
{
  inherit git;
  gitMinimal = git;

  # The certificates' bundle, which Debian's update-ca-certificates would make.
  cacert =
    runBusybox "nss-cacert-${d.ca-certificates.version}" ./cacert.sh {
      pname = "nss-cacert";
      inherit (d.ca-certificates) version;
      certificates = d.ca-certificates;
    }
    // {
      inherit (d.ca-certificates) meta;
    };

  # Nix starts helpers from its libexec directory: its build hook, without which it cannot build.
  nix = wrap {
    pname = "nix";
    package = d.nix-bin;
    programs = builtins.filter (program: program != "") [
      "nix"
      "nix-build"
      "nix-channel"
      "nix-collect-garbage"
      "nix-copy-closure"
      "nix-daemon"
      "nix-env"
      "nix-hash"
      "nix-instantiate"
      "nix-prefetch-url"
      "nix-shell"
      "nix-store"
    ];
    set = {
      NIX_BIN_DIR = "@out@/bin";
      NIX_LIBEXEC_DIR = "@out@/libexec";
    };
  };

  inherit python3;

  # gdb holds a Python of its own, which looks for its library in /usr.
  gdb = wrap {
    pname = "gdb-wrapped";
    package = d.gdb;
    programs = [ "gdb" ];
    set.PYTHONHOME = python3.outPath;
  };

  busybox =
    runBusybox "busybox-${d.busybox-static.version}" ./busybox.sh {
      pname = "busybox";
      inherit (d.busybox-static) version;
    }
    // {
      inherit (d.busybox-static) meta;
    };

  # pkgconf by the name that build systems call.
  pkg-config = join {
    pname = "pkg-config-joined";
    inherit (d.pkg-config) version meta;
    paths = [ d.pkg-config ] ++ dependsOf "pkg-config";
    exclude = [ d.libc6 ];
    only = [
      "bin"
      "share"
    ];
  };
}
