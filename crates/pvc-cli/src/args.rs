//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::output::{Format, formats};

/// Manage a Parallel Virtual Cluster.
#[derive(Debug, Parser)]
#[command(name = "pvc", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command; they stand before it.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The connection to use; 'local' on a node if none is named [env: PVC_CONNECTION]
    #[arg(short, long, value_name = "NAME")]
    pub(crate) connection: Option<String>,
    /// Use the API at this URL rather than a connection; its token is taken from PVC_API_KEY or --api-key-file [env:
    /// PVC_URL]
    #[arg(long, value_name = "URL", conflicts_with = "connection")]
    pub(crate) url: Option<String>,
    /// Read the token for --url from this file (- for standard input)
    #[arg(long, value_name = "FILE")]
    pub(crate) api_key_file: Option<PathBuf>,
    /// Show each request and how it was answered
    #[arg(short = 'v', long, env = "PVC_DEBUG", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    pub(crate) debug: bool,
    /// Do not say which connection is used
    #[arg(short, long, env = "PVC_QUIET", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    pub(crate) quiet: bool,
    /// Say nothing but what was asked for and errors
    #[arg(short, long, env = "PVC_SILENT", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    pub(crate) silent: bool,
    /// Ask nothing: take every question as confirmed
    #[arg(short, long, env = "PVC_UNSAFE", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    pub(crate) r#unsafe: bool,
    /// Use colours even where there is no terminal
    #[arg(long, visible_alias = "color", env = "PVC_COLOUR", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    pub(crate) colour: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Saved connections to clusters
    #[command(subcommand)]
    Connection(ConnectionCommand),
    /// The cluster as a whole
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Nodes
    #[command(subcommand)]
    Node(NodeCommand),
    /// Virtual machines
    #[command(subcommand)]
    Vm(VmCommand),
    /// Nodes that are suspect or dead, and what becomes of their guests
    #[command(subcommand)]
    Fence(FenceCommand),
    /// What is wrong in the cluster and wants a person
    #[command(subcommand)]
    Fault(FaultCommand),
    /// Print a script that completes commands in a shell
    Completion {
        /// The shell
        shell: Shell,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConnectionCommand {
    /// Save a connection
    Add {
        /// Its name
        name: String,
        /// In words
        #[arg(short, long, default_value = "N/A")]
        description: String,
        /// Host name or address
        #[arg(short, long)]
        address: String,
        /// Port
        #[arg(short, long, default_value_t = pvc_api::DEFAULT_PORT)]
        port: u16,
        /// The token. Everybody on this machine can see it here: better use --api-key-file or PVC_API_KEY
        #[arg(short = 'k', long)]
        api_key: Option<String>,
        /// Read the token from this file (- for standard input)
        #[arg(long, value_name = "FILE", conflicts_with = "api_key")]
        api_key_file: Option<PathBuf>,
        /// Use HTTPS
        #[arg(short, long)]
        ssl: bool,
        /// Use HTTP (this is so unless --ssl is given)
        #[arg(short = 'S', long, overrides_with = "ssl")]
        no_ssl: bool,
    },
    /// Forget a connection
    Remove {
        /// Its name
        name: String,
    },
    /// List connections
    List {
        /// Show tokens
        #[arg(short = 'k', long)]
        show_keys: bool,
        /// How to show them
        #[arg(short, long, default_value = "pretty", value_parser = formats(&["pretty", "raw", "json", "json-pretty", "json-prometheus"]))]
        format: Format,
    },
    /// Show how the cluster behind each connection is
    Detail {
        /// How to show them
        #[arg(short, long, default_value = "pretty", value_parser = formats(&["pretty", "json", "json-pretty"]))]
        format: Format,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Show how the cluster is
    Status {
        /// How to show it
        #[arg(short, long, default_value = "pretty", value_parser = formats(&["pretty", "short", "json", "json-pretty"]))]
        format: Format,
    },
    /// Maintenance: no node is fenced meanwhile
    #[command(subcommand)]
    Maintenance(MaintenanceCommand),
    /// After the store was restored from a backup: take what really runs on the nodes as the truth
    Adopt {
        /// A node that is off and is not waited for; may be given several times
        #[arg(long, value_name = "NODE")]
        without: Vec<String>,
        /// Only show which nodes hold still
        #[arg(long, conflicts_with = "without")]
        show: bool,
        /// Wait until no node holds still any more
        #[arg(short, long)]
        wait: bool,
        /// Ask nothing
        #[arg(short, long)]
        yes: bool,
        /// How to show the nodes
        #[arg(short, long, default_value = "pretty", value_parser = formats(&["pretty", "json", "json-pretty"]))]
        format: Format,
    },
    /// What is wrong in the cluster and wants a person
    #[command(subcommand)]
    Fault(FaultCommand),
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum MaintenanceCommand {
    /// Switch maintenance on
    On,
    /// Switch maintenance off
    Off,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// List nodes
    List {
        /// Only nodes whose name matches this regular expression
        limit: Option<String>,
        /// Only nodes whose agent is in this state (short: -ds)
        #[arg(long)]
        daemon_state: Option<String>,
        /// Only nodes with this part in the primary role (short: -cs)
        #[arg(long)]
        coordinator_state: Option<String>,
        /// Only nodes in this domain state (short: -vs)
        #[arg(long)]
        domain_state: Option<String>,
        /// How to show them
        #[arg(short, long, default_value = "pretty", value_parser = formats(&["pretty", "raw", "json", "json-pretty"]))]
        format: Format,
    },
    /// Show a node
    Info {
        /// The node; this one if none is named
        node: Option<String>,
        /// How to show it
        #[arg(short, long, default_value = "pretty", value_parser = formats(&["pretty", "long", "json", "json-pretty"]))]
        format: Format,
    },
    /// Make a node primary
    Primary {
        /// The node; this one if none is named
        node: Option<String>,
        /// Wait until it is
        #[arg(short, long)]
        wait: bool,
    },
    /// Make a node give up the primary role
    Secondary {
        /// The node; this one if none is named
        node: Option<String>,
        /// Wait until it has
        #[arg(short, long)]
        wait: bool,
    },
    /// Move all virtual machines off a node, and let it take none
    Flush {
        /// The node; this one if none is named
        node: Option<String>,
        /// Wait until it is empty
        #[arg(short, long)]
        wait: bool,
    },
    /// Let a node take virtual machines, and bring back those that were moved off it
    #[command(visible_alias = "unflush")]
    Ready {
        /// The node; this one if none is named
        node: Option<String>,
        /// Wait until it does
        #[arg(short, long)]
        wait: bool,
    },
    /// Exit with 0 if the node is primary, else with 1
    IsPrimary {
        /// The node; this one if none is named
        node: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum FaultCommand {
    /// List faults
    List {
        /// Only this one
        limit: Option<String>,
        /// How to show them
        #[arg(short, long, default_value = "short", value_parser = formats(&["short", "long", "json", "json-pretty"]))]
        format: Format,
    },
    /// Acknowledge faults: they lower the health no more
    Ack {
        /// Their ids
        #[arg(required = true, value_name = "FAULT_ID")]
        ids: Vec<String>,
    },
    /// Acknowledge all faults
    AckAll {
        /// Ask nothing
        #[arg(short, long)]
        yes: bool,
    },
    /// Delete faults; those that still last come back
    Delete {
        /// Their ids
        #[arg(required = true, value_name = "FAULT_ID")]
        ids: Vec<String>,
    },
    /// Delete all faults
    DeleteAll {
        /// Ask nothing
        #[arg(short, long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum FenceCommand {
    /// Show for each node whether it is suspect or dead, and whether it could be switched off
    List {
        /// How to show them
        #[arg(short, long, default_value = "pretty", value_parser = formats(&["pretty", "json", "json-pretty"]))]
        format: Format,
    },
    /// Show the fence of a node: why, what proves it dead, what is missing, what comes next, what was done when
    Show {
        /// The node
        node: String,
        /// How to show it
        #[arg(short, long, default_value = "pretty", value_parser = formats(&["pretty", "json", "json-pretty"]))]
        format: Format,
    },
    /// Confirm something about an open fence
    Confirm {
        /// The node
        node: String,
        /// What
        kind: ConfirmKind,
        /// Ask nothing
        #[arg(short, long)]
        yes: bool,
    },
}

/// What an administrator can confirm about a fence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ConfirmKind {
    /// Seek a proof, although many nodes fell silent at once
    Proceed,
    /// The machine is off, I have seen it: its guests are started elsewhere on this word
    MachineIsOff,
}

/// How a target node is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Selector {
    /// Most free memory
    Mem,
    /// Most memory not provisioned
    Memprov,
    /// Lowest load
    Load,
    /// Fewest vCPUs
    Vcpus,
    /// Fewest guests
    Vms,
    /// As the cluster does
    None,
}

/// How a guest may be moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Method {
    /// Live if possible
    None,
    /// Live only
    Live,
    /// By shutdown and start
    Shutdown,
}

#[derive(Debug, Subcommand)]
pub(crate) enum VmCommand {
    /// List virtual machines
    List {
        /// Only those whose name matches this regular expression
        limit: Option<String>,
        /// Only those on this node
        #[arg(short, long)]
        target: Option<String>,
        /// Only those in this state
        #[arg(short, long)]
        state: Option<String>,
        /// Only those with this tag
        #[arg(short = 'g', long)]
        tag: Option<String>,
        /// Those that node, state and tag do not fit
        #[arg(short, long)]
        negate: bool,
        /// How to show them
        #[arg(short, long, default_value = "pretty", value_parser = formats(&["pretty", "raw", "json", "json-pretty"]))]
        format: Format,
    },
    /// Show a virtual machine
    Info {
        /// Name or UUID
        domain: String,
        /// How to show it
        #[arg(short, long, default_value = "pretty", value_parser = formats(&["pretty", "long", "json", "json-pretty"]))]
        format: Format,
    },
    /// Register a virtual machine
    Define {
        /// File with its libvirt XML (- for standard input)
        vmconfig: PathBuf,
        /// The node to put it on; chosen by the selector if none is named
        #[arg(short, long)]
        target: Option<String>,
        /// The nodes that it may run on, separated by commas
        #[arg(short, long)]
        limit: Option<String>,
        /// How a node is chosen
        #[arg(short = 's', long, default_value = "none")]
        node_selector: Selector,
        /// Start it when its node becomes ready the next time
        #[arg(short, long)]
        autostart: bool,
        /// Do not (this is so unless --autostart is given)
        #[arg(short = 'A', long, overrides_with = "autostart")]
        no_autostart: bool,
        /// How it may be moved
        #[arg(short, long, default_value = "none")]
        method: Method,
        /// How long it may pause at the end of a live migration, in milliseconds
        #[arg(short = 'd', long, default_value_t = 300)]
        max_downtime: u32,
        /// A tag; may be given several times
        #[arg(short = 'g', long)]
        tag: Vec<String>,
        /// A tag that can not be removed; may be given several times
        #[arg(short = 'G', long)]
        protected_tag: Vec<String>,
        /// When its node dies, guests with a higher number are started elsewhere first
        #[arg(
            long,
            value_name = "NUMBER",
            default_value_t = 0,
            allow_negative_numbers = true
        )]
        recovery_priority: i32,
        /// Keep it on another node than the other guests of this group; may be given several times
        #[arg(long, value_name = "GROUP")]
        anti_affinity: Vec<String>,
    },
    /// Show or change how a virtual machine is placed, moved and recovered
    Meta {
        /// Name or UUID
        domain: String,
        /// The nodes that it may run on, separated by commas; empty for any
        #[arg(short, long)]
        limit: Option<String>,
        /// How a node is chosen
        #[arg(short = 's', long)]
        node_selector: Option<Selector>,
        /// Start it when its node becomes ready the next time
        #[arg(short, long)]
        autostart: bool,
        /// Do not
        #[arg(short = 'A', long, conflicts_with = "autostart")]
        no_autostart: bool,
        /// How it may be moved
        #[arg(short, long)]
        method: Option<Method>,
        /// How long it may pause at the end of a live migration, in milliseconds
        #[arg(short = 'd', long)]
        max_downtime: Option<u32>,
        /// The provisioner profile that it belongs to; empty for none
        #[arg(short, long)]
        profile: Option<String>,
        /// When its node dies, guests with a higher number are started elsewhere first
        #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
        recovery_priority: Option<i32>,
        /// Keep it on another node than the other guests of this group; may be given several times, '' for none
        #[arg(long, value_name = "GROUP")]
        anti_affinity: Vec<String>,
    },
    /// Replace the definition of a virtual machine
    Modify {
        /// Name or UUID
        domain: String,
        /// File with its new XML (- for standard input)
        #[arg(required_unless_present = "editor")]
        cfgfile: Option<PathBuf>,
        /// Edit the present XML in $EDITOR
        #[arg(short, long, conflicts_with = "cfgfile")]
        editor: bool,
        /// Restart it, so that the change applies now
        #[arg(short, long)]
        restart: bool,
        /// Do not ask whether the change is right
        #[arg(short = 'd', long)]
        confirm_diff: bool,
        /// Do not ask whether to restart
        #[arg(short, long)]
        confirm_restart: bool,
        /// Ask nothing
        #[arg(short, long)]
        yes: bool,
    },
    /// Start a virtual machine
    Start {
        /// Name or UUID
        domain: String,
        /// Even if it is a mirror of another cluster's
        #[arg(long)]
        force: bool,
        /// Wait until it runs
        #[arg(short, long)]
        wait: bool,
    },
    /// Shut a virtual machine down and start it again
    Restart {
        /// Name or UUID
        domain: String,
        /// Wait until it has
        #[arg(short, long)]
        wait: bool,
        /// Ask nothing
        #[arg(short, long)]
        yes: bool,
    },
    /// Shut a virtual machine down
    Shutdown {
        /// Name or UUID
        domain: String,
        /// Wait until it has
        #[arg(short, long)]
        wait: bool,
        /// Ask nothing
        #[arg(short, long)]
        yes: bool,
    },
    /// Switch a virtual machine off
    Stop {
        /// Name or UUID
        domain: String,
        /// Even if it is a mirror of another cluster's
        #[arg(long)]
        force: bool,
        /// Wait until it is
        #[arg(short, long)]
        wait: bool,
        /// Ask nothing
        #[arg(short, long)]
        yes: bool,
    },
    /// Shut a virtual machine down and keep it from being started or watched
    Disable {
        /// Name or UUID
        domain: String,
        /// Switch it off rather than shutting it down
        #[arg(long)]
        force: bool,
        /// Ask nothing
        #[arg(short, long)]
        yes: bool,
    },
    /// Move a virtual machine to another node for a while; 'unmigrate' brings it back
    Migrate {
        /// Name or UUID
        domain: String,
        /// The node to go to; the best one if none is named
        #[arg(short, long)]
        target: Option<String>,
        /// Even if it is migrated already, and even if it should be kept apart from a VM there
        #[arg(short, long)]
        force: bool,
        /// Wait until it runs there
        #[arg(short, long)]
        wait: bool,
        /// Not at all rather than by shutting it down
        #[arg(long)]
        force_live: bool,
    },
    /// Bring a migrated virtual machine back to its node
    Unmigrate {
        /// Name or UUID
        domain: String,
        /// Even if it should be kept apart from a VM there
        #[arg(short, long)]
        force: bool,
        /// Wait until it runs there
        #[arg(short, long)]
        wait: bool,
        /// Not at all rather than by shutting it down
        #[arg(long)]
        force_live: bool,
    },
    /// Move a virtual machine to another node for good
    Move {
        /// Name or UUID
        domain: String,
        /// The node to go to; the best one if none is named
        #[arg(short, long)]
        target: Option<String>,
        /// Even if it should be kept apart from a VM there
        #[arg(short, long)]
        force: bool,
        /// Wait until it runs there
        #[arg(short, long)]
        wait: bool,
        /// Not at all rather than by shutting it down
        #[arg(long)]
        force_live: bool,
    },
    /// Remove the locks that a dead client has left on the volumes of a stopped virtual machine
    FlushLocks {
        /// Name or UUID
        domain: String,
        /// Also in states in which it should run, as long as no node owns it
        #[arg(long)]
        force: bool,
        /// Wait until they are removed (this is so unless --no-wait is given)
        #[arg(long, overrides_with = "no_wait")]
        wait: bool,
        /// Do not wait
        #[arg(long)]
        no_wait: bool,
    },
    /// Unregister a virtual machine; its volumes are kept
    Undefine {
        /// Name or UUID
        domain: String,
        /// Ask nothing
        #[arg(short, long)]
        yes: bool,
    },
    /// Print or save the XML of a virtual machine
    Dump {
        /// Name or UUID
        domain: String,
        /// Save it in this file
        #[arg(short, long)]
        file: Option<PathBuf>,
    },
}

/// PVC 1.0.3 has short options of two letters, which the parser does not know: they become their long forms.
pub(crate) fn expand(args: impl Iterator<Item = String>) -> Vec<String> {
    let mut seen_node = false;
    args.map(|arg| {
        seen_node |= arg == "node";
        match arg.as_str() {
            "-ds" if seen_node => "--daemon-state".to_owned(),
            "-cs" if seen_node => "--coordinator-state".to_owned(),
            "-vs" if seen_node => "--domain-state".to_owned(),
            _ => arg,
        }
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn two_letter_options_of_the_reference_are_understood() {
        let args = ["pvc", "node", "list", "-ds", "run", "-cs", "primary"];
        let cli = Cli::try_parse_from(expand(args.iter().map(|arg| (*arg).to_owned()))).unwrap();
        let Command::Node(NodeCommand::List {
            daemon_state,
            coordinator_state,
            ..
        }) = cli.command
        else {
            panic!("{cli:?}")
        };
        assert_eq!(daemon_state.as_deref(), Some("run"));
        assert_eq!(coordinator_state.as_deref(), Some("primary"));
    }
}
