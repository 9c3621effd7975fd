//! The targets of a run: buckets, which all nodes share; pools, of which each node has its own; and one
//! that the nodes of one ledger can all reach, and only one of them may have at a time.

use serde_json::{Value, json};

use crate::Options;
use crate::node::{Node, Role};

/// What a target is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Of the S3 server, mounted by s3fs.
    Bucket,
    /// Of ZFS, imported by the node's zfs-fuse.
    Pool,
}

/// How the name of a pool begins.
const POOL: &str = "pool";

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

/// All that jobs of a node may use.
pub(crate) fn of_node(options: &Options, node: &Node) -> Vec<String> {
    // Those whose ledger is the one on the server.
    let shares = options.pools > 0 && matches!(node.role, Role::Server | Role::Act);
    let shared = shares.then(|| SHARED.to_owned());
    buckets(options).chain(pools(options, &node.name)).chain(shared).collect()
}

impl Kind {
    /// What the target with this name is.
    pub(crate) fn of(name: &str) -> Kind {
        if name.starts_with(POOL) { Kind::Pool } else { Kind::Bucket }
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
    }
}
