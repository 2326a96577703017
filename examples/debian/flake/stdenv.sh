# The stdenv itself: setup (sourced by builds and by `nix develop`) and the default builder.
"$busybox/bin/busybox" mkdir -p "$out"
{
  echo "initialPath=\"$initialPath\""
  echo "SHELL=$shell"
  "$busybox/bin/busybox" cat "$setup"
} > "$out/setup"
"$busybox/bin/busybox" cp "$defaultBuilder" "$out/builder.sh"
