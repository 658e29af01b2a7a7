//! One node: its files, its power, and programs inside it.

use std::fs::{self, File};
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cgroup::Cgroup;
use crate::network;
use crate::process::{Background, Output, Run, last_lines, run, wait_for};
use crate::state::{Folder, Lock, State, random_hex, write_file};
use crate::topology::{Network, NodeId, PREFIX_V4, PREFIX_V6, hosts_file};

const BOOT: &str = include_str!("../assets/boot-node.sh");
/// What every node gets at /usr/lib/pvc-lab, beside our daemons.
pub(crate) const NETWORK_UP: &str = include_str!("../assets/node/network-up");
const NETWORK_UNIT: &str = include_str!("../assets/node/pvc-lab-network.service");

/// From the order to boot to the first process: tens of milliseconds on an idle machine.
const BOOT_DEADLINE: Duration = Duration::from_secs(30);
/// From the first process until systemd has started everything.
const RUNNING_DEADLINE: Duration = Duration::from_secs(120);
/// A command inside a node, unless the caller gives another deadline.
const EXEC_DEADLINE: Duration = Duration::from_secs(30);

/// Whether a node has power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// It has: it boots, runs or is frozen.
    On,
    /// It has not, or it has shut itself down.
    Off,
}

/// What a request to switch changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// Nothing had to be done.
    AlreadySo,
    /// It is so now and was not before.
    Done,
}

/// A node of the lab.
#[derive(Debug, Clone)]
pub struct Node {
    id: NodeId,
    folder: Folder,
    base: PathBuf,
    cgroup: Cgroup,
}

impl Node {
    pub(crate) fn new(id: NodeId, folder: &Folder, base: &Path) -> Result<Node> {
        let cgroup = Cgroup::of_lab()?.child(&id.to_string());
        Ok(Node {
            id,
            folder: folder.clone(),
            base: base.to_owned(),
            cgroup,
        })
    }

