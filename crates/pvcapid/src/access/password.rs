//! Passwords: checked against Argon2id, since people choose ones that can be guessed.

use std::sync::Arc;

use argon2::{Algorithm, Argon2, Params, Version};
use pvc_api::message::ErrorCode;
use pvc_core::access::{Digest, PasswordHash, hex, unhex};
use tokio::sync::Semaphore;

use super::digest;
use crate::error::ApiError;

/// The least and the most characters of a password. Who guesses is slowed down by the limit on failures; this is for
/// the day on which somebody has read the store.
const LENGTH: std::ops::RangeInclusive<usize> = 10..=256;

/// What OWASP asks for of Argon2id: 19 MiB and two passes, some 20 ms on a server.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;

/// More than that is not computed, whatever the store says: 64 MiB, ten passes.
const MOST_MEMORY_KIB: u32 = 64 * 1024;
const MOST_PASSES: u32 = 10;

/// Passwords that are hashed at a time: each takes a processor and 19 MiB.
const AT_ONCE: usize = 2;

/// Hashes passwords, a few at a time.
#[derive(Debug)]
pub(super) struct Hasher {
    permits: Arc<Semaphore>,
}

impl Default for Hasher {
    fn default() -> Self {
        Hasher {
            permits: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }
}

impl Hasher {
    /// The hash of a new password.
    ///
    /// # Errors
    /// 400 for one that is too short or too long.
    pub(super) async fn hash(&self, password: String) -> Result<PasswordHash, ApiError> {
        if !LENGTH.contains(&password.chars().count()) {
            return Err(ApiError::invalid(
                "password",
                format!("it must have {} to {} characters", LENGTH.start(), LENGTH.end()),
            ));
        }
        let salt = digest::random::<16>()?;
        let hash = self.compute(password, salt.to_vec(), MEMORY_KIB, PASSES).await?;
        Ok(PasswordHash {
            salt: hex(&salt),
            memory_kib: MEMORY_KIB,
            passes: PASSES,
            hash,
        })
    }

    /// Whether `password` is that of `known`. Takes as long where there is none, so that the time does not tell which
    /// users there are.
    pub(super) async fn check(
        &self,
        known: Option<&PasswordHash>,
        password: String,
    ) -> Result<bool, ApiError> {
        if password.chars().count() > *LENGTH.end() {
            return Ok(false);
        }
        let Some(known) = known else {
            self.compute(password, vec![0; 16], MEMORY_KIB, PASSES).await?;
            return Ok(false);
        };
        let salt = unhex(&known.salt).ok_or_else(|| corrupt("its salt is not hexadecimal"))?;
        let given = self
            .compute(password, salt, known.memory_kib, known.passes)
            .await?;
        Ok(digest::same(&known.hash, &given))
    }

    async fn compute(
        &self,
        password: String,
        salt: Vec<u8>,
        memory_kib: u32,
        passes: u32,
    ) -> Result<Digest, ApiError> {
        if memory_kib > MOST_MEMORY_KIB || passes > MOST_PASSES {
            return Err(corrupt("it asks for too much memory or time"));
        }
        let permit = Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .map_err(|_| ApiError::new(ErrorCode::Internal, "No password is checked any more"))?;
        // It keeps a processor busy, which the threads that serve requests must not be.
        let hashed = tokio::task::spawn_blocking(move || {
            // Until it is done, also if nobody waits for it any more: each holds its memory until then.
            let _permit = permit;
            let params = Params::new(memory_kib, passes, 1, Some(32))?;
            let mut hash = [0; 32];
            Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into(
                password.as_bytes(),
                &salt,
                &mut hash,
            )?;
            Ok::<_, argon2::Error>(Digest::new(hash))
        });
        hashed
            .await
            .map_err(|error| {
                ApiError::new(
                    ErrorCode::Internal,
                    format!("A password was not checked: {error}"),
                )
            })?
            .map_err(|error| corrupt(&error.to_string()))
    }
}

fn corrupt(reason: &str) -> ApiError {
    ApiError::new(
        ErrorCode::StoreCorrupt,
        format!("A password in the coordination store can not be checked: {reason}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_same_password_passes() {
        let hasher = Hasher::default();
        let known = hasher.hash("correct horse battery".to_owned()).await.unwrap();
        let again = hasher.hash("correct horse battery".to_owned()).await.unwrap();
        assert_ne!(known, again, "each has its own salt");
        for (password, passes) in [
            ("correct horse battery", true),
            ("correct horse batter", false),
            ("Correct horse battery", false),
            ("", false),
        ] {
            let passed = hasher.check(Some(&known), password.to_owned()).await.unwrap();
            assert_eq!(passed, passes, "{password:?}");
        }
        assert!(
            !hasher
                .check(None, "correct horse battery".to_owned())
                .await
                .unwrap()
        );
    }

    #[tokio::test]
    async fn what_would_hold_the_daemon_up_is_refused() {
        let hasher = Hasher::default();
        assert!(hasher.hash("short".to_owned()).await.is_err());
        assert!(hasher.hash("x".repeat(300)).await.is_err());
        let mut known = hasher.hash("correct horse battery".to_owned()).await.unwrap();
        assert!(!hasher.check(Some(&known), "x".repeat(100_000)).await.unwrap());
        known.memory_kib = u32::MAX;
        assert!(
            hasher
                .check(Some(&known), "correct horse".to_owned())
                .await
                .is_err()
        );
    }

    // Requests that are given up must not pile up hashes, each of which holds 19 MiB.
    #[tokio::test]
    async fn no_more_are_hashed_at_a_time_when_nobody_waits_for_them() {
        let hasher = Hasher::default();
        for _ in 0..8 {
            // The longest that are done. Polled once, which begins it if there is room, and then dropped.
            let hash = hasher.compute("x".to_owned(), vec![0; 16], MOST_MEMORY_KIB, MOST_PASSES);
            assert!(futures::FutureExt::now_or_never(hash).is_none());
        }
        assert_eq!(hasher.permits.available_permits(), 0);
        let again = hasher.check(None, "correct horse battery".to_owned()).await;
        assert!(!again.unwrap(), "they end, and others have their turn");
    }
}
