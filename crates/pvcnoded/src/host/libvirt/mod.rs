//! The hypervisor: libvirt, by its client library.
//!
//! Losing libvirtd is a degraded reading: every call then answers [`HypervisorError::Unavailable`], at once when the
//! loss is known, else after its limit. Guests are not touched by it.
//!
//! * `session`: one connection, kept open by a thread of its own; events.
//! * `pool`: calls block, so they are made on a few plain threads. Questions and actions have threads of their own: a
//!   guest that takes half a minute to be destroyed does not keep the agent from looking.
//! * `plugging`: which guests a call about devices is under way for.
//! * `log`: how a guest's process ended, by what libvirt has written about it.
//! * `xml`: what is put into a guest's XML at its start, and into that of a device.

mod figures;
mod kvm;
mod log;
mod migration;
mod plugging;
mod pool;
mod processes;
mod records;
mod session;
mod status;
mod xml;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pvc_core::ids::{VmId, VmName};
use pvc_core::records::LogMark;
use serde_json::Value;
use tokio::sync::Notify;
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::{Error, ErrorNumber};
use virt_sys as sys;

use super::{
    Changed, DomainStatus, EndBy, Ending, GuestProcess, GuestStatistics, Hypervisor, HypervisorError,
    JobReading, MigrationOrder, PauseReason,
};
use figures::Layout;
pub use migration::{Security, Transport};
use plugging::Plugging;
use pool::{NoAnswer, Pool};
use records::records;
use session::Session;
use status::Said;
use xml::Acceleration;

/// Where libvirtd is.
pub const SYSTEM_URI: &str = "qemu:///system";

/// Limits of the calls. Destroying waits for the process: 15 s after SIGTERM, and 15 s more after SIGKILL.
const QUESTION_LIMIT: Duration = Duration::from_secs(3);
const STATISTICS_LIMIT: Duration = Duration::from_secs(5);
const ACTION_LIMIT: Duration = Duration::from_secs(10);
const CREATE_LIMIT: Duration = Duration::from_secs(30);
/// QEMU opens a volume meanwhile, as at a start.
const DEVICE_LIMIT: Duration = Duration::from_secs(30);
const DESTROY_LIMIT: Duration = Duration::from_secs(40);

/// Threads, and calls that may wait for one.
const QUESTION_THREADS: (usize, usize) = (2, 16);
const ACTION_THREADS: (usize, usize) = (4, 64);
/// A migration keeps its thread until it is over.
const SENDER_THREADS: (usize, usize) = (8, 8);
/// Longer than the agent lets a migration go on.
const SEND_LIMIT: Duration = Duration::from_secs(2 * 3600);

/// The mark that we set on a domain once its vCPUs have been let run, in its live metadata. libvirt gives one reason
/// for "created paused" and for "paused by hand"; the mark tells them apart, also for a later life of the agent. It names
/// the host, since it travels with a migrated guest, which has not run here before it is resumed here.
const RESUMED_URI: &str = "urn:pvc:resumed";
const RESUMED_KEY: &str = "pvc";

/// libvirt on this host. Clones share the connection and the threads.
#[derive(Debug, Clone)]
pub struct Libvirt {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    session: Session,
    questions: Pool,
    actions: Pool,
    senders: Pool,
    transport: Transport,
    /// What tells this host's marks from another's: they travel with a migrated guest.
    host: String,
    acceleration: Acceleration,
    layouts: Arc<Mutex<Layouts>>,
    plugging: Plugging,
    happened: Arc<Notify>,
}

/// What is known of the devices of each guest's present run.
type Layouts = HashMap<VmId, (u32, Layout)>;

impl Libvirt {
    /// Begins to connect to `uri` and returns at once. Looks whether KVM works here.
    ///
    /// # Errors
    /// When a thread can't be started.
    pub fn open(uri: &str, transport: Transport) -> io::Result<Libvirt> {
        let happened = Arc::new(Notify::new());
        Ok(Libvirt {
            inner: Arc::new(Inner {
                session: Session::open(uri, Arc::clone(&happened))?,
                questions: Pool::start("libvirt-ask", QUESTION_THREADS.0, QUESTION_THREADS.1)?,
                actions: Pool::start("libvirt-do", ACTION_THREADS.0, ACTION_THREADS.1)?,
                senders: Pool::start("libvirt-send", SENDER_THREADS.0, SENDER_THREADS.1)?,
                transport,
                host: host_mark(),
                acceleration: kvm::probe(),
                layouts: Arc::default(),
                plugging: Plugging::default(),
                happened,
            }),
        })
    }

