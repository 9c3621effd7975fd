#!/bin/sh
# nfs.sh: the first process of a guest that has an NFS client and an NFS server.
#
# Its root is the host's, to read. It goes through all that can happen to an NFS target, with the
# tools in $DMS_BIN, and prints what came of it: `== NAME` begins a scenario, a line that begins
# with a brace is an answer, and `WORD: TEXT` says what was seen. It judges nothing: nfs_guest.rs
# does. No exit status leaves the guest. $DMS_PART says which half of it this guest goes through.
export PATH="$DMS_BIN:$DMS_PIPELINES:/usr/sbin:/usr/bin:/sbin:/bin" LC_ALL=C

mount -t proc proc /proc
mount -t sysfs sys /sys
for dir in /run /mnt /var/lib/nfs; do mount -t tmpfs tmpfs $dir; done

# --- the kernel's parts: it looks for modules where the host has none

mkdir -p /mnt/modules/lib/modules
ln -s "/usr/lib/uml/modules/$(uname -r)" "/mnt/modules/lib/modules/$(uname -r)"
printf '#!/bin/sh\nexec /sbin/modprobe -d /mnt/modules "$@"\n' >/run/modprobe
chmod 755 /run/modprobe
echo /run/modprobe >/proc/sys/kernel/modprobe
for module in nfsd nfsv3 nfsv4; do /run/modprobe $module; done

# --- the server: one export below its root, one that maps root, one for somebody else

ip link set lo up
ip address add 10.0.0.9/32 dev lo
printf '127.0.0.1 localhost\n10.0.0.9 h nas\n' >/mnt/hosts
mount --bind /mnt/hosts /etc/hosts
mkdir -p /run/rpcbind /run/lock /var/lib/nfs/sm /var/lib/nfs/sm.bak /var/lib/nfs/v4recovery
touch /var/lib/nfs/etab /var/lib/nfs/rmtab /var/lib/nfs/state
mkdir /mnt/root /mnt/squash /mnt/others /mnt/stale
for dir in root squash others stale; do mount -t tmpfs tmpfs /mnt/$dir; done
mkdir /mnt/root/export /mnt/root/e /mnt/squash/closed /mnt/stale/e
chown 1000 /mnt/squash/closed
chmod 0700 /mnt/squash/closed
mount -t nfsd nfsd /proc/fs/nfsd
echo 10 >/proc/fs/nfsd/nfsv4gracetime
rpcbind -w
exportfs -o rw,insecure,no_subtree_check,no_root_squash,fsid=0 '*:/mnt/root'
exportfs -o rw,insecure,no_subtree_check,root_squash,fsid=1 '*:/mnt/squash'
exportfs -o rw,insecure,no_subtree_check,no_root_squash,fsid=2 '192.0.2.1:/mnt/others'
exportfs -o rw,insecure,no_subtree_check,no_root_squash,fsid=3 '*:/mnt/stale'
rpc.nfsd 2
rpc.mountd

# --- the node

export DMS_NODE_ID=guest DMS_STATE_DIR=/mnt/state DMS_LOCK_DIR=/mnt/lock DMS_RUN_DIR=/run/dms
export DMS_MOUNT_BASE=/mnt/base TMPDIR=/mnt
mkdir /mnt/base
dms-ledger init

begin() { echo "== $1"; }

# said WORD COMMAND...: each line of its output, behind the word.
said() {
    word=$1
    shift
    "$@" 2>&1 | sed "s/^/$word: /"
}

seconds() { cut -d' ' -f1 /proc/uptime; }

# request ACTION JOB TARGET EXPORT OPTIONS
request() {
    printf '{"action":"%s","jobid":%s,"host":"guest","backup_target":{"id":"%s","type":"nfs",' \
        "$1" "$2" "$3"
    printf '"status":"available","filesystem_export":"%s","nfs_mount_opts":"%s"}}\n' "$4" "$5"
}

# ask ...: through the whole pipeline; how long it took, too.
ask() {
    from=$(seconds)
    request "$@" | dms-pipeline 2>/mnt/log
    echo "took: $(seconds) $from" | awk '{ printf "took: %.1f\n", $2 - $3 }'
    sed 's/^/log: /' /mnt/log
}

# The list, without its last line.
list() { dms-mount list | grep '"path"'; }

# kernel TARGET: what the kernel has there: options, type, source, options of the super block.
kernel() {
    # shellcheck disable=SC2016 # these are awk's
    said kernel awk -v at="/mnt/base/$1" '$5 == at { for (i = 7; $i != "-"; i++) {}
        print $6, $(i + 1), $(i + 2), $(i + 3) }' /proc/self/mountinfo
}

# --- with a server that works

