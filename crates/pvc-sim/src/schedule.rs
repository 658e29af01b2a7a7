//! Schedules: what is done to a simulated cluster, and when. As text they can be printed, kept and played again.
//!
//! A line is a duration, an action, and the step's own seed after `#` (so that leaving a step out of a schedule does
//! not change the chances of the others): `350ms freeze hv1 #12`. The action is done once the duration has passed.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use pvc_common::keys::values::Maintenance;
use pvc_common::store::memory::Fate;
use pvc_core::fence::ConfirmationKind;
use pvc_core::states::VmState;
use pvcnoded::host::fake::power::BmcMood;

use crate::hooks::Ordered;

/// What the cluster is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterPlan {
    /// Nodes; the first three are coordinators.
    pub nodes: usize,
    /// Guests, placed on the nodes in turn.
    pub guests: usize,
    /// From which all chance comes.
    pub seed: u64,
}

impl Default for ClusterPlan {
    fn default() -> ClusterPlan {
        ClusterPlan {
            nodes: 3,
            guests: 3,
            seed: 0,
        }
    }
}

/// A connection of a host that can be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Link {
    /// All that the agent says to the store (the cluster network).
    Store,
    /// What it says to the store of its leases alone.
    Lease,
    /// To Ceph.
    Storage,
    /// To clients.
    Upstream,
    /// To the BMCs.
    Bmc,
}

/// Something that is done to the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Time passes.
    Nothing,
    /// The agent is killed; the service manager cleans up and starts it again.
    Kill(usize),
    /// The agent stands still.
    Freeze(usize),
    /// It goes on.
    Thaw(usize),
    /// All processes of the host stand still, guests too; its kernel goes on.
    FreezeHost(usize),
    /// They go on.
    ThawHost(usize),
    /// The host and its clock stand still.
    Suspend(usize),
    /// It wakes up; its clock has counted so much of the time that has passed.
    Wake(usize, Duration),
    /// The host loses power.
    PowerLoss(usize),
    /// It is switched on.
    PowerOn(usize),
    /// A connection is cut.
    Cut(usize, Link),
    /// A connection is there again.
    Heal(usize, Link),
    /// The server ends the session of the agent's leases and of its other client.
    Expire(usize),
    /// The answer to the next write is lost.
    Hide(usize, Fate),
    /// The same, of the leases' client.
    HideLease(usize, Fate),
    /// The agent's server lags behind.
    Lag(usize),
    /// It does not any more.
    CatchUp(usize),
    /// Each call of the host to the store takes that much longer, each way.
    Slow(usize, Duration),
    /// The ensemble loses its quorum.
    LoseQuorum,
    /// It has one again.
    RestoreQuorum,
    /// The store is remembered as it is.
    Snapshot,
    /// The store is put back to what was remembered.
    RollBack,
    /// libvirtd goes away.
    LibvirtAway(usize),
    /// It comes back.
    LibvirtBack(usize),
    /// It does the next start, and its caller does not learn of it.
    LoseAnswer(usize),
    /// It forgets a guest whose process lives.
    Forget(usize, usize),
    /// The guest's process is killed.
    KillGuest(usize, usize),
    /// libvirt's logs of the host's guests can't be written or read any more.
    LoseLogs(usize),
    /// They can again.
    FindLogs(usize),
    /// The next address call stands still for so long before the kernel has it.
    Stall(usize, Duration),
    /// A client of PVC 1.0.3 writes `dead` as a node's state.
    SayDead(usize),
    /// Somebody takes the first floating address off by hand.
    RemoveAddress(usize),
    /// The host's BMC behaves so from now on.
    Bmc(usize, BmcMood),
    /// Its answers take so long.
    BmcSlow(usize, Duration),
    /// Two BMCs answer at each other's addresses.
    BmcSwap(usize, usize),
    /// The host's OSD learns each map so long after its commit.
    OsdLag(usize, Duration),
    /// Something opens a guest's volume, writes nothing, and is gone after a second.
    Opener(usize),
    /// Something happens at the agent's next such call.
    At {
        /// On this host.
        host: usize,
        /// Of this name.
        call: String,
        /// At how many of them.
        count: u32,
        /// What happens.
        what: Ordered,
    },
    /// An administrator asks for a state of a guest.
    Ask(usize, VmState),
    /// An administrator attaches a second volume to a running guest.
    Attach(usize),
    /// An administrator says where a stopped guest belongs.
    Place(usize, usize),
    /// A client of PVC 1.0.3 writes another node into a guest's record, whatever the guest does.
    Misplace(usize, usize),
    /// An administrator moves a running guest.
    Migrate(usize, usize),
    /// An administrator names the primary; nobody without a node.
    Primary(Option<usize>),
    /// An administrator has a node emptied.
    Flush(usize),
    /// An administrator makes a node ready for guests again.
    Ready(usize),
    /// An administrator confirms something about a node's fence.
    Confirm(usize, ConfirmationKind),
    /// An administrator orders that what really runs is the truth.
    Adopt,
    /// A host is given the name of another; its agent starts anew.
    Name(usize, usize),
    /// Maintenance is switched on or off.
    Maintenance(Maintenance),
    /// Everything that was done is undone; the cluster must come right by itself.
    HealAll,
    /// What must be so within so long.
    Expect(Expectation, Duration),
}

