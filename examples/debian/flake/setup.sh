# The part of nixpkgs' stdenv that simple Makefile projects use. Phases: unpack, patch, configure,
# build, check (with doCheck), install, fixup, installCheck (with doInstallCheck); each may be
# replaced by a variable or function of its name (buildPhase=…) and has pre and post hooks.

export SHELL CONFIG_SHELL=$SHELL
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-315532800}
export TZ=UTC LC_ALL=C

# Add a package to the search paths, and what it propagates.
addInput() {
  local package=$1 other
  case " ${_inputs-} " in *" $package "*) return ;; esac
  _inputs="${_inputs-} $package"
  if [ -d "$package/bin" ]; then _path="$_path:$package/bin"; fi
  for other in include include/x86_64-linux-gnu; do
    if [ -d "$package/$other" ]; then
      NIX_CFLAGS_COMPILE="${NIX_CFLAGS_COMPILE-} -isystem $package/$other"
    fi
  done
  if [ -d "$package/lib" ]; then
    NIX_LDFLAGS="${NIX_LDFLAGS-} -L$package/lib -Wl,-rpath,$package/lib"
  fi
  for other in lib share; do
    if [ -d "$package/$other/pkgconfig" ]; then
      PKG_CONFIG_PATH="${PKG_CONFIG_PATH:+$PKG_CONFIG_PATH:}$package/$other/pkgconfig"
    fi
  done
  if [ -r "$package/nix-support/propagated-build-inputs" ]; then
    for other in $(<"$package/nix-support/propagated-build-inputs"); do addInput "$other"; done
  fi
  if [ -r "$package/nix-support/setup-hook" ]; then source "$package/nix-support/setup-hook"; fi
}

_path=
for _input in ${nativeBuildInputs-} ${buildInputs-} ${propagatedBuildInputs-} \
  ${propagatedNativeBuildInputs-} ${checkInputs-} ${nativeCheckInputs-}; do
  addInput "$_input"
done
for _input in $initialPath; do _path="$_path:$_input/bin"; done
PATH=${_path#:}
export PATH NIX_CFLAGS_COMPILE NIX_LDFLAGS PKG_CONFIG_PATH
unset _path _input

runHook() {
  local hook=$1
  if declare -F "$hook" > /dev/null; then "$hook"; else eval "${!hook-}"; fi
}

runPhase() {
  local phase=$1
  echo "@ ${phase%Phase}"
  if [ -n "${!phase-}" ]; then eval "${!phase}"; else "$phase"; fi
}

unpackPhase() {
  runHook preUnpack
  local source
  for source in ${srcs-${src-}}; do
    if [ -d "$source" ]; then
      local name=$(basename "$source")
      # As nixpkgs does: /nix/store/<hash>-name unpacks to name.
      [[ $name =~ ^[0-9a-z]{32}-(.*)$ ]] && name=${BASH_REMATCH[1]}
      cp -r --no-preserve=ownership "$source" "$name"
      chmod -R u+w "$name"
      sourceRoot=${sourceRoot:-$name}
    else
      tar xf "$source"
      sourceRoot=${sourceRoot:-$(tar tf "$source" | head -n 1 | cut -d/ -f1)}
    fi
  done
  cd "${sourceRoot:-.}"
  runHook postUnpack
}

patchPhase() {
  runHook prePatch
  local file
  for file in ${patches-}; do patch -p1 < "$file"; done
  runHook postPatch
}

configurePhase() {
  runHook preConfigure
  if [ -x ./configure ]; then ./configure --prefix="$out" ${configureFlags-}; fi
  runHook postConfigure
}

# make, with the shell that is certain to exist in a sandbox.
runMake() {
  make SHELL="$SHELL" ${enableParallelBuilding:+-j"${NIX_BUILD_CORES:-1}"} ${makeFlags-} "$@"
}

hasMakefile() {
  [ -e Makefile ] || [ -e makefile ] || [ -e GNUmakefile ]
}

buildPhase() {
  runHook preBuild
  if hasMakefile; then runMake ${buildFlags-}; fi
  runHook postBuild
}

checkPhase() {
  runHook preCheck
  runMake ${checkTarget:-check} ${checkFlags-}
  runHook postCheck
}

installPhase() {
  runHook preInstall
  if hasMakefile; then runMake prefix="$out" PREFIX="$out" ${installTargets:-install} ${installFlags-}; fi
  runHook postInstall
}

# Strip programs and libraries, and let them refer only to the libraries that they use.
fixupPhase() {
  runHook preFixup
  local output file
  for output in ${outputs:-out}; do
    output=${!output}
    [ -d "$output" ] || continue
    while IFS= read -r -d '' file; do
      [ "$(head -c 4 "$file" | tr -d '\0')" = $'\177ELF' ] || continue
      if [ -z "${dontStrip-}" ]; then strip -S "$file"; fi
      patchelf --shrink-rpath "$file" 2> /dev/null || true
    done < <(find "$output" -type f \( -perm -0100 -o -name '*.so*' \) -print0)
    while IFS= read -r -d '' file; do
      patchShebang "$file"
    done < <(find "$output/bin" -type f -print0 2> /dev/null)
  done
  if [ -n "${propagatedBuildInputs-}" ]; then
    mkdir -p "$out/nix-support"
    echo "$propagatedBuildInputs" > "$out/nix-support/propagated-build-inputs"
  fi
  runHook postFixup
}

patchShebang() {
  local line program
  IFS= read -r line < "$1" 2> /dev/null || true
  [[ $line =~ ^'#!'\ *(/usr)?/bin/(env\ +)?([^ /]+)(.*)$ ]] || return 0
  program=$(type -P "${BASH_REMATCH[3]}") || return 0
  sed -i "1s|.*|#!$program${BASH_REMATCH[4]}|" "$1"
}

installCheckPhase() {
  runHook preInstallCheck
  runMake ${installCheckTarget:-installcheck}
  runHook postInstallCheck
}

genericBuild() {
  if [ -n "${buildCommandPath-}" ]; then source "$buildCommandPath"; return; fi
  if [ -n "${buildCommand-}" ]; then eval "$buildCommand"; return; fi
  local phase
  for phase in ${phases:-unpackPhase patchPhase configurePhase buildPhase checkPhase installPhase \
    fixupPhase installCheckPhase}; do
    case $phase in
      checkPhase) [ -n "${doCheck-}" ] || continue ;;
      installCheckPhase) [ -n "${doInstallCheck-}" ] || continue ;;
    esac
    local skip=dont${phase^}
    skip=${skip%Phase}
    [ -z "${!skip-}" ] || continue
    runPhase "$phase"
  done
}
