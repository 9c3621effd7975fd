//! The model itself: it would be of no use if it allowed everything.

use serde_json::{Value, json};

use crate::promise::{Action, Fate, Model, Standing};
use crate::script::Pair;

const ONE: Pair = Pair { job: 1, target: 0 };
const TWO: Pair = Pair { job: 2, target: 0 };

fn mounted(physically: bool) -> Value {
    json!({"status": "success", "physically_mounted": physically, "reused_existing": !physically})
}

fn left(remaining: u64) -> Value {
    json!({"status": "success", "unmounted": remaining == 0, "active_mounts_remaining": remaining})
}

fn refused(remaining: u64) -> Value {
    json!({"status": "error", "error_code": "no_active_mount", "unmounted": false,
        "active_mounts_remaining": remaining})
}

fn late() -> Value {
    json!({"status": "error", "error_code": "stale"})
}

/// A request alone: which of the answers the model allows; then the first of them is given.
#[track_caller]
fn ask(model: &mut Model, number: usize, right: &Value, wrong: &[Value]) {
    model.begin(&[number], false);
    for wrong in wrong {
        assert!(model.check(number, wrong).is_err(), "{wrong} is allowed");
    }
    model.check(number, right).expect("it is promised");
    model.end(&[(number, Some(right.clone()))], &[]);
}

/// A request that is cut, and what the journal has of it.
fn cut(model: &mut Model, number: usize, fate: Fate) {
    model.begin(&[number], false);
    model.end(&[(number, None)], &[]);
    model.record(number, fate);
}

#[test]
fn jobs_are_counted_and_only_the_last_unmounts() {
    let mut model = Model::default();
    let first = model.ask(Action::Mount, ONE);
    ask(&mut model, first, &mounted(true), &[mounted(false), late(), refused(0)]);
    let second = model.ask(Action::Mount, TWO);
    ask(&mut model, second, &mounted(false), &[mounted(true)]);
    let leave = model.ask(Action::Unmount, ONE);
    ask(&mut model, leave, &left(1), &[left(0), left(2), refused(1)]);
    let again = model.ask(Action::Unmount, ONE);
    ask(&mut model, again, &refused(1), &[left(1), refused(0)]);
    assert!(!model.is_gone(0));
    let last = model.ask(Action::Unmount, TWO);
    ask(&mut model, last, &left(0), &[left(1)]);
    assert!(model.is_gone(0));
}

#[test]
fn requests_at_the_same_time_may_come_in_any_order_but_not_in_none() {
    let mut model = Model::default();
    let mount = model.ask(Action::Mount, ONE);
    ask(&mut model, mount, &mounted(true), &[]);
    let numbers = [model.ask(Action::Unmount, ONE), model.ask(Action::Mount, TWO)];
    model.begin(&numbers, false);
    for right in [left(0), left(1)] {
        model.check(numbers[0], &right).expect("the other one is in, or not yet");
    }
    assert!(model.check(numbers[0], &left(2)).is_err());
    assert!(model.check(numbers[0], &refused(1)).is_err());
    assert_eq!(model.holders(0), [], "it may be unmounted in between");
}

#[test]
fn a_crash_leaves_both_open_until_the_list_tells() {
    let mut model = Model::default();
    let mount = model.ask(Action::Mount, ONE);
    cut(&mut model, mount, Fate::Cut { unsettled: true });
    assert_eq!(model.standing(ONE), Standing::Unknown);
    assert!(!model.is_gone(0));
    model.see(0, &[1], &[ONE]).expect("either is right");
    assert_eq!(model.standing(ONE), Standing::Unknown, "it may be otherwise in a moment");
    model.see(0, &[], &[]).expect("either is right");
    assert_eq!(model.standing(ONE), Standing::Out);
    assert!(model.see(0, &[1], &[]).is_err(), "nobody asked for it since");
    // What is unsettled may be asked for again.
    let leave = model.ask(Action::Unmount, ONE);
    ask(&mut model, leave, &left(0), &[refused(0)]);
    let again = model.ask(Action::Unmount, ONE);
    ask(&mut model, again, &refused(0), &[left(0)]);
}

#[test]
fn a_repeat_is_answered_from_the_record_or_is_late() {
    let mut model = Model::default();
    let mount = model.ask(Action::Mount, ONE);
    ask(&mut model, mount, &mounted(true), &[]);
    ask(&mut model, mount, &mounted(false), &[mounted(true), late()]);
    let leave = model.ask(Action::Unmount, ONE);
    ask(&mut model, leave, &left(0), &[]);
    ask(&mut model, mount, &late(), &[mounted(true), mounted(false)]);
    let other = model.ask(Action::Mount, TWO);
    ask(&mut model, other, &mounted(true), &[]);
    ask(&mut model, leave, &left(0), &[left(1), refused(1)]);
}

#[test]
fn a_late_unmount_is_not_carried_out_although_the_mount_since_was_cut_when_it_came_again() {
    let mut model = Model::default();
    let mount = model.ask(Action::Mount, ONE);
    ask(&mut model, mount, &mounted(true), &[]);
    let leave = model.ask(Action::Unmount, ONE);
    cut(&mut model, leave, Fate::Cut { unsettled: true });
    model.see(0, &[], &[]).expect("either is right");
    let since = model.ask(Action::Mount, ONE);
    ask(&mut model, since, &mounted(false), &[late()]);
    cut(&mut model, since, Fate::Recorded(None));
    model.see(0, &[1], &[]).expect("either is right");
    ask(&mut model, leave, &late(), &[left(0), refused(0)]);
}