/// What a scenario says must be so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expectation {
    /// This node is primary; any node if none is named.
    Primary(Option<usize>),
    /// The guest runs, on this node if one is named.
    Runs(usize, Option<usize>),
    /// No process of the guest exists.
    Stopped(usize),
    /// The last order to attach a volume to this guest has been carried out.
    Attached(usize),
    /// The fence of this node is over, and it was fenced.
    Fenced(usize),
    /// This node was not fenced: nothing was ever done to it.
    Unfenced(usize),
    /// Everything that should run does, and one node is primary.
    Converged,
}

/// One step of a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// That passes first.
    pub after: Duration,
    /// Then this is done.
    pub action: Action,
    /// The seed of the chances in this step.
    pub salt: u64,
}

/// A cluster and what is done to it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Schedule {
    /// The cluster.
    pub plan: ClusterPlan,
    /// In this order.
    pub steps: Vec<Step>,
}

impl Action {
    /// Whether it is a fault: something that no administrator asked for.
    pub fn is_fault(&self) -> bool {
        match self {
            Action::Nothing
            | Action::Thaw(_)
            | Action::ThawHost(_)
            | Action::Wake(..)
            | Action::PowerOn(_)
            | Action::Heal(..)
            | Action::CatchUp(_)
            | Action::RestoreQuorum
            | Action::Snapshot
            | Action::LibvirtBack(_)
            | Action::FindLogs(_)
            | Action::Ask(..)
            | Action::Attach(_)
            | Action::Place(..)
            | Action::Migrate(..)
            | Action::Primary(_)
            | Action::Ready(_)
            | Action::Flush(_)
            | Action::Confirm(..)
            | Action::Adopt
            | Action::Name(..)
            | Action::Maintenance(_)
            | Action::HealAll
            | Action::Expect(..) => false,
            Action::Kill(_)
            | Action::Freeze(_)
            | Action::FreezeHost(_)
            | Action::Suspend(_)
            | Action::PowerLoss(_)
            | Action::Cut(..)
            | Action::Expire(_)
            | Action::Hide(..)
            | Action::HideLease(..)
            | Action::Lag(_)
            | Action::Slow(..)
            | Action::LoseQuorum
            | Action::RollBack
            | Action::LibvirtAway(_)
            | Action::LoseAnswer(_)
            | Action::Forget(..)
            | Action::KillGuest(..)
            | Action::LoseLogs(_)
            | Action::Stall(..)
            | Action::RemoveAddress(_)
            | Action::Misplace(..)
            | Action::SayDead(_)
            | Action::Opener(_)
            | Action::Bmc(..)
            | Action::BmcSlow(..)
            | Action::BmcSwap(..)
            | Action::OsdLag(..)
            | Action::At { .. } => true,
        }
    }
}

