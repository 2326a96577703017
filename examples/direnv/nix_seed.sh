# direnv: `use nix_seed [IMAGE [INSTALLABLE]]` loads a project's development shell out of its seed.
# Copy it to ~/.config/direnv/lib/. IMAGE is a reference as `nix-seed run --image` takes it [the seed
# that `nix-seed build` made of the project]; INSTALLABLE is what `nix develop` takes [.].
use_nix_seed() {
  local image=${1:-} shell=${2:-.} kept files wanted
  kept=$(direnv_layout_dir)
  files=(flake.nix flake.lock seed.lock trust.toml)
  watch_file "${files[@]}"
  wanted=$(cat "${files[@]}" 2>/dev/null | cksum)" $image $shell"
  if [ ! -e "$kept/seed-1-link" ] || [ "$(cat "$kept/seed.made-of" 2>/dev/null)" != "$wanted" ]; then
    log_status "nix_seed: taking the shell out of the seed"
    mkdir -p "$kept" && rm -f "$kept/seed-1-link"
    # Inside, the profile's link is one that Nix registers; `run` brings it back with all it needs.
    nix-seed run -q ${image:+--image "$image"} -- \
      sh -c 'mkdir -p .direnv && nix print-dev-env --profile .direnv/seed "$1" >/dev/null' sh "$shell" ||
      exit
    [ "$kept" = "$PWD/.direnv" ] || mv .direnv/seed-1-link "$kept/"
    printf %s "$wanted" >"$kept/seed.made-of"
  fi
  eval "$(nix print-dev-env --offline "$kept/seed-1-link")"
}
