# One file of all certificates, sorted by name, under the names that programs look for.
"$busybox/bin/busybox" mkdir -p applets "$out/etc/ssl/certs"
"$busybox/bin/busybox" --install -s applets
PATH=$PWD/applets
find "$certificates/share/ca-certificates" -name '*.crt' | sort | while read -r file; do
  cat "$file"
  echo
done > "$out/etc/ssl/certs/ca-bundle.crt"
ln -s ca-bundle.crt "$out/etc/ssl/certs/ca-certificates.crt"