struct Time(Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        if ms.is_multiple_of(60_000) && ms > 0 {
            write!(f, "{}m", ms / 60_000)
        } else if ms.is_multiple_of(1000) {
            write!(f, "{}s", ms / 1000)
        } else {
            write!(f, "{ms}ms")
        }
    }
}

fn hv(host: usize) -> String {
    format!("hv{}", host + 1)
}

fn fate_word(fate: Fate) -> &'static str {
    match fate {
        Fate::Lost => "lost",
        Fate::Applied => "applied",
        Fate::AppliedOnReconnect => "late",
    }
}

const MOODS: [BmcMood; 5] = [
    BmcMood::Works,
    BmcMood::Dead,
    BmcMood::Lies,
    BmcMood::Refuses,
    BmcMood::Babbles,
];

fn mood_word(mood: BmcMood) -> &'static str {
    match mood {
        BmcMood::Works => "works",
        BmcMood::Dead => "dead",
        BmcMood::Lies => "lies",
        BmcMood::Refuses => "refuses",
        BmcMood::Babbles => "babbles",
    }
}

impl Link {
    fn word(self) -> &'static str {
        match self {
            Link::Store => "store",
            Link::Lease => "lease",
            Link::Storage => "storage",
            Link::Upstream => "upstream",
            Link::Bmc => "bmc",
        }
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expectation::Primary(Some(host)) => write!(f, "primary {}", hv(*host)),
            Expectation::Primary(None) => f.write_str("primary any"),
            Expectation::Runs(guest, Some(host)) => write!(f, "runs g{} {}", guest + 1, hv(*host)),
            Expectation::Runs(guest, None) => write!(f, "runs g{} any", guest + 1),
            Expectation::Attached(guest) => write!(f, "attached g{}", guest + 1),
            Expectation::Stopped(guest) => write!(f, "stopped g{}", guest + 1),
            Expectation::Fenced(host) => write!(f, "fenced {}", hv(*host)),
            Expectation::Unfenced(host) => write!(f, "unfenced {}", hv(*host)),
            Expectation::Converged => f.write_str("converged"),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Nothing => f.write_str("-"),
            Action::Kill(host) => write!(f, "kill {}", hv(*host)),
            Action::Freeze(host) => write!(f, "freeze {}", hv(*host)),
            Action::Thaw(host) => write!(f, "thaw {}", hv(*host)),
            Action::FreezeHost(host) => write!(f, "freeze-host {}", hv(*host)),
            Action::ThawHost(host) => write!(f, "thaw-host {}", hv(*host)),
            Action::Suspend(host) => write!(f, "suspend {}", hv(*host)),
            Action::Wake(host, counted) => write!(f, "wake {} {}", hv(*host), Time(*counted)),
            Action::PowerLoss(host) => write!(f, "power-loss {}", hv(*host)),
            Action::PowerOn(host) => write!(f, "power-on {}", hv(*host)),
            Action::Cut(host, link) => write!(f, "cut {} {}", hv(*host), link.word()),
            Action::Heal(host, link) => write!(f, "heal {} {}", hv(*host), link.word()),
            Action::Expire(host) => write!(f, "expire {}", hv(*host)),
            Action::Hide(host, fate) => write!(f, "hide {} {}", hv(*host), fate_word(*fate)),
            Action::HideLease(host, fate) => write!(f, "hide-lease {} {}", hv(*host), fate_word(*fate)),
            Action::Lag(host) => write!(f, "lag {}", hv(*host)),
            Action::CatchUp(host) => write!(f, "catch-up {}", hv(*host)),
            Action::Slow(host, by) => write!(f, "slow {} {}", hv(*host), Time(*by)),
            Action::LoseQuorum => f.write_str("lose-quorum"),
            Action::RestoreQuorum => f.write_str("restore-quorum"),
            Action::Snapshot => f.write_str("snapshot"),
            Action::RollBack => f.write_str("roll-back"),
            Action::LibvirtAway(host) => write!(f, "libvirt-away {}", hv(*host)),
            Action::LibvirtBack(host) => write!(f, "libvirt-back {}", hv(*host)),
            Action::LoseAnswer(host) => write!(f, "lose-answer {}", hv(*host)),
            Action::Forget(host, guest) => write!(f, "forget {} g{}", hv(*host), guest + 1),
            Action::KillGuest(host, guest) => write!(f, "kill-guest {} g{}", hv(*host), guest + 1),
            Action::LoseLogs(host) => write!(f, "lose-logs {}", hv(*host)),
            Action::FindLogs(host) => write!(f, "find-logs {}", hv(*host)),
            Action::Stall(host, by) => write!(f, "stall {} {}", hv(*host), Time(*by)),
            Action::SayDead(host) => write!(f, "say-dead {}", hv(*host)),
            Action::RemoveAddress(host) => write!(f, "remove-address {}", hv(*host)),
            Action::Opener(guest) => write!(f, "opener g{}", guest + 1),
            Action::Bmc(host, mood) => write!(f, "bmc {} {}", hv(*host), mood_word(*mood)),
            Action::BmcSlow(host, by) => write!(f, "bmc-slow {} {}", hv(*host), Time(*by)),
            Action::BmcSwap(one, other) => write!(f, "bmc-swap {} {}", hv(*one), hv(*other)),
            Action::OsdLag(host, by) => write!(f, "osd-lag {} {}", hv(*host), Time(*by)),
            Action::At {
                host,
                call,
                count,
                what,
            } => {
                let word = match what {
                    Ordered::Pause(_) => "pause-at",
                    Ordered::Kill => "kill-at",
                    Ordered::KillAfter => "kill-after",
                    Ordered::PowerLoss => "power-loss-at",
                    Ordered::Expire => "expire-at",
                    Ordered::Fail => "fail-at",
                };
                write!(f, "{word} {} {call} {count}", hv(*host))?;
                match what {
                    Ordered::Pause(duration) => write!(f, " {}", Time(*duration)),
                    Ordered::Kill
                    | Ordered::KillAfter
                    | Ordered::PowerLoss
                    | Ordered::Expire
                    | Ordered::Fail => Ok(()),
                }
            }
            Action::Ask(guest, state) => write!(f, "ask g{} {state}", guest + 1),
            Action::Attach(guest) => write!(f, "attach g{}", guest + 1),
            Action::Place(guest, host) => write!(f, "place g{} {}", guest + 1, hv(*host)),
            Action::Misplace(guest, host) => write!(f, "misplace g{} {}", guest + 1, hv(*host)),
            Action::Migrate(guest, host) => write!(f, "migrate g{} {}", guest + 1, hv(*host)),
            Action::Primary(Some(host)) => write!(f, "primary {}", hv(*host)),
            Action::Primary(None) => f.write_str("primary none"),
            Action::Flush(host) => write!(f, "flush {}", hv(*host)),
            Action::Ready(host) => write!(f, "ready {}", hv(*host)),
            Action::Confirm(host, ConfirmationKind::MachineIsOff) => write!(f, "confirm {} off", hv(*host)),
            Action::Confirm(host, ConfirmationKind::Proceed) => write!(f, "confirm {} proceed", hv(*host)),
            Action::Adopt => f.write_str("adopt"),
            Action::Name(host, other) => write!(f, "name {} {}", hv(*host), hv(*other)),
            Action::Maintenance(Maintenance::On) => f.write_str("maintenance on"),
            Action::Maintenance(Maintenance::Off) => f.write_str("maintenance off"),
            Action::HealAll => f.write_str("heal-all"),
            Action::Expect(expectation, within) => write!(f, "expect {expectation} within {}", Time(*within)),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", Time(self.after), self.action)?;
        match self.salt {
            0 => Ok(()),
            salt => write!(f, " #{salt:x}"),
        }
    }
}

