//! Reading, and writing in transactions.

use pvc_common::store::{Applied, SessionState, Store, StoreError, Txn, ZnodeVersion};

use super::{Ensemble, FaultyClient, Hidden};

async fn data<S: Store>(store: &S, path: &str) -> Option<String> {
    let znode = store.read(path).await.unwrap()?;
    Some(String::from_utf8(znode.data).unwrap())
}

pub async fn a_created_znode_is_read_back(ensemble: &impl Ensemble) {
    let client = ensemble.client().await;
    let store = client.store();
    assert_eq!(store.session(), SessionState::Connected);
    assert_eq!(store.read("/a").await, Ok(None));
    let txn = Txn::new().create_path("/a", "one").create_path("/a/b", "");
    assert_eq!(
        store.commit(txn).await,
        Ok(vec![Applied::Created, Applied::Created])
    );
    let created = store.read("/a").await.unwrap().unwrap();
    assert_eq!(
        (created.data.as_slice(), created.version),
        (&b"one"[..], ZnodeVersion(0))
    );
    let set = store
        .commit(Txn::new().set_path("/a", "two", ZnodeVersion(0)))
        .await;
    assert_eq!(set, Ok(vec![Applied::Set(ZnodeVersion(1))]));
    let changed = store.read("/a").await.unwrap().unwrap();
    assert_eq!(
        (changed.data.as_slice(), changed.version),
        (&b"two"[..], ZnodeVersion(1))
    );
    assert!(changed.modified > created.modified);
    let txn = Txn::new()
        .overwrite_path("/a", "three")
        .delete_path("/a/b", Some(ZnodeVersion(0)));
    assert_eq!(
        store.commit(txn).await,
        Ok(vec![Applied::Set(ZnodeVersion(2)), Applied::Deleted])
    );
    assert_eq!(store.read("/a/b").await, Ok(None));
    assert_eq!(store.commit(Txn::new()).await, Ok(vec![]));
}

// If this failed, a node that slept would overwrite what was decided meanwhile: two owners of one guest.
pub async fn a_write_with_a_stale_version_fails_and_changes_nothing(ensemble: &impl Ensemble) {
    let (one, two) = (ensemble.client().await, ensemble.client().await);
    one.store()
        .commit(Txn::new().create_path("/record", "hv1"))
        .await
        .unwrap();
    let seen = one.store().read("/record").await.unwrap().unwrap().version;
    two.store()
        .commit(Txn::new().set_path("/record", "hv2", seen))
        .await
        .unwrap();
    let stale = StoreError::BadVersion {
        path: "/record".to_owned(),
        index: 0,
    };
    for txn in [
        Txn::new().set_path("/record", "hv1", seen),
        Txn::new()
            .check_path("/record", seen)
            .overwrite_path("/record", "hv1"),
        Txn::new().delete_path("/record", Some(seen)),
        // Checks alone, before something that is no write: asked of the quorum like a write.
        Txn::new().check_path("/record", seen),
    ] {
        assert_eq!(one.store().commit(txn).await, Err(stale.clone()));
    }
    assert_eq!(data(two.store(), "/record").await.as_deref(), Some("hv2"));
    assert_eq!(
        two.store().read("/record").await.unwrap().unwrap().version,
        ZnodeVersion(1)
    );
    let unchanged = Txn::new().check_path("/record", ZnodeVersion(1));
    assert_eq!(one.store().commit(unchanged).await, Ok(vec![Applied::Checked]));
}

