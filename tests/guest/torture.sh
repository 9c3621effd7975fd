#!/bin/sh
# torture.sh: the first process of a guest in which torture has NFS targets.
#
# Its root is the host's, to read. It makes room in memory for all that is written, has the kernel's
# modules loaded, runs torture with the words of $DMS_TORTURE, and prints how that ended. What
# torture keeps goes to $DMS_KEEP, a directory of the host's, if there is one: all else goes with
# the guest. No exit status leaves the guest.
export PATH="$DMS_BUILT:/usr/sbin:/usr/bin:/sbin:/bin" LC_ALL=C HOME=/root

mount -t proc proc /proc
mount -t sysfs sys /sys
for dir in /run /mnt /tmp /dev/shm /var/tmp /var/log; do
    mkdir -p "$dir"
    mount -t tmpfs tmpfs "$dir"
done
mkdir -p /run/lock /run/zfs

# --- the kernel's parts: it looks for modules where the host has none

mkdir -p /mnt/modules/lib/modules /mnt/out
ln -s "/usr/lib/uml/modules/$(uname -r)" "/mnt/modules/lib/modules/$(uname -r)"
printf '#!/bin/sh\nexec /sbin/modprobe -d /mnt/modules "$@"\n' >/run/modprobe
chmod 755 /run/modprobe
echo /run/modprobe >/proc/sys/kernel/modprobe
for module in nfsd nfsv3 nfsv4 veth fuse tun; do /run/modprobe $module; done

# --- the run

ip link set lo up
printf '127.0.0.1 localhost\n' >/mnt/hosts
mount --bind /mnt/hosts /etc/hosts
export TMPDIR=/tmp
begun=$(cut -d' ' -f1 /proc/uptime)
echo "== torture"
# shellcheck disable=SC2086 # one word an argument
torture $DMS_TORTURE 2>&1
code=$?
echo "code: $code"
echo "took: $begun $(cut -d' ' -f1 /proc/uptime)"
for history in /tmp/dms-torture-*.jsonl; do
    # Where nothing was found, there is none.
    if [ -e "$history" ] && [ -n "$DMS_KEEP" ] && mount -t hostfs none /mnt/out -o "$DMS_KEEP"; then
        cp "$history" /mnt/out
    fi
done
echo "== end"
echo o >/proc/sysrq-trigger
# It does not return; the first process must not end before that.
exec sleep 1000