impl fmt::Display for ClusterPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "nodes {}", self.nodes)?;
        writeln!(f, "guests {}", self.guests)?;
        writeln!(f, "seed {}", self.seed)
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.plan)?;
        for step in &self.steps {
            writeln!(f, "{step}")?;
        }
        Ok(())
    }
}

/// A line that can't be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLine {
    /// Its number, from 1; 0 if it stands alone.
    pub line: usize,
    /// The line.
    pub text: String,
    /// What is wrong.
    pub reason: String,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {:?}: {}", self.line, self.text, self.reason)
    }
}

impl std::error::Error for BadLine {}

/// The words of a line, taken one after another.
struct Words<'a> {
    line: &'a str,
    words: std::str::SplitWhitespace<'a>,
}

impl<'a> Words<'a> {
    fn new(line: &'a str) -> Words<'a> {
        Words {
            line,
            words: line.split_whitespace(),
        }
    }

    fn bad(&self, reason: impl Into<String>) -> BadLine {
        BadLine {
            line: 0,
            text: self.line.to_owned(),
            reason: reason.into(),
        }
    }

    fn word(&mut self, what: &str) -> Result<&'a str, BadLine> {
        self.words
            .next()
            .ok_or_else(|| self.bad(format!("{what} is missing")))
    }

