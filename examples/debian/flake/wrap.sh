# Join $paths, then replace $programs in bin by scripts that set $exports and run the real ones.
. "$join"

for program in $programs; do
  real=
  for tree in $paths; do
    if [ -z "$real" ] && [ -e "$tree/bin/$program" ]; then real=$tree/bin/$program; fi
  done
  rm "$out/bin/$program"
  {
    echo "#!$bash/bin/bash"
    for export in $exports; do
      echo "export $export" | sed "s|@out@|$out|g"
    done
    # Programs with several names go by the one they are called by.
    echo "exec -a \"\$0\" $real \"\$@\""
  } > "$out/bin/$program"
  chmod +x "$out/bin/$program"
done
