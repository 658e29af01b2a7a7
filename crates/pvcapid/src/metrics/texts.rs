//! Metrics that are made once for all who ask for them at about the same time.
//!
//! Nobody needs a token to ask. So whatever clients do, each text is made at most once a second, beside the threads that answer
//! requests, and two who ask get the same bytes.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix_web::web::{self, Bytes};
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use pvc_api::message::ErrorCode;
use pvc_common::clock::Clock;

use crate::error::ApiError;
use crate::gzip::Part;

/// How long a text is handed out after it was made. Prometheus asks every 15 s or so, and statistics change every 5 s.
const KEPT: Duration = Duration::from_secs(1);

/// How long a request waits for its text: as long as for a list of many thousand guests.
const LIMIT: Duration = Duration::from_secs(15);

/// Some of what is told, in both forms.
#[derive(Debug)]
pub(crate) struct Text {
    pub(crate) plain: Bytes,
    /// Made with it: Prometheus takes this one, and to compress the figures of ten thousand guests takes longer than to write
    /// them.
    pub(crate) part: Part,
}

impl Text {
    /// Takes some milliseconds for each megabyte.
    pub(crate) fn new(mut text: String) -> Text {
        // Others follow it.
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        Text {
            part: Part::new(text.as_bytes()),
            plain: text.into(),
        }
    }
}

type Made = Result<Arc<Text>, ApiError>;
type Making = Shared<BoxFuture<'static, Made>>;

/// The texts that are being made or were made within the last second, by name.
#[derive(Clone, Default)]
pub(crate) struct Texts(Arc<Mutex<HashMap<&'static str, Making>>>);

impl fmt::Debug for Texts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Texts")
    }
}

impl Texts {
    /// The text `name`: that of the last second, or one that is made now by `make`.
    ///
    /// # Errors
    /// Those of `make`, or 503 when it takes too long.
    ///
    /// # Cancellation
    /// A text that was begun is made to its end, so that clients who hang up can not have it begun again and again.
    pub(crate) async fn get<C, F>(
        &self,
        clock: &C,
        name: &'static str,
        make: impl FnOnce() -> F,
    ) -> Result<Arc<Text>, ApiError>
    where
        C: Clock,
        F: Future<Output = Result<String, ApiError>> + Send + 'static,
    {
        let found = self.lock().get(name).cloned();
        let making = match found {
            Some(making) => making,
            None => self.begin(clock, name, make()),
        };
        clock.timeout(LIMIT, making).await.unwrap_or_else(|| {
            Err(ApiError::new(
                ErrorCode::StoreUnavailable,
                format!("The metrics are not made after {} s; try again", LIMIT.as_secs()),
            ))
        })
    }

    fn begin<C, F>(&self, clock: &C, name: &'static str, make: F) -> Making
    where
        C: Clock,
        F: Future<Output = Result<String, ApiError>> + Send + 'static,
    {
        let making = async move {
            let text = make.await?;
            off_thread(move || Ok(Arc::new(Text::new(text)))).await
        }
        .boxed()
        .shared();
        {
            let mut all = self.lock();
            // Somebody else may have begun it since it was looked for.
            if let Some(making) = all.get(name) {
                return making.clone();
            }
            all.insert(name, making.clone());
        }
        let (texts, clock, work) = (self.clone(), clock.clone(), making.clone());
        tokio::spawn(async move {
            // Its result goes to those who asked.
            let _ = work.await;
            clock.sleep(KEPT).await;
            texts.lock().remove(name);
        });
        making
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<&'static str, Making>> {
        // Nothing is ever half done under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does what takes long beside the threads that answer requests.
pub(crate) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    web::block(work).await.unwrap_or_else(|_| {
        Err(ApiError::new(
            ErrorCode::Internal,
            "The metrics were not made: the daemon is being stopped",
        ))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures::future::join_all;
    use pvc_common::clock::HostClock;

    use super::*;

    // Without it a few scrapes at a time, or clients that hang up, would keep all of a coordinator's cores busy.
    #[actix_web::test]
    async fn a_text_is_made_once_for_all_who_ask_at_a_time_also_if_the_first_hangs_up() {
        let texts = Texts::default();
        let made = Arc::new(AtomicU32::new(0));
        let (begun, open) = (
            Arc::new(tokio::sync::Notify::new()),
            Arc::new(tokio::sync::Notify::new()),
        );
        let ask = || {
            let (made, begun, open) = (made.clone(), begun.clone(), open.clone());
            let make = move || async move {
                made.fetch_add(1, Ordering::Relaxed);
                begun.notify_one();
                open.notified().await;
                Ok("x 1".to_owned())
            };
            let texts = texts.clone();
            async move { texts.get(&HostClock, "x", make).await }
        };
        {
            let mut first = Box::pin(ask());
            assert!(futures::poll!(&mut first).is_pending());
        }
        begun.notified().await;
        open.notify_one();
        for text in join_all((0..5).map(|_| ask())).await {
            assert_eq!(text.unwrap().plain, "x 1\n");
        }
        assert_eq!(made.load(Ordering::Relaxed), 1);
    }

    #[actix_web::test]
    async fn what_could_not_be_made_is_told_to_all_and_not_for_ever() {
        let texts = Texts::default();
        let fail = || async { Err(ApiError::not_found("nobody answers")) };
        assert!(texts.get(&HostClock, "x", fail).await.is_err());
        assert!(
            texts
                .get(&HostClock, "x", || async { Ok(String::new()) })
                .await
                .is_err()
        );
        let deadline = HostClock.now() + Duration::from_secs(10);
        while texts
            .get(&HostClock, "x", || async { Ok(String::new()) })
            .await
            .is_err()
        {
            assert!(HostClock.now() < deadline);
            tokio::task::yield_now().await;
        }
    }
}