works() {
    begin v3
    v3='rw,hard,vers=3'
    ask mount 1 t3 10.0.0.9:/mnt/root/export "$v3"
    kernel t3
    echo whole >/mnt/base/t3/backup
    said server cat /mnt/root/export/backup
    ask mount 2 t3 10.0.0.9:/mnt/root/export/ "$v3"
    list
    ask unmount 1 t3 10.0.0.9:/mnt/root/export "$v3"
    kernel t3
    ask unmount 2 t3 10.0.0.9:/mnt/root/export "$v3"
    kernel t3
    said left ls /mnt/base /run/dms/mounts
    said statd pgrep -l rpc.statd

    begin not_exported
    ask mount 3 no 10.0.0.9:/mnt/nothing vers=3
    kernel no
    said left ls /mnt/base /run/dms/mounts

    begin denied
    ask mount 3 no 10.0.0.9:/mnt/others vers=3
    kernel no

    begin squash
    ask mount 4 sq 10.0.0.9:/mnt/squash/closed vers=3,nolock
    said look ls /mnt/base/sq
    ask mount 5 sq 10.0.0.9:/mnt/squash/closed vers=3,nolock
    said clean dms-mount clean
    kernel sq
    ask unmount 4 sq 10.0.0.9:/mnt/squash/closed ''
    ask unmount 5 sq 10.0.0.9:/mnt/squash/closed ''

    begin stale
    ask mount 6 st 10.0.0.9:/mnt/stale/e vers=3,nolock,noac
    mv /mnt/stale/e /mnt/stale/old
    rm -r /mnt/stale/old
    mkdir /mnt/stale/e
    said look ls /mnt/base/st
    ask mount 7 st 10.0.0.9:/mnt/stale/e vers=3,nolock,noac
    echo anew >/mnt/base/st/x
    said server cat /mnt/stale/e/x
    ask unmount 6 st 10.0.0.9:/mnt/stale/e ''
    ask unmount 7 st 10.0.0.9:/mnt/stale/e ''

    begin stale_once
    ask mount 8 so 10.0.0.9:/mnt/stale/e vers=3,nolock,noac
    exportfs -u '*:/mnt/stale'
    said look ls /mnt/base/so
    request mount 9 so 10.0.0.9:/mnt/stale/e vers=3,nolock,noac >/mnt/line
    dms-mount </mnt/line >/mnt/answer 2>/dev/null &
    node=$!
    # Between the first look at it and the second, a second later, the server has it again: dms-mount
    # stands still from the moment that its child, who looks, waits for another question.
    child='' asleep=0
    for _ in $(seq 500); do
        sleep 0.02
        # There is no end of the line.
        read -r child </proc/$node/task/$node/children || [ -n "$child" ] || continue
        while read -r key state _; do [ "$key" != State: ] || break; done <"/proc/${child% }/status"
        case $state in S) asleep=$((asleep + 1)) ;; *) asleep=0 ;; esac
        [ $asleep -lt 5 ] || break
    done
    kill -STOP $node
    said asleep echo $asleep
    exportfs -o rw,insecure,no_subtree_check,no_root_squash,fsid=3 '*:/mnt/stale'
    kill -CONT $node
    wait $node
    cat /mnt/answer
    ask unmount 8 so 10.0.0.9:/mnt/stale/e ''

    begin stale_clean
    # The server keeps what was written for a while, and its directory with it.
    mv /mnt/stale/e /mnt/stale/written
    mkdir /mnt/stale/e
    ask mount 8 sc 10.0.0.9:/mnt/stale/e vers=3,nolock,noac
    rmdir /mnt/stale/e
    mkdir /mnt/stale/e
    said clean dms-mount clean
    kernel sc
    ask unmount 8 sc 10.0.0.9:/mnt/stale/e ''

    begin v4
    v4='rw,sync,hard,intr,nfsvers=4,timeo=600,retrans=2'
    ask mount 1 t4 nas:/export "$v4"
    kernel t4
    dd if=/dev/zero of=/mnt/base/t4/big bs=1M count=8 conv=fsync 2>/dev/null
    said server stat -c %s /mnt/root/export/big
    said ps dms-mount ps
    said clean dms-mount clean
    said kill dms-mount kill t4
    said check dms-mount check
    ask mount 2 t4 nas:/e "$v4"
    ask mount 2 t4 nas:/export ro,vers=4.2
    kernel t4

    begin reconcile
    umount /mnt/base/t4
    kernel t4
    dms-mount list | dms-ledger reconcile 2>/dev/null | dms-pipeline 2>/dev/null
    kernel t4
    said again sh -c 'dms-mount list | dms-ledger reconcile'

    begin lost_record
    rm -r /run/dms
    list
    ask mount 3 t4 nas:/export "$v4"
    said record sed 's/$/\n/' /run/dms/mounts/t4
    rm -r /run/dms
    for job in 1 2; do ask unmount $job t4 nas:/export ''; done
    ask unmount 3 t4 nas:/export ''
    kernel t4

    begin foreign
    mkdir /mnt/base/f
    mount -t nfs -o vers=3,nolock nas:/mnt/root/e /mnt/base/f
    ask mount 1 f nas:/mnt/root/export vers=3,nolock
    printf '{"action":"unmount","backup_target":{"id":"f"}}\n' | dms-mount 2>/dev/null
    kernel f
    umount /mnt/base/f

    # What the Python server was asked, and how it answered; straight at the node, as it was.
    begin original
    export DMS_MOUNT_BASE=/mnt/srv/dms/mnt
    mkdir -p /mnt/srv/dms/mnt/w-pre
    mount -t nfs4 10.0.0.9:/export /mnt/srv/dms/mnt/w-pre
    DMS_NODE_ID=bl-wire dms-mount <"$DMS_EXCHANGES" 2>/dev/null
    export DMS_MOUNT_BASE=/mnt/base
    said left grep -c /mnt/srv/dms /proc/self/mountinfo

}

