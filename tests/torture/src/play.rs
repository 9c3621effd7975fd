//! A run, from its start to its end.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use dms_tests::eventually;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use crate::clock::now;
use crate::history::{self, Event, History};
use crate::node::Node;
use crate::world::World;
use crate::{Options, faults, job, settle, watch};

/// The directory of a run, which goes with it.
pub(crate) struct Place {
    root: PathBuf,
}

impl Place {
    pub(crate) fn make() -> io::Result<Place> {
        let root = std::env::temp_dir().join(format!("dms-torture-{}", std::process::id()));
        fs::create_dir_all(&root)?;
        Ok(Place { root: fs::canonicalize(root)? })
    }

    /// Where the words of those who asked are.
    pub(crate) fn words(&self) -> PathBuf {
        self.root.join("controller/words")
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What has lost its mount by a kill is still sealed.
        let _ = Command::new("chattr").args(["-R", "-f", "-i", "--"]).arg(&self.root).output();
        let _ =
            Command::new("rm").args(["-rf", "--one-file-system", "--"]).arg(&self.root).status();
    }
}

/// Does all of it; returns what happened.
pub(crate) fn play(options: Options, place: &Place, file: &Path) -> io::Result<Vec<Event>> {
    let workers = options.workers;
    let seconds = options.seconds;
    let is_interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        flag::register(signal, Arc::clone(&is_interrupted))?;
    }
    let world = World::start(options, place.root(), History::create(file)?)?;
    let is_watched = AtomicBool::new(true);
    thread::scope(|scope| {
        let (world, is_watched, is_interrupted) = (&world, &is_watched, &is_interrupted);
        let _ending = Ending { world, is_watched };
        for node in &world.nodes {
            scope.spawn(move || node.keep_listening(&world.hub));
            let is_over = || !is_watched.load(Ordering::SeqCst);
            scope.spawn(move || watch::watch(world, node, &is_over));
        }
        for node in &world.nodes {
            wait_for_listener(node);
            settle::weigh(world, node, "start");
        }
        thread::scope(|scope| {
            for worker in 1..=workers {
                scope.spawn(move || job::work(world, worker));
            }
            scope.spawn(move || {
                let end = now() + seconds;
                while now() < end && !is_interrupted.load(Ordering::SeqCst) {
                    world.rest(0.1);
                }
                world.end();
            });
            faults::inject(scope, world);
        });
        settle::settle(world);
    });
    history::read(file)
}

/// However a run ends, those who go on as long as it does are told.
struct Ending<'a> {
    world: &'a World,
    is_watched: &'a AtomicBool,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.world.end();
        self.is_watched.store(false, Ordering::SeqCst);
        for node in &self.world.nodes {
            node.end();
        }
    }
}

fn wait_for_listener(node: &Node) {
    eventually("the listener serves its queue", || {
        let log = fs::read_to_string(node.path("logs/listener")).unwrap_or_default();
        log.contains("serving")
    });
}
