//! A real ZooKeeper server of Debian's packages `libzookeeper-java`, `libslf4j-java` and `default-jre-headless`, on a
//! free port with its data in a directory of its own.
#![expect(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "helpers of tests, which start the server that they test against"
)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pvc_common::clock::{Clock, HostClock};
use rustix::process::{Pid, Signal, kill_process};
use zookeeper_client as zk;

pub mod proxy;

const CLASS_PATH: &str = "/usr/share/java/zookeeper.jar:/usr/share/java/slf4j-simple.jar";

/// Starts the server, tells its process id, and ends it with its data as soon as the standard input ends: however the
/// test process ends, nothing is left running.
const KEEPER: &str = r#"
java -Xmx128m -Xms32m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$1" \
    org.apache.zookeeper.server.quorum.QuorumPeerMain "$2/zoo.cfg" >"$2/log" 2>&1 </dev/null &
server=$!
echo $server
read -r _
kill -9 $server
wait $server 2>/dev/null
rm -rf "$2"
"#;

/// A server that runs.
pub struct Server {
    port: u16,
    pid: Pid,
    keeper: Child,
}

impl Server {
    /// Starts a server and waits until it answers.
    pub async fn start() -> Server {
        let server = Server::start_on(free_port());
        server.client("").await;
        server
    }

    /// Starts a server on that port and does not wait for it.
    pub fn start_on(port: u16) -> Server {
        assert!(
            Path::new("/usr/share/java/zookeeper.jar").exists(),
            "apt-get install libzookeeper-java libslf4j-java default-jre-headless"
        );
        let directory = tempfile::Builder::new()
            .prefix("pvc-zookeeper-")
            .tempdir()
            .unwrap()
            .keep();
        let settings = format!(
            "tickTime=500\ndataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\n\
             admin.enableServer=false\nmaxClientCnxns=0\n",
            directory.display()
        );
        std::fs::write(directory.join("zoo.cfg"), settings).unwrap();
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "sh", CLASS_PATH])
            .arg(&directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(keeper.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        Server {
            port,
            pid: Pid::from_raw(line.trim().parse().unwrap()).unwrap(),
            keeper,
        }
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A plain client of the library, below the path `below`.
    pub async fn client(&self, below: &str) -> zk::Client {
        connect(self.port, below, None).await
    }

    /// Takes over a session and closes it: to its owner, cut off meanwhile, it has expired. `name` is not used twice.
    pub async fn end_session(&self, session: zk::SessionInfo, name: &str) {
        let marker = format!("/ended-{name}");
        let ephemeral = zk::CreateMode::Ephemeral.with_acls(zk::Acls::anyone_all());
        let taken = connect(self.port, "", Some(session)).await;
        taken.create(&marker, b"", &ephemeral).await.unwrap();
        drop(taken);
        let witness = self.client("").await;
        let deadline = HostClock.now() + Duration::from_secs(60);
        while witness.check_stat(&marker).await.unwrap().is_some() {
            assert!(HostClock.now() < deadline, "the session does not end");
            HostClock.sleep(Duration::from_millis(5)).await;
        }
    }

    /// Stops the server's process where it is.
    pub fn freeze(&self) {
        kill_process(self.pid, Signal::STOP).unwrap();
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        kill_process(self.pid, Signal::CONT).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        self.keeper.wait().unwrap();
    }
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

async fn connect(port: u16, below: &str, session: Option<zk::SessionInfo>) -> zk::Client {
    let deadline = HostClock.now() + Duration::from_secs(60);
    loop {
        let mut connector = zk::Client::connector();
        if let Some(session) = &session {
            connector = connector.with_session(session.clone());
        }
        match connector.connect(&format!("127.0.0.1:{port}{below}")).await {
            Ok(client) => return client,
            Err(error) if HostClock.now() < deadline => {
                drop(error);
                HostClock.sleep(Duration::from_millis(20)).await;
            }
            Err(error) => panic!("the server does not answer: {error}"),
        }
    }
}
