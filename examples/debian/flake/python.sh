# Python looks for its library beside its own file, so that file is copied, not linked.
. "$join"

for tree in $paths; do
  if [ -f "$tree/bin/$program" ] && [ ! -L "$tree/bin/$program" ]; then
    rm "$out/bin/$program"
    cp "$tree/bin/$program" "$out/bin/$program"
  fi
done
for name in python3 python; do ln -sfn "$program" "$out/bin/$name"; done