    /// Whether guests are encrypted on their way to other hosts.
    pub fn migration_security(&self) -> Security {
        self.inner.transport.security()
    }

    /// Makes a call on a thread of `pool`. `vm` names the guest in the error if libvirt does not have it.
    async fn call<T: Send + 'static>(
        &self,
        pool: &Pool,
        limit: Duration,
        vm: Option<VmId>,
        work: impl FnOnce(&Connect) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, HypervisorError> {
        let unavailable = |reason: String| HypervisorError::Unavailable { reason };
        let connection = self.inner.session.connection().map_err(unavailable)?;
        let answer = pool
            .call(limit, move || {
                let outcome = work(connection.get());
                // Of a failure on a connection that is lost nothing can be concluded, whatever its number.
                (outcome, connection.is_alive())
            })
            .await;
        match answer {
            Ok((Ok(value), _)) => Ok(value),
            Ok((Err(error), alive)) => Err(explain(&error, alive, vm)),
            Err(NoAnswer::TimedOut) => Err(unavailable(format!("no answer within {limit:?}"))),
            Err(NoAnswer::Busy) => Err(unavailable("too many calls wait for it".to_owned())),
            Err(NoAnswer::Closed) => Err(unavailable("its threads have ended".to_owned())),
        }
    }

    async fn ask<T: Send + 'static>(
        &self,
        limit: Duration,
        vm: Option<VmId>,
        work: impl FnOnce(&Connect) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, HypervisorError> {
        self.call(&self.inner.questions, limit, vm, work).await
    }

    async fn act<T: Send + 'static>(
        &self,
        limit: Duration,
        vm: VmId,
        work: impl FnOnce(&Connect) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, HypervisorError> {
        self.call(&self.inner.actions, limit, Some(vm), work).await
    }
}

/// What a failed call means.
fn explain(error: &Error, alive: bool, vm: Option<VmId>) -> HypervisorError {
    let message = error.message().to_owned();
    match (error.code(), vm) {
        (ErrorNumber::NoDomain, Some(vm)) if alive => HypervisorError::NoDomain { vm },
        // Another call, or the guest's own process, holds the domain: how it is can't be told.
        (ErrorNumber::OperationTimeout, _) => HypervisorError::Unavailable { reason: message },
        _ if alive => HypervisorError::Refused { message },
        _ => HypervisorError::Unavailable { reason: message },
    }
}

/// Looks a domain up and does something with it.
fn with_domain<T>(
    connect: &Connect,
    vm: VmId,
    work: impl FnOnce(&Domain) -> Result<T, Error>,
) -> Result<T, Error> {
    let domain = Domain::lookup_by_uuid(connect, vm.uuid())?;
    let outcome = work(&domain);
    release(domain);
    outcome
}

/// Lets go of a domain's handle. The wrapper's own way panics if libvirt refuses; a leak is better.
fn release(mut domain: Domain) {
    if let Err(error) = domain.free() {
        tracing::debug!(
            error = error.message(),
            "libvirt did not take a domain's handle back"
        );
        std::mem::forget(domain);
    }
}

fn is_marked_resumed(domain: &Domain, host: &str) -> Result<bool, Error> {
    let kind = i32::try_from(sys::VIR_DOMAIN_METADATA_ELEMENT).unwrap_or(0);
    match domain.get_metadata(kind, Some(RESUMED_URI), sys::VIR_DOMAIN_AFFECT_LIVE) {
        Ok(mark) => Ok(mark.contains(host)),
        Err(error) if error.code() == ErrorNumber::NoDomainMetadata => Ok(false),
        Err(error) => Err(error),
    }
}

fn mark_resumed(domain: &Domain, host: &str) -> Result<u32, Error> {
    let kind = i32::try_from(sys::VIR_DOMAIN_METADATA_ELEMENT).unwrap_or(0);
    domain.set_metadata(
        kind,
        Some(&format!("<resumed host='{host}'/>")),
        Some(RESUMED_KEY),
        Some(RESUMED_URI),
        sys::VIR_DOMAIN_AFFECT_LIVE,
    )
}

/// A word that is this host's alone and stays so.
fn host_mark() -> String {
    let text = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let word: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    if word.is_empty() {
        "unknown".to_owned()
    } else {
        word
    }
}

/// The state and its reason among the figures of a domain.
fn said(parameters: &figures::Parameters) -> Said {
    let number = |name| {
        let number = parameters.get(name).and_then(Value::as_i64);
        number.and_then(|number| i32::try_from(number).ok()).unwrap_or(-1)
    };
    status::status(number("state.state"), number("state.reason"))
}

