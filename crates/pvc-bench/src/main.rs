//! Measures the API daemon: a ZooKeeper of its own is filled with a cluster, the released daemon is started on it, and
//! clients ask over loopback. `cargo xtask bench api` builds both and runs this.
//!
//! * [`zookeeper`] - the server, ended with this program however it ends.
//! * [`fill`] - the cluster in the store, and the agents' statistics.
//! * [`daemon`] - `pvcapid` as a process: its start, its memory, its processor time.
//! * [`client`] - a client of HTTP that costs little.
//! * [`load`] - many of them, and what they saw.
//! * [`figure`] - figures with their targets, as JSON lines and as a table.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a tool, not a daemon: it runs programs and prints, and has no seams for either"
)]

mod client;
mod daemon;
mod figure;
mod fill;
mod load;
mod zookeeper;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use pvc_common::clock::{Clock, HostClock};
use pvc_common::store::zookeeper::{ZooKeeperOptions, ZooKeeperStore};

use client::{Client, Encoding};
use daemon::Daemon;
use figure::{Figure, Report};
use fill::Size;
use load::Load;

#[derive(Debug, Parser)]
#[command(about = "Measures the API on a coordination store of its own")]
struct Arguments {
    /// The daemon's program
    #[arg(long, value_name = "FILE")]
    daemon: PathBuf,
    /// Write the figures here, a JSON object a line
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How long each load lasts
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// How many guests there are, one cluster after another
    #[arg(long, value_delimiter = ',', default_values_t = [10, 100, 1000, 10_000])]
    guests: Vec<usize>,
}

/// A guest's list and a single guest are measured at these numbers of clients.
const CLIENTS: [usize; 3] = [1, 16, 64];
/// How often the time from a write to its showing is taken.
const VISIBILITY_RUNS: usize = 50;

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    // One thread: the other core is the daemon's.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut report = Report::new(arguments.json.as_deref())?;
    for guests in &arguments.guests {
        runtime.block_on(measure(&arguments, *guests, &mut report))?;
    }
    Ok(())
}

async fn measure(arguments: &Arguments, guests: usize, report: &mut Report) -> Result<()> {
    let size = Size::with_guests(guests);
    println!("\n{size}");
    let server = zookeeper::Server::start(size.zookeeper_heap_mib())?;
    let store = ZooKeeperStore::connect(ZooKeeperOptions::new(format!("127.0.0.1:{}", server.port())));
    if !store.wait_connected(Duration::from_secs(60)).await {
        bail!("ZooKeeper does not answer");
    }
    fill::fill(&store, size).await.context("cannot fill the store")?;

    let daemon = start(arguments, &server, size, report).await?;
    let guest = fill::guest_name(guests / 2);
    let long = Duration::from_secs(arguments.seconds);
    for clients in CLIENTS {
        for (name, path, encoding) in [
            ("vm", format!("/vm/{guest}"), Encoding::Identity),
            ("list", "/vm".to_owned(), Encoding::Identity),
            ("list-gzip", "/vm".to_owned(), Encoding::Gzip),
            ("list-unchanged", "/vm".to_owned(), Encoding::Unchanged),
            ("node", "/node".to_owned(), Encoding::Identity),
            ("status", "/status".to_owned(), Encoding::Identity),
            ("metrics", "/metrics".to_owned(), Encoding::Identity),
        ] {
            let load = Load {
                name,
                path: &path,
                encoding,
                clients,
                long,
            };
            load::run(&load, &daemon, size, "idle", report).await?;
        }
    }
    busy(&store, &daemon, size, long, report).await?;
    visibility(&store, &daemon, size, report).await?;
    report.add(
        Figure::one("memory.after_load", "MB", daemon.memory_mb()?)
            .of(size)
            .at_most(memory_target(size)),
    )
}

/// What the daemon's memory should not be above: the target is set for the largest cluster.
fn memory_target(size: Size) -> Option<f64> {
    (size.guests == 10_000).then_some(150.0)
}

/// Starts the daemon several times: to the first answer, and its memory then.
async fn start(
    arguments: &Arguments,
    server: &zookeeper::Server,
    size: Size,
    report: &mut Report,
) -> Result<Daemon> {
    let mut took = Vec::new();
    for _ in 0..5 {
        let begun = HostClock.now();
        let daemon = Daemon::start(&arguments.daemon, server.port())?;
        let mut client = Client::new(daemon.address(), "/node", Encoding::Identity);
        loop {
            match client.ask().await {
                Ok(answer) if answer.status == 200 => break,
                Ok(_) | Err(_) => HostClock.sleep(Duration::from_millis(2)).await,
            }
            if HostClock.now().since(begun) > Duration::from_secs(120) {
                bail!("the daemon does not answer");
            }
        }
        took.push(HostClock.now().since(begun).as_secs_f64());
        if took.len() == 5 {
            let target = (size.guests <= 1000).then_some(0.5);
            report.add(Figure::many("start", "s", &took).of(size).at_most(target))?;
            let memory = daemon.memory_mb()?;
            report.add(
                Figure::one("memory", "MB", memory)
                    .of(size)
                    .at_most(memory_target(size)),
            )?;
            return Ok(daemon);
        }
    }
    bail!("no start was measured")
}

/// The list while every guest's node writes its statistics every five seconds, as agents do.
async fn busy(
    store: &ZooKeeperStore,
    daemon: &Daemon,
    size: Size,
    long: Duration,
    report: &mut Report,
) -> Result<()> {
    let guest = fill::guest_name(size.guests / 2);
    let single = format!("/vm/{guest}");
    for (name, path, encoding) in [
        ("vm", single.as_str(), Encoding::Identity),
        ("list", "/vm", Encoding::Identity),
        ("list-gzip", "/vm", Encoding::Gzip),
        ("status", "/status", Encoding::Identity),
    ] {
        let load = Load {
            name,
            path,
            encoding,
            clients: 16,
            long,
        };
        tokio::select! {
            measured = load::run(&load, daemon, size, "busy", report) => measured?,
            failed = fill::keep_writing(store, size) => failed?,
        }
    }
    Ok(())
}

/// From the store's acknowledgement of a write to the first reply that shows it.
async fn visibility(store: &ZooKeeperStore, daemon: &Daemon, size: Size, report: &mut Report) -> Result<()> {
    let number = size.guests / 2;
    let path = format!("/vm/{}/state", fill::guest_name(number));
    let mut client = Client::new(daemon.address(), &path, Encoding::Identity);
    let mut took = Vec::new();
    for _ in 0..VISIBILITY_RUNS {
        let wanted = fill::turn_state(store, number).await?;
        let begun = HostClock.now();
        while !client.text().await?.contains(&format!("\"{wanted}\"")) {
            if HostClock.now().since(begun) > Duration::from_secs(10) {
                bail!("a write does not show");
            }
        }
        took.push(HostClock.now().since(begun).as_secs_f64() * 1000.0);
        HostClock.sleep(Duration::from_millis(20)).await;
    }
    report.add(
        Figure::many("visibility", "ms", &took)
            .of(size)
            .at_most(Some(20.0)),
    )
}
