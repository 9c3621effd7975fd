//! Who carries an operation out, and whether they still can.

use std::path::Path;

use dms_cli::{Context, Failure, boot_id, node_name};
use dms_flock::life;

/// A run of a pipeline: this host, this boot of it, and the life lock that all its stages hold.
#[derive(Debug, Clone)]
pub(crate) struct Owner {
    pub(crate) host: String,
    pub(crate) boot: String,
    /// `None` where no dms-lock started us: then only the lease says when we are gone.
    pub(crate) life: Option<String>,
}

impl Owner {
    /// Ourselves.
    pub(crate) fn ourselves() -> Result<Self, Failure> {
        let boot = boot_id().context("unable to read", "/proc/sys/kernel/random/boot_id")?;
        let life = std::env::var(life::VARIABLE).ok().filter(|path| Path::new(path).is_absolute());
        Ok(Owner { host: node_name(), boot, life })
    }

    /// Whether `other` can be known, by us and without a clock, to have ended.
    pub(crate) fn knows_ended(&self, other: &Owner) -> bool {
        if other.host != self.host {
            return false;
        }
        if other.boot != self.boot {
            return true;
        }
        match &other.life {
            Some(path) => life::has_ended(Path::new(path)).unwrap_or_else(|why| {
                log::warn!("unable to look at life lock {path}: {why}");
                false
            }),
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_of_an_earlier_boot_has_ended_and_one_on_another_host_is_not_known() {
        let me = Owner { host: "a".into(), boot: "2".into(), life: None };
        let before = Owner { boot: "1".into(), ..me.clone() };
        let elsewhere = Owner { host: "b".into(), ..before.clone() };
        assert!(me.knows_ended(&before));
        assert!(!me.knows_ended(&elsewhere));
        assert!(!me.knows_ended(&me.clone()));
    }

    #[test]
    fn a_life_lock_that_is_gone_belongs_to_nobody_alive() {
        let me = Owner { host: "a".into(), boot: "1".into(), life: None };
        let gone = Owner { life: Some("/nonexistent/life/x".into()), ..me.clone() };
        assert!(me.knows_ended(&gone));
    }
}
