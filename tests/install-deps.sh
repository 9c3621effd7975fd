#!/bin/sh
# install-deps.sh: what the build, the checks and the demo need of a Debian or Ubuntu machine.
#
# Installs what is missing, and nothing else: where all is there it needs neither root nor the
# network and is done at once. It starts no daemon. Exit status: 0 all is there, 100 something is
# missing that it cannot install, otherwise apt-get's or pip's.
set -eu

POLICY=/usr/sbin/policy-rc.d

fatal() {
    printf 'install-deps: fatal: %s\n' "$*" >&2
    exit 100
}

# need PACKAGE WHAT: notes the package if the command or file is not there.
missing=
need() {
    case $2 in
        /*) [ -e "$2" ] ;;
        *) command -v "$2" >/dev/null ;;
    esac || missing="$missing $1"
}

# dpkg asks this program before it starts a daemon; 101 is no.
forbid_daemons() {
    if [ -e "$POLICY" ] || [ -L "$POLICY" ]; then
        # One that is saved already is the true one: an earlier run was killed.
        [ -e "$POLICY.saved" ] || mv "$POLICY" "$POLICY.saved"
    fi
    printf '#!/bin/sh\nexit 101\n' >"$POLICY"
    chmod 755 "$POLICY"
}

restore_policy() {
    rm -f "$POLICY"
    if [ -e "$POLICY.saved" ] || [ -L "$POLICY.saved" ]; then
        mv "$POLICY.saved" "$POLICY"
    fi
}

# Its words go to stderr: stdout belongs to whoever reads results.
install() {
    export DEBIAN_FRONTEND=noninteractive
    # Two runs at once would save each other's policy.
    exec 9>/run/dms-install-deps.lock
    flock 9
    trap restore_policy EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    forbid_daemons
    apt-get -q update >&2
    apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends "$@" >&2
    restore_policy
    trap - EXIT INT TERM HUP
    exec 9>&-
}

# Keystone and Barbican, as openstack-requirements.txt pins them: a Python environment, made once for
# all clones of this user.
make_openstack() {
    requirements=$(dirname "$0")/openstack-requirements.txt
    sum=$(cksum <"$requirements")
    dir=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/dms-tests/openstack-${sum%% *}
    [ ! -e "$dir/complete" ] || return 0
    mkdir -p "${dir%/*}"
    exec 9>"$dir.lock"
    flock 9
    if [ ! -e "$dir/complete" ]; then
        # One that is not complete was killed.
        rm -rf "$dir"
        /usr/bin/python3 -m venv "$dir" >&2
        "$dir/bin/pip" install -q --no-deps -r "$requirements" >&2
        touch "$dir/complete"
    fi
    exec 9>&-
}

fuse_is_usable() {
    [ -c /dev/fuse ] && (: <>/dev/fuse) 2>/dev/null
}

need gcc cc # it links, and compiles the SQLite that is built in
need libc6-dev /usr/include/stdio.h
need make make
need s3fs s3fs
need fuse3 fusermount3
need mount umount
need util-linux setsid
need nfs-common mount.nfs
need nfs-kernel-server exportfs # a test's guest has a server
need user-mode-linux linux.uml # the guest: a kernel with an NFS client, whatever the host's has
need kmod modprobe # the guest's modules
need iproute2 ip # the guest's address
need nftables nft # a test's nodes, cut off
need libfaketime /usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1 # and with a wrong clock
need systemd-container systemd-nspawn # a test's machine, with systemd as its process 1
need systemd systemd-run
need zfs-fuse /sbin/zfs-fuse # real pools, on files
need dpkg-dev dpkg-shlibdeps # the packages
need binutils strip
need procps pgrep
need bsdutils script # the tests type on a terminal, and look into the ledger
need sqlite3 sqlite3
need mandoc mandoc
need shellcheck shellcheck
need rabbitmq-server /usr/lib/rabbitmq/bin/rabbitmq-server # each test runs its own, as root
need erlang-base epmd # and each of those has an epmd of its own
need mariadb-server-core /usr/share/mysql/mysql_system_tables.sql # each test runs its own
need mariadb-client-core mariadb # the tests look into it
need galera-4 /usr/lib/galera/libgalera_smm.so # and has two servers be one
need rsync rsync # which one gets its data by from the other
need strace strace # a test ends the tools at each of their calls
need openssl openssl # the tests' certificates
need libssl-dev /usr/include/openssl/ssl.h # native-tls links it, and finds it by pkg-config
need pkg-config pkg-config
need python3 /usr/bin/python3 # Keystone and Barbican
need python3-yaml /usr/lib/python3/dist-packages/yaml/__init__.py # packaging/lint
/usr/bin/python3 -c 'import ensurepip' 2>/dev/null || missing="$missing python3-venv"

if [ -n "$missing" ]; then
    [ "$(id -u)" -eq 0 ] || fatal "missing, and only root can install them:$missing"
    command -v apt-get >/dev/null \
        || fatal "missing, and there is no apt-get to install them:$missing"
    # shellcheck disable=SC2086 # one word a package
    install $missing
fi

if [ "$(id -u)" -eq 0 ] && ! fuse_is_usable; then
    grep -qw fuse /proc/filesystems || modprobe fuse 2>/dev/null || true
    [ -e /dev/fuse ] || mknod -m 666 /dev/fuse c 10 229 || true
    fuse_is_usable || fatal "unable to open /dev/fuse: the kernel has no FUSE, or this is a" \
        "container without it (--device /dev/fuse --cap-add SYS_ADMIN)"
fi
[ -c /dev/fuse ] || fatal "there is no /dev/fuse, and only root can make it"

# rustup's place, for shells that have not read its profile.
PATH=$PATH:${HOME:-/root}/.cargo/bin
for program in cargo cargo-fmt cargo-clippy; do
    command -v "$program" >/dev/null \
        || fatal "missing: $program; for Rust with rustfmt and clippy see" \
            "https://www.rust-lang.org/tools/install"
done

make_openstack