fn domains(connect: &Connect, host: &str) -> Result<BTreeMap<VmId, DomainStatus>, Error> {
    let mut found = BTreeMap::new();
    for record in records(connect, sys::VIR_DOMAIN_STATS_STATE)? {
        let status = match said(&record.parameters) {
            Said::Is(status) => status,
            Said::PausedByUser => {
                match with_domain(connect, record.vm, |domain| is_marked_resumed(domain, host)) {
                    Ok(true) => DomainStatus::Paused(PauseReason::Other),
                    Ok(false) => DomainStatus::Paused(PauseReason::StartingUp),
                    // It ended meanwhile.
                    Err(error) if error.code() == ErrorNumber::NoDomain => continue,
                    Err(error) => return Err(error),
                }
            }
        };
        found.insert(record.vm, status);
    }
    Ok(found)
}

fn statistics(connect: &Connect, layouts: &Mutex<Layouts>) -> Result<BTreeMap<VmId, GuestStatistics>, Error> {
    let kinds = sys::VIR_DOMAIN_STATS_STATE
        | sys::VIR_DOMAIN_STATS_CPU_TOTAL
        | sys::VIR_DOMAIN_STATS_BALLOON
        | sys::VIR_DOMAIN_STATS_VCPU
        | sys::VIR_DOMAIN_STATS_INTERFACE
        | sys::VIR_DOMAIN_STATS_BLOCK;
    let mut found = BTreeMap::new();
    let mut fresh = Layouts::new();
    for record in records(connect, kinds)? {
        let kept = {
            let layouts = layouts.lock().unwrap_or_else(PoisonError::into_inner);
            layouts.get(&record.vm).cloned()
        };
        let layout = match kept {
            Some((run, layout)) if run == record.run && layout.covers(&record.parameters) => layout,
            Some(_) | None => match with_domain(connect, record.vm, |domain| domain.get_xml_desc(0)) {
                Ok(xml) => Layout::of(&xml),
                // It ended meanwhile.
                Err(_) => continue,
            },
        };
        let state = word(said(&record.parameters));
        found.insert(record.vm, figures::figures(state, &record.parameters, &layout));
        fresh.insert(record.vm, (record.run, layout));
    }
    *layouts.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
    Ok(found)
}

fn word(said: Said) -> &'static str {
    match said {
        Said::Is(DomainStatus::Running) => "running",
        Said::Is(DomainStatus::Paused(_)) | Said::PausedByUser => "paused",
        Said::Is(DomainStatus::ShuttingDown) => "shutdown",
        Said::Is(DomainStatus::Off) => "shutoff",
        Said::Is(DomainStatus::Crashed) => "crashed",
    }
}

impl Hypervisor for Libvirt {
    async fn domains(&self) -> Result<BTreeMap<VmId, DomainStatus>, HypervisorError> {
        let host = self.inner.host.clone();
        self.ask(QUESTION_LIMIT, None, move |connect| domains(connect, &host))
            .await
    }

    fn processes(&self) -> io::Result<Vec<GuestProcess>> {
        processes::guest_processes(Path::new("/proc"))
    }

    async fn create_paused(&self, vm: VmId, xml: &str) -> Result<(), HypervisorError> {
        let xml = xml::prepare(xml, vm, self.inner.acceleration)
            .map_err(|message| HypervisorError::Refused { message })?;
        self.act(CREATE_LIMIT, vm, move |connect| {
            let domain = Domain::create_xml(connect, &xml, sys::VIR_DOMAIN_START_PAUSED)?;
            release(domain);
            Ok(())
        })
        .await
    }

    async fn suspend(&self, vm: VmId) -> Result<(), HypervisorError> {
        self.inner.plugging.must_be_over(vm)?;
        self.act(ACTION_LIMIT, vm, move |connect| {
            with_domain(connect, vm, |domain| domain.suspend().map(|_| ()))
        })
        .await
    }

    async fn attach_device(&self, vm: VmId, xml: &str) -> Result<(), HypervisorError> {
        let xml = xml::prepare_device(xml).map_err(|message| HypervisorError::Refused { message })?;
        let under_way = self.inner.plugging.begin(vm)?;
        self.act(DEVICE_LIMIT, vm, move |connect| {
            let outcome = with_domain(connect, vm, |domain| {
                domain
                    .attach_device_flags(&xml, sys::VIR_DOMAIN_AFFECT_LIVE)
                    .map(|_| ())
            });
            drop(under_way);
            outcome
        })
        .await
    }