    /// Its name and number.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> String {
        self.id.to_string()
    }

    /// Makes the files of a node that has never run.
    pub(crate) fn create(&self, state: &State) -> Result<()> {
        let folder = self.folder.node(self.id);
        for part in ["upper", "work", "root"] {
            let path = folder.join(part);
            fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        self.write_file("/etc/hostname", 0o644, format!("{}\n", self.id))?;
        self.write_file("/etc/machine-id", 0o444, format!("{}\n", random_hex(16)?))?;
        self.write_file("/etc/hosts", 0o644, hosts_file(&state.nodes))?;
        // Kept for a look after a failed test, and yet no disk full of them.
        self.write_file(
            "/etc/systemd/journald.conf.d/lab.conf",
            0o644,
            "[Journal]\nSystemMaxUse=100M\n",
        )?;
        self.write_file("/etc/pvc-lab/networks", 0o644, self.networks())?;
        self.install_unit("pvc-lab-network.service", NETWORK_UNIT)
    }

    /// The table that the node's network script reads.
    fn networks(&self) -> String {
        Network::ALL
            .map(|network| {
                format!(
                    "{} {} {} {}/{PREFIX_V4} {}/{PREFIX_V6}\n",
                    network.node_device(),
                    network.node_bridge(),
                    network.mac(self.id),
                    network.node_v4(self.id),
                    network.node_v6(self.id)
                )
            })
            .concat()
    }

    /// Writes a unit and has it started at each boot.
    pub(crate) fn install_unit(&self, name: &str, text: &str) -> Result<()> {
        self.write_file(&format!("/etc/systemd/system/{name}"), 0o644, text)?;
        self.enable_unit(name, &format!("../{name}"))
    }

    /// Has a unit started at each boot; `target` is where the link points to.
    pub(crate) fn enable_unit(&self, name: &str, target: &str) -> Result<()> {
        self.link(
            &format!("/etc/systemd/system/multi-user.target.wants/{name}"),
            target,
        )
    }

    /// Makes a symbolic link in a node that is off.
    pub(crate) fn link(&self, path: &str, target: &str) -> Result<()> {
        let file = self.upper(path);
        let make = || -> std::io::Result<()> {
            if let Some(parent) = file.parent() {
                fs::create_dir_all(parent)?;
            }
            if file.symlink_metadata().is_ok() {
                fs::remove_file(&file)?;
            }
            symlink(target, &file)
        };
        make().with_context(|| format!("cannot make the link {}", file.display()))
    }

    /// Gives a folder of a node that is off to a user of the base tree.
    pub(crate) fn own(&self, path: &str, user: &str) -> Result<()> {
        let passwd =
            fs::read_to_string(self.base.join("etc/passwd")).context("the base tree has no /etc/passwd")?;
        let Some((uid, gid)) = ids_of(&passwd, user) else {
            bail!("the base tree has no user {user}")
        };
        let folder = self.upper(path);
        chown(&folder, Some(uid), Some(gid))
            .with_context(|| format!("cannot give {} to {user}", folder.display()))
    }

    /// Where a file of this node is while the node is off. /lib is a link to /usr/lib in the base tree; a folder of that
    /// name above it would hide all of /usr/lib's programs from those who look for them there.
    fn upper(&self, path: &str) -> PathBuf {
        let path = Path::new(path.trim_start_matches('/'));
        let mut parts = path.components();
        let first = parts
            .next()
            .map(|part| PathBuf::from(part.as_os_str()))
            .unwrap_or_default();
        let first = fs::read_link(self.base.join(&first)).unwrap_or(first);
        self.folder
            .node(self.id)
            .join("upper")
            .join(first.strip_prefix("/").unwrap_or(&first))
            .join(parts)
    }

    /// Whether it has power.
    #[must_use]
    pub fn power(&self) -> Power {
        if self.cgroup.is_populated() {
            Power::On
        } else {
            Power::Off
        }
    }

    /// Whether it is frozen.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.cgroup.is_frozen()
    }

    /// Process id, on this machine, of the node's first process; none while it is off.
    ///
    /// # Errors
    /// If the machine's processes cannot be read.
    pub fn leader(&self) -> Result<Option<u32>> {
        let own = fs::read_link("/proc/self/ns/net").context("cannot read the own namespace")?;
        Ok(self.cgroup.processes().into_iter().find(|pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            is_first_of_a_namespace(&status)
                && fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|namespace| namespace != own)
        }))
    }

    /// Process ids, on this machine, of everything that runs in the node; none while it is off.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        self.cgroup.processes()
    }

    /// Switches it on and returns as soon as it boots, as a BMC does; [`Node::wait_running`] waits for the rest.
    ///
    /// # Errors
    /// If the node does not come to life, with the last lines of its console.
    pub fn switch_on(&self) -> Result<Changed> {
        let _lock = Lock::of_node(&self.folder, self.id)?;
        if self.power() == Power::On {
            return Ok(Changed::AlreadySo);
        }
        self.cgroup.remove()?;
        self.cgroup.create()?;
        self.cgroup.child("exec").create()?;
        let folder = self.folder.node(self.id);
        let script = folder.join("boot.sh");
        write_file(&script, 0o644, BOOT)?;
        // Kept over power cycles: the console of the boot before may say why it ended.
        let console = File::options()
            .create(true)
            .append(true)
            .open(folder.join("console.log"))
            .context("cannot open the console's log")?;
        let share = self.folder.share();
        let binds = ["/dev/kvm", "/dev/net/tun"]
            .iter()
            .filter(|device| Path::new(device).exists())
            .map(|device| format!("--bind={device}"))
            .chain([format!("--bind-ro={}:/usr/lib/pvc-lab", share.display())])
            .collect::<Vec<_>>()
            .join(" ");
        // The child that `setsid --fork` leaves behind is nobody's but init's: it outlives whoever switched it on.
        run(&[
            "setsid",
            "--fork",
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "sh",
        ])
        .arg(&script)
        .env("NODE", self.name())
        .env("CGROUP", self.cgroup.path())
        .env("LOWER", &self.base)
        .env("DIR", &folder)
        .env("BINDS", binds)
        .detached(console)?;
        let leader = wait_for(&format!("{} to boot", self.id), BOOT_DEADLINE, || self.leader())
            .with_context(|| self.console_tail())?;
        network::plug(self.id, leader).with_context(|| self.console_tail())?;
        Ok(Changed::Done)
    }

    /// Switches it on and waits until systemd has started everything.
    ///
    /// # Errors
    /// As [`Node::switch_on`] and [`Node::wait_running`].
    pub fn power_on(&self) -> Result<Changed> {
        let changed = self.switch_on()?;
        self.wait_running()?;
        Ok(changed)
    }

    /// Waits until systemd has started everything, whether or not some unit failed.
    ///
    /// # Errors
    /// After two minutes, naming the state and the units that are still being started.
    pub fn wait_running(&self) -> Result<()> {
        let mut last = String::new();
        wait_for(
            &format!("{} to start all of its services", self.id),
            RUNNING_DEADLINE,
            || {
                if self.power() == Power::Off {
                    bail!("it went off again; {}", self.console_tail());
                }
                // Early in its boot a node has no systemd to ask yet.
                let Ok(output) =
                    self.exec_within(Duration::from_secs(10), &["systemctl", "is-system-running"])
                else {
                    return Ok(None);
                };
                last = output.stdout.trim().to_owned();
                Ok(["running", "degraded"].contains(&last.as_str()).then_some(()))
            },
        )
        .with_context(|| {
            let jobs = self
                .exec(&["systemctl", "list-jobs", "--no-legend"])
                .map(|output| output.stdout);
            format!("systemd says `{last}`; jobs: {}", jobs.unwrap_or_default())
        })
    }

    /// Takes its power away: every process ends at once and its cables carry nothing any more.
    ///
    /// # Errors
    /// If a process does not end.
    pub fn power_off(&self) -> Result<Changed> {
        let _lock = Lock::of_node(&self.folder, self.id)?;
        let changed = if self.power() == Power::On {
            Changed::Done
        } else {
            Changed::AlreadySo
        };
        self.cgroup.remove()?;
        // The kernel would answer for the node's addresses for some 50 ms more. Who says off must mean it.
        for network in Network::ALL {
            network::in_switch(&["ip", "link", "delete", &network.switch_port(self.id)]).output()?;
        }
        Ok(changed)
    }

    /// The same as [`Node::power_off`], in the words of a test.
    ///
    /// # Errors
    /// If a process does not end.
    pub fn kill(&self) -> Result<()> {
        self.power_off().map(|_| ())
    }

    /// Presses the power button: systemd shuts the node down in order. Returns at once.
    ///
    /// # Errors
    /// If the node is off.
    pub fn shut_down(&self) -> Result<()> {
        self.exec(&["systemctl", "--no-block", "poweroff"])?.ok()?;
        Ok(())
    }

    /// Stops every process of it where it stands; its kernel goes on answering ping and ARP.
    ///
    /// # Errors
    /// If it is off.
    pub fn freeze(&self) -> Result<()> {
        self.must_be_on()?;
        self.cgroup.freeze()
    }

    /// Lets a frozen node go on.
    ///
    /// # Errors
    /// If it is off.
    pub fn thaw(&self) -> Result<()> {
        self.must_be_on()?;
        self.cgroup.thaw()
    }

    fn must_be_on(&self) -> Result<()> {
        if self.power() == Power::Off {
            bail!("{} is off", self.id);
        }
        Ok(())
    }

    /// Runs a program inside, for at most 30 s. Its processes belong to the node: killing or freezing the node hits
    /// them too, and in a frozen node nothing runs.
    ///
    /// # Errors
    /// If the node is off or the deadline passes; a status other than 0 is no error here, see [`Output::ok`].
    pub fn exec<S: AsRef<str>>(&self, argv: &[S]) -> Result<Output> {
        self.exec_within(EXEC_DEADLINE, argv)
    }

    /// As [`Node::exec`] with a deadline of the caller's.
    ///
    /// # Errors
    /// As [`Node::exec`].
    pub fn exec_within<S: AsRef<str>>(&self, deadline: Duration, argv: &[S]) -> Result<Output> {
        self.inside(argv)?
            .within(deadline)
            .output()
            .with_context(|| format!("in {}", self.id))
    }

    /// As [`Node::exec`] with text for the program's standard input.
    ///
    /// # Errors
    /// As [`Node::exec`].
    pub fn exec_with_input<S: AsRef<str>>(&self, input: impl Into<Vec<u8>>, argv: &[S]) -> Result<Output> {
        self.inside(argv)?
            .input(input)
            .within(EXEC_DEADLINE)
            .output()
            .with_context(|| format!("in {}", self.id))
    }

    /// Starts a program inside that runs beside the caller, its standard output in a pipe.
    ///
    /// # Errors
    /// If the node is off.
    pub fn spawn<S: AsRef<str>>(&self, argv: &[S]) -> Result<Background> {
        self.inside(argv)?.spawn(Stdio::piped())
    }

    /// Runs a program inside on the caller's terminal, for as long as it takes; gives its exit status.
    ///
    /// # Errors
    /// If the node is off.
    pub fn interactive<S: AsRef<str>>(&self, argv: &[S]) -> Result<i32> {
        self.inside(argv)?.interactive()
    }

    fn inside<S: AsRef<str>>(&self, argv: &[S]) -> Result<Run> {
        let Some(leader) = self.leader()? else {
            bail!("{} is off", self.id)
        };
        let leader = leader.to_string();
        let term = format!("TERM={}", std::env::var("TERM").unwrap_or_else(|_| "dumb".into()));
        let mut all = vec!["nsenter", "--target", &leader];
        all.extend([
            "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd", "--",
        ]);
        all.extend([
            "env",
            "-i",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        ]);
        all.extend(["HOME=/root", "LANG=C.UTF-8", &term]);
        all.extend(argv.iter().map(AsRef::as_ref));
        Ok(run(&self.cgroup.child("exec").argv(&all)))
    }

    /// Reads a file of a node that is on.
    ///
    /// # Errors
    /// If the node is off or the file cannot be read.
    pub fn read_file(&self, path: &str) -> Result<String> {
        self.exec(&["cat", "--", path])?
            .ok()
            .with_context(|| format!("cannot read {path} in {}", self.id))
    }

    /// Writes a file whole, with the folders above it; works on a node that is on and on one that is off.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_file(&self, path: &str, mode: u32, content: impl AsRef<[u8]>) -> Result<()> {
        if self.power() == Power::Off {
            return write_file(&self.upper(path), mode, content);
        }
        let script = "mkdir -p \"$(dirname \"$1\")\" && umask 077 && cat >\"$1.new\" && \
                      chmod \"$2\" \"$1.new\" && mv \"$1.new\" \"$1\"";
        self.exec_with_input(
            content.as_ref(),
            &["sh", "-c", script, "sh", path, &format!("{mode:o}")],
        )?
        .ok()
        .with_context(|| format!("cannot write {path} in {}", self.id))?;
        Ok(())
    }

    fn console_tail(&self) -> String {
        let text = fs::read_to_string(self.folder.node(self.id).join("console.log")).unwrap_or_default();
        format!(
            "the console of {} ends with:\n{}",
            self.id,
            last_lines(text.trim(), 15)
        )
    }
}