    fn numbered(&mut self, prefix: &str, what: &str) -> Result<usize, BadLine> {
        let word = self.word(what)?;
        word.strip_prefix(prefix)
            .and_then(|number| number.parse::<usize>().ok())
            .and_then(|number| number.checked_sub(1))
            .ok_or_else(|| self.bad(format!("{word:?} is no {what}")))
    }

    fn host(&mut self) -> Result<usize, BadLine> {
        self.numbered("hv", "node")
    }

    fn guest(&mut self) -> Result<usize, BadLine> {
        self.numbered("g", "guest")
    }

    fn time(&mut self) -> Result<Duration, BadLine> {
        let word = self.word("duration")?;
        parse_time(word).ok_or_else(|| self.bad(format!("{word:?} is no duration")))
    }

    fn parsed<T: FromStr>(&mut self, what: &str) -> Result<T, BadLine> {
        let word = self.word(what)?;
        word.parse()
            .map_err(|_| self.bad(format!("{word:?} is no {what}")))
    }

    fn fate(&mut self) -> Result<Fate, BadLine> {
        match self.word("fate")? {
            "lost" => Ok(Fate::Lost),
            "applied" => Ok(Fate::Applied),
            "late" => Ok(Fate::AppliedOnReconnect),
            other => Err(self.bad(format!("{other:?} is no fate"))),
        }
    }

    fn link(&mut self) -> Result<Link, BadLine> {
        match self.word("link")? {
            "store" => Ok(Link::Store),
            "lease" => Ok(Link::Lease),
            "storage" => Ok(Link::Storage),
            "upstream" => Ok(Link::Upstream),
            "bmc" => Ok(Link::Bmc),
            other => Err(self.bad(format!("{other:?} is no link"))),
        }
    }

    fn any_host(&mut self) -> Result<Option<usize>, BadLine> {
        match self.words.clone().next() {
            Some("any" | "none") => {
                self.words.next();
                Ok(None)
            }
            Some(_) | None => self.host().map(Some),
        }
    }
}

/// A duration such as `350ms`, `10s`, `5m`, `2h`.
pub fn parse_time(word: &str) -> Option<Duration> {
    let split = word.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = word.split_at(split);
    let number: u64 = number.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_secs(number * 60)),
        "h" => Some(Duration::from_secs(number * 3600)),
        _ => None,
    }
}

