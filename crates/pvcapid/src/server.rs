//! The HTTP server: where it listens, and its limits.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::middleware::{Compress, from_fn};
use actix_web::{App as ActixApp, HttpServer, web};
use pvc_common::store::Store;
use rustls::ServerConfig;
use socket2::{Domain, Protocol, Socket, Type};

use crate::access::{self, Operations};
use crate::app::App;
use crate::metrics::Instruments;
use crate::{openapi, request, routes};

/// Handlers never block, so a few threads serve thousands of connections; the nodes' cores are for guests.
const WORKERS: usize = 2;
/// Connections per worker beyond which new ones wait in the kernel.
const MAX_CONNECTIONS: usize = 1024;
/// A client that has not sent its request's head by then is dropped.
const REQUEST_HEAD_LIMIT: Duration = Duration::from_secs(10);
/// How long an idle connection is kept. Short, since a client of the floating address hangs on to a node that is no
/// longer primary for as long.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long a reply waits for a client that does not take it (RFC 5482). The kernel sees to it: while a reply is stuck, the
/// server looks at nothing else of its connection.
const UNTAKEN: Duration = Duration::from_secs(30);
/// How long requests may still run after a stop was asked for.
const SHUTDOWN_SECONDS: u64 = 5;

/// Why the server could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// An address can not be listened on.
    #[error("can not listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The description of the API, which says what each route needs, can not be made.
    #[error("the description of the API can not be made")]
    Document(#[source] serde_json::Error),
    /// The server did not take a listening socket.
    #[error("can not serve")]
    Serve(#[source] io::Error),
}

/// Listens on `address`, even if it is not on this node now: a floating address comes and goes with the primary
/// role, while the daemon runs on every coordinator all the time.
///
/// # Errors
/// [`ServerError::Listen`].
pub fn listen(address: SocketAddr) -> Result<TcpListener, ServerError> {
    let open = || -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        match address {
            SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
            SocketAddr::V6(_) => {
                socket.set_only_v6(true)?;
                socket.set_freebind_v6(true)?;
            }
        }
        // Those that are accepted have it from here.
        socket.set_tcp_user_timeout(Some(UNTAKEN))?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(1024)?;
        Ok(socket.into())
    };
    open().map_err(|source| ServerError::Listen { address, source })
}

/// Serves the API on these sockets until the returned server is stopped. It has to be awaited, on a runtime, on which
/// what is done beside the requests runs as well.
///
/// # Errors
/// [`ServerError::Serve`].
pub fn serve<S: Store>(
    app: Arc<App<S>>,
    listeners: Vec<TcpListener>,
    tls: Option<ServerConfig>,
) -> Result<Server, ServerError> {
    let document = serde_json::to_value(openapi::document()).map_err(ServerError::Document)?;
    let operations = web::Data::new(Operations::of(&document));
    app.access.start(app.store.clone());
    let app = web::Data::from(app);
    let instruments = web::Data::new(Instruments::default());
    let mut server = HttpServer::new(move || {
        ActixApp::new()
            .wrap(Compress::default())
            .configure(|services| configure(services, app.clone(), operations.clone(), instruments.clone()))
            .wrap(from_fn(request::tell_age::<S, _>))
            // The last one wraps the others: a request has its identity before it is refused.
            .wrap(from_fn(access::guard::<S, _>))
            .wrap(from_fn(request::trace))
    })
    .workers(WORKERS)
    .max_connections(MAX_CONNECTIONS)
    .client_request_timeout(REQUEST_HEAD_LIMIT)
    .keep_alive(KEEP_ALIVE)
    // The end of a reply must not wait until the client has acknowledged what came before it (Nagle), which a client
    // that has nothing to send does only 40 ms later.
    .tcp_nodelay(true)
    // Who hangs up does not wait any more: what waits for him is dropped.
    .h1_allow_half_closed(false)
    .shutdown_timeout(SHUTDOWN_SECONDS)
    .disable_signals();
    for listener in listeners {
        server = match &tls {
            None => server.listen(listener),
            Some(tls) => server.listen_rustls_0_23(listener, tls.clone()),
        }
        .map_err(ServerError::Serve)?;
    }
    Ok(server.run())
}

fn configure<S: Store>(
    services: &mut web::ServiceConfig,
    app: web::Data<App<S>>,
    operations: web::Data<Operations>,
    instruments: web::Data<Instruments>,
) {
    services.app_data(app).app_data(operations).app_data(instruments);
    routes::configure::<S>(services);
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    // Thousands that ask for much and take nothing would have all connections.
    #[test]
    fn a_client_that_takes_nothing_is_given_up() {
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        listener.set_nonblocking(false).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let limit = socket2::SockRef::from(&accepted).tcp_user_timeout().unwrap();
        assert_eq!(limit, Some(UNTAKEN));
    }
}