// If this failed, a guest could be defined by half, or a role taken over without its lease.
pub async fn a_write_of_several_keys_is_all_or_nothing(ensemble: &impl Ensemble) {
    let client = ensemble.client().await;
    let store = client.store();
    store
        .commit(Txn::new().create_path("/a", "1").create_path("/gone", ""))
        .await
        .unwrap();
    let txn = Txn::new()
        .create_path("/b", "")
        .create_path("/b/c", "")
        .set_path("/a", "2", ZnodeVersion(0))
        .delete_path("/gone", None)
        .check_path("/a", ZnodeVersion(7));
    assert_eq!(
        store.commit(txn).await,
        Err(StoreError::BadVersion {
            path: "/a".to_owned(),
            index: 4
        })
    );
    assert_eq!(store.read("/b").await, Ok(None));
    assert_eq!(store.read("/b/c").await, Ok(None));
    assert_eq!(data(store, "/a").await.as_deref(), Some("1"));
    assert_eq!(store.read("/a").await.unwrap().unwrap().version, ZnodeVersion(0));
    assert_eq!(data(store, "/gone").await.as_deref(), Some(""));
    assert!(
        !store
            .children("/")
            .await
            .unwrap()
            .unwrap()
            .contains(&"b".to_owned())
    );
}

// The role's transaction tells by the index whether the record or the lease moved.
pub async fn every_refusal_names_its_operation(ensemble: &impl Ensemble) {
    let client = ensemble.client().await;
    let store = client.store();
    store
        .commit(Txn::new().create_path("/a", "").create_path("/a/b", ""))
        .await
        .unwrap();
    let path = |text: &str| text.to_owned();
    let first = || Txn::new().check_path("/a", ZnodeVersion(0));
    let refusals = [
        (
            first().check_path("/x", ZnodeVersion(0)),
            StoreError::NoNode {
                path: path("/x"),
                index: 1,
            },
        ),
        (
            first().overwrite_path("/x", ""),
            StoreError::NoNode {
                path: path("/x"),
                index: 1,
            },
        ),
        (
            first().delete_path("/x", None),
            StoreError::NoNode {
                path: path("/x"),
                index: 1,
            },
        ),
        (
            first().create_path("/x/y", ""),
            StoreError::NoNode {
                path: path("/x"),
                index: 1,
            },
        ),
        (
            first().create_path("/a/b", ""),
            StoreError::NodeExists {
                path: path("/a/b"),
                index: 1,
            },
        ),
        (
            first().delete_path("/a", None),
            StoreError::NotEmpty {
                path: path("/a"),
                index: 1,
            },
        ),
        (
            first()
                .set_path("/a/b", "", ZnodeVersion(3))
                .create_path("/a", ""),
            StoreError::BadVersion {
                path: path("/a/b"),
                index: 1,
            },
        ),
        (
            first().guard_path("/a/lock-0000000000"),
            StoreError::LockLost {
                path: path("/a/lock-0000000000"),
            },
        ),
    ];
    for (txn, refusal) in refusals {
        assert_eq!(store.commit(txn.clone()).await, Err(refusal), "{txn:?}");
    }
}

pub async fn later_operations_see_what_earlier_ones_did(ensemble: &impl Ensemble) {
    let client = ensemble.client().await;
    let store = client.store();
    let txn = Txn::new()
        .create_path("/a", "1")
        .check_path("/a", ZnodeVersion(0))
        .set_path("/a", "2", ZnodeVersion(0))
        .check_path("/a", ZnodeVersion(1))
        .delete_path("/a", Some(ZnodeVersion(1)))
        .create_path("/a", "3");
    store.commit(txn).await.unwrap();
    let znode = store.read("/a").await.unwrap().unwrap();
    assert_eq!(
        (znode.data.as_slice(), znode.version),
        (&b"3"[..], ZnodeVersion(0))
    );
}

pub async fn many_reads_are_answered_in_order(ensemble: &impl Ensemble) {
    let client = ensemble.client().await;
    let store = client.store();
    assert_eq!(store.read_many(&[]).await, Ok(vec![]));
    store
        .commit(Txn::new().create_path("/a", "1").create_path("/c", "3"))
        .await
        .unwrap();
    let paths = ["/c", "/b", "/a"].map(str::to_owned);
    let read = store.read_many(&paths).await.unwrap();
    let texts: Vec<_> = read
        .into_iter()
        .map(|znode| znode.map(|znode| znode.data))
        .collect();
    assert_eq!(texts, [Some(b"3".to_vec()), None, Some(b"1".to_vec())]);
}

