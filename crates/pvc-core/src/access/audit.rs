//! What was done through the API, by whom.
//!
//! A change and the note that somebody ordered it are one transaction: the note of each request is a znode of its own,
//! so that it collides with nothing. Once the request is answered, the note and its result go to the end of a ring of
//! pages, each with some dozens of entries; the oldest page goes when a new one comes.

use serde::{Deserialize, Serialize};

use super::Role;
use crate::records::Record;

/// Entries of a page. A page is written anew with each entry, so it must stay small.
pub const PAGE_ENTRIES: usize = 64;

/// Pages that are kept: some ten thousand entries, and at most a few megabytes.
pub const PAGES: u64 = 160;

/// The longest text of a request that is kept, in characters.
const TEXT: usize = 256;

/// The longest text of its parameters.
const PARAMETERS: usize = 512;

/// Who asked for what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRequest {
    /// The request's identity, as in the reply and in the daemon's log.
    pub request_id: String,
    /// When it came, in seconds since 1970 by the clock of `node`.
    pub at: u64,
    /// The node whose daemon it came to.
    pub node: String,
    /// Who sent it, in words.
    pub who: String,
    /// What he may do; none for one who was not let in.
    #[serde(default)]
    pub role: Option<Role>,
    /// The address it came from.
    pub from: String,
    /// What was asked for: the operation's id in the description of the API.
    pub operation: String,
    /// By which method.
    pub method: String,
    /// On what: the path.
    pub target: String,
    /// With which parameters, without secrets.
    #[serde(default)]
    pub parameters: String,
}

impl Record for AuditRequest {}

impl AuditRequest {
    /// The same with long texts cut, so that it fits into a transaction beside the change.
    #[must_use]
    pub fn bounded(mut self) -> AuditRequest {
        for text in [&mut self.target, &mut self.who, &mut self.from] {
            *text = cut(text, TEXT);
        }
        self.parameters = cut(&self.parameters, PARAMETERS);
        self
    }
}

/// An entry of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Who asked for what.
    #[serde(flatten)]
    pub request: AuditRequest,
    /// How it was answered: the status code. None if the daemon ended before it could say.
    #[serde(default)]
    pub status: Option<u16>,
    /// What the answer said, if the request failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

impl AuditEntry {
    /// The entry of a request that was answered so. Long texts are cut.
    pub fn answered(request: AuditRequest, status: Option<u16>, message: &str) -> AuditEntry {
        AuditEntry {
            request: request.bounded(),
            status,
            message: cut(message, TEXT),
        }
    }
}

fn cut(text: &str, most: usize) -> String {
    let mut short: String = text.chars().take(most).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// Some entries of the log, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AuditPage {
    /// The entries.
    pub entries: Vec<AuditEntry>,
}

impl Record for AuditPage {}

impl AuditPage {
    /// Whether no more should be added.
    pub fn is_full(&self) -> bool {
        self.entries.len() >= PAGE_ENTRIES
    }
}

/// Which entries somebody wants to see.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Those of whom this is a part of the name.
    pub who: Option<String>,
    /// Those whose operation, target or parameters this is a part of.
    pub what: Option<String>,
    /// Those of this request.
    pub request_id: Option<String>,
    /// Those from then on, in seconds since 1970.
    pub since: Option<u64>,
    /// Those before then, in seconds since 1970.
    pub until: Option<u64>,
    /// Only failures, or only what succeeded.
    pub failed: Option<bool>,
}

impl AuditFilter {
    /// Whether it wants that entry.
    pub fn wants(&self, entry: &AuditEntry) -> bool {
        let request = &entry.request;
        let part = |wanted: &Option<String>, texts: &[&str]| match wanted {
            None => true,
            Some(wanted) => {
                let wanted = wanted.to_lowercase();
                texts.iter().any(|text| text.to_lowercase().contains(&wanted))
            }
        };
        part(&self.who, &[&request.who])
            && part(
                &self.what,
                &[&request.operation, &request.target, &request.parameters],
            )
            && self
                .request_id
                .as_ref()
                .is_none_or(|wanted| *wanted == request.request_id)
            && self.since.is_none_or(|since| request.at >= since)
            && self.until.is_none_or(|until| request.at < until)
            && self
                .failed
                .is_none_or(|failed| failed == entry.status.is_none_or(|status| status >= 400))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(who: &str, status: Option<u16>) -> AuditEntry {
        let request = AuditRequest {
            request_id: "abc".to_owned(),
            at: 100,
            node: "hv1".to_owned(),
            who: who.to_owned(),
            role: Some(Role::Operator),
            from: "192.0.2.7".to_owned(),
            operation: "set_vm_state".to_owned(),
            method: "POST".to_owned(),
            target: "/api/v1/vm/web1/state".to_owned(),
            parameters: "state=stop".to_owned(),
        };
        AuditEntry::answered(request, status, "")
    }

    #[test]
    fn filters_want_what_fits_all_of_them() {
        let entry = entry("user \"ann\"", Some(200));
        let all = AuditFilter::default();
        assert!(all.wants(&entry));
        let check = |change: &dyn Fn(&mut AuditFilter), expected: bool| {
            let mut filter = AuditFilter::default();
            change(&mut filter);
            assert_eq!(filter.wants(&entry), expected, "{filter:?}");
        };
        check(&|f| f.who = Some("ANN".to_owned()), true);
        check(&|f| f.who = Some("bob".to_owned()), false);
        check(&|f| f.what = Some("web1".to_owned()), true);
        check(&|f| f.what = Some("set_vm".to_owned()), true);
        check(&|f| f.what = Some("=stop".to_owned()), true);
        check(&|f| f.what = Some("web2".to_owned()), false);
        check(&|f| f.request_id = Some("abc".to_owned()), true);
        check(&|f| f.request_id = Some("ab".to_owned()), false);
        check(&|f| f.since = Some(100), true);
        check(&|f| f.since = Some(101), false);
        check(&|f| f.until = Some(100), false);
        check(&|f| f.until = Some(101), true);
        check(&|f| f.failed = Some(true), false);
        check(&|f| f.failed = Some(false), true);
    }

    #[test]
    fn a_request_without_an_answer_counts_as_failed() {
        let failed = AuditFilter {
            failed: Some(true),
            ..AuditFilter::default()
        };
        assert!(failed.wants(&entry("ann", None)));
        assert!(failed.wants(&entry("ann", Some(409))));
        assert!(!failed.wants(&entry("ann", Some(202))));
    }

    // Anybody chooses paths; a page must still fit into a znode.
    #[test]
    fn entries_are_bounded() {
        let mut long = entry(&"a".repeat(5_000), Some(200)).request;
        long.target = "ü".repeat(100_000);
        long.parameters = "ü".repeat(100_000);
        let long = AuditEntry::answered(long, Some(404), &"m".repeat(100_000));
        let page = AuditPage {
            entries: vec![long; PAGE_ENTRIES],
        };
        assert!(page.is_full());
        let bytes = page.encode();
        assert!(bytes.len() < 300_000, "{}", bytes.len());
        assert_eq!(AuditPage::decode(&bytes).unwrap(), page);
    }
}
