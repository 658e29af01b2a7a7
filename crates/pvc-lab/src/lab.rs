//! The lab as a whole: up, down, and the way to its nodes.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::deploy::{self, Daemons};
use crate::network::{self, Carrier};
use crate::node::{Node, Power};
use crate::process::{Background, Output, run, wait_for};
use crate::progress::Progress;
use crate::service::Tool;
use crate::state::{Folder, Installed, Lock, Phase, State, Storage};
use crate::topology::{COORDINATORS, MAX_NODES, Network, NodeId};
use crate::up::remove_everything;
use crate::{base, bmc, guest, host, zookeeper};

/// Name of the guest that `up` ends with.
pub const DEMO: &str = "demo";

/// What `up` builds.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many nodes, at least 3.
    pub nodes: u8,
    /// Whether with Ceph.
    pub storage: Storage,
    /// Our daemons; none: only what they run on.
    pub daemons: Option<Daemons>,
    /// The program `xtask`, which BMCs and forwarder call; none: the one that is running, or the one built beside it.
    pub xtask: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            nodes: COORDINATORS,
            storage: Storage::Ceph,
            daemons: None,
            xtask: None,
        }
    }
}

/// A lab that is up.
#[derive(Debug, Clone)]
pub struct Lab {
    pub(crate) folder: Folder,
    pub(crate) state: State,
    pub(crate) nodes: Vec<Node>,
}

/// What is on this machine before `up` does anything.
#[derive(Debug)]
pub enum Begun {
    /// A lab that is complete.
    Found(Box<Lab>),
    /// None, or one that is not complete; nobody else builds one meanwhile.
    Free(Site),
}

/// The right to build a lab on this machine. Until it is dropped nobody else builds or removes one.
#[derive(Debug)]
pub struct Site {
    folder: Folder,
    _lock: Lock,
}

impl Site {
    /// Builds a lab. What an earlier `up` left unfinished, or what outlived a crash of the machine, is removed first.
    ///
    /// # Errors
    /// If a part of the lab does not come up; what was built so far is left for a look, and `down` removes it.
    pub fn build(self, options: &Options, progress: &mut dyn Progress) -> Result<Lab> {
        if !(COORDINATORS..=MAX_NODES).contains(&options.nodes) {
            bail!(
                "a lab has {COORDINATORS} to {MAX_NODES} nodes, not {}",
                options.nodes
            );
        }
        remove_everything(&self.folder, progress)?;
        fs::create_dir_all(self.folder.root())
            .with_context(|| format!("cannot make {}", self.folder.root().display()))?;
        let base = base::ensure(&self.folder, progress)?;
        let state = State::new(base, NodeId::first(options.nodes), options.storage)?;
        state.write(&self.folder)?;
        let mut lab = Lab::from_state(self.folder.clone(), state)?;
        lab.build(options, progress)?;
        Ok(lab)
    }
}

impl Lab {
    /// The lab that is up, or one built now: [`Lab::begin`] and [`Site::build`].
    ///
    /// # Errors
    /// As those two.
    pub fn up(options: &Options, progress: &mut dyn Progress) -> Result<Lab> {
        match Lab::begin(progress)? {
            Begun::Found(lab) => Ok(*lab),
            Begun::Free(site) => site.build(options, progress),
        }
    }

    /// Sees whether a lab is up; if none is, installs what this machine lacks and keeps others from building one.
    ///
    /// # Errors
    /// If the machine lacks something that cannot be installed, or if another `up` or `down` is at work.
    pub fn begin(progress: &mut dyn Progress) -> Result<Begun> {
        let folder = Folder::of_environment();
        host::check(&folder)?;
        let lock = Lock::take()?;
        if let Some(lab) = Lab::find()? {
            return Ok(Begun::Found(Box::new(lab)));
        }
        host::install(progress)?;
        Ok(Begun::Free(Site { folder, _lock: lock }))
    }

    /// Copies new builds of the daemons to the nodes, with units and configuration, and restarts them, one node after
    /// the other. Nodes that are off find them at their next boot.
    ///
    /// # Errors
    /// If a daemon does not come up, with the end of its log.
    pub fn deploy(&self, daemons: &Daemons, progress: &mut dyn Progress) -> Result<()> {
        if self.state.daemons == Installed::No {
            bail!(
                "this lab was made without our daemons; `cargo xtask lab down` and `up` make one with them"
            );
        }
        deploy::copy_programs(&self.folder, daemons)?;
        bmc::refresh(
            &self.folder,
            &self.state,
            &self.nodes,
            &Tool::installed(&self.folder),
        )?;
        for node in &self.nodes {
            deploy::install(node, &self.state, daemons)?;
            if node.power() == Power::On {
                progress.step(&format!("restarting the daemons of {}", node.id()));
                deploy::restart(node)?;
                deploy::check(node)?;
            }
        }
        Ok(())
    }

