# busybox with a link for each of its programs.
"$busybox/bin/busybox" mkdir -p "$out/bin"
"$busybox/bin/busybox" cp "$busybox/bin/busybox" "$out/bin/busybox"
for applet in $("$out/bin/busybox" --list); do
  [ "$applet" = busybox ] || "$out/bin/busybox" ln -s busybox "$out/bin/$applet"
done
