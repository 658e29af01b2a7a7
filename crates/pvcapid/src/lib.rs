//! The PVC API daemon.
//!
//! Stateless: it runs on every coordinator all the time, and whichever of them has the floating address answers. What
//! a request shows is in its mirror of the coordination store; what it changes is one transaction there.
//!
//! * [`daemon`] - from the configuration to a server that runs until it is told to stop.
//! * [`server`] - sockets, limits; [`tls`] - the certificate.
//! * `request` - identity and log line of each request.
//! * [`access`] - who may use the API, and what for.
//! * `adopt` - nodes on hold, and the order that ends it.
//! * `routes` - the table of routes and the handlers.
//! * `reply`, `gzip` - replies that are made once and sent often. `names` - guests by name.
//! * `snapshot` - values read at once, for what is decided.
//! * `status`, `node`, `drain`, `vm`, `fence`, `fault`, `network`, `storage` - what the routes do, over the store.
//! * `backup` - backups of the store.
//! * `task` - orders that nodes carry out, shown alike.
//! * `events` - what changes, told as it happens.
//! * `metrics` - what is told to Prometheus.
//! * `unavailable` - operations of PVC 1.0.3 that are not carried out yet.
//! * `unreadable` - what stands in the store and can not be read, shown all the same.
//! * [`error`] - what a refused request is answered with.
//! * [`openapi`] - the description for programs.
pub mod access;
mod adopt;
pub mod app;
mod backup;
pub mod daemon;
mod drain;
pub mod error;
mod events;
mod extract;
mod fault;
mod fence;
mod filter;
mod gzip;
mod metrics;
mod names;
mod network;
mod node;
mod openapi;
mod reply;
mod request;
mod routes;
pub mod server;
mod snapshot;
mod status;
mod storage;
mod task;
pub mod tls;
mod unavailable;
mod unreadable;
mod vm;

pub use openapi::openapi;
