//! Power control of nodes, by their BMCs.
//!
//! * [`ipmi`]: the real one, by `ipmitool` over the network.
//! * [`machine`]: the GUID of this machine, read without its BMC's address.
//! * `parse`: output of `ipmitool`, read into types.
//!
//! What a BMC is *asked* proves nothing; only what it *answers* does. [`power_off_and_see`] is the one way to a
//! [`PowerOffSeen`].

pub mod ipmi;
pub mod machine;
mod parse;

use std::fmt;
use std::future::Future;
use std::time::Duration;

use pvc_common::clock::Clock;
use pvc_common::secret::Secret;
use pvc_core::time::BootTime;

pub use ipmi::Ipmitool;

/// Between two status questions while a machine goes off: some take a second or two, most are off at once.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// How to reach a BMC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BmcAccess {
    /// Its host name or address.
    pub host: String,
    /// The user to log in as.
    pub user: String,
    /// That user's password.
    pub password: Secret,
}

/// What a BMC says of its machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PowerState {
    /// Powered, in whatever state its operating system is.
    On,
    /// Without power: nothing runs on it.
    Off,
}

impl fmt::Display for PowerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            PowerState::On => "on",
            PowerState::Off => "off",
        })
    }
}

/// A power call that failed. The BMC may have carried an order out all the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PowerError {
    /// Nothing came back in time: the BMC has no power or no network, or the login failed (which over IPMI looks the
    /// same).
    #[error("the BMC {host} does not answer ({reason})")]
    NoAnswer {
        /// The BMC.
        host: String,
        /// What was seen.
        reason: String,
    },
    /// It answered that it did not do it.
    #[error("the BMC {host} refused to {action}: {reason}")]
    Refused {
        /// The BMC.
        host: String,
        /// What was asked, in words.
        action: &'static str,
        /// What it said.
        reason: String,
    },
    /// Its answer is none that we know. It counts as no answer to the question, never as a state.
    #[error("the answer of the BMC {host} is not understood: {said:?}")]
    NotUnderstood {
        /// The BMC.
        host: String,
        /// What it said.
        said: String,
    },
    /// The BMC's client program can't be run on this host.
    #[error("power control does not work on this host: {reason}")]
    NoProgram {
        /// What is wrong.
        reason: String,
    },
    /// The machine was ordered off, and its BMC went on saying that it is on.
    #[error("the BMC {host} still says \"on\" {waited:?} after the order to power off")]
    StillOn {
        /// The BMC.
        host: String,
        /// How long it was waited for.
        waited: Duration,
    },
}

/// A BMC was seen to say "off" after we had ordered it off: the machine behind it runs nothing any more.
///
/// Whether that machine is the one that was meant is not in here: that is the BMC's identity, which the node itself
/// reports while it lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PowerOffSeen {
    host: String,
    answered_at: BootTime,
}

impl PowerOffSeen {
    /// The BMC that said so.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// When it said so, on this host's clock.
    pub fn answered_at(&self) -> BootTime {
        self.answered_at
    }
}

/// The power of other machines. Every call has a deadline of at most 3 s, which is less than a node's lease lasts: who
/// has just renewed its own lease still holds it when the call ends.
pub trait PowerControl: Clone + Send + Sync + 'static {
    /// Whether the machine is on or off.
    ///
    /// # Errors
    /// [`PowerError`]; the state is then unknown.
    fn state(&self, bmc: &BmcAccess) -> impl Future<Output = Result<PowerState, PowerError>> + Send;

    /// Orders the machine off, at once and without asking its operating system. Success says that the order was taken,
    /// not that the machine is off.
    ///
    /// # Errors
    /// [`PowerError`]; the order may have been carried out.
    ///
    /// # Idempotence
    /// A machine that is off stays off. Some BMCs refuse the order then.
    ///
    /// # Cancellation
    /// The order may be carried out after the future was dropped.
    fn order_off(&self, bmc: &BmcAccess) -> impl Future<Output = Result<(), PowerError>> + Send;

    /// Orders the machine on.
    ///
    /// # Errors
    /// [`PowerError`]; the order may have been carried out.
    fn order_on(&self, bmc: &BmcAccess) -> impl Future<Output = Result<(), PowerError>> + Send;

    /// The GUID of the machine that the BMC belongs to, as the BMC prints it; compare it with
    /// [`pvc_core::bmc::same_machine`].
    ///
    /// # Errors
    /// [`PowerError`].
    fn guid(&self, bmc: &BmcAccess) -> impl Future<Output = Result<String, PowerError>> + Send;
}

/// Orders a machine off and asks its BMC until it says so, for at most `limit`.
///
/// The order is sent once: whoever calls this has checked right before that it may be sent. It always comes first,
/// also for a machine that may be off already, since one that is off now may be switched on by somebody else. A refusal
/// is not the end, as some BMCs refuse to switch off what is off; only the state that they report counts. A BMC that
/// does not answer the order at all is given up at once.
///
/// # Errors
/// [`PowerError`]: "off" was not seen. The machine may be off, or go off later.
///
/// # Idempotence
/// Done twice, the machine is off and is seen to be.
///
/// # Cancellation
/// The order may be carried out after the future was dropped.
pub async fn power_off_and_see<P: PowerControl, C: Clock>(
    power: &P,
    clock: &C,
    bmc: &BmcAccess,
    limit: Duration,
) -> Result<PowerOffSeen, PowerError> {
    let began = clock.now();
    let mut trouble = match power.order_off(bmc).await {
        Ok(()) => None,
        Err(error @ (PowerError::NoAnswer { .. } | PowerError::NoProgram { .. })) => return Err(error),
        Err(
            error @ (PowerError::Refused { .. }
            | PowerError::NotUnderstood { .. }
            | PowerError::StillOn { .. }),
        ) => Some(error),
    };
    loop {
        let waited = clock.now().since(began);
        let left = limit.saturating_sub(waited);
        if left.is_zero() {
            return Err(trouble.unwrap_or_else(|| PowerError::StillOn {
                host: bmc.host.clone(),
                waited,
            }));
        }
        match clock.timeout(left, power.state(bmc)).await {
            // SAFETY(fencing): this question was sent after the order, and answered with "off" by the BMC itself.
            Some(Ok(PowerState::Off)) => {
                return Ok(PowerOffSeen {
                    host: bmc.host.clone(),
                    answered_at: clock.now(),
                });
            }
            Some(Ok(PowerState::On)) => {}
            // One lost answer is not the end: the order was taken.
            Some(Err(error)) => trouble = Some(error),
            None => {
                return Err(trouble.unwrap_or_else(|| PowerError::NoAnswer {
                    host: bmc.host.clone(),
                    reason: format!("no state within {limit:?} of the order to power off"),
                }));
            }
        }
        let left = limit.saturating_sub(clock.now().since(began));
        clock.sleep(ASK_AGAIN_AFTER.min(left)).await;
    }
}

#[cfg(test)]
mod tests;
