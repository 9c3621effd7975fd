#!/bin/bash
# boot.sh NAME: this host's own root, as it is, under an overlay in memory, booted by systemd as
# process 1 into dms-test.target; and again, when it reboots. In a mount namespace of its own.
set -eu
name=$1
files=/run/machine

mount -t tmpfs run /run
umount -R -l /sys/fs/cgroup 2>/dev/null || :
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p "/sys/fs/cgroup/$name" $files/upper $files/work $files/root
echo $$ >"/sys/fs/cgroup/$name/cgroup.procs"
mount -t overlay machine -o lowerdir=/,upperdir=$files/upper,workdir=$files/work $files/root

cat >$files/root/etc/systemd/system/dms-test.target <<END
[Unit]
Requires=basic.target
After=basic.target
AllowIsolate=yes
END
# The host's own names and settings are not the machine's.
rm -rf $files/root/etc/trilio-dms $files/root/var/lib/trilio-dms
rm -f $files/root/usr/sbin/policy-rc.d

export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
while :; do
    status=0
    systemd-nspawn -q -D $files/root -b -M "$name" --register=no --keep-unit --console=pipe \
        --bind=/dev/fuse --link-journal=no systemd.unit=dms-test.target "dms-machine=$name" \
        </dev/null || status=$?
    # It wants to be started again.
    [ "$status" = 133 ] || exit "$status"
done
