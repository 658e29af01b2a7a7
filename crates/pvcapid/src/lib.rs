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
//! * `status`, `node`, `drain`, `vm`, `fence`, `fault` - what the routes do, over the store.
//! * `reply`, `gzip` - replies that are made once and sent often. `names` - guests by name.
//! * `snapshot` - values read at once, for what is decided.
//! * [`error`] - what a refused request is answered with.
//! * [`openapi`] - the description for programs.
pub mod access;
mod adopt;
pub mod app;
pub mod daemon;
mod drain;
pub mod error;
mod extract;
mod fault;
mod fence;
mod filter;
mod gzip;
mod names;
mod node;
mod openapi;
mod reply;
mod request;
mod routes;
pub mod server;
mod snapshot;
mod status;
pub mod tls;
mod vm;

pub use openapi::openapi;
