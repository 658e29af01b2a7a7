//! A host's network in virtual time: its kernel drops addresses by itself, with a lateness that the test sets.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pvc_common::clock::Clock;
use pvc_core::protection::{Protection, stands};
use pvc_core::time::BootTime;

use super::{VirtualClock, locked};
use crate::host::lifetime;
use crate::host::{AddressOutcome, Changed, HostNetwork, NetworkError, RoleAddress};

/// What happened on the network of a fake host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkEvent {
    /// The address was added, to be dropped by the kernel after that many seconds.
    Added {
        /// Seconds.
        valid_lft: u32,
    },
    /// The address got a new lifetime of that many seconds.
    Refreshed {
        /// Seconds.
        valid_lft: u32,
    },
    /// The agent took it off.
    Removed,
    /// The kernel dropped it. Told with the instant at which it did.
    Expired,
    /// The neighbours were told.
    Announced,
    /// The host lost power.
    PoweredOff,
}

/// One line of the journal: when, which address, what.
pub type JournalLine = (BootTime, RoleAddress, NetworkEvent);

/// The network of one host. Clones are the same host, as its kernel outlives its agent.
#[derive(Debug, Clone)]
pub struct FakeNetwork {
    clock: VirtualClock,
    kernel: Arc<Mutex<Kernel>>,
}

#[derive(Debug, Default)]
struct Kernel {
    lateness: Duration,
    /// With the instant at which the kernel drops each.
    addresses: BTreeMap<RoleAddress, BootTime>,
    journal: Vec<JournalLine>,
    failures: VecDeque<i32>,
    stalls: VecDeque<Duration>,
}

impl Kernel {
    fn expire(&mut self, now: BootTime) {
        let mut gone: Vec<_> = self
            .addresses
            .iter()
            .filter(|(_, drops_at)| **drops_at <= now)
            .map(|(address, drops_at)| (*drops_at, address.clone()))
            .collect();
        gone.sort();
        for (drops_at, address) in gone {
            self.addresses.remove(&address);
            self.journal.push((drops_at, address, NetworkEvent::Expired));
        }
    }

    fn fail_on_order(&mut self, action: &str, address: &RoleAddress) -> Result<(), NetworkError> {
        match self.failures.pop_front() {
            Some(errno) => Err(NetworkError::Kernel {
                action: format!("{action} {}", address.ip),
                source: std::io::Error::from_raw_os_error(errno),
            }),
            None => Ok(()),
        }
    }
}

impl FakeNetwork {
    /// A host without addresses, whose kernel drops them exactly in time.
    pub fn new(clock: VirtualClock) -> FakeNetwork {
        FakeNetwork {
            clock,
            kernel: Arc::default(),
        }
    }

    /// How late the kernel is from now on with addresses that it is given (real ones: up to 1.1 s).
    pub fn set_lateness(&self, lateness: Duration) {
        locked(&self.kernel).lateness = lateness;
    }

    /// The next call fails with that error number. Orders queue up.
    pub fn fail_next(&self, errno: i32) {
        locked(&self.kernel).failures.push_back(errno);
    }

    /// The next `add` or `refresh` takes that long between the reckoning of the lifetime and the system call: the host
    /// is frozen in between. Orders queue up.
    pub fn stall_next(&self, duration: Duration) {
        locked(&self.kernel).stalls.push_back(duration);
    }

    /// The addresses that answer right now.
    pub fn addresses(&self) -> Vec<RoleAddress> {
        let now = self.clock.now();
        let mut kernel = locked(&self.kernel);
        kernel.expire(now);
        kernel.addresses.keys().cloned().collect()
    }

    /// Everything that happened so far, in the order in which it was noticed.
    pub fn journal(&self) -> Vec<JournalLine> {
        let now = self.clock.now();
        let mut kernel = locked(&self.kernel);
        kernel.expire(now);
        kernel.journal.clone()
    }

    /// The host loses power: all its addresses are gone at once.
    pub fn power_off(&self) {
        let now = self.clock.now();
        let mut kernel = locked(&self.kernel);
        kernel.expire(now);
        for (address, _) in std::mem::take(&mut kernel.addresses) {
            kernel.journal.push((now, address, NetworkEvent::PoweredOff));
        }
    }

    /// As the real network: reckons, lets an ordered stall pass, sets, and looks whether it fits.
    fn set(
        &self,
        address: &RoleAddress,
        right_ends: BootTime,
        event: fn(u32) -> NetworkEvent,
    ) -> AddressOutcome {
        for _ in 0..lifetime::TRIES {
            let Some(valid_lft) = lifetime::valid_lft(right_ends, self.clock.now()) else {
                break;
            };
            let stall = locked(&self.kernel).stalls.pop_front();
            if let Some(stall) = stall {
                self.clock.advance(stall);
            }
            {
                let called = self.clock.now();
                let mut kernel = locked(&self.kernel);
                kernel.expire(called);
                let drops_at = called + Duration::from_secs(u64::from(valid_lft.get())) + kernel.lateness;
                kernel.addresses.insert(address.clone(), drops_at);
                let event = event(valid_lft.get());
                kernel.journal.push((called, address.clone(), event));
            }
            let fits = !lifetime::outlives(right_ends, valid_lft, self.clock.now());
            if fits || !stands(Protection::RefreshRecheck) {
                return AddressOutcome::Set {
                    valid_lft_seconds: valid_lft.get(),
                };
            }
        }
        self.take_off(address);
        AddressOutcome::TooLate
    }

