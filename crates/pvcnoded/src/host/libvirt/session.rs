//! The connection to libvirtd: kept by a thread of its own, which opens it anew whenever it is lost.
//!
//! libvirt's event loop runs on another thread. It answers keep-alives, so that a call on a frozen libvirtd ends with
//! an error after some 4 s instead of never, and brings the events that wake the agent up.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use std::{io, thread};

use libc::{c_int, c_void};
use tokio::sync::Notify;
use virt::connect::Connect;
use virt::error::Error;
use virt_sys as sys;

/// A keep-alive each second; the connection is given up when three of them are not answered.
const KEEP_ALIVE: (i32, u32) = (1, 3);
/// Waits between tries to connect: doubled from the first to the last.
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LAST_RETRY: Duration = Duration::from_secs(5);
/// How often the connection is looked at although nothing was heard.
const LOOK: Duration = Duration::from_secs(5);

/// A connection with its event callbacks.
#[derive(Debug)]
pub(super) struct Connection {
    connect: Connect,
    lifecycle: Option<c_int>,
    close_callback: bool,
}

/// A connection that is kept open. Dropping it ends its thread and closes the connection.
#[derive(Debug)]
pub(super) struct Session {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    uri: String,
    state: Mutex<State>,
    woken: Condvar,
    happened: Arc<Notify>,
}

#[derive(Debug)]
struct State {
    connection: Option<Arc<Connection>>,
    /// Why there is none.
    reason: String,
    lost: bool,
    closing: bool,
}

impl Session {
    /// Begins to connect to `uri`; does not wait for it. `happened` is told of events of domains and of the coming
    /// and going of the connection.
    pub(super) fn open(uri: &str, happened: Arc<Notify>) -> io::Result<Session> {
        start_event_loop()?;
        let shared = Arc::new(Shared {
            uri: uri.to_owned(),
            state: Mutex::new(State {
                connection: None,
                reason: "not connected yet".to_owned(),
                lost: false,
                closing: false,
            }),
            woken: Condvar::new(),
            happened,
        });
        let session = Session {
            shared: Arc::clone(&shared),
        };
        thread::Builder::new()
            .name("libvirt-session".to_owned())
            .spawn(move || keep_connected(&shared))?;
        Ok(session)
    }

