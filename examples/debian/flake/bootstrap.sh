# Unpack some packages on top of one another; keep their libraries in lib, programs in bin.
"$busybox/bin/busybox" mkdir applets
"$busybox/bin/busybox" --install -s applets
PATH=$PWD/applets

for deb in $debs; do
  dpkg-deb -x "$deb" root
done
mkdir -p "$out/lib" "$out/bin"
find root -name '*.so*' -path '*-linux-gnu/*' ! -type d -exec cp -P {} "$out/lib/" ';'
cp root/usr/bin/patchelf "$out/bin/"
# libc's loader, whatever this architecture calls it, under one name.
loader=$(cd "$out/lib" && set +f && echo ld-linux*.so.* | cut -d' ' -f1)
ln -sf "$loader" "$out/lib/loader"
