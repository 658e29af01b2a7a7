//! `cargo xtask lab`: a real cluster on this machine.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::{Command as Process, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use pvc_lab::{
    Begun, Changed, DEMO, Daemons, Installed, Lab, Lines, Network, Node, Options, Power, Progress, Storage,
    ceph, guest, zookeeper_mode,
};

use crate::workspace;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build the cluster, or say that it is there
    Up(UpArguments),
    /// Remove the cluster; the base tree and the downloads stay
    Down,
    /// Say what is up
    Status,
    /// Build the daemons anew, copy them to the nodes and restart them
    Deploy(BuildArguments),
    /// Open a shell in a node
    Shell {
        /// hv1, hv2 ...
        node: String,
    },
    /// Run a command in a node
    Exec {
        /// hv1, hv2 ...
        node: String,
        /// Command and arguments, after `--`
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Take a node's power away
    Kill {
        /// hv1, hv2 ...
        node: String,
    },
    /// Stop every process of a node where it stands
    Freeze {
        /// hv1, hv2 ...
        node: String,
    },
    /// Let a frozen node go on
    Thaw {
        /// hv1, hv2 ...
        node: String,
    },
    /// Switch a node
    Power {
        /// hv1, hv2 ...
        node: String,
        /// What to do
        switch: Switch,
        /// With on and cycle: do not wait until the node has booted
        #[arg(long)]
        no_wait: bool,
    },
    /// Cut a node off from a network
    Partition {
        /// hv1, hv2 ...
        node: String,
        /// upstream, cluster, storage, or all
        #[arg(value_parser = parse_networks)]
        network: Networks,
        /// Lose this share of the frames instead of all
        #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=100))]
        loss: Option<u8>,
    },
    /// End all partitions
    Heal,
    /// Make the volume of a guest and print its XML, for `pvc vm define`
    Guest {
        /// Name of the guest
        name: String,
        /// A guest in one boot sector instead of a small Linux
        #[arg(long)]
        tiny: bool,
    },
    /// Pass connections on to the API; started by `up`
    #[command(hide = true)]
    Forward {
        /// Where to write the port that was free
        port_file: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct UpArguments {
    /// Number of nodes; the first three are coordinators
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(3..=50))]
    nodes: u8,
    /// Without Ceph and guests: quicker
    #[arg(long)]
    no_ceph: bool,
    /// Without our daemons: only what they run on
    #[arg(long)]
    no_daemons: bool,
    /// Without the demo guest
    #[arg(long)]
    no_guest: bool,
    #[command(flatten)]
    build: BuildArguments,
}

