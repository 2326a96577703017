# The compiler's wrapper: bin with cc, gcc, g++ and so on, and the linker's tools beside them.
"$busybox/bin/busybox" mkdir applets
"$busybox/bin/busybox" --install -s applets
PATH=$PWD/applets
set +f

# gcc looks for headers and libraries below its sysroot in usr/include and usr/lib.
mkdir -p "$out/bin" "$out/sysroot" "$out/nix-support"
ln -s "$tree" "$out/sysroot/usr"
ln -s usr/lib "$out/sysroot/lib"
ln -s usr/lib "$out/sysroot/lib64"

for tool in ar as ld nm objcopy objdump ranlib readelf size strings strip addr2line c++filt gprof; do
  ln -s "$tree/bin/$tool" "$out/bin/$tool"
done

loader=$(cd "$libc6/lib" && echo ld-linux*.so.*)
cxxpath=
for library in $cxxlibs; do cxxpath="$cxxpath -Wl,-rpath,$library/lib"; done

wrap() {
  real=$(cd "$tree/bin" && echo *-linux-gnu-"$2"-[0-9]*)
  [ -e "$tree/bin/$real" ]
  sed -e "s|@bash@|$bash/bin/bash|; s|@real@|$tree/bin/$real|; s|@out@|$out|g; s|@tree@|$tree|g" \
    -e "s|@libc@|$libc6/lib|g; s|@loader@|$libc6/lib/$loader|g; s|@cxxpath@|$3|g" \
    "$script" > "$out/bin/$1"
  chmod +x "$out/bin/$1"
}

wrap gcc gcc ""
wrap cpp cpp ""
wrap g++ g++ "$cxxpath"
ln -s gcc "$out/bin/cc"
ln -s g++ "$out/bin/c++"
echo 'export CC=${CC:-gcc} CXX=${CXX:-g++} AR=${AR:-ar} LD=${LD:-ld}' > "$out/nix-support/setup-hook"
