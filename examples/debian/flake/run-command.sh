# Run a few lines of shell with busybox' applets.
"$busybox/bin/busybox" mkdir applets
"$busybox/bin/busybox" --install -s applets
PATH=$PWD/applets
set +f
. "$scriptPath"