#[derive(Debug, Args)]
pub(crate) struct BuildArguments {
    /// Build the daemons for speed; without it they have their checks and pause points
    #[arg(long)]
    release: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Switch {
    /// Boot it
    On,
    /// Take its power away
    Off,
    /// Off, then on
    Cycle,
    /// Press the power button: systemd shuts it down
    Soft,
    /// Say whether it is on
    Status,
}

#[derive(Debug, Clone)]
pub(crate) struct Networks(Vec<Network>);

fn parse_networks(text: &str) -> Result<Networks> {
    Ok(Networks(if text == "all" {
        Network::ALL.to_vec()
    } else {
        vec![text.parse()?]
    }))
}

pub(crate) fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Up(arguments) => up(&arguments)?,
        Command::Down => {
            let mut lines = Lines::new();
            Lab::down(&mut lines)?;
            lines.step("the lab is down");
        }
        Command::Deploy(arguments) => {
            let mut lines = Lines::new();
            let lab = Lab::attach()?;
            let daemons = build(&arguments, &mut lines)?;
            lab.deploy(&daemons, &mut lines)?;
            lines.step("the daemons run");
        }
        Command::Status => status(&Lab::attach()?)?,
        Command::Shell { node } => {
            return exit_code(Lab::attach()?.node(&node)?.interactive(&["bash", "--login"])?);
        }
        Command::Exec { node, command } => {
            return exit_code(Lab::attach()?.node(&node)?.interactive(&command)?);
        }
        Command::Kill { node } => Lab::attach()?.node(&node)?.kill()?,
        Command::Freeze { node } => Lab::attach()?.node(&node)?.freeze()?,
        Command::Thaw { node } => Lab::attach()?.node(&node)?.thaw()?,
        Command::Power {
            node,
            switch,
            no_wait,
        } => print(&format!(
            "{}\n",
            power(Lab::attach()?.node(&node)?, switch, no_wait)?
        ))?,
        Command::Partition { node, network, loss } => {
            let lab = Lab::attach()?;
            for network in network.0 {
                match loss {
                    Some(percent) => lab.lose(&node, network, percent)?,
                    None => lab.partition(&node, network)?,
                }
            }
        }
        Command::Heal => Lab::attach()?.heal()?,
        Command::Guest { name, tiny } => {
            let kind = if tiny {
                guest::Kind::Tiny
            } else {
                guest::Kind::Demo
            };
            print(&Lab::attach()?.make_guest(kind, &name)?.xml)?;
        }
        Command::Forward { port_file } => pvc_lab::forward::serve(&port_file)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn exit_code(status: i32) -> Result<ExitCode> {
    Ok(u8::try_from(status).map_or(ExitCode::FAILURE, ExitCode::from))
}

fn up(arguments: &UpArguments) -> Result<()> {
    let mut lines = Lines::new();
    let site = match Lab::begin(&mut lines)? {
        Begun::Found(lab) => {
            lines.step("the lab is up already (`cargo xtask lab down` removes it)");
            status(&lab)?;
            return go_on(&lab, None);
        }
        Begun::Free(site) => site,
    };
    let storage = if arguments.no_ceph {
        Storage::None
    } else {
        Storage::Ceph
    };
    let daemons = if arguments.no_daemons {
        None
    } else {
        Some(build(&arguments.build, &mut lines)?)
    };
    let with_guest = daemons.is_some() && storage == Storage::Ceph && !arguments.no_guest;
    let options = Options {
        nodes: arguments.nodes,
        storage,
        daemons,
        xtask: None,
    };
    let lab = site.build(&options, &mut lines)?;
    let console = if with_guest {
        Some(lab.start_demo(&mut lines)?)
    } else {
        None
    };
    lines.step("the lab is up");
    status(&lab)?;
    go_on(&lab, console.as_deref())
}

/// Builds the daemons and the command line.
fn build(arguments: &BuildArguments, progress: &mut dyn Progress) -> Result<Daemons> {
    progress.step("building the daemons");
    let root = workspace::root();
    let mut cargo = Process::new(workspace::cargo());
    cargo.current_dir(&root).args(["build", "--quiet", "--bins"]);
    cargo.args([
        "--package",
        "pvcnoded",
        "--package",
        "pvcapid",
        "--package",
        "pvc-cli",
    ]);
    if arguments.release {
        cargo.arg("--release");
    }
    let status = cargo.status().context("cannot run cargo")?;
    if !status.success() {
        bail!("the daemons do not build");
    }
    let profile = if arguments.release { "release" } else { "debug" };
    Ok(Daemons {
        programs: workspace::target()?.join(profile),
        units: root.join("deploy/systemd"),
    })
}

/// What a newcomer can do now.
fn go_on(lab: &Lab, console: Option<&str>) -> Result<()> {
    if lab.state().daemons == Installed::No {
        return Ok(());
    }
    let pvc = lab.pvc_command();
    // Who asks for a lab that is up already may have switched half of it off.
    let answer = lab.pvc(&["--quiet", "cluster", "status"])?;
    let mut text = format!(
        "\n$ {} cluster status\n{}{}",
        pvc.display(),
        answer.stdout,
        answer.stderr
    );
    if let Some(console) = console {
        writeln!(text, "\nThe guest `{DEMO}` runs; its console says on {console}")?;
    }
    let state = pvc.with_file_name("lab.json");
    writeln!(
        text,
        "\nThe API is at {}/api/v1; the token is in {}",
        lab.state().api_url,
        state.display()
    )?;
    writeln!(text, "Go on with:  {} vm list", pvc.display())?;
    writeln!(text, "             cargo xtask lab shell hv1")?;
    writeln!(text, "             cargo xtask lab down")?;
    print(&text)
}

/// Writes to standard output. Who reads only the first lines of it, as `head` does, has what he wants.
fn print(text: &str) -> Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write the answer")
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn power(node: &Node, switch: Switch, no_wait: bool) -> Result<&'static str> {
    let on = || {
        if no_wait {
            node.switch_on()
        } else {
            node.power_on()
        }
    };
    let word = |changed, done, already| match changed {
        Changed::Done => done,
        Changed::AlreadySo => already,
    };
    Ok(match switch {
        Switch::On => word(on()?, "switched on", "already on"),
        Switch::Off => word(node.power_off()?, "switched off", "already off"),
        Switch::Cycle => {
            node.power_off()?;
            on()?;
            "switched off and on"
        }
        Switch::Soft => {
            node.shut_down()?;
            "shutting down"
        }
        Switch::Status => match node.power() {
            Power::On => "on",
            Power::Off => "off",
        },
    })
}

fn is_well(node: &Node) -> bool {
    node.power() == Power::On && !node.is_frozen()
}

fn status(lab: &Lab) -> Result<()> {
    let mut text = String::new();
    for node in lab.nodes() {
        let id = node.id();
        let condition = match node.power() {
            Power::Off => "off".to_owned(),
            Power::On if node.is_frozen() => "frozen".to_owned(),
            Power::On => {
                let zookeeper = match zookeeper_mode(node)? {
                    Some(mode) => format!("ZooKeeper {mode:?}").to_lowercase(),
                    None if id.is_coordinator() => "zookeeper does not serve".to_owned(),
                    None => "hypervisor".to_owned(),
                };
                let systemd =
                    node.exec_within(Duration::from_secs(10), &["systemctl", "is-system-running"])?;
                format!("on, systemd {}, {zookeeper}", systemd.stdout.trim())
            }
        };
        writeln!(text, "{id}  {}  {condition}", Network::Cluster.node_v4(id))?;
    }
    if let (Storage::Ceph, Some(node)) = (lab.state().storage, lab.nodes().iter().find(|node| is_well(node)))
    {
        writeln!(
            text,
            "Ceph {}",
            ceph::health(node).unwrap_or_else(|| "does not answer".to_owned())
        )?;
    }
    writeln!(
        text,
        "API {} (token in {})",
        lab.state().api_url,
        lab.folder().join("lab.json").display()
    )?;
    for cut in lab.cuts()? {
        writeln!(text, "cut: {cut}")?;
    }
    print(&text)
}
