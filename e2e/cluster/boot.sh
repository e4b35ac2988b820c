#!/bin/sh
# What a node does at boot, as process 1 of its own mount and pid namespaces.
# usage: boot.sh NAME VAR SHARED TARGET: host name, the node's /var, and the directory all nodes share with its path.
set -eu
echo "$1" >/proc/sys/kernel/hostname
umount -R -l /run/netns 2>/dev/null || true   # the host's namespaces would live as long as this node does
mkdir -p "$2/log" "$2/tmp" "$2/lib/kubelet" "$2/lib/containerd" "$2${4#/var}"
ln -sfn /run "$2/run"
mount --bind "$3" "$2${4#/var}"
mount --rbind "$2" /var
mount -t tmpfs -o mode=755 run /run
mount --make-rshared /
touch /run/booted
exec catatonit -P   # waits, and buries the dead; when it ends, the kernel ends everything in the namespace
