#!/bin/sh
# Makes a directory of containerd's with images in it. usage: bake.sh DIRECTORY <ARCHIVE, in a mount and pid namespace of its own
set -eu
mount -t tmpfs -o mode=755 run /run
printf 'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n' >/run/containerd.toml
containerd --config /run/containerd.toml --root "$1" --log-level warn &
until ctr version >/dev/null 2>&1; do kill -0 $!; sleep 0.1; done
ctr -n k8s.io images import -
kill $!
wait $!   # its databases are closed
