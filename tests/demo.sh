#!/bin/sh
# demo.sh: two jobs share one S3 backup target, told line by line, and each step checked.
#
# All of it happens in one temporary directory, with an S3 server of its own, and however it ends,
# nothing is left behind. It needs the tools, dms-pipeline and dms-test-s3 on PATH: `make demo`
# builds them and calls this.
# shellcheck disable=SC2016 # commands are shown as they are written, and expanded when they run
set -eu

fatal() {
    printf 'demo: fatal: %s\n' "$*" >&2
    exit 1
}

[ "$(id -u)" -eq 0 ] || fatal "only root can mount: run this as root"
[ -c /dev/fuse ] || fatal "there is no /dev/fuse here: s3fs cannot mount without it"
for program in dms-lock dms-ledger dms-mount dms-pipeline dms-test-s3 s3fs setsid findmnt; do
    command -v "$program" >/dev/null || fatal "$program is not on PATH: try 'make demo'"
done

say() {
    printf '\n%s\n' "$*"
}

# Jobs that may have the target; whoever is in here has to leave at the end.
jobs=
dir=

is_mounted() {
    grep -qF " $dir/mnt/" /proc/self/mountinfo
}

# The pipeline unmounts. Should it fail, mount and daemon go by force.
leave() {
    for job in $jobs; do
        dms-ledger request unmount --job-id "$job" --target-id t1 | dms-pipeline >"$dir/out"
    done
    if is_mounted; then
        timeout 5 umount "$dir/mnt/t1" || umount -l "$dir/mnt/t1"
    fi
    # The path is nobody else's: a number that was reused is not taken for the daemon.
    pid=$(cat "$dir/run/s3/t1.pid" 2>/dev/null)
    if [ -n "$pid" ] && grep -qzxF "$dir/mnt/t1" "/proc/$pid/cmdline" 2>/dev/null; then
        kill -9 "$pid"
    fi
}

clean_up() {
    status=$?
    trap '' INT QUIT TERM HUP PIPE
    trap - EXIT
    set +e
    [ -n "$dir" ] || exit "$status"
    cd /
    leave
    if [ -n "${!-}" ]; then
        kill "$!" 2>/dev/null
        wait "$!" 2>/dev/null
    fi
    if is_mounted; then
        printf 'demo: fatal: unable to unmount %s\n' "$dir/mnt/t1" >&2
        exit 1
    fi
    rm -rf --one-file-system "$dir" || exit 1
    if [ "$status" -eq 0 ]; then
        say "The server is stopped, $dir is removed: nothing is left behind."
    fi
    exit "$status"
}

trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 131' QUIT
trap 'exit 143' TERM
trap 'exit 129' HUP
# `make demo | head`
trap 'exit 141' PIPE

# Shows a command, runs it and shows its output, responses broken into lines that fit a terminal.
# It runs in a session of its own, so that Ctrl-C cuts no step in half: it is heard after it.
run() {
    printf '$ %s\n' "$1"
    code=0
    setsid -w sh -c "$1" >"$dir/out" || code=$?
    sed -E 's/,("(success_msg|mount_path|unmounted)":)/,\n \1/g' "$dir/out"
    [ "$code" -eq 0 ] || fatal "it ended with exit code $code"
}

# Checks what the last command said.
expect() {
    grep -qF -- "$1" "$dir/out" || fatal "its output lacks $1"
}

# check WHAT WANTED ACTUAL
check() {
    [ "$2" = "$3" ] || fatal "$1: $3 instead of $2"
}

mounts_of_target() {
    grep -cF " $dir/mnt/t1 " /proc/self/mountinfo || true
}

# Nobody's settings but these: the demo must not come near a real ledger.
for name in $(env | sed -n 's/^\(DMS_[A-Z_]*\)=.*/\1/p') KEYSTONE_TOKEN; do
    unset "$name"
