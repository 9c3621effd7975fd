//! A request line from flags, for people and scripts: the same flags in every tool that takes them.
//!
//! It reads no environment and sends nothing anywhere.

use clap::Args;
use dms_cli::{Failure, Settings, refuse};
use dms_wire::{Action, Request, write_json};
use serde_json::{Map, Value, json};

/// The fields of a request.
#[derive(Args)]
pub struct RequestArgs {
    /// The job that wants, or leaves, the target
    #[arg(long, value_name = "N")]
    job_id: String,

    /// The backup target
    #[arg(long, value_name = "ID")]
    target_id: String,

    /// s3, nfs or zfs; an unmount may leave it out
    #[arg(long, value_name = "TYPE")]
    target_type: Option<String>,

    /// The node [default: $DMS_NODE_ID, else this host's name]
    #[arg(long, value_name = "NODE")]
    host: Option<String>,

    /// S3: where the secret is
    #[arg(long, value_name = "URL")]
    secret_ref: Option<String>,

    /// NFS: the export; ZFS: the pool
    #[arg(long, value_name = "EXPORT")]
    filesystem_export: Option<String>,

    /// NFS: options for mount(8)
    #[arg(long, value_name = "OPTIONS")]
    nfs_mount_opts: Option<String>,

    /// ZFS: how to import the pool: ro, device_dir=PATH
    #[arg(long, value_name = "OPTIONS")]
    zfs_import_opts: Option<String>,

    /// Where to mount it [default: ID below $DMS_MOUNT_BASE]
    #[arg(long, value_name = "PATH")]
    mount_path: Option<String>,

    /// An id that makes a repeat of the same request recognisable
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,

    /// Refused: any user of the host can read command lines; set $KEYSTONE_TOKEN instead
    #[arg(long, value_name = "TOKEN", hide = true)]
    token: Option<String>,
}

impl RequestArgs {
    /// The request line, and the same as the next stage will see it.
    ///
    /// # Errors
    /// What is wrong with the flags.
    pub fn compose(
        &self,
        action: Action,
        settings: &Settings,
        token: Option<String>,
    ) -> Result<(Vec<u8>, Request), Failure> {
        if self.token.is_some() {
            return Err(refuse(
                "--token is refused: any user of this host can read command lines; set \
                 KEYSTONE_TOKEN in the environment instead",
            ));
        }
        let mut fields = Map::new();
        if let Some(token) = token.filter(|token| !token.is_empty()) {
            fields.insert("keystone_token".into(), token.into());
        }
        if let Some(id) = &self.request_id {
            fields.insert("request_id".into(), id.as_str().into());
        }
        // A number where it is one: other servers take no string. What it is else, parse says.
        let job = self.job_id.parse::<i32>().map_or_else(|_| json!(self.job_id), |job| json!(job));
        fields.insert("job".into(), json!({"jobid": job}));
        let host = self.host.as_deref().unwrap_or(&settings.node_id);
        fields.insert("host".into(), host.into());
        fields.insert("action".into(), action.word().into());
        fields.insert("backup_target".into(), self.target());
        let mut line = Vec::new();
        write_json(&mut line, &fields)
            .map_err(|why| Failure::temporary(format!("unable to write the request: {why}")))?;
        line.pop();
        let request = Request::parse(&line).map_err(|why| refuse(&why.0))?;
        if action == Action::Mount {
            request.target.check_mountable().map_err(|why| refuse(&why.0))?;
        }
        Ok((line, request))
    }

    fn target(&self) -> Value {
        let mut target = Map::new();
        target.insert("id".into(), self.target_id.as_str().into());
        for (name, value) in [
            ("type", &self.target_type),
            ("secret_ref", &self.secret_ref),
            ("filesystem_export", &self.filesystem_export),
            ("nfs_mount_opts", &self.nfs_mount_opts),
            ("zfs_import_opts", &self.zfs_import_opts),
            ("filesystem_export_mount_path", &self.mount_path),
        ] {
            if let Some(value) = value {
                target.insert(name.into(), value.as_str().into());
            }
        }
        Value::Object(target)
    }
}
