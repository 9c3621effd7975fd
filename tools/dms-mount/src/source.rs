//! What a target is mounted from: read from the request, and checked before anything is touched.

use dms_wire::{Invalid, Request, Target, TargetType};

use crate::nfs::{Export, Options};
use crate::record::Record;

/// What is to be mounted.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// The bucket that this secret is of.
    S3 {
        secret_ref: String,
    },
    Nfs {
        export: Export,
        options: Options,
    },
}

impl Source {
    /// What the request wants mounted.
    pub(crate) fn of(target: &Target) -> Result<Source, Invalid> {
        match target.check_mountable()? {
            (TargetType::S3, secret_ref) => Ok(Source::S3 { secret_ref: secret_ref.to_owned() }),
            (TargetType::Nfs, export) => Ok(Source::Nfs {
                export: Export::parse(export)?,
                options: Options::parse(target.nfs_mount_opts.as_deref().unwrap_or_default())?,
            }),
            (TargetType::Zfs, _) => Err(Invalid::new("a pool is imported, not mounted")),
        }
    }

    /// The type of such a target.
    pub(crate) fn kind(&self) -> TargetType {
        match self {
            Source::S3 { .. } => TargetType::S3,
            Source::Nfs { .. } => TargetType::Nfs,
        }
    }

    /// Whether that is what is mounted, by this record, by the same secret.
    pub(crate) fn is_bucket_of(&self, record: &Record) -> bool {
        self.kind() == TargetType::S3
            && self.kind() == record.kind
            && self.as_str() == record.source
    }

    /// As the request has it: never a secret.
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Source::S3 { secret_ref } => secret_ref,
            Source::Nfs { export, .. } => export.as_str(),
        }
    }
}

/// The export or pool that a request names, or its plan.
pub(crate) fn source_of(request: &Request) -> Option<&str> {
    let planned = request.plan.as_ref().and_then(|plan| plan.source.as_deref());
    request.target.export.as_deref().or(planned)
}

/// The export that a request is about, also one to unmount it: the request's own, or the plan's.
/// One that is no export tells nothing, and there it is not needed.
pub(crate) fn export_of(request: &Request) -> Option<Export> {
    let kind = request.target.kind.or(request.plan.as_ref().and_then(|plan| plan.kind));
    source_of(request)
        .filter(|_| kind == Some(TargetType::Nfs))
        .and_then(|text| Export::parse(text).ok())
}