done
umask 077
dir=$(mktemp -d /tmp/dms.XXXX)
cd "$dir"
mkdir state lock run mnt secret s3 s3/backups
export DMS_NODE_ID=n1 DMS_DB_URL="sqlite:///$dir/state/ledger.db" DMS_STATE_DIR="$dir/state"
export DMS_LOCK_DIR="$dir/lock" DMS_RUN_DIR="$dir/run" DMS_MOUNT_BASE="$dir/mnt"
export DMS_SECRET_DIR="$dir/secret" DMS_REQUEST_TIMEOUT=10 DMS_LOCK_TIMEOUT=10
export DMS_LOG_LEVEL=WARNING

# The server has a session of its own, too: it is needed until the end, by the daemon that flushes.
echo not-so-secret >secret/server
mkfifo ready
setsid dms-test-s3 --root s3 --access-key demo --secret-key-file secret/server >ready &
read -r line <ready || fatal "unable to start dms-test-s3"
url=http://${line#listening on }
cat >secret/t1.json <<END
{"access_key": "demo", "secret_key": "not-so-secret",
 "bucket": "backups", "endpoint_url": "$url", "region": "us-east-1"}
END

echo "Two jobs on node n1 share the backup target t1, a bucket on an S3 server."
echo "The server is one for tests, at $url; secret/t1.json has keys, bucket and address."
echo "The tools are told by their environment where they may work:"
run 'env | grep ^DMS_ | sort'
run 'dms-ledger init'

say '1. Job 1 wants the target. It is mounted.'
jobs=1
run 'dms-ledger request mount --job-id 1 --target-id t1 --host n1 --target-type s3 \
      --secret-ref file://$PWD/secret/t1.json | dms-pipeline'
expect '"status":"success"'
expect '"physically_mounted":true'
expect '"reused_existing":false'
run 'findmnt -o TARGET,FSTYPE,SOURCE $PWD/mnt/t1'
expect 'dms:t1/backups'

say '2. Job 2 wants it, too. It joins: nothing is mounted a second time.'
jobs='1 2'
run 'dms-ledger request mount --job-id 2 --target-id t1 --host n1 --target-type s3 \
      --secret-ref file://$PWD/secret/t1.json | dms-pipeline'
expect '"status":"success"'
expect '"physically_mounted":false'
expect '"reused_existing":true'
check 'mounts of t1' 1 "$(mounts_of_target)"
run 'dms-ledger list'
check 'jobs that use t1' 2 "$(dms-ledger list --json | grep -c '"mounted":true')"

say '3. Job 1 writes its backup and leaves. The mount stays, for job 2.'
run 'echo "written by job 1" > mnt/t1/backup.txt'
run 'dms-ledger request unmount --job-id 1 --target-id t1 --host n1 | dms-pipeline'
expect '"status":"success"'
expect '"unmounted":false'
expect '"active_mounts_remaining":1'
jobs=2
check 'mounts of t1' 1 "$(mounts_of_target)"

say '4. Job 2 still reads it, and leaves. It is the last: now the target is unmounted.'
run 'cat mnt/t1/backup.txt'
expect 'written by job 1'
run 'dms-ledger request unmount --job-id 2 --target-id t1 --host n1 | dms-pipeline'
expect '"status":"success"'
expect '"unmounted":true'
expect '"active_mounts_remaining":0'
jobs=
run 'findmnt $PWD/mnt/t1 || echo not mounted'
expect 'not mounted'
check 'mounts of t1' 0 "$(mounts_of_target)"

say '5. The backup is in the bucket, nobody uses the target, and the ledger knows who did what.'
run 'cat s3/backups/backup.txt'
check 'the object' 'written by job 1' "$(cat "$dir/out")"
run 'dms-ledger list'
check 'bindings' 0 "$(dms-ledger list --json | grep -c . || true)"
run 'dms-ledger history | cut -c -79'
check 'operations that succeeded' 4 "$(dms-ledger history --json | grep -c '"status":"success"')"
