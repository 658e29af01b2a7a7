//! Looking into the audit log.

use pvc_api::access::AuditRecord;
use pvc_common::keys;
use pvc_common::store::{ReadError, Store, StoreExt};
use pvc_core::access::{AuditEntry, AuditFilter};

use crate::app::App;
use crate::error::ApiError;
use crate::snapshot::children_of;

/// What somebody wants to see.
#[derive(Debug)]
pub(crate) struct Query {
    pub(crate) filter: AuditFilter,
    /// At most so many.
    pub(crate) limit: usize,
}

/// The entries that are wanted, the latest first; before them the requests that are under way.
pub(crate) async fn query<S: Store>(app: &App<S>, query: &Query) -> Result<Vec<AuditRecord>, ApiError> {
    let mut wanted = under_way(app).await?;
    wanted.retain(|entry| query.filter.wants(entry));
    let mut pages: Vec<u64> = children_of(&app.store, &keys::audit_pages()).await?;
    pages.sort_unstable();
    while wanted.len() < query.limit
        && let Some(number) = pages.pop()
    {
        match app.store.get(&keys::audit_page(number)).await {
            Ok(Some(page)) => {
                let entries = page.value.entries.into_iter().rev();
                wanted.extend(entries.filter(|entry| query.filter.wants(entry)));
            }
            // It went while we looked.
            Ok(None) => {}
            Err(ReadError::Store(error)) => return Err(error.into()),
            // One bad page must not hide the others.
            Err(error @ (ReadError::Missing { .. } | ReadError::Value { .. } | ReadError::Child { .. })) => {
                tracing::warn!(%error, "a page of the audit log can not be shown");
            }
        }
    }
    wanted.truncate(query.limit);
    Ok(wanted.into_iter().map(shown).collect())
}

async fn under_way<S: Store>(app: &App<S>) -> Result<Vec<AuditEntry>, ApiError> {
    let names: Vec<String> = children_of(&app.store, &keys::audit_notes()).await?;
    let keys: Vec<_> = names.iter().map(|name| keys::audit_note(name)).collect();
    let mut entries: Vec<AuditEntry> = app
        .store
        .get_many(&keys)
        .await?
        .into_iter()
        .flatten()
        .map(|found| AuditEntry::answered(found.value, None, ""))
        .collect();
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.request.at));
    Ok(entries)
}

fn shown(entry: AuditEntry) -> AuditRecord {
    let request = entry.request;
    AuditRecord {
        request_id: request.request_id,
        at: request.at,
        node: request.node,
        who: request.who,
        role: request.role.map(|role| role.to_string()),
        from: request.from,
        operation: request.operation,
        method: request.method,
        target: request.target,
        parameters: request.parameters,
        status: entry.status,
        message: entry.message,
    }
}