    fn take_off(&self, address: &RoleAddress) -> Changed {
        let now = self.clock.now();
        let mut kernel = locked(&self.kernel);
        kernel.expire(now);
        if kernel.addresses.remove(address).is_none() {
            return Changed::AlreadySo;
        }
        kernel.journal.push((now, address.clone(), NetworkEvent::Removed));
        Changed::Done
    }
}

impl HostNetwork for FakeNetwork {
    fn add(&self, address: &RoleAddress, right_ends: BootTime) -> Result<AddressOutcome, NetworkError> {
        let now = self.clock.now();
        {
            let mut kernel = locked(&self.kernel);
            kernel.expire(now);
            kernel.fail_on_order("add", address)?;
        }
        Ok(self.set(address, right_ends, |valid_lft| NetworkEvent::Added { valid_lft }))
    }

    fn refresh(&self, address: &RoleAddress, right_ends: BootTime) -> Result<AddressOutcome, NetworkError> {
        let now = self.clock.now();
        {
            let mut kernel = locked(&self.kernel);
            kernel.expire(now);
            kernel.fail_on_order("refresh", address)?;
            if !kernel.addresses.contains_key(address) && stands(Protection::RefreshNeverAdds) {
                return Ok(AddressOutcome::Missing);
            }
        }
        Ok(
            self.set(address, right_ends, |valid_lft| NetworkEvent::Refreshed {
                valid_lft,
            }),
        )
    }

    fn remove(&self, address: &RoleAddress) -> Result<Changed, NetworkError> {
        locked(&self.kernel).fail_on_order("remove", address)?;
        Ok(self.take_off(address))
    }

    fn present(&self, addresses: &[RoleAddress]) -> Result<Vec<RoleAddress>, NetworkError> {
        let now = self.clock.now();
        let mut kernel = locked(&self.kernel);
        kernel.expire(now);
        Ok(addresses
            .iter()
            .filter(|address| kernel.addresses.contains_key(address))
            .cloned()
            .collect())
    }

    fn announce(&self, address: &RoleAddress) -> Result<(), NetworkError> {
        let now = self.clock.now();
        let mut kernel = locked(&self.kernel);
        kernel.fail_on_order("announce", address)?;
        kernel
            .journal
            .push((now, address.clone(), NetworkEvent::Announced));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::RoleNetwork;

    fn address() -> RoleAddress {
        RoleAddress {
            network: RoleNetwork::Upstream,
            interface: "brupstream".to_owned(),
            ip: "10.0.0.254".parse().unwrap(),
        }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_kernel_drops_an_address_by_itself_and_as_late_as_ordered() {
        let clock = VirtualClock::default();
        let network = FakeNetwork::new(clock.clone());
        network.set_lateness(ms(1100));
        let start = clock.now();
        let outcome = network.add(&address(), start + ms(4500)).unwrap();
        assert_eq!(outcome, AddressOutcome::Set { valid_lft_seconds: 4 });
        clock.advance(ms(5099));
        assert_eq!(network.present(&[address()]).unwrap(), [address()]);
        clock.advance(ms(1));
        assert_eq!(network.present(&[address()]).unwrap(), []);
        let last = network.journal().pop().unwrap();
        assert_eq!(last, (start + ms(5100), address(), NetworkEvent::Expired));
    }

    #[test]
    fn refresh_prolongs_what_is_there_and_never_adds() {
        let clock = VirtualClock::default();
        let network = FakeNetwork::new(clock.clone());
        let right = |left| clock.now() + left;
        assert_eq!(
            network.refresh(&address(), right(ms(4500))).unwrap(),
            AddressOutcome::Missing
        );
        network.add(&address(), right(ms(2500))).unwrap();
        clock.advance(ms(1500));
        network.refresh(&address(), right(ms(2500))).unwrap();
        clock.advance(ms(1900));
        assert_eq!(network.addresses(), [address()]);
        clock.advance(ms(200));
        assert_eq!(
            network.refresh(&address(), right(ms(4500))).unwrap(),
            AddressOutcome::Missing
        );
        assert_eq!(network.addresses(), []);
    }

    #[test]
    fn a_right_used_up_before_or_during_the_call_leaves_no_address() {
        let clock = VirtualClock::default();
        let network = FakeNetwork::new(clock.clone());
        network.add(&address(), clock.now() + ms(4500)).unwrap();
        assert_eq!(
            network.refresh(&address(), clock.now() + ms(999)).unwrap(),
            AddressOutcome::TooLate
        );
        assert_eq!(network.addresses(), []);
        network.stall_next(ms(4500));
        network.set_lateness(ms(1100));
        assert_eq!(
            network.add(&address(), clock.now() + ms(4500)).unwrap(),
            AddressOutcome::TooLate
        );
        assert_eq!(network.addresses(), []);
    }

    #[test]
    fn it_fails_on_order_and_only_then() {
        let network = FakeNetwork::new(VirtualClock::default());
        network.fail_next(libc::ENODEV);
        assert!(network.remove(&address()).is_err());
        assert_eq!(network.remove(&address()).unwrap(), Changed::AlreadySo);
    }
}
