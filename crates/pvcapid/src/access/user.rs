//! Users: people who log in with a password.

use pvc_api::access::User;
use pvc_common::keys;
use pvc_common::store::{Store, StoreError, StoreExt, Txn};
use pvc_core::access::{Role, UserRecord};
use pvc_core::ids::AccountName;

use super::{Caller, containers};
use crate::app::App;
use crate::error::ApiError;
use crate::snapshot::children_of;

/// Users that a cluster may have.
const MOST: usize = 1000;

/// How often a change is tried again after somebody else was faster.
const TRIES: usize = 8;

/// Adds a user.
pub(crate) async fn create<S: Store>(
    app: &App<S>,
    name: &AccountName,
    role: Role,
    password: String,
    by: &Caller,
) -> Result<String, ApiError> {
    let count = app
        .store
        .children(keys::users().path())
        .await?
        .map_or(0, |names| names.len());
    if count >= MOST {
        return Err(ApiError::conflict(format!("There are {MOST} users already")));
    }
    let record = UserRecord {
        role,
        password: app.access.hasher.hash(password).await?,
        created_at: app.clock_seconds(),
        created_by: by.to_string(),
    };
    let key = keys::user(name);
    match containers::commit(&app.store, Txn::new().create(&key, &record)).await {
        Ok(()) => {
            tracing::info!(user = %name, %role, %by, "user added");
            Ok(format!("User {name} with the role {role} is added"))
        }
        Err(StoreError::NodeExists { .. }) => Err(ApiError::conflict(format!(
            "There is a user named {name} already"
        ))),
        Err(error) => Err(error.into()),
    }
}

/// Every user, by name.
pub(crate) async fn list<S: Store>(app: &App<S>) -> Result<Vec<User>, ApiError> {
    let names: Vec<AccountName> = children_of(&app.store, &keys::users()).await?;
    let keys: Vec<_> = names.iter().map(keys::user).collect();
    let records = app.store.get_many(&keys).await?;
    Ok(names
        .into_iter()
        .zip(records)
        .filter_map(|(name, record)| {
            let record = record?.value;
            Some(User {
                name: name.to_string(),
                role: record.role.to_string(),
                created_at: record.created_at,
                created_by: record.created_by,
            })
        })
        .collect())
}

/// Changes a user's role or password; what is not given stays. A new password ends his sessions.
pub(crate) async fn modify<S: Store>(
    app: &App<S>,
    name: &AccountName,
    role: Option<Role>,
    password: Option<String>,
) -> Result<String, ApiError> {
    let password = match password {
        Some(password) => Some(app.access.hasher.hash(password).await?),
        None => None,
    };
    let key = keys::user(name);
    for _ in 0..TRIES {
        let found = app.store.get(&key).await?.ok_or_else(|| unknown(name))?;
        let mut record = found.value.clone();
        record.role = role.unwrap_or(record.role);
        if let Some(password) = &password {
            record.password = password.clone();
        }
        if record == found.value {
            return Ok(format!("User {name} is so already"));
        }
        match app
            .store
            .commit(Txn::new().set(&key, &record, found.version))
            .await
        {
            Ok(_) => return Ok(format!("User {name} is changed")),
            Err(StoreError::BadVersion { .. } | StoreError::NoNode { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::busy(&format!("User {name}")))
}

/// Removes a user, which ends his sessions.
pub(crate) async fn remove<S: Store>(app: &App<S>, name: &AccountName) -> Result<String, ApiError> {
    let key = keys::user(name);
    match app.store.commit(Txn::new().delete(&key, None)).await {
        Ok(_) => {
            tracing::info!(user = %name, "user removed");
            Ok(format!("User {name} is removed"))
        }
        Err(StoreError::NoNode { .. }) => Err(unknown(name)),
        Err(error) => Err(error.into()),
    }
}

fn unknown(name: &AccountName) -> ApiError {
    ApiError::not_found(format!("There is no user named {name}"))
}
