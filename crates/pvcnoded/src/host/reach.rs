//! Whether the storage cluster can be reached over the storage network.
//!
//! A Ceph monitor greets whoever connects, before it is asked anything. So the look is one connection and a few bytes:
//! no process is started and no state of Ceph is touched, on a node that may do this for months. The own host's monitor
//! is left out, since it answers with the cable pulled.

use std::future::Future;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::select_ok;
use pvc_common::clock::{Clock as _, HostClock};
use pvc_core::storage_loss::StorageLook;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

/// How long a monitor may take to greet.
const GREETED_WITHIN: Duration = Duration::from_secs(1);
/// How every version of its protocol greets.
const GREETING: &[u8] = b"ceph v";

/// The storage cluster, seen from a node that uses it.
pub trait StorageReach: Clone + Send + Sync + 'static {
    /// Looks once; takes at most a little over a second.
    fn look(&self) -> impl Future<Output = StorageLook> + Send;
}

/// The monitors of other hosts.
#[derive(Debug, Clone)]
pub struct Monitors {
    /// Where they listen, as `host:port`.
    pub addresses: Vec<String>,
}

impl StorageReach for Monitors {
    async fn look(&self) -> StorageLook {
        let greetings = self.addresses.iter().map(|address| greeting(address).boxed());
        match select_ok(greetings).await {
            Ok(_) => StorageLook::Reached,
            Err(reason) => StorageLook::Silent { reason },
        }
    }
}

async fn greeting(address: &str) -> Result<(), String> {
    let greeted = async {
        let mut stream = TcpStream::connect(address)
            .await
            .map_err(|error| error.to_string())?;
        let mut bytes = [0; GREETING.len()];
        stream
            .read_exact(&mut bytes)
            .await
            .map_err(|error| error.to_string())?;
        match bytes == GREETING {
            true => Ok(()),
            false => Err("it is no Ceph monitor".to_owned()),
        }
    };
    HostClock
        .timeout(GREETED_WITHIN, greeted)
        .await
        .unwrap_or_else(|| Err("no answer".to_owned()))
        .map_err(|reason| format!("{address}: {reason}"))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    async fn server(says: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                stream.write_all(says).await.unwrap();
                // Kept open: a monitor waits for the caller's greeting.
                tokio::spawn(async move { stream.read_u8().await });
            }
        });
        address
    }

    async fn check(addresses: &[&String]) -> StorageLook {
        let addresses = addresses.iter().map(|address| (*address).clone()).collect();
        Monitors { addresses }.look().await
    }

    #[tokio::test]
    async fn one_monitor_that_greets_is_enough_and_an_open_port_is_not() {
        let (monitor, silent) = (server(b"ceph v2\n").await, server(b"").await);
        let (old, other) = (server(b"ceph v027").await, server(b"SSH-2.0-x").await);
        assert_eq!(check(&[&silent, &monitor, &other]).await, StorageLook::Reached);
        assert_eq!(check(&[&old]).await, StorageLook::Reached);
        let nobody = check(&[&silent, &other]).await;
        assert!(matches!(&nobody, StorageLook::Silent { .. }), "{nobody:?}");
    }
}