    /// Runs the `pvc` command on this machine, connected to the lab's API through the forwarder; for at most 60 s.
    ///
    /// # Errors
    /// If the deadline passes; a status other than 0 is no error here, see [`Output::ok`].
    pub fn pvc<S: AsRef<str>>(&self, arguments: &[S]) -> Result<Output> {
        let cli = deploy::cli(&self.folder).display().to_string();
        let mut argv = vec![cli.as_str()];
        argv.extend(arguments.iter().map(AsRef::as_ref));
        run(&argv).within(Duration::from_secs(60)).output()
    }

    /// The `pvc` command of this machine, connected to the lab, for people to use.
    #[must_use]
    pub fn pvc_command(&self) -> PathBuf {
        deploy::cli(&self.folder)
    }

    /// Makes the volume of a guest, unless it is there, and its XML.
    ///
    /// # Errors
    /// If Ceph refuses, or if no node is on.
    pub fn make_guest(&self, kind: guest::Kind, name: &str) -> Result<guest::Guest> {
        let Some(node) = self
            .nodes
            .iter()
            .find(|node| node.power() == Power::On && !node.is_frozen())
        else {
            bail!("no node is on");
        };
        guest::make(node, &self.state, kind, name)
    }

    /// Removes the lab and everything it made but the base tree and the downloads. Without a lab there is nothing to do.
    ///
    /// # Errors
    /// If something cannot be removed.
    pub fn down(progress: &mut dyn Progress) -> Result<()> {
        if !rustix::process::geteuid().is_root() {
            bail!("only root can remove the lab");
        }
        let _lock = Lock::take()?;
        remove_everything(&Folder::of_environment(), progress)
    }

    /// The lab, if one is up and complete.
    ///
    /// # Errors
    /// If the cgroup tree cannot be read.
    fn find() -> Result<Option<Lab>> {
        let folder = Folder::of_environment();
        match State::read(&folder) {
            Ok(Some(state)) if state.phase == Phase::Ready && network::exists() => {
                Ok(Some(Lab::from_state(folder, state)?))
            }
            // What is unfinished, outdated or damaged is removed by the next `up`.
            Ok(_) | Err(_) => Ok(None),
        }
    }

    /// The lab that is up.
    ///
    /// # Errors
    /// If none is, or if it is not complete.
    pub fn attach() -> Result<Lab> {
        let folder = Folder::of_environment();
        let Some(state) = State::read(&folder)? else {
            bail!("no lab is up; `cargo xtask lab up` makes one");
        };
        if !network::exists() {
            bail!("the lab did not outlive a reboot of this machine; `cargo xtask lab up` makes it anew");
        }
        Lab::from_state(folder, state)
    }

    fn from_state(folder: Folder, state: State) -> Result<Lab> {
        let nodes = state
            .nodes
            .iter()
            .map(|id| Node::new(*id, &folder, &state.base))
            .collect::<Result<Vec<_>>>()?;
        Ok(Lab { folder, state, nodes })
    }