    /// The connection, or why there is none.
    pub(super) fn connection(&self) -> Result<Arc<Connection>, String> {
        let state = self.shared.lock();
        match (&state.connection, state.lost) {
            (Some(connection), false) => Ok(Arc::clone(connection)),
            (Some(_), true) => Err("the connection was lost".to_owned()),
            (None, _) => Err(state.reason.clone()),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.woken.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lose(&self) {
        self.lock().lost = true;
        self.woken.notify_all();
        self.happened.notify_one();
    }

    /// Waits for `duration`, or until the state is worth a look. Says whether the session goes on.
    fn wait(&self, duration: Duration) -> bool {
        let state = self.lock();
        let (state, _) = self
            .woken
            .wait_timeout_while(state, duration, |state| !state.lost && !state.closing)
            .unwrap_or_else(PoisonError::into_inner);
        !state.closing
    }
}

/// The life of the session's thread.
fn keep_connected(shared: &Arc<Shared>) {
    let mut retry = FIRST_RETRY;
    let mut told = String::new();
    loop {
        match Connection::open(shared) {
            Ok(connection) => {
                tracing::info!(uri = %shared.uri, "connected to libvirt");
                retry = FIRST_RETRY;
                told.clear();
                serve(shared, Arc::new(connection));
            }
            Err(error) => {
                let reason = error.message().to_owned();
                if reason != told {
                    tracing::warn!(uri = %shared.uri, %reason, "no connection to libvirt; it is tried again and again");
                    told.clone_from(&reason);
                }
                shared.lock().reason = reason;
            }
        }
        if !shared.wait(retry) {
            return;
        }
        retry = (retry * 2).min(LAST_RETRY);
    }
}

/// Hands the connection out until it is lost or the session ends.
fn serve(shared: &Shared, connection: Arc<Connection>) {
    {
        let mut state = shared.lock();
        state.connection = Some(Arc::clone(&connection));
        // Lost while the callbacks were being registered: the look below sees it.
        state.lost = false;
    }
    shared.happened.notify_one();
    // A fresh libvirtd examines its emulators at the first question about them, for some 10 s: better now than when
    // the first guest is to start.
    let _ = connection.connect.get_capabilities();
    while connection.is_alive() && shared.wait(LOOK) && !shared.lock().lost {}
    let mut state = shared.lock();
    if !state.closing {
        tracing::warn!(uri = %shared.uri, "the connection to libvirt was lost");
    }
    state.connection = None;
    state.reason = "the connection was lost".to_owned();
    state.lost = false;
    drop(state);
    shared.happened.notify_one();
}

impl Connection {
    fn open(shared: &Arc<Shared>) -> Result<Connection, Error> {
        let connect = Connect::open(Some(&shared.uri))?;
        let mut connection = Connection {
            connect,
            lifecycle: None,
            close_callback: false,
        };
        if let Err(error) = connection.connect.set_keep_alive(KEEP_ALIVE.0, KEEP_ALIVE.1) {
            // The test driver has none.
            tracing::debug!(
                error = error.message(),
                "libvirt takes no keep-alive on this connection"
            );
        }
        connection.register_lifecycle(&shared.happened)?;
        connection.register_close(shared)?;
        Ok(connection)
    }

    /// The connection for calls. They block.
    pub(super) fn get(&self) -> &Connect {
        &self.connect
    }

    /// Whether the connection still stands, as the client library knows. Does not ask the daemon.
    pub(super) fn is_alive(&self) -> bool {
        self.connect.is_alive().unwrap_or(false)
    }

    fn register_lifecycle(&mut self, happened: &Arc<Notify>) -> Result<(), Error> {
        let opaque = Arc::into_raw(Arc::clone(happened)).cast_mut().cast::<c_void>();
        type Lifecycle =
            unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, c_int, *mut c_void) -> c_int;
        type Generic = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void);
        // SAFETY: libvirt declares one type for all callbacks and, by the event's number, calls this one with the
        // arguments of `Lifecycle`, as its documentation of VIR_DOMAIN_EVENT_ID_LIFECYCLE says.
        #[expect(
            unsafe_code,
            reason = "libvirt's callbacks of all events share one declared type"
        )]
        let callback = unsafe { std::mem::transmute::<Lifecycle, Generic>(on_lifecycle) };
        // SAFETY: the connection is open; `opaque` came from `Arc::into_raw` and is given back once, by
        // `free_notify` after the callback's last call, or below if nothing was registered.
        #[expect(unsafe_code, reason = "virt has no wrapper for events of domains")]
        let number = unsafe {
            sys::virConnectDomainEventRegisterAny(
                self.connect.as_ptr(),
                std::ptr::null_mut(),
                c_int::try_from(sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE).unwrap_or(0),
                Some(callback),
                opaque,
                Some(free_notify),
            )
        };
        if number < 0 {
            let error = Error::last_error();
            // SAFETY: not registered, so libvirt will not free it.
            #[expect(unsafe_code, reason = "takes back what was handed out above")]
            unsafe {
                free_notify(opaque);
            }
            return Err(error);
        }
        self.lifecycle = Some(number);
        Ok(())
    }

    fn register_close(&mut self, shared: &Arc<Shared>) -> Result<(), Error> {
        let opaque = Arc::into_raw(Arc::clone(shared)).cast_mut().cast::<c_void>();
        // SAFETY: as above, with `free_shared`.
        #[expect(unsafe_code, reason = "virt has no wrapper for the close callback")]
        let outcome = unsafe {
            sys::virConnectRegisterCloseCallback(
                self.connect.as_ptr(),
                Some(on_close),
                opaque,
                Some(free_shared),
            )
        };
        if outcome < 0 {
            let error = Error::last_error();
            // SAFETY: not registered, so libvirt will not free it.
            #[expect(unsafe_code, reason = "takes back what was handed out above")]
            unsafe {
                free_shared(opaque);
            }
            return Err(error);
        }
        self.close_callback = true;
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Each callback holds a reference to the connection: without this it would never be closed. On a connection
        // that is lost the calls fail, and libvirt has let go of the callbacks all the same.
        if let Some(number) = self.lifecycle {
            // SAFETY: the connection is open, the number is of a callback registered on it.
            #[expect(unsafe_code, reason = "virt has no wrapper for events of domains")]
            let _ = unsafe { sys::virConnectDomainEventDeregisterAny(self.connect.as_ptr(), number) };
        }
        if self.close_callback {
            // SAFETY: the connection is open, the callback was registered on it.
            #[expect(unsafe_code, reason = "virt has no wrapper for the close callback")]
            let _ = unsafe { sys::virConnectUnregisterCloseCallback(self.connect.as_ptr(), Some(on_close)) };
        }
        if let Err(error) = self.connect.close() {
            tracing::debug!(error = error.message(), "closing a connection to libvirt failed");
        }
    }
}

