"$busybox/bin/busybox" cp "$textPath" "$out"
