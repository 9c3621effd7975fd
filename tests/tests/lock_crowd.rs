//! Two hundred processes at five locks, which are killed at any moment.

use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use dms_tests::{Dice, Lab, is_long_run};

const PROCESSES: usize = 200;
const NAMES: [&str; 5] = ["v", "w", "x", "y", "z"];

/// Under its locks: writes itself down for each name, and looks whether it is alone, at the
/// beginning and at the end. One that was killed has no exe any more.
const WITNESS: &str = r#"for name; do
    who=; read -r who <"w.$name"
    [ -z "$who" ] || [ ! -e "/proc/$who/exe" ] || echo "$name: $who and $$" >>broken
    echo $$ >"w.$name"
done
sleep 0.00$0
for name; do
    who=; read -r who <"w.$name"
    [ "$who" = $$ ] || echo "$name: $$, then $who" >>broken
    : >"w.$name"
done"#;

/// One process of the crowd, and when it came.
struct Member {
    child: Child,
    since: Instant,
}

/// One to three of the names, in any order.
fn start(lab: &Lab, dice: &mut Dice) -> Member {
    let mut names = NAMES.to_vec();
    let mut wanted = Vec::new();
    for _ in 0..=dice.below(3) {
        let at = usize::try_from(dice.below(names.len() as u64)).expect("it is small");
        wanted.push(names.swap_remove(at));
    }
    let millis = (1 + dice.below(5)).to_string();
    let mut command = lab.command("dms-lock", &["-w", "120"]);
    command.args(&wanted).args(["--", "sh", "-c", WITNESS, &millis]).args(&wanted);
    command.current_dir(lab.path("crowd")).stdin(Stdio::null()).env("DMS_LOG_LEVEL", "WARNING");
    Member { child: command.spawn().expect("it was built"), since: Instant::now() }
}

/// What became of the crowd.
#[derive(Default, Debug)]
struct Tally {
    done: u64,
    killed: u64,
    /// In time: from start to end, the wait for processors included.
    longest: Duration,
}

impl Tally {
    /// Takes notes of one that has ended.
    #[track_caller]
    fn note(&mut self, member: &Member, end: std::process::ExitStatus) {
        match end.signal() {
            Some(_) => self.killed += 1,
            None => {
                assert!(end.success(), "one waited in vain: {end}");
                self.done += 1;
                self.longest = self.longest.max(member.since.elapsed());
            }
        }
    }
}

#[test]
fn a_crowd_under_fire_never_shares_a_lock_and_leaves_none_behind() {
    let lab = Lab::new();
    fs::create_dir(lab.path("crowd")).expect("room for it");
    for name in NAMES {
        fs::write(lab.path("crowd").join(format!("w.{name}")), "").expect("room for it");
    }
    let mut dice = Dice::new(6);
    let mut tally = Tally::default();
    let mut crowd: Vec<Member> = (0..PROCESSES).map(|_| start(&lab, &mut dice)).collect();
    let end = Instant::now() + Duration::from_secs(if is_long_run() { 60 } else { 10 });
    while Instant::now() < end {
        for member in &mut crowd {
            if let Some(end) = member.child.try_wait().expect("it is ours") {
                tally.note(member, end);
                *member = start(&lab, &mut dice);
            }
        }
        let at = usize::try_from(dice.below(PROCESSES as u64)).expect("it is small");
        // Whoever it is: one who waits, one who holds, one who is just starting.
        crowd[at].child.kill().expect("it is ours");
        std::thread::sleep(Duration::from_millis(5));
    }
    for member in &mut crowd {
        let end = member.child.wait().expect("it is ours");
        tally.note(member, end);
    }
    let Tally { done, killed, longest } = tally;
    let text = format!("{PROCESSES} processes: {done} held, {killed} killed, longest {longest:?}");
    let _ = writeln!(std::io::stderr().lock(), "{text}");
    let broken = fs::read_to_string(lab.path("crowd/broken")).unwrap_or_default();
    assert_eq!(broken, "", "two had a lock at once");
    assert!(done > 200 && killed > 100, "{text}");
    assert!(longest < Duration::from_secs(60), "{text}");
    let all = [&["-n"], &NAMES[..], &["--", "true"]].concat();
    lab.feed("dms-lock", &all, "").expect(0);
    assert_eq!(lab.feed("dms-lock", &["--list", "--json"], "").expect(0).stdout, "");
}
