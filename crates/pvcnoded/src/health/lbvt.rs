//! libvirt answers.

use std::time::Duration;

use pvc_common::clock::Clock;
use serde_json::json;

use super::Finding;
use crate::host::Hypervisor;

/// What a libvirt that does not answer takes: guests run on, and nothing can be done to them.
const DELTA: u32 = 50;
/// How long it may take.
const LIMIT: Duration = Duration::from_secs(3);

pub(super) async fn check<C: Clock, H: Hypervisor>(clock: &C, hypervisor: Option<&H>) -> Finding {
    let Some(hypervisor) = hypervisor else {
        return Finding::not_checked("this node runs no guests");
    };
    match clock.timeout(LIMIT, hypervisor.domains()).await {
        Some(Ok(domains)) => Finding::new(
            0,
            format!("libvirt answers and knows {} guests", domains.len()),
            json!({"guests": domains.len()}),
        ),
        Some(Err(error)) => Finding::new(DELTA, format!("libvirt does not answer: {error}"), json!({})),
        None => Finding::new(
            DELTA,
            format!("libvirt did not answer within {} s", LIMIT.as_secs()),
            json!({}),
        ),
    }
}