    /// What the lab knows of itself: addresses, token, which parts it has.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The folder of the running cluster.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.folder.cluster()
    }

    /// All nodes, coordinators first.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The first three nodes.
    #[must_use]
    pub fn coordinators(&self) -> Vec<Node> {
        self.nodes
            .iter()
            .filter(|node| node.id().is_coordinator())
            .cloned()
            .collect()
    }

    /// The node of this name.
    ///
    /// # Errors
    /// If the lab has none.
    pub fn node(&self, name: &str) -> Result<&Node> {
        let id: NodeId = name.parse()?;
        match self.nodes.iter().find(|node| node.id() == id) {
            Some(node) => Ok(node),
            None => bail!("the lab has no node {name}: hv1 to hv{}", self.nodes.len()),
        }
    }

    /// The coordinator that leads ZooKeeper; none while the ensemble has no leader. One that was frozen or cut off goes on
    /// saying so for up to 2 s.
    ///
    /// # Errors
    /// If the nodes cannot be asked.
    pub fn zookeeper_leader(&self) -> Result<Option<Node>> {
        for node in self.coordinators() {
            if node.power() == Power::On && zookeeper::mode(&node)? == Some(zookeeper::Mode::Leader) {
                return Ok(Some(node));
            }
        }
        Ok(None)
    }

    /// Cuts a node off from one network, silently and in both directions, until [`Lab::heal`].
    ///
    /// # Errors
    /// If nft refuses.
    pub fn partition(&self, node: &str, network: Network) -> Result<()> {
        network::cut(self.node(node)?.id(), network)
    }

    /// Loses that many of 100 frames between a node and a network, until [`Lab::heal`].
    ///
    /// # Errors
    /// If nft refuses.
    pub fn lose(&self, node: &str, network: Network, percent: u8) -> Result<()> {
        network::lose(self.node(node)?.id(), network, percent)
    }

    /// Pulls or plugs in the cable of a node: unlike with [`Lab::partition`], the node sees the carrier go.
    ///
    /// # Errors
    /// If the node is off.
    pub fn set_carrier(&self, node: &str, network: Network, carrier: Carrier) -> Result<()> {
        network::set_carrier(self.node(node)?.id(), network, carrier)
    }

    /// Ends all partitions and losses and plugs all cables in.
    ///
    /// # Errors
    /// If nft refuses.
    pub fn heal(&self) -> Result<()> {
        network::heal(&self.state.nodes)
    }

    /// The partitions and losses in force, as nft words them.
    ///
    /// # Errors
    /// If the switch is gone.
    pub fn cuts(&self) -> Result<Vec<String>> {
        network::cuts()
    }

    /// Runs a program of this machine inside the switch's network, which has the upstream gateway's address and so
    /// reaches the API like a user does.
    ///
    /// # Errors
    /// If the deadline passes.
    pub fn switch_exec<S: AsRef<str>>(&self, deadline: Duration, argv: &[S]) -> Result<Output> {
        network::in_switch(argv).within(deadline).output()
    }

    /// Starts a program of this machine inside the switch's network, its standard output in a pipe.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn switch_spawn<S: AsRef<str>>(&self, argv: &[S]) -> Result<Background> {
        network::in_switch(argv).spawn(std::process::Stdio::piped())
    }

    /// Starts a Python program, given as text, beside the nodes: it reaches the storage network and has Ceph's modules of
    /// the base tree. What is in `input` goes to its standard input, which stays open; its output comes in a pipe.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn_ceph_client(&self, program: &str, input: &str) -> Result<Background> {
        // In a view of the files of its own: the base tree is the lower layer of every node and is not to be changed.
        let script = "mount --bind /dev \"$0/dev\" && exec chroot \"$0\" python3 -B -u -c \"$1\"";
        let base = self.state.base.display().to_string();
        let argv = network::lookout_argv(&[
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            script,
            &base,
            program,
        ]);
        run(&argv).input(input).spawn_talking()
    }

    /// Ceph's configuration, for a client that is none of the nodes: the monitors, and the administrator's key.
    ///
    /// # Errors
    /// If no node is on.
    pub fn ceph_client(&self) -> Result<serde_json::Value> {
        let Some(node) = self
            .nodes
            .iter()
            .find(|node| node.power() == Power::On && !node.is_frozen())
        else {
            bail!("no node is on");
        };
        let keyring = node.read_file("/etc/ceph/ceph.client.admin.keyring")?;
        let key = keyring
            .lines()
            .find_map(|line| line.trim().strip_prefix("key = "))
            .context("the administrator has no key")?;
        let hosts: Vec<String> = self
            .state
            .coordinators()
            .map(|node| format!("[v2:{}:3300]", Network::Storage.node_v4(node)))
            .collect();
        Ok(serde_json::json!({
            "fsid": self.state.ceph_fsid, "mon_host": hosts.join(","), "key": key.trim(), "log_file": "",
            "admin_socket": "", "mon_client_hunt_interval": "0.5", "mon_client_ping_interval": "0.5",
            "mon_client_ping_timeout": "1.5",
        }))
    }

    /// Ends the BMC of a node, as if it had lost power together with its server.
    ///
    /// # Errors
    /// If its process does not end.
    pub fn kill_bmc(&self, node: &str) -> Result<()> {
        bmc::stop(self.node(node)?)
    }

    /// Starts the BMCs that do not run.
    ///
    /// # Errors
    /// If one does not come up.
    pub fn start_bmcs(&self) -> Result<()> {
        let mut dead = Vec::new();
        for node in &self.nodes {
            if !bmc::is_running(node)? {
                dead.push(node.clone());
            }
        }
        bmc::start(&self.folder, &self.state, &dead, &Tool::installed(&self.folder))
    }

    /// Waits until `condition` holds, looking every 20 ms.
    ///
    /// # Errors
    /// Names `what` when the deadline has passed; an error of the condition ends the wait at once.
    pub fn wait_for(
        &self,
        what: &str,
        deadline: Duration,
        mut condition: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        wait_for(what, deadline, || Ok(condition()?.then_some(())))
    }
}
