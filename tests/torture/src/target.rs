//! The targets of a run: buckets and exports, which all nodes share; pools, of which each node has its own;
//! and one that the nodes of one ledger can all reach, and only one of them may have at a time.

use serde_json::{Value, json};

use crate::Options;
use crate::exports;
use crate::node::{Node, Role};

/// What a target is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Of the S3 server, mounted by s3fs.
    Bucket,
    /// Of ZFS, imported by the node's zfs-fuse.
    Pool,
    /// Of the NFS server, mounted by the kernel.
    Export,
}

/// How the name of a pool begins, and that of an export.
const POOL: &str = "pool";
const EXPORT: &str = "export";

/// The pool that several nodes can reach.
pub(crate) const SHARED: &str = "pool-shared";

/// The dataset of a pool, and where it is mounted below the target's mount point.
pub(crate) const DATASET: &str = "data";

/// The names of the buckets.
pub(crate) fn buckets(options: &Options) -> impl Iterator<Item = String> + use<> {
    (0..options.targets).map(|number| format!("target-{number}"))
}

/// The names of a node's own pools.
pub(crate) fn pools(options: &Options, node: &str) -> impl Iterator<Item = String> + use<> {
    let node = node.to_owned();
    (0..options.pools).map(move |number| format!("{POOL}-{number}-{node}"))
}

/// The names of the exports.
pub(crate) fn exports(options: &Options) -> impl Iterator<Item = String> + use<> {
    (0..options.exports).map(|number| format!("{EXPORT}-{number}"))
}

/// Whether a node can reach the shared pool: those can whose ledger is the one on the server.
pub(crate) fn shares(options: &Options, role: Role) -> bool {
    options.pools > 0 && matches!(role, Role::Server | Role::Act)
}

/// All that jobs of a node may use.
pub(crate) fn of_node(options: &Options, node: &Node) -> Vec<String> {
    let shared = shares(options, node.role).then(|| SHARED.to_owned());
    let pools = pools(options, &node.name).chain(shared);
    buckets(options).chain(pools).chain(exports(options)).collect()
}

impl Kind {
    /// What the target with this name is.
    pub(crate) fn of(name: &str) -> Kind {
        match name {
            _ if name.starts_with(POOL) => Kind::Pool,
            _ if name.starts_with(EXPORT) => Kind::Export,
            _ => Kind::Bucket,
        }
    }
}

/// The target of a request.
pub(crate) fn describe(node: &Node, name: &str) -> Value {
    let path = node.mount_point(name);
    match Kind::of(name) {
        Kind::Bucket => json!({"id": name, "type": "s3", "status": "available",
            "secret_ref": format!("file://{}", node.secret(name).display()),
            "filesystem_export_mount_path": path}),
        Kind::Pool => json!({"id": name, "type": "zfs", "status": "available",
            "filesystem_export": name, "filesystem_export_mount_path": path,
            "zfs_import_opts": format!("device_dir={}", node.devices(name).display())}),
        Kind::Export => json!({"id": name, "type": "nfs", "status": "available",
            "filesystem_export": node.export(name), "nfs_mount_opts": exports::mount_options(name),
            "filesystem_export_mount_path": path}),
    }
}
