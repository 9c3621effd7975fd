//! What an S3 program says about an error, for the error's text.

/// What the daemon said about an error, in one line of bearable length.
pub(crate) fn last_words(log: &str) -> String {
    let mut words: Vec<&str> = Vec::new();
    for line in log.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let said = match line.split_once("[CRT] ").or_else(|| line.split_once("[ERR] ")) {
            // `file.cpp:function(123): what it says`
            Some((_, said)) => said.split_once("): ").map_or(said, |(_, said)| said),
            None if line.contains("[INF] ") => continue,
            None => line,
        };
        let noise = ["change debug level", "Exiting FUSE event loop", "### giving up"];
        if !noise.iter().any(|noise| said.contains(noise)) && !words.contains(&said) {
            words.push(said);
        }
    }
    let tail = words.split_off(words.len().saturating_sub(4));
    let text = tail.join("; ");
    let from = text.char_indices().rev().nth(700).map_or(0, |(at, _)| at);
    text[from..].to_owned()
}

/// Whether it was the credentials that the storage did not like.
pub(crate) fn blames_credentials(words: &str) -> bool {
    const SIGNS: [&str; 7] = [
        "invalid credentials",
        "response code 403",
        "SignatureDoesNotMatch",
        "InvalidAccessKeyId",
        "NotSignedUp",
        "AccessDenied",
        "security credentials",
    ];
    SIGNS.iter().any(|sign| words.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_are_the_errors_without_their_decoration() {
        let log = "2026 [INF] s3fs version\n2026 [CRT] s3fs_logger.cpp:L(1): change debug level x\n\
            2026 [ERR] curl.cpp:R(2): HTTP response code 403, returning EPERM\n\
            2026 [CRT] s3fs.cpp:c(3): invalid credentials(host=h) - result\n\
            2026 [ERR] s3fs.cpp:s3fs_exit_fuseloop(3372): Exiting FUSE event loop due to errors\n";
        let words = last_words(log);
        assert_eq!(
            words,
            "HTTP response code 403, returning EPERM; invalid credentials(host=h) - result"
        );
        assert!(blames_credentials(&words) && !blames_credentials("bucket or key not found"));
        assert!(last_words(&"ü".repeat(3000)).chars().count() <= 701);
        assert_eq!(last_words(""), "");
    }
}
