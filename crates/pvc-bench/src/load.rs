//! Many clients at a time, and what they saw.

use std::time::Duration;

use anyhow::Result;
use pvc_common::clock::{Clock, HostClock};

use crate::client::{Client, Encoding};
use crate::daemon::Daemon;
use crate::figure::{Figure, Report};
use crate::fill::Size;

/// What is asked for, by how many, for how long.
pub(crate) struct Load<'a> {
    pub(crate) name: &'static str,
    pub(crate) path: &'a str,
    pub(crate) encoding: Encoding,
    pub(crate) clients: usize,
    pub(crate) long: Duration,
}

/// What one client saw.
struct Seen {
    milliseconds: Vec<f64>,
    bytes: usize,
}

/// Runs the load and reports rate, latencies and the daemon's processor time for each request. A route that is not there is
/// passed over.
pub(crate) async fn run(
    load: &Load<'_>,
    daemon: &Daemon,
    size: Size,
    cluster: &'static str,
    report: &mut Report,
) -> Result<()> {
    let mut first = Client::new(daemon.address(), load.path, load.encoding);
    let answer = first.ask().await?;
    if answer.status == 404 || answer.status == 501 {
        println!("  {} answers {}", load.path, answer.status);
        return Ok(());
    }
    let (begun, cpu) = (HostClock.now(), daemon.cpu_seconds()?);
    let deadline = begun + load.long;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..load.clients {
        let mut client = Client::new(daemon.address(), load.path, load.encoding);
        clients.spawn(async move {
            let mut seen = Seen {
                milliseconds: Vec::new(),
                bytes: 0,
            };
            loop {
                let asked = HostClock.now();
                if asked >= deadline {
                    return anyhow::Ok(seen);
                }
                let answer = client.ask().await?;
                anyhow::ensure!(matches!(answer.status, 200 | 304), "answered {}", answer.status);
                seen.milliseconds
                    .push(HostClock.now().since(asked).as_secs_f64() * 1000.0);
                seen.bytes = answer.bytes;
            }
        });
    }
    let (mut all, mut bytes) = (Vec::new(), 0);
    while let Some(seen) = clients.join_next().await {
        let seen = seen??;
        all.extend(seen.milliseconds);
        bytes = seen.bytes;
    }
    let took = HostClock.now().since(begun).as_secs_f64();
    let cpu = daemon.cpu_seconds()? - cpu;
    let count = f64::from(u32::try_from(all.len())?);
    let targets = Targets::of(load, size, cluster);
    let with = format!("{cluster}, {} clients, {bytes} bytes", load.clients);
    let name = |what: &str| format!("{}.{what}", load.name);
    report.add(
        Figure::one(&name("rate"), "1/s", count / took)
            .of(size)
            .under(&with)
            .at_least(targets.rate),
    )?;
    report.add(
        Figure::many(&name("latency"), "ms", &all)
            .of(size)
            .under(&with)
            .p99_at_most(targets.p99),
    )?;
    report.add(
        Figure::one(&name("cpu"), "ms", cpu * 1000.0 / count)
            .of(size)
            .under(&with),
    )
}

/// What a load is held against.
struct Targets {
    rate: Option<f64>,
    p99: Option<f64>,
}

impl Targets {
    fn of(load: &Load<'_>, size: Size, cluster: &str) -> Targets {
        let measured = size.guests == 1000 && load.clients == 16;
        match (load.name, cluster) {
            ("list" | "list-gzip", _) if measured => Targets {
                rate: Some(200.0),
                p99: Some(100.0),
            },
            ("vm", "idle") if measured => Targets {
                rate: Some(5000.0),
                p99: None,
            },
            _ => Targets {
                rate: None,
                p99: None,
            },
        }
    }
}
