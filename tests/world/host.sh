#!/usr/bin/env bash
# One host of the tests' cluster, from the inside of namespaces of its own: its name, its files, then a Spark worker.
#
# Takes: NAME HOSTS_FILE HIDDEN KEPT COMMAND..., where HIDDEN and KEPT are lists of folders, one a line.
# Gives: COMMAND, run where each of HIDDEN is empty but for what of KEPT lies below it, which can be read only.
#
# It stays as process 1 of its namespace, because something has to take up the processes that lose their parent.
set -euo pipefail
name=$1 hosts_file=$2
mapfile -t hidden <<<"$3"
mapfile -t kept <<<"$4"
shift 4

mount --make-rprivate /
hostname "$name"
mount --bind "$hosts_file" /etc/hosts
# What is kept is held elsewhere while the folders above it disappear.
mount -t tmpfs tmpfs /mnt
for i in "${!kept[@]}"; do
    mkdir "/mnt/$i"
    mount --bind "${kept[i]}" "/mnt/$i"
done
for folder in "${hidden[@]}"; do
    mkdir -p "$folder"  # it may have gone with one above
    mount -t tmpfs -o mode=1777 tmpfs "$folder"
done
for i in "${!kept[@]}"; do
    mkdir -p "${kept[i]}"
    mount --bind "/mnt/$i" "${kept[i]}"
    mount -o remount,bind,ro "${kept[i]}"
    umount "/mnt/$i"
done
umount /mnt

mkdir /tmp/home
cd /tmp/home
export HOME=/tmp/home
"$@" &
wait "$!"
