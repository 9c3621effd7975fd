//! Who carries an operation out, and whether they still can.

use std::path::{Path, PathBuf};

use dms_cli::{Context, Failure, Settings, boot_id, node_name};
use dms_flock::life;

/// A run of a pipeline: this host, this boot of it, and the life lock that all its stages hold.
#[derive(Debug, Clone)]
pub(crate) struct Owner {
    pub(crate) host: String,
    pub(crate) boot: String,
    /// `None` where no dms-lock started us: then only the lease says when we are gone.
    pub(crate) life: Option<String>,
    /// Where the life locks of this host are.
    pub(crate) lives: PathBuf,
    /// Whether we are about to begin a request in a run that has one at a time: then the one
    /// before is over.
    pub(crate) one_at_a_time: bool,
}

/// What can be told of somebody who keeps a job's use of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sight {
    Alive,
    Ended,
    /// It is on another host, or holds its life lock where we do not look.
    Unseen,
}

impl Owner {
    /// Ourselves.
    pub(crate) fn ourselves(settings: &Settings) -> Result<Self, Failure> {
        let boot = boot_id().context("unable to read", "/proc/sys/kernel/random/boot_id")?;
        let life = std::env::var(life::VARIABLE).ok().filter(|path| Path::new(path).is_absolute());
        let lives = settings.lock_dir.join("life");
        Ok(Owner { host: node_name(), boot, life, lives, one_at_a_time: false })
    }

    /// Ourselves, as the stage that begins the requests of its run.
    pub(crate) fn beginning_requests(self) -> Self {
        Owner { one_at_a_time: life::is_one_at_a_time(), ..self }
    }

    /// Looks for the keeper of a binding. What a requester calls a life lock is opened only if it is
    /// where ours are: to open a file may have effects.
    pub(crate) fn look_for(&self, keeper: &dms_wire::Owner) -> Sight {
        let life = Path::new(&keeper.life);
        let is_ours = life.parent() == Some(&*self.lives) && life.file_name().is_some();
        if keeper.host != self.host {
            return Sight::Unseen;
        }
        if keeper.boot != self.boot {
            return Sight::Ended;
        }
        if !is_ours {
            return Sight::Unseen;
        }
        match life::has_ended(life) {
            Ok(true) => Sight::Ended,
            Ok(false) => Sight::Alive,
            Err(why) => {
                log::warn!("unable to look at life lock {}: {why}", keeper.life);
                Sight::Unseen
            }
        }
    }

    /// Whether `attempt` can be known, by us and without a clock, to have no future: the host of
    /// its owner was booted again, its run is over or has given it up, or its run is ours and has
    /// gone on to the next request.
    pub(crate) fn knows_ended(&self, other: &Owner, attempt: &str) -> bool {
        if other.host != self.host {
            return false;
        }
        if other.boot != self.boot {
            return true;
        }
        if self.one_at_a_time && self.life.is_some() && other.life == self.life {
            return true;
        }
        match &other.life {
            Some(path) if life::has_abandoned(Path::new(path), attempt) => true,
            Some(path) => life::has_ended(Path::new(path)).unwrap_or_else(|why| {
                log::warn!("unable to look at life lock {path}: {why}");
                false
            }),
            None => false,
        }
    }
}

/// One attempt at an operation, as a run gives it up: a repeat has the same id and a later fence.
pub(crate) fn attempt(operation: &str, seq: Option<i64>) -> String {
    format!("{operation} {}", seq.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(boot: &str, life: Option<&str>) -> Owner {
        let life = life.map(str::to_owned);
        let lives = "/nonexistent/life".into();
        Owner { host: "a".into(), boot: boot.into(), life, lives, one_at_a_time: false }
    }

    #[test]
    fn an_owner_of_an_earlier_boot_has_ended_and_one_on_another_host_is_not_known() {
        let me = owner("2", None);
        let before = Owner { boot: "1".into(), ..me.clone() };
        let elsewhere = Owner { host: "b".into(), ..before.clone() };
        assert!(me.knows_ended(&before, "op"));
        assert!(!me.knows_ended(&elsewhere, "op"));
        assert!(!me.knows_ended(&me.clone(), "op"));
    }

    #[test]
    fn a_life_lock_that_is_gone_belongs_to_nobody_alive() {
        let me = owner("1", None);
        let gone = Owner { life: Some("/nonexistent/life/x".into()), ..me.clone() };
        assert!(me.knows_ended(&gone, "op"));
    }

    #[test]
    fn a_run_that_has_one_request_at_a_time_has_ended_its_last_one() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("life");
        let held = dms_flock::Lock::take(&path, dms_flock::Mode::Exclusive, dms_flock::Wait::No);
        let held = held.expect("a temporary file").expect("nobody else locks it");
        let me = owner("1", path.to_str());
        assert!(!me.knows_ended(&me, "op"));
        std::fs::write(&path, "another\nop\n").expect("it is ours");
        assert!(me.knows_ended(&me, "op") && !me.knows_ended(&me, "an"));
        std::fs::write(&path, "").expect("it is ours");
        let serial = Owner { one_at_a_time: true, ..me };
        assert!(serial.knows_ended(&serial, "op"));
        drop(held);
    }

    #[test]
    fn the_keeper_of_a_binding_is_looked_for_only_where_it_can_be_seen() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let life = life::Life::begin(dir.path(), dms_flock::Access::Owner, "x")
            .expect("a temporary directory");
        let me = Owner { lives: dir.path().join("life"), ..owner("1", None) };
        let path = life.path().display().to_string();
        let keeper = dms_wire::Owner { host: "a".into(), boot: "1".into(), life: path };
        assert_eq!(me.look_for(&keeper), Sight::Alive);
        let elsewhere = dms_wire::Owner { life: "/dev/null".into(), ..keeper.clone() };
        assert_eq!(me.look_for(&elsewhere), Sight::Unseen);
        let of_another_host = dms_wire::Owner { host: "b".into(), ..keeper.clone() };
        assert_eq!(me.look_for(&of_another_host), Sight::Unseen);
        let before = dms_wire::Owner { boot: "0".into(), ..keeper.clone() };
        assert_eq!(me.look_for(&before), Sight::Ended);
        drop(life);
        assert_eq!(me.look_for(&keeper), Sight::Ended);
    }
}