pub async fn children_are_sorted_and_distinguished_from_absence(ensemble: &impl Ensemble) {
    let client = ensemble.client().await;
    let store = client.store();
    let txn = ["/a", "/a/z", "/a/m", "/a/b", "/a/b/c"]
        .iter()
        .fold(Txn::new(), |txn, path| txn.create_path(*path, ""));
    store.commit(txn).await.unwrap();
    assert_eq!(
        store.children("/a").await,
        Ok(Some(["b", "m", "z"].map(str::to_owned).to_vec()))
    );
    assert_eq!(store.children("/a/z").await, Ok(Some(vec![])));
    assert_eq!(store.children("/x").await, Ok(None));
}

// A caller that took an unknown outcome for a failure would repeat a claim that it already holds, or give up one
// that it does not know it has.
pub async fn an_unseen_write_is_reported_as_unknown(ensemble: &impl Ensemble) {
    let (client, other) = (ensemble.client().await, ensemble.client().await);
    let store = client.store();
    store.commit(Txn::new().create_path("/a", "0")).await.unwrap();
    for (hidden, text) in [(Hidden::Lost, "0"), (Hidden::Applied, "2")] {
        client.hide_next_write(hidden).await;
        let outcome = store
            .commit(Txn::new().set_path("/a", "2", ZnodeVersion(0)))
            .await;
        assert!(
            matches!(outcome, Err(StoreError::Unknown { .. })),
            "{hidden:?}: {outcome:?}"
        );
        client.reconnect().await;
        assert_eq!(data(store, "/a").await.as_deref(), Some(text), "{hidden:?}");
        assert_eq!(
            data(other.store(), "/a").await.as_deref(),
            Some(text),
            "{hidden:?}"
        );
    }
}

// Calls that hang here would hang an agent's loop or an API worker whenever the store has no quorum.
pub async fn without_a_connection_nothing_is_written(ensemble: &impl Ensemble) {
    let (client, other) = (ensemble.client().await, ensemble.client().await);
    let store = client.store();
    client.disconnect().await;
    assert_eq!(store.session(), SessionState::Disconnected);
    let outcome = store.commit(Txn::new().create_path("/a", "")).await;
    assert!(
        matches!(outcome, Err(StoreError::Unavailable { .. })),
        "{outcome:?}"
    );
    let outcome = store.create_ephemeral_sequential("/e", b"").await;
    assert!(
        matches!(outcome, Err(StoreError::Unavailable { .. })),
        "{outcome:?}"
    );
    let outcome = store.read("/a").await;
    assert!(
        matches!(outcome, Err(StoreError::Unavailable { .. })),
        "{outcome:?}"
    );
    client.reconnect().await;
    assert_eq!(store.read("/a").await, Ok(None));
    assert_eq!(other.store().read("/a").await, Ok(None));
    store.commit(Txn::new().create_path("/a", "")).await.unwrap();
}

pub async fn what_cannot_be_sent_is_refused(ensemble: &impl Ensemble) {
    let client = ensemble.client().await;
    let store = client.store();
    // Sent all the same, it would cost the connection and look like an unknown outcome.
    for txn in [
        Txn::new().create_path("/big", vec![b'x'; 1_100_000]),
        Txn::new().create_path("relative", ""),
        Txn::new().check_path("/", ZnodeVersion(-1)),
    ] {
        let outcome = store.commit(txn).await;
        assert!(matches!(outcome, Err(StoreError::Refused { .. })), "{outcome:?}");
    }
    assert!(matches!(store.read("/a/").await, Err(StoreError::Refused { .. })));
    assert_eq!(store.session(), SessionState::Connected);
    store
        .commit(Txn::new().create_path("/large", vec![b'x'; 900_000]))
        .await
        .unwrap();
    assert_eq!(store.read("/large").await.unwrap().unwrap().data.len(), 900_000);
}

pub async fn another_client_reads_what_was_written(ensemble: &impl Ensemble) {
    let (one, two) = (ensemble.client().await, ensemble.client().await);
    one.store()
        .commit(Txn::new().create_path("/a", "x"))
        .await
        .unwrap();
    super::eventually("the other client sees it", async || {
        data(two.store(), "/a").await.as_deref() == Some("x")
    })
    .await;
}
