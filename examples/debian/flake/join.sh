# Make $out a tree of links to the trees $paths. $only: these top-level directories, not all.
# $unfolded: relative paths that become directories of $out, never links.
"$busybox/bin/busybox" mkdir -p applets
"$busybox/bin/busybox" --install -s applets 2>/dev/null || true
PATH=$PWD/applets

# Link what the trees $2… hold under the relative path $1. A directory that only one tree has
# becomes one link; a directory that several have is made and filled.
join() {
  relative=$1
  shift
  mkdir -p "$out/$relative"
  for tree in "$@"; do ls -A "$tree/$relative"; done | sort -u | while read -r entry; do
    path=${relative:+$relative/}$entry
    [ "$path" != nix-support ] || continue
    first= holders=
    for tree in "$@"; do
      if [ -L "$tree/$path" ] || [ ! -d "$tree/$path" ]; then
        if [ -z "$first" ] && [ -L "$tree/$path" -o -e "$tree/$path" ]; then first=$tree; fi
      else
        holders="$holders $tree"
      fi
    done
    case " $unfolded " in *" $path "*) (join "$path" $holders); continue ;; esac
    case $holders in
      "") link "$first/$path" "$out/$path" ;;
      " "*" "*) (join "$path" $holders) ;;
      *) ln -s "${holders# }/$path" "$out/$path" ;;
    esac
  done
}

# A link inside a tree (sbin -> bin) stays one inside the joined tree.
link() {
  case $(readlink "$1" || true) in
    "" | /*) ln -s "$1" "$2" ;;
    *) cp -P "$1" "$2" ;;
  esac
}

mkdir -p "$out"
if [ -n "$only" ]; then
  for directory in $only; do
    trees=
    for tree in $paths; do
      [ ! -d "$tree/$directory" ] || trees="$trees $tree"
    done
    join "$directory" $trees
  done
else
  join "" $paths
fi
