#!@bash@
# Run the real compiler so that it finds its own parts, libc's headers and libraries, and so that
# what it links is started by, and finds, the libc in the store.
flags=(
  # Without this gcc would follow the links of its tree and miss what other packages hold.
  -no-canonical-prefixes
  --sysroot=@out@/sysroot
  -B@tree@/bin/
)
linking=(
  -Wl,-dynamic-linker,@loader@
  -Wl,-rpath,@libc@
  @cxxpath@
)
# Paths of what the build was given, as setup.sh collects them.
read -r -a compile <<< "${NIX_CFLAGS_COMPILE-}"
read -r -a link <<< "${NIX_LDFLAGS-}"
for argument in "$@"; do
  case $argument in
    -c | -S | -E | -M | -MM) linking=() link=() ;;
  esac
done
exec @real@ "${flags[@]}" "$@" "${compile[@]}" "${link[@]}" "${linking[@]}"
