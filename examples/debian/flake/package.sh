# Unpack one Debian package into $out and make it refer to its dependencies' store paths.
#
#   $deb        the .deb file                 $libc        store path of libc6 (empty: it is this one)
#   $depends    store paths, Debian's order   $dash $bash  store paths (empty: they depend on this one)
#   $patchelf   the bootstrap patchelf        $busybox     static busybox
#
# Debian's tree is folded into the shape that nixpkgs' packages have: /usr/bin, /bin and /sbin are
# bin, /usr/lib, /lib, /lib64 and their multi-architecture directory are lib, and so on.

"$busybox/bin/busybox" mkdir applets
"$busybox/bin/busybox" --install -s applets
PATH=$PWD/applets
work=$PWD

patchelf() {
  "$patchelf/lib/loader" --library-path "$patchelf/lib" "$patchelf/bin/patchelf" "$@"
}

# Lines of "path<TAB>absolute path" become "path in $out<TAB>path in $out", Debian's tree folded.
cat > fold.awk <<'AWK'
function fold(path) {
  sub(/^\/usr\//, "/", path)
  sub(/^\/sbin(\/|$)/, "/bin/", path)
  sub(/^\/lib(64|x32|32)(\/|$)/, "/lib/", path)
  sub(/^\/lib\/[a-z0-9_]+-linux-gnu(\/|$)/, "/lib/", path)
  gsub(/\/+/, "/", path)
  sub(/\/$/, "", path)
  return path
}
function absolute(link, target,    parts, out, count, depth, i) {
  if (target !~ /^\//) { sub(/[^\/]*$/, "", link); target = link target }
  count = split(target, parts, "/")
  depth = 0
  for (i = 1; i <= count; i++) {
    if (parts[i] == "..") { if (depth > 0) depth-- }
    else if (parts[i] != "" && parts[i] != ".") out[++depth] = parts[i]
  }
  target = ""
  for (i = 1; i <= depth; i++) target = target "/" out[i]
  return target
}
BEGIN { FS = OFS = "\t" }
{ print fold($1), fold(absolute($1, $2)), $2 }
AWK

unpack() {
  mkdir -p "$out"
  cd "$out"
  dpkg-deb -x "$deb" .unpacked
  chmod -R u+rwX .unpacked
  # Links are set aside: they are made anew once it is known where they point.
  (cd .unpacked && find . -type l) | while read -r link; do
    printf '%s\t%s\n' "${link#.}" "$(readlink ".unpacked/$link")"
  done | awk -f "$work/fold.awk" > "$work/links"
  find .unpacked -type l -exec rm {} +
}

# Move what is in $1 to $2, directory by directory; the first file of a name stays.
fold() {
  [ -d "$1" ] || return 0
  mkdir -p "$2"
  ls -A "$1" | while read -r entry; do
    if [ -d "$1/$entry" ] && [ -d "$2/$entry" ]; then
      fold "$1/$entry" "$2/$entry"
    elif [ ! -e "$2/$entry" ]; then
      mv "$1/$entry" "$2/$entry"
    fi
  done
}

fold_all() {
  for source in usr/bin bin usr/sbin sbin; do fold ".unpacked/$source" bin; done
  for source in usr/lib lib usr/lib64 lib64 usr/lib32 usr/libx32; do
    ls -A ".unpacked/$source" 2>/dev/null | grep -e '-linux-gnu$' | while read -r triplet; do
      fold ".unpacked/$source/$triplet" lib
      rm -rf ".unpacked/$source/$triplet"
      # Names with the triplet in them go on working.
      ln -sfn . "lib/$triplet"
    done
    fold ".unpacked/$source" lib
  done
  for source in bin sbin lib lib64; do rm -rf ".unpacked/$source" ".unpacked/usr/$source"; done
  rm -rf .unpacked/usr/lib32 .unpacked/usr/libx32
  fold .unpacked/usr .
  rm -rf .unpacked/usr
  fold .unpacked .
  rm -rf .unpacked
  rmdir bin lib 2>/dev/null || true
  if [ -d bin ]; then ln -sfn bin sbin; fi
}

# Point each link at the store path that holds its target; leave alone what nothing holds
# (/etc/alternatives, /dev/null, the target of a cut dependency).
relink() {
  while IFS=$(printf '\t') read -r link target original; do
    if [ "$link" = "$target" ] || [ -e "$out$link" ]; then continue; fi
    mkdir -p "$out${link%/*}"
    ln -sfn "$original" "$out$link"
  done < "$work/links"
  while IFS=$(printf '\t') read -r link target original; do
    [ -L "$out$link" ] && [ "$link" != "$target" ] || continue
    for holder in "$out" $depends; do
      if [ -e "$holder$target" ] || [ -L "$holder$target" ]; then
        ln -sfn "$holder$target" "$out$link"
        break
      fi
    done
  done < "$work/links"
}

# Sort the regular files by their first line: "elf", "script" or "linker".
classify() {
  find . -type f | awk '{
    line = ""
    if ((getline line < $0) > 0) {
      if (substr(line, 1, 4) == "\177ELF") print "elf\t" $0
      else if (substr(line, 1, 2) == "#!") print "script\t" $0
      else if ($0 ~ /\.so$/) print "linker\t" $0
      else if ($0 ~ /\/pkgconfig\/[^\/]*\.pc$/) print "pc\t" $0
    }
    close($0)
  }' > "$work/kinds"
}

files_of_kind() {
  sed -n "s/^$1	//p" "$work/kinds"
}

# Write "file<TAB>interpreter?<TAB>old rpath<TAB>needed sonames" for every dynamic ELF file.
read_elf() {
  files_of_kind elf | while read -r file; do
    needed=$(patchelf --print-needed "$file" 2>/dev/null | tr '\n' ' ') || continue
    interpreter=$(patchelf --print-interpreter "$file" 2>/dev/null) || interpreter=
    [ -n "$needed$interpreter" ] || continue
    printf '%s\t%s\t%s\t%s\n' "$file" "$interpreter" "$(patchelf --print-rpath "$file")" "$needed"
  done
}

# Where the sonames in these packages lie, the first package's first.
libraries() {
  for holder in "$@"; do
    [ ! -d "$holder/lib" ] || find "$holder/lib" -name '*.so*' ! -type d | sort
  done
}

# From the two lists above to "file<TAB>interpreter?<TAB>rpath".
cat > rpath.awk <<'AWK'
BEGIN { FS = OFS = "\t" }
NR == FNR {
  soname = directory = $0
  sub(/.*\//, "", soname)
  sub(/\/[^\/]*$/, "", directory)
  if (!(soname in where)) where[soname] = directory
  next
}
{
  rpath = ""
  split("", seen)
  count = split($4, needed, " ")
  for (i = 1; i <= count; i++) {
    directory = where[needed[i]]
    if (directory == "") print "note: " $1 " needs " needed[i] ", which no dependency holds" > missing
    else if (!(directory in seen)) { seen[directory]; rpath = rpath ":" directory }
  }
  # Debian's own paths are gone; those relative to the file are still true.
  count = split($3, old, ":")
  for (i = 1; i <= count; i++) if (old[i] ~ /^\$ORIGIN/) rpath = rpath ":" old[i]
  print $1, $2, substr(rpath, 2)
}
AWK

find_rpaths() {
  : > "$work/missing"
  awk -v missing="$work/missing" -f "$work/rpath.awk" "$work/libraries" "$work/elf" > "$work/patches"
}

patch_elf() {
  # libc finds its own parts by itself, and its loader must not be touched.
  [ -n "$libc" ] || return 0
  read_elf > "$work/elf"
  [ -s "$work/elf" ] || return 0
  libraries "$out" $depends $libc > "$work/libraries"
  find_rpaths
  if [ -s "$work/missing" ]; then
    # Some packages use what their dependencies' dependencies hold (rustc does).
    libraries $(for path in $depends; do cat "$path/nix-support/depends"; done | sort -u) \
      >> "$work/libraries"
    find_rpaths
    cat "$work/missing"
  fi
  # A tab is white space to `read`, so an empty middle field would vanish.
  sed -i 's/\t\t/\t-\t/' "$work/patches"
  while IFS=$(printf '\t') read -r file interpreter rpath; do
    # In this order and in two calls: otherwise patchelf 0.18 breaks programs at fixed addresses.
    patchelf --set-rpath "$rpath" "$file"
    [ "$interpreter" = - ] || patchelf --set-interpreter "$libc/lib/${interpreter##*/}" "$file"
  done < "$work/patches"
}

# Print the store path of the program that a script's first line names, if there is one.
interpreter() {
  case $1 in
    sh | dash) if [ -n "$dash" ]; then echo "$dash/bin/dash"; return; fi ;;
    bash) if [ -n "$bash" ]; then echo "$bash/bin/bash"; return; fi ;;
  esac
  for holder in "$out" $depends; do
    if [ -e "$holder/bin/$1" ]; then echo "$holder/bin/$1"; return; fi
  done
}

