//! ZooKeeper on this node answers, whichever server this agent itself is connected to.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use pvc_common::clock::Clock;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Finding;

/// What a server that does not serve takes: one more of them and the cluster has no quorum.
const DELTA: u32 = 50;
/// How long it may take.
const LIMIT: Duration = Duration::from_secs(1);
/// The most of an answer that is read, in bytes.
const LARGEST: u64 = 16 * 1024;

pub(super) async fn check<C: Clock>(clock: &C, server: Option<SocketAddr>) -> Finding {
    let Some(server) = server else {
        return Finding::not_checked("no ZooKeeper server should run on this node");
    };
    match clock.timeout(LIMIT, ask(server)).await {
        Some(Ok(answer)) => judge(&answer),
        Some(Err(error)) => Finding::new(DELTA, format!("ZooKeeper on this node: {error}"), json!({})),
        None => Finding::new(DELTA, "ZooKeeper on this node does not answer", json!({})),
    }
}

/// The one administrative command that servers answer unless told otherwise.
async fn ask(server: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(b"srvr").await?;
    let mut answer = String::new();
    stream.take(LARGEST).read_to_string(&mut answer).await?;
    Ok(answer)
}

fn judge(answer: &str) -> Finding {
    let mode = answer.lines().find_map(|line| line.strip_prefix("Mode: "));
    match mode {
        Some(mode) => Finding::new(
            0,
            format!("ZooKeeper on this node serves as {mode}"),
            json!({"mode": mode}),
        ),
        // It is forbidden to ask, which is no sign of trouble: whoever answers so serves.
        None if answer.contains("not in the whitelist") => {
            Finding::not_checked("ZooKeeper does not allow the command srvr (4lw.commands.whitelist)")
        }
        None => Finding::new(
            DELTA,
            format!(
                "ZooKeeper on this node does not serve: {:?}",
                answer.lines().next().unwrap_or_default()
            ),
            json!({}),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_without_a_quorum_counts() {
        let serving =
            "Zookeeper version: 3.8.0\nLatency min/avg/max: 0/0.5/9\nMode: follower\nNode count: 9\n";
        assert_eq!(judge(serving).data["mode"], json!("follower"));
        let alone = judge("This ZooKeeper instance is not currently serving requests\n");
        assert_eq!(alone.delta, 50);
        assert_eq!(
            judge("srvr is not executed because it is not in the whitelist.\n").delta,
            0
        );
    }
}