fn parse_action(words: &mut Words<'_>) -> Result<Action, BadLine> {
    Ok(match words.word("action")? {
        "-" => Action::Nothing,
        "kill" => Action::Kill(words.host()?),
        "freeze" => Action::Freeze(words.host()?),
        "thaw" => Action::Thaw(words.host()?),
        "freeze-host" => Action::FreezeHost(words.host()?),
        "thaw-host" => Action::ThawHost(words.host()?),
        "suspend" => Action::Suspend(words.host()?),
        "wake" => Action::Wake(words.host()?, words.time()?),
        "power-loss" => Action::PowerLoss(words.host()?),
        "power-on" => Action::PowerOn(words.host()?),
        "cut" => Action::Cut(words.host()?, words.link()?),
        "heal" => Action::Heal(words.host()?, words.link()?),
        "expire" => Action::Expire(words.host()?),
        "hide" => Action::Hide(words.host()?, words.fate()?),
        "hide-lease" => Action::HideLease(words.host()?, words.fate()?),
        "lag" => Action::Lag(words.host()?),
        "catch-up" => Action::CatchUp(words.host()?),
        "slow" => Action::Slow(words.host()?, words.time()?),
        "lose-quorum" => Action::LoseQuorum,
        "restore-quorum" => Action::RestoreQuorum,
        "snapshot" => Action::Snapshot,
        "roll-back" => Action::RollBack,
        "libvirt-away" => Action::LibvirtAway(words.host()?),
        "libvirt-back" => Action::LibvirtBack(words.host()?),
        "lose-answer" => Action::LoseAnswer(words.host()?),
        "forget" => Action::Forget(words.host()?, words.guest()?),
        "kill-guest" => Action::KillGuest(words.host()?, words.guest()?),
        "lose-logs" => Action::LoseLogs(words.host()?),
        "find-logs" => Action::FindLogs(words.host()?),
        "stall" => Action::Stall(words.host()?, words.time()?),
        "say-dead" => Action::SayDead(words.host()?),
        "remove-address" => Action::RemoveAddress(words.host()?),
        "bmc" => {
            let host = words.host()?;
            let word = words.word("how a BMC behaves")?;
            let mood = MOODS
                .iter()
                .find(|mood| mood_word(**mood) == word)
                .ok_or_else(|| words.bad(format!("no BMC behaves {word:?}")))?;
            Action::Bmc(host, *mood)
        }
        "bmc-slow" => Action::BmcSlow(words.host()?, words.time()?),
        "bmc-swap" => Action::BmcSwap(words.host()?, words.host()?),
        "osd-lag" => Action::OsdLag(words.host()?, words.time()?),
        "opener" => Action::Opener(words.guest()?),
        word @ ("pause-at" | "kill-at" | "kill-after" | "power-loss-at" | "expire-at" | "fail-at") => {
            let (host, call, count) = (
                words.host()?,
                words.word("call")?.to_owned(),
                words.parsed("count")?,
            );
            let what = match word {
                "pause-at" => Ordered::Pause(words.time()?),
                "kill-at" => Ordered::Kill,
                "kill-after" => Ordered::KillAfter,
                "power-loss-at" => Ordered::PowerLoss,
                "expire-at" => Ordered::Expire,
                _ => Ordered::Fail,
            };
            Action::At {
                host,
                call,
                count,
                what,
            }
        }
        "ask" => Action::Ask(words.guest()?, words.parsed("state")?),
        "attach" => Action::Attach(words.guest()?),
        "place" => Action::Place(words.guest()?, words.host()?),
        "misplace" => Action::Misplace(words.guest()?, words.host()?),
        "migrate" => Action::Migrate(words.guest()?, words.host()?),
        "primary" => Action::Primary(words.any_host()?),
        "flush" => Action::Flush(words.host()?),
        "ready" => Action::Ready(words.host()?),
        "confirm" => {
            let host = words.host()?;
            match words.word("off or proceed")? {
                "off" => Action::Confirm(host, ConfirmationKind::MachineIsOff),
                "proceed" => Action::Confirm(host, ConfirmationKind::Proceed),
                other => return Err(words.bad(format!("{other:?} is neither off nor proceed"))),
            }
        }
        "adopt" => Action::Adopt,
        "name" => Action::Name(words.host()?, words.host()?),
        "maintenance" => match words.word("on or off")? {
            "on" => Action::Maintenance(Maintenance::On),
            "off" => Action::Maintenance(Maintenance::Off),
            other => return Err(words.bad(format!("{other:?} is neither on nor off"))),
        },
        "heal-all" => Action::HealAll,
        "expect" => {
            let expectation = match words.word("expectation")? {
                "primary" => Expectation::Primary(words.any_host()?),
                "runs" => Expectation::Runs(words.guest()?, words.any_host()?),
                "attached" => Expectation::Attached(words.guest()?),
                "stopped" => Expectation::Stopped(words.guest()?),
                "fenced" => Expectation::Fenced(words.host()?),
                "unfenced" => Expectation::Unfenced(words.host()?),
                "converged" => Expectation::Converged,
                other => return Err(words.bad(format!("{other:?} can't be expected"))),
            };
            match words.word("within")? {
                "within" => Action::Expect(expectation, words.time()?),
                other => return Err(words.bad(format!("{other:?} should be within"))),
            }
        }
        other => return Err(words.bad(format!("there is no action {other:?}"))),
    })
}

