//! The node's own BMC, by what its test has found last.

use pvc_common::keys;
use pvc_common::store::{Store, StoreExt as _};
use pvc_core::ids::NodeName;
use pvc_core::records::BmcReport;
use serde_json::json;

use super::Finding;

/// What a BMC that does not answer takes.
const DELTA: u32 = 10;

pub(super) async fn check<S: Store>(store: &S, me: &NodeName) -> Finding {
    match store.get(&keys::node(me).bmc()).await {
        Ok(found) => judge(found.and_then(|found| found.value).as_ref()),
        Err(error) => Finding::not_checked(format!("the report on the BMC can't be read ({error})")),
    }
}

fn judge(report: Option<&BmcReport>) -> Finding {
    match report {
        None => Finding::not_checked("no BMC is configured, or it was not tested yet"),
        Some(report) if report.works => Finding::new(0, "the BMC works", json!({"works": true})),
        Some(report) => Finding::new(
            DELTA,
            format!("the BMC does not work: {}", report.reason),
            json!({"works": false, "reason": report.reason}),
        ),
    }
}

#[cfg(test)]
mod tests {
    use pvc_core::records::BmcIdentity;

    use super::*;

    #[test]
    fn a_bmc_that_does_not_work_counts() {
        let report = |works| BmcReport {
            works,
            reason: "no answer".to_owned(),
            identity: BmcIdentity::Unverified {
                reason: String::new(),
            },
            tried_at: 1,
        };
        assert_eq!(judge(Some(&report(true))).delta, 0);
        assert_eq!(judge(Some(&report(false))).delta, 10);
        assert_eq!(judge(None).delta, 0);
    }
}
