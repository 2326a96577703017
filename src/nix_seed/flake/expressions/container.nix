# What stands beside /nix in an image: the files of a small, ordinary Linux system, and the
# environment that makes Nix work in it unprivileged and offline.
#
# files: [ { path; text | link | (neither: a directory); mode ? } ], relative to the root.
{ pkgs, system, tools, kind, nix ? null, nixConf ? "", anyUser ? false }:
let
  util = import ./util.nix;
  link = path: target: { inherit path; link = target; };
  file = path: text: { inherit path text; mode = "0644"; };
  directory = path: mode: { inherit path mode; };
  binaries = package: util.map (name: link "usr/bin/${name}" "${package}/bin/${name}");

  hasCa = pkgs ? cacert;
  bundle = "${pkgs.cacert}/etc/ssl/certs/ca-bundle.crt";

  # containerd refuses absolute symlinks for these ("path escapes from parent"): real files.
  etc = [
    (file "etc/passwd" ''
      root:x:0:0:root:/root:/bin/sh
      nobody:x:65534:65534:nobody:/var/empty:/bin/sh
    '')
    (file "etc/group" ''
      root:x:0:
      nogroup:x:65534:
    '')
    (file "etc/nsswitch.conf" ''
      passwd: files
      group: files
      hosts: files dns
    '')
    (file "etc/os-release" ''
      ID=nixos
      NAME="Nix Seed"
      PRETTY_NAME="Nix Seed"
      VARIANT_ID=${kind}
    '')
  ];

  places = [
    (directory "root" "0700")
    (directory "tmp" "1777")
    (directory "var/empty" "0555")
    (directory "var/tmp" "1777")
  ];

  certificates = util.concatMap (path: util.optional hasCa (link path bundle)) [
    "etc/ssl/certs/ca-certificates.crt"
    "etc/ssl/certs/ca-bundle.crt"
    "etc/pki/tls/certs/ca-bundle.crt"
  ];

  # Programs that Nix did not build ask for the loader in one directory, libraries in both.
  loader = util.map (path: link path "${tools.loader}/lib")
    (if tools.loader.directory == "/lib64/" then [ "lib" "lib64" ] else [ "lib" ]);

  shell = [ (link "bin" "usr/bin") (link "usr/bin/sh" "${pkgs.bash}/bin/bash") ]
    ++ binaries pkgs.bash [ "bash" ];
  commands =
    binaries pkgs.coreutils [ "env" "cat" "tail" "ls" "mkdir" "rm" "cp" "mv" "ln" "chmod" "id" "uname" "sleep" "true" "false" ]
    ++ (if pkgs ? gnugrep then binaries pkgs.gnugrep [ "grep" ] else [ ])
    ++ util.concatMap
      (name: if pkgs ? ${name.package} then binaries pkgs.${name.package} name.programs else [ ])
      [
        { package = "gnutar"; programs = [ "tar" ]; }
        { package = "gzip"; programs = [ "gzip" ]; }
        { package = "zstd"; programs = [ "zstd" ]; }
      ]
    ++ (if tools.git != null then binaries tools.git [ "git" ] else [ ])
    ++ binaries nix [ "nix" "nix-build" "nix-shell" "nix-store" "nix-instantiate" "nix-env" ];

  # Steps of a job run as another user than the one who checked the sources out.
  git = [ (file "etc/gitconfig" "[safe]\n\tdirectory = *\n") ];

  # substituters is empty rather than off: a user's --option can still name one.
  nixConfiguration = ''
    experimental-features = nix-command flakes
    substituters =
    build-users-group =
    sandbox = false
    flake-registry =
  '' + util.attrPath [ "nixSeedConf" ] "" nix + nixConf;

  certificateVariables = util.optionalAttrs hasCa {
    SSL_CERT_FILE = "/etc/ssl/certs/ca-certificates.crt";
    NIX_SSL_CERT_FILE = "/etc/ssl/certs/ca-certificates.crt";
    GIT_SSL_CAINFO = "/etc/ssl/certs/ca-certificates.crt";
  };
in
if !tools.isLinux then { files = [ ]; env = { }; }
else if kind == "run" then {
  files = etc ++ places ++ certificates ++ loader ++ shell;
  env = { PATH = "/usr/local/bin:/usr/bin:/bin"; } // certificateVariables;
}
else {
  files = etc ++ places ++ certificates ++ loader ++ shell ++ commands ++ git
    ++ [ (file "etc/nix/nix.conf" nixConfiguration) ];
  env = {
    PATH = builtins.concatStringsSep ":" (
      [ "/usr/local/bin" "/usr/bin" "/bin" ]
      ++ util.map (package: "${package}/bin") (tools.onPath ++ [ nix ]));
    NIX_CONFIG = nixConfiguration;
    # Nix takes a home that is not there yet, but none that belongs to somebody else.
    HOME = if anyUser then "/tmp/home" else "/root";
    USER = "root";
    LANG = "C.UTF-8";
  } // certificateVariables;
} // util.optionalAttrs anyUser { inherit anyUser; }
