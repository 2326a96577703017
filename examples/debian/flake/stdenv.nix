# A small stdenv: what simple Makefile projects use of nixpkgs'.
{
  system,
  bootstrap,
  lock,
  debianPackages,
  join,
}:
let
  d = debianPackages;
  inherit (bootstrap) runBusybox;
  # Which gcc is Debian's gcc: gcc-12 in one release, gcc-14 in another.
  major = builtins.head (
    builtins.filter (x: x != null) (
      map (
        name:
        let
          found = builtins.match "gcc-([0-9]+)" name;
        in
        if found == null then null else builtins.head found
      ) lock.packages.gcc.depends
    )
  );
  inherit (d."gcc-${major}") version meta;

  # /usr as gcc knows it: compilers, assembler, linker, headers, start files.
  tree = join {
    pname = "gcc-tree";
    inherit version meta;
    paths = map (name: d.${name}) (
      builtins.filter (name: lock.packages ? ${name}) (
        [
          "gcc-${major}"
          "g++-${major}"
          "cpp-${major}"
          "libgcc-${major}-dev"
          "libstdc++-${major}-dev"
        ]
        # From trixie on, cc1 and its friends live in packages named after the target.
        ++ map (part: "${part}-${major}-${cpu}-linux-gnu") [
          "gcc"
          "g++"
          "cpp"
        ]
        ++ [
          "binutils"
          "binutils-${cpu}-linux-gnu"
          "libgcc-s1"
          "libstdc++6"
          "libc6-dev"
          "libc6"
          "linux-libc-dev"
          "libcrypt-dev"
        ]
      )
    );
    only = [
      "bin"
      "lib"
      "libexec"
      "include"
    ];
  };
  cpu = "x86-64";

  cc =
    runBusybox "gcc-wrapper-${version}" ./cc.sh {
      pname = "gcc-wrapper";
      inherit version tree;
      script = ./cc-wrapper.sh;
      inherit (d) bash libc6;
      cxxlibs = [
        d."libstdc++6"
        d.libgcc-s1
      ];
    }
    // {
      inherit meta;
      libc = d.libc6;
      isGNU = true;
      isClang = false;
      # The compiler without its wrapper, and the libraries that its programs need.
      cc = tree // {
        lib = join {
          pname = "gcc-lib";
          inherit version meta;
          paths = [
            d."libstdc++6"
            d.libgcc-s1
          ];
          only = [ "lib" ];
        };
      };
    };

  setup =
    runBusybox "stdenv-linux" ./stdenv.sh {
      setup = ./setup.sh;
      defaultBuilder = ./builder.sh;
      # On PATH in every build, in this order.
      initialPath = [
        cc
        d.coreutils
        d.findutils
        d.diffutils
        d.sed
        d.grep
        d.gawk
        d.tar
        d.gzip
        d.bzip2
        d.xz-utils
        d.make
        d.bash
        d.patch
        d.patchelf
      ];
      shell = "${d.bash}/bin/bash";
    };

  # What describes a package but is no part of its build.
  described = [
    "meta"
    "passthru"
  ];

  mkDerivation =
    given:
    let
      # nixpkgs' two forms: a set, or a function of the finished set.
      attrs = if builtins.isFunction given then given (attrs // { finalPackage = result; }) else given;
      name = attrs.name or "${attrs.pname}-${attrs.version}";
      built = derivation (
        {
          inherit name system;
          stdenv = setup;
          # Said even where it is the default: `nix develop` looks for it.
          outputs = attrs.outputs or [ "out" ];
          builder = attrs.realBuilder or "${d.bash}/bin/bash";
          args = attrs.args or [
            "-e"
            (attrs.builder or "${setup}/builder.sh")
          ];
        }
        // builtins.removeAttrs attrs (
          described
          ++ [
            "builder"
            "args"
            "realBuilder"
          ]
        )
      );
      result =
        built
        // (attrs.passthru or { })
        // {
          meta = {
            inherit name;
          }
          // (attrs.meta or { });
          overrideAttrs = change: mkDerivation (attrs // change attrs);
        };
    in
    result;

  mkShell =
    {
      name ? "nix-shell",
      packages ? [ ],
      inputsFrom ? [ ],
      nativeBuildInputs ? [ ],
      ...
    }@attrs:
    mkDerivation (
      builtins.removeAttrs attrs [
        "packages"
        "inputsFrom"
      ]
      // {
        inherit name;
        nativeBuildInputs =
          nativeBuildInputs
          ++ packages
          ++ builtins.concatMap (input: input.nativeBuildInputs or [ ]) inputsFrom;
        buildInputs =
          (attrs.buildInputs or [ ])
          ++ builtins.concatMap (input: input.buildInputs or [ ]) inputsFrom;
        # Building a shell writes down what it is made of, as in nixpkgs.
        buildCommand = "export > $out";
      }
    );

  platform = {
    inherit system;
    config = system;
    isLinux = builtins.match ".*-linux" system != null;
    isDarwin = builtins.match ".*-darwin" system != null;
  };
in
setup
// {
  meta = {
    description = "What every build starts with: a compiler, a shell and the usual tools";
    license = {
      spdxId = "MIT";
      free = true;
    };
  };
  inherit cc mkDerivation mkShell;
  shell = "${d.bash}/bin/bash";
  buildPlatform = platform;
  hostPlatform = platform;
  targetPlatform = platform;
  inherit (platform) isLinux isDarwin;
}
