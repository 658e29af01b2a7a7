//! The way to the API: a listener on this machine's loopback interface whose connections begin inside the switch.
//!
//! A listening socket stays in the namespace it was made in; a thread that changes its namespace makes new sockets in
//! the new one. So the machine needs no address and no route of the lab.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::net::sockopt;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::network::SWITCH_PATH;
use crate::process::wait_for;
use crate::service::{self, Tool};
use crate::state::{Folder, write_file};
use crate::topology::Network;

/// Port of the API, here and there.
pub const API_PORT: u16 = 7370;
/// How many ports from there on are tried.
const PORTS: u16 = 30;
/// Two threads each; more clients than any test has.
const MAX_CONNECTIONS: usize = 256;
/// While the floating address moves nobody answers for it; clients try again.
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);
const NAME: &str = "forward";

/// Starts the forwarder and gives the port it listens on.
pub(crate) fn start(folder: &Folder, tool: &Tool) -> Result<u16> {
    let port_file = folder.cluster().join("forward.port");
    let (program, file) = (tool.path().display().to_string(), port_file.display().to_string());
    service::start(folder, NAME, &[&program, "lab", "forward", &file], |run| run)?;
    wait_for("the forwarder to the API", Duration::from_secs(10), || {
        Ok(std::fs::read_to_string(&port_file)
            .ok()
            .and_then(|text| text.trim().parse().ok()))
    })
    .with_context(|| format!("see {}", folder.cluster().join("forward.log").display()))
}

/// Forwards until the process is ended. The port that was free goes into the file.
///
/// # Errors
/// If no port is free or the switch is gone.
pub fn serve(port_file: &Path) -> Result<()> {
    let listener = listen()?;
    let port = listener.local_addr().context("cannot tell the own port")?.port();
    let switch = File::open(SWITCH_PATH).context("the switch is gone")?;
    move_into_link_name_space(switch.as_fd(), Some(LinkNameSpaceType::Network))
        .context("cannot enter the switch")?;
    write_file(port_file, 0o644, format!("{port}\n"))?;
    let target = SocketAddr::V4(SocketAddrV4::new(Network::Upstream.floating_v4(), API_PORT));
    let open = Arc::new(AtomicUsize::new(0));
    for client in listener.incoming() {
        let client = match client {
            Ok(client) => client,
            Err(error) => {
                eprintln!("cannot accept: {error}");
                continue;
            }
        };
        if open.load(Ordering::Relaxed) >= MAX_CONNECTIONS {
            eprintln!("{MAX_CONNECTIONS} connections are open: one more is refused");
            continue;
        }
        open.fetch_add(1, Ordering::Relaxed);
        let open = Arc::clone(&open);
        thread::spawn(move || {
            // Who connects while no node is primary sees the connection close: there is nobody else to tell.
            if let Err(error) = forward(&client, target) {
                eprintln!("{target}: {error}");
            }
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
    Ok(())
}

fn listen() -> Result<TcpListener> {
    let tried = API_PORT..API_PORT + PORTS;
    for port in tried.clone() {
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            return Ok(listener);
        }
    }
    bail!(
        "no port of {} to {} is free on the loopback interface",
        tried.start,
        tried.end - 1
    )
}

fn forward(client: &TcpStream, target: SocketAddr) -> io::Result<()> {
    let server = TcpStream::connect_timeout(&target, CONNECT_DEADLINE)?;
    for stream in [client, &server] {
        stream.set_nodelay(true)?;
        // A primary that lost its power never says so: without this the two threads would wait for it for ever.
        sockopt::set_socket_keepalive(stream, true)?;
        sockopt::set_tcp_keepidle(stream, Duration::from_secs(10))?;
        sockopt::set_tcp_keepintvl(stream, Duration::from_secs(5))?;
        sockopt::set_tcp_keepcnt(stream, 3)?;
    }
    thread::scope(|scope| {
        scope.spawn(|| pass_on(client, &server));
        pass_on(&server, client);
    });
    Ok(())
}

/// Copies until one side ends, then tells the other that nothing more will come.
fn pass_on(mut from: &TcpStream, mut to: &TcpStream) {
    let how = match io::copy(&mut from, &mut to) {
        Ok(_) => Shutdown::Write,
        // One side is broken: nothing of value can pass in either direction.
        Err(_) => {
            from.shutdown(Shutdown::Both).ok();
            Shutdown::Both
        }
    };
    to.shutdown(how).ok();
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    // A client that ends its request by closing its half must still get the whole answer.
    #[test]
    fn a_half_closed_connection_gets_its_answer() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let target = server.local_addr().unwrap();
        let front = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = front.local_addr().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = server.accept().unwrap();
                let mut request = String::new();
                stream.read_to_string(&mut request).unwrap();
                write!(stream, "answer to {request}").unwrap();
            });
            scope.spawn(|| forward(&front.accept().unwrap().0, target).unwrap());
            let mut client = TcpStream::connect(address).unwrap();
            client.write_all(b"request").unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            assert_eq!(answer, "answer to request");
        });
    }
}