impl FromStr for Step {
    type Err = BadLine;

    fn from_str(line: &str) -> Result<Step, BadLine> {
        let mut words = Words::new(line);
        let after = words.time()?;
        let action = parse_action(&mut words)?;
        let salt = match words.words.next() {
            None => 0,
            Some(word) => word
                .strip_prefix('#')
                .and_then(|salt| u64::from_str_radix(salt, 16).ok())
                .ok_or_else(|| words.bad(format!("{word:?} is too much")))?,
        };
        Ok(Step { after, action, salt })
    }
}

impl Schedule {
    /// Takes in the lines of `text`: first the cluster (`nodes`, `guests`, `seed`), then steps. Empty lines and those
    /// that begin with `#` say nothing.
    ///
    /// # Errors
    /// [`BadLine`].
    pub fn read(&mut self, text: &str) -> Result<(), BadLine> {
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            self.read_line(line).map_err(|bad| BadLine {
                line: index + 1,
                ..bad
            })?;
        }
        Ok(())
    }

    fn read_line(&mut self, line: &str) -> Result<(), BadLine> {
        let mut words = Words::new(line);
        match words.word("a word")? {
            "nodes" => self.plan.nodes = words.parsed("number of nodes")?,
            "guests" => self.plan.guests = words.parsed("number of guests")?,
            "seed" => self.plan.seed = words.parsed("seed")?,
            _ => self.steps.push(line.parse()?),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_reads_as_it_was_printed() {
        let lines = "nodes 4\nguests 2\nseed 9\n350ms freeze hv1 #12\n0s pause-at hv2 write:/fences 2 8s\n\
                     1s hide hv3 late #a\n2s cut hv1 storage\n5m expect runs g1 any within 15s\n0s primary none\n\
                     0s ask g2 stop\n10s wake hv1 30s\n1s expect converged within 1m\n\
                     0s adopt\n0s name hv3 hv2\n";
        let mut schedule = Schedule::default();
        schedule.read(lines).unwrap();
        assert_eq!(schedule.to_string(), lines);
        assert_eq!(schedule.steps.len(), 11);
    }

    #[test]
    fn a_bad_line_is_named() {
        let mut schedule = Schedule::default();
        let error = schedule.read("nodes 3\n\n1s freeze hx1\n").unwrap_err();
        assert_eq!(error.line, 3);
        assert!(error.to_string().contains("hx1"), "{error}");
    }
}
