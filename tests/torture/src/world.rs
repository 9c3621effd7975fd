//! All that takes part in a run: the hub, the nodes, and where the controllers are.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use dms_tests::{bin_dir, run};
use serde_json::json;

use crate::ask::{Question, Told};
use crate::clock::now;
use crate::faults::Fault;
use crate::history::History;
use crate::hub::{self, Hub};
use crate::node::{FAKETIME, Node, Role};
use crate::{Options, faults, node, target};

/// The nodes that mount, and the one where the controllers are.
const ROLES: [(&str, Role); 3] =
    [("node-file", Role::File), ("node-server", Role::Server), ("node-act", Role::Act)];

/// How many requests that went well are kept, to be sent again.
const KEPT: usize = 60;

/// All of it.
pub(crate) struct World {
    pub(crate) hub: Hub,
    pub(crate) nodes: Vec<Node>,
    pub(crate) controller: Node,
    /// No new jobs, no new faults.
    is_over: AtomicBool,
    stalls: Mutex<Stalls>,
    done: Mutex<VecDeque<Done>>,
    reviving: Mutex<()>,
}

/// For how long something has been kept from going on, on purpose.
#[derive(Default)]
struct Stalls {
    active: u32,
    since: f64,
    total: f64,
}

/// A request that went well.
#[derive(Clone)]
pub(crate) struct Done {
    pub(crate) question: Question,
    pub(crate) boot: u32,
    /// It has unmounted the target.
    pub(crate) has_unmounted: bool,
}

impl World {
    /// Starts everything; listeners are started by whoever keeps them.
    pub(crate) fn start(options: Options, root: &Path, history: History) -> io::Result<World> {
        let hub = Hub::start(options, root, history)?;
        look_for_tools(&hub.options);
        let controller = Node::start(&hub, root, 9, "controller", Role::Controller)?;
        for dir in ["plans", "words"] {
            fs::create_dir(controller.path(dir))?;
        }
        let start = |(number, (name, role)): (u8, (&str, Role))| {
            let node = Node::start(&hub, root, number, name, role)?;
            write_secrets(&hub, &node)?;
            for pool in target::pools(&hub.options, name) {
                node.make_pool(&pool)?;
            }
            Ok(node)
        };
        let nodes: io::Result<Vec<Node>> = (1..).zip(ROLES).map(start).collect();
        let world = World {
            nodes: nodes?,
            hub,
            controller,
            is_over: AtomicBool::new(false),
            stalls: Mutex::default(),
            done: Mutex::default(),
            reviving: Mutex::default(),
        };
        run(&mut world.controller.command("dms-ledger", &["init"]), b"").expect(0);
        let shares = |node: &&Node| target::shares(&world.hub.options, node.role);
        if let Some(node) = world.nodes.iter().find(shares) {
            node.make_pool(target::SHARED)?;
        }
        world.introduce();
        Ok(world)
    }

    /// The first line of the history.
    fn introduce(&self) {
        let describe = |node: &Node| json!({"name": node.name, "ledger": node.role.word()});
        let options = &self.hub.options;
        let nodes: Vec<_> = self.nodes.iter().map(describe).collect();
        self.hub.history.note(
            "run",
            json!({"seed": options.seed, "seconds": options.seconds, "workers": options.workers,
                "targets": options.targets, "pools": options.pools, "exports": options.exports, "timeout": options.timeout,
                "faults": options.words(), "nodes": nodes, "binaries": bin_dir()}),
        );
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    pub(crate) fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    /// Does nothing for so many seconds, or until the end.
    pub(crate) fn rest(&self, seconds: f64) {
        let end = now() + seconds;
        while now() < end && !self.is_over() {
            thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// From now on, until the result is dropped, somebody cannot go on.
    pub(crate) fn stall(&self) -> Stall<'_> {
        let mut stalls = self.stalls();
        if stalls.active == 0 {
            stalls.since = now();
        }
        stalls.active += 1;
        Stall(self)
    }

    /// For how many seconds so far somebody could not go on.
    pub(crate) fn stalled(&self) -> f64 {
        let stalls = self.stalls();
        stalls.total + if stalls.active > 0 { now() - stalls.since } else { 0.0 }
    }

    fn stalls(&self) -> MutexGuard<'_, Stalls> {
        self.stalls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// zfs-fuse, which stands for a part of a node's kernel, hangs now and then by itself, and with it all
    /// who have asked it for anything: it takes a new boot, as with a kernel that hangs.
    pub(crate) fn revive(&self, node: &Node, boot: u32) {
        let _turn = self.reviving.lock().unwrap_or_else(PoisonError::into_inner);
        if node.boot_number() == boot {
            self.hub.history.note("hung", json!({"node": node.name, "boot": boot}));
            faults::cut_power(self, node);
        }
    }

    /// This request was answered with success.
    pub(crate) fn went_well(&self, question: &Question, told: &Told) {
        let boot = self.nodes[question.node].boot_number();
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        let (question, has_unmounted) = (question.clone(), told.has_unmounted);
        done.push_back(Done { question, boot, has_unmounted });
        if done.len() > KEPT {
            done.pop_front();
        }
    }

    /// The last ones.
    pub(crate) fn done(&self) -> Vec<Done> {
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        done.iter().cloned().collect()
    }
}

/// See [`World::stall`].
pub(crate) struct Stall<'a>(&'a World);

impl Drop for Stall<'_> {
    fn drop(&mut self) {
        let mut stalls = self.0.stalls();
        stalls.active -= 1;
        if stalls.active == 0 {
            stalls.total += now() - stalls.since;
        }
    }
}

/// What faults are made with: a run without one of them would say that it has tried what it has not.
fn look_for_tools(options: &Options) {
    let mut script = format!("test -e {FAKETIME}; strace -V >/dev/null");
    // Not each kernel can do it: where it cannot, a run has to be told to go without.
    if options.chosen().contains(&Fault::Cut) {
        script += "; nft add table inet trial; \
                   nft 'add chain inet trial out { type filter hook output priority 0; }'; \
                   nft add rule inet trial out tcp dport 1 drop; nft delete table inet trial";
    }
    run(Command::new("sh").args(["-ec", &script]), b"").expect(0);
}

/// A bucket for each target, one key pair for all.
fn write_secrets(hub: &Hub, node: &Node) -> io::Result<()> {
    for target in target::buckets(&hub.options) {
        let secret = json!({
            "access_key": hub::ACCESS_KEY, "secret_key": hub::SECRET_KEY, "bucket": target,
            "region": "us-east-1",
            "endpoint_url": format!("http://{}:{}", hub::ADDRESS, hub::STORAGE_PORT),
        });
        let path = node.secret(&target);
        fs::write(&path, secret.to_string())?;
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    }
    Ok(())
}

/// Words that must be seen nowhere but where they belong.
pub(crate) fn secrets() -> [&'static str; 3] {
    [hub::ACCESS_KEY, hub::SECRET_KEY, node::TOKEN]
}
