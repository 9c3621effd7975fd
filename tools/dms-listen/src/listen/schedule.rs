//! Which request is to be begun next. Of those with one key, one at a time, in the order in which
//! they came; of those that may be begun, the one that came first.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};

/// The number of a request, in the order in which they came.
pub(crate) type Ticket = u64;

/// Requests that wait, and keys that are taken.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    ready: BTreeMap<Ticket, Option<String>>,
    /// Who waits for whom: a key is in here while a request with it is ready or running.
    taken: HashMap<String, VecDeque<Ticket>>,
    waiting: usize,
}

impl Schedule {
    /// Takes a request in.
    pub(crate) fn add(&mut self, ticket: Ticket, key: Option<String>) {
        self.waiting += 1;
        let Some(key) = key else {
            self.ready.insert(ticket, None);
            return;
        };
        match self.taken.entry(key) {
            Entry::Occupied(mut taken) => taken.get_mut().push_back(ticket),
            Entry::Vacant(free) => {
                self.ready.insert(ticket, Some(free.key().clone()));
                free.insert(VecDeque::new());
            }
        }
    }

    /// The request to begin now. Its key stays taken until it is given back.
    pub(crate) fn begin(&mut self) -> Option<(Ticket, Option<String>)> {
        let next = self.ready.pop_first();
        self.waiting -= usize::from(next.is_some());
        next
    }

    /// The request that had this key is over.
    pub(crate) fn give_back(&mut self, key: String) {
        let Some(waiting) = self.taken.get_mut(&key) else { return };
        match waiting.pop_front() {
            Some(next) => {
                self.ready.insert(next, Some(key));
            }
            None => {
                self.taken.remove(&key);
            }
        }
    }

    /// How many requests wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Whether one could be begun.
    pub(crate) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Takes out the last one of the key that most requests wait for.
    pub(crate) fn drop_from_longest(&mut self) -> Option<Ticket> {
        let longest = self.taken.values_mut().max_by_key(|waiting| waiting.len())?;
        let last = longest.pop_back();
        self.waiting -= usize::from(last.is_some());
        last
    }

    /// Takes out all that wait and that `is_wanted` picks.
    pub(crate) fn take_out(&mut self, mut is_wanted: impl FnMut(Ticket) -> bool) -> Vec<Ticket> {
        let mut out = Vec::new();
        for waiting in self.taken.values_mut() {
            waiting.retain(|&ticket| keep(ticket, &mut is_wanted, &mut out));
        }
        let ready = std::mem::take(&mut self.ready);
        for (ticket, key) in ready {
            if keep(ticket, &mut is_wanted, &mut out) {
                self.ready.insert(ticket, key);
            } else if let Some(key) = key {
                self.give_back(key);
            }
        }
        self.waiting -= out.len();
        out.sort_unstable();
        out
    }
}

fn keep(ticket: Ticket, is_wanted: &mut impl FnMut(Ticket) -> bool, out: &mut Vec<Ticket>) -> bool {
    let wanted = is_wanted(ticket);
    if wanted {
        out.push(ticket);
    }
    !wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(keys: &[&str]) -> Schedule {
        let mut schedule = Schedule::default();
        for (ticket, key) in (0..).zip(keys) {
            schedule.add(ticket, (!key.is_empty()).then(|| (*key).to_owned()));
        }
        schedule
    }

    fn begun(schedule: &mut Schedule) -> Vec<Ticket> {
        std::iter::from_fn(|| schedule.begin().map(|(ticket, _)| ticket)).collect()
    }

    #[test]
    fn one_at_a_time_with_a_key_and_any_number_without() {
        let mut schedule = schedule(&["a", "a", "b", "", "", "a"]);
        assert_eq!((begun(&mut schedule), schedule.waiting()), (vec![0, 2, 3, 4], 2));
        schedule.give_back("a".into());
        assert_eq!(begun(&mut schedule), [1]);
        schedule.give_back("b".into());
        assert_eq!(begun(&mut schedule), [0; 0]);
        schedule.give_back("a".into());
        schedule.add(6, Some("c".into()));
        assert_eq!(begun(&mut schedule), [5, 6], "not the one that came first");
        schedule.give_back("a".into());
        schedule.give_back("c".into());
        assert!(schedule.taken.is_empty() && schedule.waiting() == 0, "keys pile up");
    }

    #[test]
    fn the_last_of_the_longest_line_is_the_one_to_go() {
        let mut schedule = schedule(&["a", "b", "a", "b", "b"]);
        assert_eq!(schedule.drop_from_longest(), Some(4));
        assert_eq!(schedule.waiting(), 4);
    }

    #[test]
    fn what_is_taken_out_blocks_nobody() {
        let mut schedule = schedule(&["a", "a", "b", "a", "b"]);
        // 0 and 2 are ready; 1 and 3 wait for 0, 4 for 2.
        assert_eq!(schedule.take_out(|ticket| ticket == 0 || ticket == 3), [0, 3]);
        assert_eq!((schedule.waiting(), schedule.is_ready()), (3, true));
        assert_eq!(begun(&mut schedule), [1, 2]);
        assert_eq!(schedule.take_out(|_| true), [4]);
        schedule.give_back("a".into());
        schedule.give_back("b".into());
        assert!(schedule.taken.is_empty() && schedule.waiting() == 0, "keys pile up");
    }
}