    async fn detach_device(&self, vm: VmId, xml: &str) -> Result<(), HypervisorError> {
        let xml = xml.to_owned();
        let under_way = self.inner.plugging.begin(vm)?;
        self.act(DEVICE_LIMIT, vm, move |connect| {
            let outcome = with_domain(connect, vm, |domain| {
                domain
                    .detach_device_flags(&xml, sys::VIR_DOMAIN_AFFECT_LIVE)
                    .map(|_| ())
            });
            drop(under_way);
            outcome
        })
        .await
    }

    async fn resume(&self, vm: VmId) -> Result<(), HypervisorError> {
        self.inner.plugging.must_be_over(vm)?;
        let host = self.inner.host.clone();
        self.act(ACTION_LIMIT, vm, move |connect| {
            with_domain(connect, vm, |domain| {
                domain.resume()?;
                if let Err(error) = mark_resumed(domain, &host) {
                    // Paused by hand it would look like a start under way, and be resumed.
                    tracing::warn!(%vm, error = error.message(), "a running domain could not be marked as resumed");
                }
                Ok(())
            })
        })
        .await
    }

    async fn shutdown(&self, vm: VmId) -> Result<(), HypervisorError> {
        self.act(ACTION_LIMIT, vm, move |connect| {
            with_domain(connect, vm, |domain| domain.shutdown().map(|_| ()))
        })
        .await
    }

    async fn destroy(&self, vm: VmId) -> Result<Changed, HypervisorError> {
        let outcome = self
            .act(DESTROY_LIMIT, vm, move |connect| {
                with_domain(connect, vm, Domain::destroy)
            })
            .await;
        match outcome {
            Ok(()) => Ok(Changed::Done),
            Err(HypervisorError::NoDomain { .. }) => Ok(Changed::AlreadySo),
            Err(error @ (HypervisorError::Unavailable { .. } | HypervisorError::Refused { .. })) => {
                Err(error)
            }
        }
    }

    async fn send(&self, vm: VmId, order: &MigrationOrder) -> Result<(), HypervisorError> {
        let (order, transport) = (order.clone(), self.inner.transport.clone());
        self.call(&self.inner.senders, SEND_LIMIT, Some(vm), move |connect| {
            with_domain(connect, vm, |domain| migration::send(domain, &order, &transport))
        })
        .await
    }

    async fn sending(&self, vm: VmId) -> JobReading {
        let answer = self
            .ask(QUESTION_LIMIT, Some(vm), move |connect| {
                with_domain(connect, vm, migration::reading)
            })
            .await;
        match answer {
            Ok(reading) => reading,
            Err(HypervisorError::NoDomain { .. }) => JobReading::Idle,
            Err(HypervisorError::Unavailable { .. } | HypervisorError::Refused { .. }) => JobReading::Unknown,
        }
    }

    async fn cancel_sending(&self, vm: VmId) -> Result<Changed, HypervisorError> {
        let outcome = self
            .act(ACTION_LIMIT, vm, move |connect| {
                with_domain(connect, vm, migration::cancel)
            })
            .await;
        match outcome {
            Err(HypervisorError::NoDomain { .. }) => Ok(Changed::AlreadySo),
            other => other,
        }
    }

    fn log_mark(&self, _: VmId, name: &VmName) -> io::Result<LogMark> {
        log::mark(Path::new(log::DIRECTORY), name)
    }

    fn ending(&self, _: VmId, name: &VmName, since: LogMark) -> Ending {
        log::ending(Path::new(log::DIRECTORY), name, since)
    }

    fn end_process(&self, process: &GuestProcess, by: EndBy) -> io::Result<Changed> {
        processes::end(Path::new("/proc"), process, by)
    }

    async fn statistics(&self) -> Result<BTreeMap<VmId, GuestStatistics>, HypervisorError> {
        let layouts = Arc::clone(&self.inner.layouts);
        self.ask(STATISTICS_LIMIT, None, move |connect| {
            statistics(connect, &layouts)
        })
        .await
    }

    async fn live_xml(&self, vm: VmId) -> Result<String, HypervisorError> {
        self.ask(QUESTION_LIMIT, Some(vm), move |connect| {
            with_domain(connect, vm, |domain| domain.get_xml_desc(0))
        })
        .await
    }

    async fn changed(&self) {
        self.inner.happened.notified().await;
    }
}

#[cfg(test)]
mod tests;