/// SAFETY: `opaque` is the `Arc<Notify>` registered with it, not freed before the last call.
#[expect(unsafe_code, reason = "called by libvirt")]
unsafe extern "C" fn on_lifecycle(
    _connection: sys::virConnectPtr,
    _domain: sys::virDomainPtr,
    _event: c_int,
    _detail: c_int,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: see above.
    let happened = unsafe { &*opaque.cast_const().cast::<Notify>() };
    happened.notify_one();
    0
}

/// SAFETY: `opaque` came from `Arc::into_raw` of an `Arc<Notify>`; called once.
#[expect(unsafe_code, reason = "called by libvirt")]
unsafe extern "C" fn free_notify(opaque: *mut c_void) {
    // SAFETY: see above.
    drop(unsafe { Arc::from_raw(opaque.cast_const().cast::<Notify>()) });
}

/// SAFETY: `opaque` is the `Arc<Shared>` registered with it, not freed before the last call.
#[expect(unsafe_code, reason = "called by libvirt")]
unsafe extern "C" fn on_close(_connection: sys::virConnectPtr, _reason: c_int, opaque: *mut c_void) {
    // SAFETY: see above.
    let shared = unsafe { &*opaque.cast_const().cast::<Shared>() };
    shared.lose();
}

/// SAFETY: `opaque` came from `Arc::into_raw` of an `Arc<Shared>`; called once.
#[expect(unsafe_code, reason = "called by libvirt")]
unsafe extern "C" fn free_shared(opaque: *mut c_void) {
    // SAFETY: see above.
    drop(unsafe { Arc::from_raw(opaque.cast_const().cast::<Shared>()) });
}

/// Starts libvirt's event loop, once in a process and before the first connection, as libvirt demands.
fn start_event_loop() -> io::Result<()> {
    static STARTED: OnceLock<Result<(), String>> = OnceLock::new();
    STARTED
        .get_or_init(|| {
            virt::error::clear_error_callback();
            virt::event::event_register_default_impl().map_err(|error| error.message().to_owned())?;
            thread::Builder::new()
                .name("libvirt-events".to_owned())
                .spawn(run_events)
                .map(|_| ())
                .map_err(|error| error.to_string())
        })
        .clone()
        .map_err(io::Error::other)
}

fn run_events() {
    loop {
        if let Err(error) = virt::event::event_run_default_impl() {
            tracing::error!(error = error.message(), "libvirt's event loop failed; it goes on");
            // Not a busy loop, should it fail for good.
            thread::park_timeout(Duration::from_secs(1));
        }
    }
}