# --- with one that goes away

goes() {
    begin server_gone
    ask mount 1 idle nas:/mnt/root/export vers=3,nolock,hard
    ask mount 2 used nas:/mnt/root/e vers=3,nolock,hard
    ask mount 3 soft nas:/mnt/root/e vers=3,nolock,soft,timeo=5,retrans=1,nosharecache
    sh -c 'cd /mnt/base/used && exec sleep 1000' &
    user=$!
    until [ "$(readlink /proc/$user/cwd)" = /mnt/base/used ]; do :; done
    rpc.nfsd 0

    begin hung_list
    from=$(seconds)
    list
    echo "took: $(seconds) $from" | awk '{ printf "took: %.1f\n", $2 - $3 }'

    begin hung_mount
    export DMS_REQUEST_TIMEOUT=3
    ask mount 4 idle nas:/mnt/root/export vers=3,nolock,hard
    kernel idle

    export DMS_REQUEST_TIMEOUT=30
    begin soft_mount
    ask mount 4 soft nas:/mnt/root/e vers=3,nolock,soft,timeo=5,retrans=1,nosharecache
    export DMS_REQUEST_TIMEOUT=3

    begin hung_new
    ask mount 5 late nas:/mnt/root/export vers=3,nolock,hard
    kernel late
    said left ls /run/dms/mounts
    said process pgrep -a mount

    begin hung_idle
    export DMS_REQUEST_TIMEOUT=8
    ask unmount 1 idle nas:/mnt/root/export ''
    kernel idle

    begin hung_used
    ask unmount 2 used nas:/mnt/root/e ''
    kernel used

    begin hung_neighbour
    export DMS_REQUEST_TIMEOUT=30
    rpc.nfsd 2
    ask mount 1 idle nas:/mnt/root/export vers=3,nolock,hard
    ask mount 2 used nas:/mnt/root/e vers=3,nolock,hard
    rpc.nfsd 0
    (
        if echo late >/mnt/base/used/late; then echo job: 0; else echo job: 1; fi >/mnt/job
    ) &
    writer=$!
    # It stands still in the kernel when it has asked the server.
    for _ in $(seq 100); do
        ! grep -q '^State:.D' "/proc/$writer/status" || break
        sleep 0.1
    done
    said waits grep -c '^State:.D' "/proc/$writer/status"
    export DMS_REQUEST_TIMEOUT=8
    ask unmount 1 idle nas:/mnt/root/export ''
    kernel idle
    export DMS_REQUEST_TIMEOUT=30
    rpc.nfsd 2
    wait $writer
    cat /mnt/job
    said server cat /mnt/root/e/late
    ask unmount 2 used nas:/mnt/root/e ''
    rpc.nfsd 0
    export DMS_REQUEST_TIMEOUT=8

    begin hung_soft
    ask unmount 3 soft nas:/mnt/root/e ''
    kernel soft

    begin back
    kill $user
    rpc.nfsd 2
    kernel late
    ask mount 6 late nas:/mnt/root/export vers=3,nolock,hard
    kernel late
    ask unmount 6 late nas:/mnt/root/export ''

}

# --- what a mount and an unmount take, beside mount(8) and umount(8) by hand

# turns COUNT: so many pairs through one pipeline, and by hand, from when to when.
turns() {
    options=rw,hard,vers=3
    for _ in $(seq "$1"); do
        request mount 1 speed 10.0.0.9:/mnt/root/export $options
        request unmount 1 speed 10.0.0.9:/mnt/root/export $options
    done >/mnt/pairs
    from=$(seconds)
    done=$(dms-pipeline </mnt/pairs 2>/mnt/log | grep -c '"status":"success"')
    echo "pipeline: $1 $done $from $(seconds)"
    from=$(seconds)
    for _ in $(seq "$1"); do
        mount -t nfs -o nosuid,nodev,$options 10.0.0.9:/mnt/root/export /mnt/by-hand
        umount /mnt/by-hand
    done
    echo "hand: $1 $from $(seconds)"
}

speed() {
    begin speed
    mkdir /mnt/by-hand
    for _ in 1 2 3; do
        turns 1
        turns 16
    done
}

case $DMS_PART in
    speed) speed ;;
    works) works ;;
    goes) goes ;;
esac
begin end
seconds
echo o >/proc/sysrq-trigger
# It does not return; the first process must not end before that.
exec sleep 1000
