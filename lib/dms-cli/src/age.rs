//! How long ago, as people say it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `12s`, `3m20s`, `3h12m`, `2d4h`: two units are enough for anybody.
pub fn age(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, _, _) => format!("{hours}h{minutes:02}m"),
        _ => format!("{days}d{hours:02}h"),
    }
}

/// How long ago a moment was; one that is to come, by another host's clock, is now. `None`: it is
/// none.
pub(crate) fn age_of(moment: &str) -> Option<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    Some(age(now.saturating_sub(since_1970(moment)?)))
}

/// A moment that begins `YYYY-MM-DD HH:MM:SS`, in UTC, with any one character in the middle.
pub fn since_1970(moment: &str) -> Option<Duration> {
    let number = |from, to| moment.get(from..to)?.parse::<u64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    // Years that begin in March: the odd day is at their end.
    let (year, month) =
        if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day;
    // 1970-01-01 counted in the same way, and a day of the month begins at 1.
    let seconds = days.checked_sub(719_469)? * 86_400 + hour * 3600 + minute * 60 + second;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_two_units() {
        for (seconds, text) in
            [(0, "0s"), (59, "59s"), (200, "3m20s"), (11_520, "3h12m"), (187_200, "2d04h")]
        {
            assert_eq!(age(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn a_moment_is_counted_from_1970() {
        for (moment, want) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T23:59:59Z", Some(951_868_799)),
            ("2026-11-21 17:15:08.123", Some(1_795_281_308)),
            ("yesterday", None),
        ] {
            let time = since_1970(moment).map(|time| time.as_secs());
            assert_eq!(time, want, "{moment}");
        }
    }
}