/// User and group id of a user in the text of a passwd file.
fn ids_of(passwd: &str, user: &str) -> Option<(u32, u32)> {
    let line = passwd.lines().find(|line| line.split(':').next() == Some(user))?;
    let mut fields = line.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// Whether the text of a /proc/PID/status is that of the first process of a namespace one level below ours.
fn is_first_of_a_namespace(status: &str) -> bool {
    let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    pids.is_some_and(|pids| {
        let pids: Vec<&str> = pids.split_whitespace().collect();
        matches!(pids.as_slice(), [_, "1"])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_ids_are_found_by_the_whole_name() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nzookeeper:x:104:107:ZooKeeper,,,:/var/lib/zookeeper:/bin/false\n";
        assert_eq!(ids_of(passwd, "zookeeper"), Some((104, 107)));
        assert_eq!(ids_of(passwd, "zoo"), None);
    }

    #[test]
    fn the_first_process_is_told_from_others() {
        assert!(is_first_of_a_namespace(
            "Name:\tsystemd\nNSpid:\t31683\t1\nThreads:\t1\n"
        ));
        assert!(!is_first_of_a_namespace("NSpid:\t31684\t17\n"));
        assert!(!is_first_of_a_namespace("NSpid:\t1\n"));
        assert!(!is_first_of_a_namespace("NSpid:\t31684\t17\t1\n"));
        assert!(!is_first_of_a_namespace(""));
    }
}
