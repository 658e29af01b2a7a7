//! `cargo xtask lab`: a real cluster on this machine.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use pvc_lab::{
    Changed, Lab, Lines, Network, Node, Options, Power, Progress, Storage, Up, ceph, guest, zookeeper_mode,
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build the cluster, or say that it is there
    Up(UpArguments),
    /// Remove the cluster; the base tree and the downloads stay
    Down,
    /// Say what is up
    Status,
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

#[expect(clippy::print_stdout, reason = "status is what is asked for")]
pub(crate) fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Up(arguments) => up(&arguments)?,
        Command::Down => {
            let mut lines = Lines::new();
            Lab::down(&mut lines)?;
            lines.step("the lab is down");
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
        } => println!("{}", power(Lab::attach()?.node(&node)?, switch, no_wait)?),
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
            print!("{}", Lab::attach()?.make_guest(kind, &name)?.xml);
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
    let options = Options {
        nodes: arguments.nodes,
        storage: if arguments.no_ceph {
            Storage::None
        } else {
            Storage::Ceph
        },
        xtask: None,
    };
    match Lab::up(&options, &mut lines)? {
        Up::Built(lab) => {
            lines.step("the lab is up");
            status(&lab)
        }
        Up::Found(lab) => {
            lines.step("the lab is up already (`cargo xtask lab down` removes it)");
            status(&lab)
        }
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

#[expect(clippy::print_stdout, reason = "status is what is asked for")]
fn status(lab: &Lab) -> Result<()> {
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
        println!("{id}  {}  {condition}", Network::Cluster.node_v4(id));
    }
    if let (Storage::Ceph, Some(node)) = (lab.state().storage, lab.nodes().iter().find(|node| is_well(node)))
    {
        println!(
            "Ceph {}",
            ceph::health(node).unwrap_or_else(|| "does not answer".to_owned())
        );
    }
    println!(
        "API {} (token in {})",
        lab.state().api_url,
        lab.folder().join("lab.json").display()
    );
    for cut in lab.cuts()? {
        println!("cut: {cut}");
    }
    Ok(())
}