patch_scripts() {
  files_of_kind script | while read -r file; do
    line=$(head -n 1 "$file")
    program=$(echo "$line" | sed -E 's|^#! *||; s|^/usr/bin/env +(-S +)?||; s| .*||; s|.*/||')
    found=$(interpreter "$program")
    [ -n "$found" ] || continue
    options=$(echo "$line" | sed -E 's|^#! *||; s|^/usr/bin/env +(-S +)?||; s|^[^ ]+||')
    sed -i "1s|.*|#!$found$options|" "$file"
  done
}

# libc.so and the like are texts that name libraries by absolute paths.
patch_linker_scripts() {
  files_of_kind linker | while read -r file; do
    grep -oE '/(usr/)?lib[^ )]*' "$file" | sort -u | while read -r old; do
      for holder in "$out" $depends $libc; do
        if [ -e "$holder/lib/${old##*/}" ]; then
          sed -i "s|\([ (]\)$old\([ )]\)|\1$holder/lib/${old##*/}\2|g" "$file"
          break
        fi
      done
    done
  done
}

patch_pkgconfig() {
  files_of_kind pc | while read -r file; do
    sed -i "s|^prefix=/usr\$|prefix=$out|; s|=/usr/|=$out/|" "$file"
  done
}

# What Debian says this package needs at run time, so that its closure holds it even where no
# byte of the package does (a script that calls sed; a package that is only a list of others).
write_depends() {
  mkdir -p "$out/nix-support"
  for path in $depends; do echo "$path"; done > "$out/nix-support/depends"
}

unpack
fold_all
relink
classify
patch_elf
patch_scripts
patch_linker_scripts
patch_pkgconfig
write_depends
