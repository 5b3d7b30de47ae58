//! Conditional requests (RFC 9110, 13).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::request::Request;

/// What the conditions of a request come to.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Answer it; the Range field counts when `ranges` is true.
    Go { ranges: bool },
    /// 304: the client has it.
    NotModified,
    /// 412: it is not what the client takes it for.
    Failed,
}

/// Judges `request` for a file with the entity tag `etag` (with its quotes), changed at `modified`, in the order of RFC 9110, 13.2.2.
pub fn judge(request: &Request, etag: &str, modified: SystemTime) -> Verdict {
    let modified = whole_seconds(modified);
    let unmatched = match (&request.if_match, request.if_unmodified_since) {
        (Some(list), _) => !contains(list, etag, Comparison::Strong),
        (None, Some(date)) => modified > date,
        (None, None) => false,
    };
    if unmatched {
        return Verdict::Failed;
    }
    let known = match (&request.if_none_match, request.if_modified_since) {
        (Some(list), _) => contains(list, etag, Comparison::Weak),
        (None, Some(date)) => modified <= date,
        (None, None) => false,
    };
    if known {
        return Verdict::NotModified;
    }
    let ranges = match request.if_range.as_deref() {
        None => true,
        Some(tag) if tag.starts_with('"') => tag == etag,
        Some(date) => httpdate::parse_http_date(date).is_ok_and(|date| date == modified),
    };
    Verdict::Go { ranges }
}

/// Times in HTTP have no fractions.
fn whole_seconds(time: SystemTime) -> SystemTime {
    time.duration_since(UNIX_EPOCH).map_or(UNIX_EPOCH, |since| UNIX_EPOCH + Duration::from_secs(since.as_secs()))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

fn contains(list: &str, etag: &str, comparison: Comparison) -> bool {
    list.split(',').map(str::trim).any(|tag| {
        let tag = if comparison == Comparison::Weak { tag.strip_prefix("W/").unwrap_or(tag) } else { tag };
        tag == "*" || tag == etag
    })
}
