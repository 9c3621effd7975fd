//! The pools of a node: each on a file in its directory, which outlives a boot, and served by the
//! zfs-fuse of the boot.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

use dms_tests::eventually;
use serde_json::json;

use super::Node;
use crate::hub::Hub;
use crate::target::{DATASET, SHARED};

/// What the file of a pool holds, in bytes; it takes what is written only.
const SIZE: u64 = 256 << 20;

impl Node {
    /// Makes a pool, and exports it.
    pub(crate) fn make_pool(&self, pool: &str) -> io::Result<()> {
        let dir = self.devices(pool);
        fs::create_dir_all(&dir)?;
        let file = dir.join(pool);
        File::create(&file)?.set_len(SIZE)?;
        let (file, altroot) = (file.display(), self.path("run/made").display().to_string());
        let create = format!("zpool create -f -m /{DATASET} -R {altroot} {pool} {file}");
        let destroy = format!("zpool destroy -f {pool}; false");
        // zfs-fuse answers before it can mount.
        eventually("the pool is made", || {
            self.shell(&format!("{create} || {{ {destroy}; }}")).code == 0
        });
        eventually("the new pool is exported", || {
            self.shell(&format!("zpool export {pool}"));
            self.imported().is_empty()
        });
        Ok(())
    }

    /// The pools that are imported.
    pub(crate) fn imported(&self) -> Vec<String> {
        let list = self.shell("timeout 20 zpool list -H -o name");
        if list.code != 0 {
            return vec![format!("unable to list the pools: {list}")];
        }
        list.stdout.lines().map(str::to_owned).collect()
    }

    /// Imports a pool that nobody has imported, to see what is in it.
    pub(crate) fn open_pool(&self, hub: &Hub, pool: &str) {
        let (devices, altroot) = (self.devices(pool), self.path("run/opened").join(pool));
        let (devices, altroot) = (devices.display(), altroot.display());
        // Who had it last may have lost its power.
        let force = if pool == SHARED { "-f" } else { "" };
        let import =
            format!("zpool import {force} -o cachefile=none -d {devices} -R {altroot} {pool}");
        let said = self.shell(&import);
        let fields =
            json!({"node": self.name, "pool": pool, "code": said.code, "words": said.stderr});
        hub.history.note("opened", fields);
    }

    /// Where what is in a pool is seen then.
    pub(crate) fn opened(&self, pool: &str) -> PathBuf {
        self.inside("opened").join(pool).join(DATASET)
    }
}
