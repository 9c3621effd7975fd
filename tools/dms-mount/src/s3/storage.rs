//! Which bucket of which server a mount is of: as recorded, or as the mount and its daemon say.

use dms_wire::ErrorCode;

use super::bucket_of;
use super::launch::fetch;
use crate::act::{Act, cannot_look};
use crate::failed::Failed;
use crate::mountinfo::Mount;
use crate::record::Record;
use crate::scan;
use crate::secrets::Credentials;

/// What a mount without a record tells of itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    bucket: Option<String>,
    /// Empty: the program's own default.
    endpoint: Option<String>,
}

impl Known {
    /// As the mount says itself, or as its daemon was told: by us, or by the Python server.
    pub(crate) fn of(act: &Act<'_>, found: &Mount) -> Result<Known, Failed> {
        let marked = bucket_of(found).map(str::to_owned);
        let Some(daemon) = act.daemon()? else {
            return Ok(Known { bucket: marked, endpoint: None });
        };
        let told = |name: &str, theirs: &str| {
            let mut words = act.node.s3.profile.words_before(name);
            words.push(theirs.to_owned());
            scan::value(daemon.pid, &words).map_err(|why| cannot_look(&why))
        };
        let endpoint = told("endpoint", "vault_s3_endpoint_url=")?;
        let bucket = match marked {
            Some(bucket) => Some(bucket),
            None => told("bucket", "vault_s3_bucket=")?,
        };
        Ok(Known { bucket, endpoint })
    }

    /// Whether that is the bucket of these credentials, as far as is known; of a bucket that is not
    /// known it is not.
    fn is_of(&self, wanted: &Credentials) -> bool {
        let endpoint = wanted.endpoint.as_deref().unwrap_or_default();
        self.bucket.as_deref() == Some(wanted.bucket.as_str())
            && self.endpoint.as_ref().is_none_or(|known| known == endpoint)
    }

    /// In the words of [`Credentials::storage`], if all of it is known.
    pub(crate) fn storage(&self) -> Option<String> {
        let (bucket, endpoint) = (self.bucket.as_ref()?, self.endpoint.as_ref()?);
        let endpoint = if endpoint.is_empty() { "default" } else { endpoint };
        Some(format!("{endpoint}/{bucket}"))
    }
}

/// Another secret may open the same bucket, but a job must not write into another one. Says what
/// bucket it is, if that is known.
pub(crate) fn refuse_other_storage(
    act: &Act<'_>,
    found: &Mount,
    source: &str,
    record: Option<&Record>,
) -> Result<Option<String>, Failed> {
    let record = record.filter(|record| record.vouches_for(found));
    let recorded = record.and_then(|record| record.storage.clone());
    if record.is_some_and(|record| record.source == source) {
        return Ok(recorded);
    }
    let wanted = fetch(act, source)?;
    let (is_same, storage) = match recorded {
        Some(storage) => (storage == wanted.storage(), Some(storage)),
        None => {
            let known = Known::of(act, found)?;
            (known.is_of(&wanted), known.storage())
        }
    };
    if !is_same {
        let text = format!(
            "Mount failed: target {} is mounted from {}, and {source} is of another bucket",
            act.target, found.source
        );
        return Err(Failed::new(ErrorCode::Mount, text));
    }
    log::warn!("target {} is mounted already, by another secret than {source}", act.target);
    Ok(storage)
}

#[cfg(test)]
mod tests {
    use dms_wire::Secret;

    use super::*;
    use crate::secrets::Secrets;

    #[test]
    fn a_bucket_of_the_same_name_at_another_server_is_another_bucket() {
        let payload = r#"{"access_key":"AK","secret_key":"SK","bucket":"b",
            "endpoint_url":"http://127.0.0.1:9000"}"#;
        let wanted = Secrets::kept(&Secret::new(payload)).expect("complete");
        let known = |bucket: Option<&str>, endpoint: Option<&str>| Known {
            bucket: bucket.map(str::to_owned),
            endpoint: endpoint.map(str::to_owned),
        };
        let same = known(Some("b"), Some("http://127.0.0.1:9000"));
        assert!(same.is_of(&wanted));
        assert_eq!(same.storage(), Some(wanted.storage()));
        assert!(known(Some("b"), None).is_of(&wanted), "all that is known agrees");
        for other in [
            known(None, None),
            known(Some("c"), Some("http://127.0.0.1:9000")),
            known(Some("b"), Some("http://127.0.0.1:9001")),
            known(Some("b"), Some("")),
        ] {
            assert!(!other.is_of(&wanted), "{other:?}");
        }
        assert_eq!(known(Some("b"), Some("")).storage().as_deref(), Some("default/b"));
        assert_eq!(known(Some("b"), None).storage(), None);
    }
}
