//! A ZooKeeper server of Debian's packages, on a free port, with its data in a folder of its own.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

const CLASS_PATH: &str = "/usr/share/java/zookeeper.jar:/usr/share/java/slf4j-simple.jar";

/// Starts the server and ends it with its data as soon as the standard input ends: however this program ends, nothing is
/// left running.
const KEEPER: &str = r#"
java -Xmx"$3"m -XX:+UseSerialGC -cp "$1" org.apache.zookeeper.server.quorum.QuorumPeerMain "$2/zoo.cfg" \
    >"$2/log" 2>&1 </dev/null &
server=$!
echo started
read -r _
kill -9 $server
wait $server 2>/dev/null
rm -rf "$2"
"#;

/// A server that runs.
pub(crate) struct Server {
    port: u16,
    keeper: Child,
}

impl Server {
    /// Starts a server with that much memory. It takes a moment to answer.
    pub(crate) fn start(heap_mib: u32) -> Result<Server> {
        if !Path::new("/usr/share/java/zookeeper.jar").exists() {
            bail!("apt-get install libzookeeper-java libslf4j-java default-jre-headless");
        }
        let port = free_port()?;
        let folder = tempfile::Builder::new().prefix("pvc-bench-").tempdir()?.keep();
        // A list of the children of a container of ten thousand guests is under a megabyte; the fill's transactions too.
        let settings = format!(
            "tickTime=500\ndataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\nadmin.enableServer=false\n\
             maxClientCnxns=0\n",
            folder.display()
        );
        std::fs::write(folder.join("zoo.cfg"), settings)?;
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "sh", CLASS_PATH])
            .arg(&folder)
            .arg(heap_mib.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start ZooKeeper")?;
        let mut line = String::new();
        let output = keeper.stdout.take().context("the keeper says nothing")?;
        BufReader::new(output).read_line(&mut line)?;
        Ok(Server { port, keeper })
    }

    /// Where it listens, on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// A port that nobody listens on.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
