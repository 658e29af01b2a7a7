//! The ZooKeeper ensemble on the coordinators.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::node::Node;
use crate::process::wait_for;
use crate::state::State;
use crate::topology::Network;

const UNIT: &str = include_str!("../assets/node/zookeeper.service");
/// Three JVMs started at once on two cores beside everything else.
const DEADLINE: Duration = Duration::from_secs(90);

/// What a server says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Leads the ensemble.
    Leader,
    /// Follows.
    Follower,
}

/// Puts configuration and unit on a coordinator that has never run.
pub(crate) fn install(node: &Node, state: &State) -> Result<()> {
    node.write_file("/etc/zookeeper/conf/zoo.cfg", 0o644, configuration(state))?;
    node.write_file(
        "/etc/zookeeper/conf/myid",
        0o644,
        format!("{}\n", node.id().number()),
    )?;
    node.link("/var/lib/zookeeper/myid", "/etc/zookeeper/conf/myid")?;
    node.own("/var/lib/zookeeper", "zookeeper")?;
    node.install_unit("zookeeper.service", UNIT)
}

fn configuration(state: &State) -> String {
    // Times as the high-availability protocol wants them: an ensemble without leader, or a session without client,
    // is noticed within two to four seconds.
    let mut text = String::from(
        "tickTime=500\ninitLimit=20\nsyncLimit=4\nminSessionTimeout=1000\nmaxClientCnxns=0\n\
         dataDir=/var/lib/zookeeper\nclientPort=2181\nadmin.enableServer=false\n4lw.commands.whitelist=*\n\
         autopurge.purgeInterval=1\nautopurge.snapRetainCount=3\n",
    );
    for node in state.coordinators() {
        writeln!(
            text,
            "server.{}={}:2888:3888",
            node.number(),
            Network::Cluster.node_v4(node)
        )
        .ok();
    }
    text
}

/// Waits until every one of the coordinators leads or follows.
pub(crate) fn wait_ready(coordinators: &[Node]) -> Result<()> {
    for node in coordinators {
        wait_for(&format!("ZooKeeper on {}", node.id()), DEADLINE, || mode(node)).with_context(|| {
            let log = node.exec(&["journalctl", "--unit=zookeeper", "--lines=10", "--output=cat"]);
            format!(
                "its log ends with: {}",
                log.map(|output| output.stdout).unwrap_or_default()
            )
        })?;
    }
    Ok(())
}

/// What the server on this node is; none if it does not serve, for want of a quorum for example.
///
/// # Errors
/// If the node is off.
pub fn mode(node: &Node) -> Result<Option<Mode>> {
    let argv = ["nc", "-w", "2", "127.0.0.1", "2181"];
    // Without a line feed: the server closes after four letters, and a fifth unread makes that a reset, often before the
    // answer was read.
    let Ok(output) = node.exec_with_input("srvr", &argv) else {
        return Ok(None);
    };
    Ok(parse_mode(&output.stdout))
}

fn parse_mode(srvr: &str) -> Option<Mode> {
    match srvr.lines().find_map(|line| line.strip_prefix("Mode: "))? {
        "leader" => Some(Mode::Leader),
        "follower" => Some(Mode::Follower),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Storage;
    use crate::topology::NodeId;

    // A server that answers without a quorum says so in words, not by a mode.
    #[test]
    fn reads_the_mode() {
        assert_eq!(
            parse_mode("Zookeeper version: 3.8.0\nMode: leader\nNode count: 5\n"),
            Some(Mode::Leader)
        );
        assert_eq!(parse_mode("Mode: follower\n"), Some(Mode::Follower));
        assert_eq!(
            parse_mode("This ZooKeeper instance is not currently serving requests\n"),
            None
        );
        assert_eq!(parse_mode(""), None);
    }

    #[test]
    fn only_coordinators_are_in_the_ensemble() {
        let state = State::new("/base".into(), NodeId::first(5), Storage::None).unwrap();
        let text = configuration(&state);
        assert!(text.contains("server.3=10.101.0.3:2888:3888\n"), "{text}");
        assert!(!text.contains("server.4"), "{text}");
    }
}
