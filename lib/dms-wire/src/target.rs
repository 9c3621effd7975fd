//! The target of a request: what is to be mounted, and where.

use serde_json::{Map, Value};

use crate::fields::{filled, missing, name, optional, quote, string};
use crate::{Access, Invalid, MountPath, TargetId, TargetType};

/// The `backup_target` of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its id.
    pub id: TargetId,
    /// Its type; an unmount may leave it out.
    pub kind: Option<TargetType>,
    /// Where to mount it; absent: `<mount base>/<id>`.
    pub path: Option<MountPath>,
    /// S3: where its secret is.
    pub secret_ref: Option<String>,
    /// NFS: the export. ZFS: the pool.
    pub export: Option<String>,
    /// NFS: options for mount(8).
    pub nfs_mount_opts: Option<String>,
    /// ZFS: how to import the pool.
    pub zfs_import_opts: Option<String>,
    /// Deleted, or not available: may be unmounted, not mounted.
    retired: bool,
}

impl Target {
    /// As a request has it.
    pub(crate) fn read(fields: &Map<String, Value>) -> Result<Self, Invalid> {
        const IN: &str = "backup_target.";
        let fields = optional(fields, "", "backup_target", Value::as_object, "an object")?
            .ok_or_else(|| missing("backup_target"))?;
        let kind = match string(fields, IN, "type")? {
            None => None,
            Some(word) => Some(
                TargetType::from_word(&word)
                    .ok_or_else(|| Invalid(format!("Unsupported target type: {}", quote(&word))))?,
            ),
        };
        let deleted = optional(fields, IN, "deleted", Value::as_bool, "true or false")?;
        let status = string(fields, IN, "status")?;
        Ok(Target {
            id: name(fields, IN, "id")?.ok_or_else(|| missing("backup_target.id"))?,
            kind,
            path: name(fields, IN, "filesystem_export_mount_path")?,
            secret_ref: filled(fields, "secret_ref")?,
            export: filled(fields, "filesystem_export")?,
            nfs_mount_opts: string(fields, IN, "nfs_mount_opts")?,
            zfs_import_opts: string(fields, IN, "zfs_import_opts")?,
            retired: deleted == Some(true) || status.is_some_and(|status| status != "available"),
        })
    }

    /// What is to be mounted: the secret's reference, the export or the pool.
    pub fn source(&self) -> Option<&str> {
        match self.kind {
            Some(TargetType::S3) => self.secret_ref.as_deref(),
            Some(TargetType::Nfs | TargetType::Zfs) => self.export.as_deref(),
            None => None,
        }
    }

    /// ZFS: what the job wants to do with the pool.
    pub fn access(&self) -> Option<Access> {
        let options = self.zfs_import_opts.as_deref().unwrap_or_default();
        (self.kind == Some(TargetType::Zfs)).then(|| Access::of_options(options))
    }

    /// Checks what every mount needs: a type, a source, and a target in use.
    ///
    /// # Errors
    /// Names the field that is missing or forbids it.
    pub fn check_mountable(&self) -> Result<(TargetType, &str), Invalid> {
        let kind = self.kind.ok_or_else(|| missing("backup_target.type"))?;
        let source = self.source().ok_or_else(|| {
            missing(match kind {
                TargetType::S3 => "backup_target.secret_ref",
                TargetType::Nfs | TargetType::Zfs => "backup_target.filesystem_export",
            })
        })?;
        if self.retired {
            return Err(Invalid(format!("backup target {} is deleted or not available", self.id)));
        }
        Ok((kind, source))
    }
}
