//! What the ledger is told of the wait for locks: with the request how long it was, or instead of
//! the request that it was in vain.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::line::MAX_REQUEST;
use crate::{ErrorCode, Request, Response};

/// The field of a request that says how long its locks were waited for, in milliseconds.
pub(crate) const FIELD: &str = "lock_wait_ms";

/// The request line with the time that its locks were waited for; as it is if that is none.
pub(crate) fn with_lock_wait(line: &[u8], waited: Duration) -> Cow<'_, [u8]> {
    let field = format!(",\"{FIELD}\":{}}}", waited.as_millis());
    // Of two fields of one name the last one counts.
    match line.iter().rposition(|&byte| byte == b'}') {
        Some(end) if waited.as_millis() > 0 && end + field.len() <= MAX_REQUEST => {
            [&line[..end], field.as_bytes()].concat().into()
        }
        _ => line.into(),
    }
}

/// What stands on the line of a request that got no locks: the answer that its caller was given, with
/// what the journal may keep of the request. It is an error like any other, so no stage does anything
/// but pass it on, and `dms-ledger plan` notes it.
#[derive(Clone)]
pub struct LockTimeout {
    /// The answer.
    pub answer: Response,
    /// What is left of the request: no token.
    pub request: Request,
    /// How long was waited.
    pub waited: Duration,
}

impl LockTimeout {
    /// The line for this request. `None`: it is one that no ledger would take.
    pub fn notice(line: &[u8], answer: &Response, waited: Duration) -> Option<Vec<u8>> {
        let request = Request::parse(line).ok()?.journal_data();
        let mut fields = serde_json::to_value(answer).ok()?;
        fields["request"] = request;
        fields[FIELD] = json!(u64::try_from(waited.as_millis()).ok()?);
        serde_json::to_vec(&fields).ok()
    }

    /// Reads such a line; any other is none.
    pub fn parse(line: &[u8]) -> Option<LockTimeout> {
        let mut fields: Map<String, Value> = serde_json::from_slice(line).ok()?;
        let request = serde_json::to_vec(&fields.remove("request")?).ok()?;
        let waited = Duration::from_millis(fields.remove(FIELD)?.as_u64()?);
        let answer = serde_json::to_vec(&fields).ok()?;
        let answer =
            Response::is_error_line(&answer).then(|| Response::parse(&answer).ok()).flatten()?;
        let is_one = answer.error_code == Some(ErrorCode::LockTimeout) && answer.plan.is_none();
        let request = Request::parse(&request).ok().filter(|_| is_one)?;
        Some(LockTimeout { answer, request, waited })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &[u8] = br#"{"keystone_token":"tok","job":{"jobid":7},"host":"n1","action":"mount",
        "backup_target":{"id":"t1","type":"s3","secret_ref":"file:///s"}}"#;

    #[test]
    fn the_wait_is_in_the_request_and_what_a_caller_says_of_it_is_not() {
        let line = [&LINE[..LINE.len() - 1], br#","lock_wait_ms":1} "#].concat();
        let line = with_lock_wait(&line, Duration::from_micros(1_234_567)).into_owned();
        let request = Request::parse(&line).expect("it is still one");
        assert_eq!(request.lock_wait, Duration::from_millis(1234));
        assert_eq!(&*with_lock_wait(LINE, Duration::from_micros(900)), LINE);
    }

    #[test]
    fn a_request_that_is_full_stays_as_it_is() {
        let mut line = LINE.to_vec();
        line.splice(
            1..1,
            b"\"x\":\""
                .iter()
                .copied()
                .chain(vec![b'x'; MAX_REQUEST - LINE.len() - 7])
                .chain(*b"\","),
        );
        assert_eq!(line.len(), MAX_REQUEST);
        assert!(Request::parse(&line).is_ok());
        assert_eq!(&*with_lock_wait(&line, Duration::from_secs(1)), line);
    }

    #[test]
    fn a_notice_has_the_answer_and_the_request_without_its_token() {
        let answer = Response::error(ErrorCode::LockTimeout, "timeout: t1");
        let waited = Duration::from_millis(80);
        let notice = LockTimeout::notice(LINE, &answer, waited).expect("a request");
        assert!(!String::from_utf8_lossy(&notice).contains("tok"));
        // Nobody takes it for a request, or for an answer to be passed on as it is.
        assert!(Request::parse(&notice).is_err() && !Response::is_error_line(&notice));
        let read = LockTimeout::parse(&notice).expect("a notice");
        assert_eq!((read.answer, read.waited, read.request.job), (answer, waited, Some(7)));
        for other in [LINE, br#"{"status":"error","error_code":"lock_timeout"}"#] {
            assert!(LockTimeout::parse(other).is_none());
        }
        let busy = Response::error(ErrorCode::Busy, "x");
        let other = LockTimeout::notice(LINE, &busy, waited).expect("a request");
        assert!(LockTimeout::parse(&other).is_none());
    }
}
