//! `pvc vm`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use clap::ValueEnum;
use comfy_table::Cell;
use pvc_api::vm::Vm;
use pvc_core::states::VmState;
use serde_json::Value;

use crate::Session;
use crate::args::VmCommand;
use crate::client::{only, segment, typed};
use crate::confirm::{Answer, Asking, confirm};
use crate::diff::{self, Line};
use crate::error::{CliError, Result};
use crate::locks;
use crate::meta;
use crate::moves::{self, Asked};
use crate::output::{self, Format, Lines};
use crate::wait::{self, Look};

/// How long a guest's shutdown is waited for: its node ends it after 180 s unless configured otherwise.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(300);
/// How long a guest's start or stop is waited for.
const START_LIMIT: Duration = Duration::from_secs(120);

pub(crate) fn run(command: &VmCommand, session: &Session) -> Result<()> {
    match command {
        VmCommand::List {
            limit,
            target,
            state,
            tag,
            negate,
            format,
        } => {
            let mut query: Vec<(&str, &str)> =
                [("limit", limit), ("node", target), ("state", state), ("tag", tag)]
                    .into_iter()
                    .filter_map(|(name, value)| Some((name, value.as_deref()?)))
                    .collect();
            if *negate {
                query.push(("negate", "true"));
            }
            list(session, &query, *format)
        }
        VmCommand::Info { domain, format } => info(session, domain, *format),
        VmCommand::Define { .. } => define(session, command),
        VmCommand::Modify {
            domain,
            cfgfile,
            editor: _,
            restart,
            confirm_diff,
            confirm_restart,
            yes,
        } => {
            let confirmed = Confirmed {
                diff: session.asking(*yes || *confirm_diff),
                restart: session.asking(*yes || *confirm_restart),
            };
            modify(session, domain, cfgfile.as_deref(), *restart, confirmed)
        }
        VmCommand::Start { domain, force, wait } => {
            let said = set_state(session, domain, "start", *force)?;
            finish(session, domain, said, wait.then_some(Goal::Running))
        }
        VmCommand::Restart { domain, wait, yes } => {
            ask(session, &format!("Restart VM {domain}?"), *yes, || {
                let said = set_state(session, domain, "restart", false)?;
                finish(session, domain, said, wait.then_some(Goal::Restarted))
            })
        }
        VmCommand::Shutdown { domain, wait, yes } => {
            ask(session, &format!("Shut VM {domain} down?"), *yes, || {
                let said = set_state(session, domain, "shutdown", false)?;
                finish(session, domain, said, wait.then_some(Goal::Stopped))
            })
        }
        VmCommand::Stop {
            domain,
            force,
            wait,
            yes,
        } => ask(session, &format!("Switch VM {domain} off?"), *yes, || {
            let said = set_state(session, domain, "stop", *force)?;
            finish(session, domain, said, wait.then_some(Goal::Stopped))
        }),
        VmCommand::Disable { domain, force, yes } => {
            ask(session, &format!("Disable VM {domain}?"), *yes, || {
                let said = set_state(session, domain, "disable", *force)?;
                session.say(&said);
                Ok(())
            })
        }
        VmCommand::FlushLocks {
            domain,
            force,
            wait: _,
            no_wait,
        } => locks::run(session, domain, *force, !*no_wait),
        VmCommand::Meta { .. } => meta::run(command, session),
        VmCommand::Migrate {
            domain,
            target,
            force,
            wait,
            force_live,
        } => {
            let asked = Asked::new("migrate", target.as_deref(), *force, *force_live);
            moves::run(session, domain, &asked, *wait)
        }
        VmCommand::Unmigrate {
            domain,
            force,
            wait,
            force_live,
        } => {
            let asked = Asked::new("unmigrate", None, *force, *force_live);
            moves::run(session, domain, &asked, *wait)
        }
        VmCommand::Move {
            domain,
            target,
            force,
            wait,
            force_live,
        } => {
            let asked = Asked::new("move", target.as_deref(), *force, *force_live);
            moves::run(session, domain, &asked, *wait)
        }
        VmCommand::Undefine { domain, yes } => ask(
            session,
            &format!("Switch VM {domain} off and remove its definition? Its volumes are kept."),
            *yes,
            || {
                session.say(&session.client.delete(&path(domain))?);
                Ok(())
            },
        ),
        VmCommand::Dump { domain, file } => dump(session, domain, file.as_deref()),
    }
}

pub(crate) fn path(domain: &str) -> String {
    format!("/vm/{}", segment(domain))
}

fn ask(session: &Session, question: &str, yes: bool, go: impl FnOnce() -> Result<()>) -> Result<()> {
    match confirm(question, session.asking(yes))? {
        Answer::Yes => go(),
        Answer::No => Ok(()),
    }
}

fn one(session: &Session, domain: &str) -> Result<Value> {
    Ok(only(session.client.get(&path(domain), &[])?))
}

fn set_state(session: &Session, domain: &str, state: &str, force: bool) -> Result<String> {
    let mut form = vec![("state", state)];
    if force {
        form.push(("force", "true"));
    }
    session.client.post(&format!("{}/state", path(domain)), &form)
}

/// What a command waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    /// The guest runs.
    Running,
    /// The guest was shut down and is to run again.
    Restarted,
    /// The guest does not run.
    Stopped,
}

fn finish(session: &Session, domain: &str, said: String, goal: Option<Goal>) -> Result<()> {
    let Some(goal) = goal else {
        session.say(&said);
        return Ok(());
    };
    let limit = match goal {
        Goal::Running => START_LIMIT,
        Goal::Restarted | Goal::Stopped => SHUTDOWN_LIMIT,
    };
    let text = wait::until(&format!("VM {domain}"), limit, || {
        let vm: Vm = typed(only(session.client.get_once(&path(domain), &[])?))?;
        look(goal, &vm)
    })?;
    session.say(&text);
    Ok(())
}

/// Whether a guest is where it should be. The owner record says whether a process of it may exist: state words alone
/// run ahead of what is so.
fn look(goal: Goal, vm: &Vm) -> Result<Look> {
    if vm.state == VmState::Fail {
        return Err(CliError::failure(format!(
            "VM {} has failed: {}",
            vm.name, vm.failed_reason
        )));
    }
    let held = !vm.owner.is_empty();
    Ok(match (goal, vm.state) {
        (Goal::Running | Goal::Restarted, VmState::Start) if vm.running => {
            Look::Done(format!("VM {} runs on node {}", vm.name, vm.owner))
        }
        (Goal::Stopped, VmState::Stop | VmState::Disable) if !held => {
            Look::Done(format!("VM {} is stopped", vm.name))
        }
        (Goal::Running | Goal::Restarted, VmState::Stop | VmState::Disable)
        | (Goal::Stopped, VmState::Start) => {
            return Err(CliError::failure(format!(
                "VM {} went to state {} instead: somebody else asked for it",
                vm.name, vm.state
            )));
        }
        (_, state) => Look::Waiting(state.to_string()),
    })
}

fn list(session: &Session, query: &[(&str, &str)], format: Format) -> Result<()> {
    let value = session.client.list("/vm", query)?;
    match format {
        Format::Json | Format::JsonPretty => return output::json(&value, format),
        Format::Pretty | Format::Short | Format::Long | Format::Raw | Format::JsonPrometheus => {}
    }
    let vms: Vec<Vm> = typed(value)?;
    if format == Format::Raw {
        for vm in &vms {
            output::line(&vm.name);
        }
        return Ok(());
    }
    let mut table = output::table(&[
        "Name", "State", "Node", "Runs on", "Migrated", ">vCPUs", ">Memory", "Networks", "Tags",
    ]);
    for vm in &vms {
        let networks: Vec<&str> = vm.networks.iter().map(|network| network.vni.as_str()).collect();
        let tags: Vec<&str> = vm.tags.iter().map(|tag| tag.name.as_str()).collect();
        table.add_row(vec![
            Cell::new(&vm.name),
            output::vm_state(vm.state.as_str()),
            Cell::new(&vm.node),
            Cell::new(if vm.running { &vm.owner } else { "-" }),
            Cell::new(&vm.migrated),
            output::number(vm.vcpu),
            output::number(output::mebibytes(vm.memory)),
            Cell::new(networks.join(",")),
            Cell::new(tags.join(",")),
        ]);
    }
    output::print_table(table);
    for vm in vms.iter().filter(|vm| vm.state == VmState::Fail) {
        output::line(format!(
            "\x1b[31m{} has failed:\x1b[0m {}",
            vm.name, vm.failed_reason
        ));
    }
    Ok(())
}

fn info(session: &Session, domain: &str, format: Format) -> Result<()> {
    let value = one(session, domain)?;
    match format {
        Format::Json | Format::JsonPretty => return output::json(&value, format),
        Format::Pretty | Format::Short | Format::Long | Format::Raw | Format::JsonPrometheus => {}
    }
    let vm: Vm = typed(value)?;
    let mut lines = Lines::default();
    lines.add("Name", &vm.name);
    lines.add("UUID", &vm.uuid);
    if !vm.description.is_empty() {
        lines.add("Description", &vm.description);
    }
    lines.add("State", output::painted(vm.state.as_str()));
    if !vm.failed_reason.is_empty() {
        // A guest that runs keeps the reason of what was last called off, as a migration.
        let label = if vm.state == VmState::Fail {
            "Failed because"
        } else {
            "Last trouble"
        };
        lines.add(label, &vm.failed_reason);
    }
    if let Some(error) = &vm.xml_error {
        lines.add("Bad XML", error);
    }
    lines.add("Node", &vm.node);
    match (vm.running, vm.owner.as_str()) {
        (_, "") => lines.add("Runs on", "-"),
        (true, owner) => lines.add("Runs on", owner),
        (false, owner) => lines.add("Runs on", format!("- (being started on {owner})")),
    };
    if !vm.incoming.is_empty() {
        lines.add(
            "Moving",
            format!("\x1b[33mis being received by {}\x1b[0m", vm.incoming),
        );
    }
    lines.add("Migrated", &vm.migrated);
    lines.gap();
    lines.add("Memory", output::mebibytes(vm.memory));
    lines.add("vCPUs", format!("{} ({})", vm.vcpu, vm.vcpu_topology));
    for disk in &vm.disks {
        lines.add(
            &format!("Disk {}", disk.dev),
            format!("{} {} on {}", disk.kind, disk.name, disk.bus),
        );
    }
    for network in &vm.networks {
        lines.add(
            &format!("Network {}", network.vni),
            format!("{} {} ({})", network.mac, network.model, network.source),
        );
    }
    if let (Some(listen), Some(port)) = (&vm.vnc.listen, &vm.vnc.port) {
        lines.add("VNC", format!("{listen}:{port}"));
    }
    lines.gap();
    let limit = vm.node_limit.as_deref().unwrap_or_default().join(", ");
    lines.add("Node limit", or_dash(&limit));
    lines.add(
        "Node selector",
        or_dash(vm.node_selector.as_deref().unwrap_or_default()),
    );
    lines.add("Autostart", if vm.node_autostart { "yes" } else { "no" });
    lines.add(
        "Migration",
        format!(
            "method {}, pause of {} ms at most",
            vm.migration_method.as_deref().unwrap_or("none"),
            vm.migration_max_downtime
        ),
    );
    lines.add("Recovery", format!("priority {}", vm.recovery_priority));
    lines.add("Keep apart", or_dash(&vm.anti_affinity.join(", ")));
    let tags: Vec<String> = vm
        .tags
        .iter()
        .map(|tag| match tag.protected {
            true => format!("{} (protected)", tag.name),
            false => tag.name.clone(),
        })
        .collect();
    lines.add("Tags", or_dash(&tags.join(", ")));
    if format == Format::Long {
        long(&vm, &mut lines);
    }
    lines.print();
    Ok(())
}

fn long(vm: &Vm, lines: &mut Lines) {
    lines.gap();
    lines.add("Profile", &vm.profile);
    lines.add("Type", format!("{} {} {}", vm.kind, vm.arch, vm.machine));
    lines.add("Emulator", or_dash(&vm.emulator));
    lines.add("Features", or_dash(&vm.features.join(" ")));
    lines.add("Console", &vm.console);
    for controller in &vm.controllers {
        lines.add(
            &format!("Controller {}", controller.kind),
            or_dash(controller.model.as_deref().unwrap_or_default()),
        );
    }
    for disk in &vm.disks {
        lines.add(
            &format!("I/O of {}", disk.dev),
            format!(
                "{} read in {} requests, {} written in {}",
                output::bytes(disk.rd_bytes),
                disk.rd_req,
                output::bytes(disk.wr_bytes),
                disk.wr_req
            ),
        );
    }
    for network in &vm.networks {
        lines.add(
            &format!("Traffic of {}", network.vni),
            format!(
                "{} received, {} sent",
                output::bytes(network.rd_bytes),
                output::bytes(network.wr_bytes)
            ),
        );
    }
    for snapshot in &vm.snapshots {
        lines.add("Snapshot", &snapshot.name);
    }
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

fn define(session: &Session, command: &VmCommand) -> Result<()> {
    let VmCommand::Define {
        vmconfig,
        target,
        limit,
        node_selector,
        autostart,
        no_autostart: _,
        method,
        max_downtime,
        tag,
        protected_tag,
        recovery_priority,
        anti_affinity,
    } = command
    else {
        return Ok(());
    };
    let xml = read_xml(vmconfig)?;
    let selector = word(node_selector);
    let method = word(method);
    let downtime = max_downtime.to_string();
    let priority = recovery_priority.to_string();
    let mut form: Vec<(&str, &str)> = vec![
        ("xml", &xml),
        ("selector", &selector),
        ("autostart", if *autostart { "true" } else { "false" }),
        ("migration_method", &method),
        ("migration_max_downtime", &downtime),
        ("recovery_priority", &priority),
    ];
    form.extend(
        anti_affinity
            .iter()
            .map(|group| ("anti_affinity", group.as_str())),
    );
    if let Some(target) = target {
        form.push(("node", target));
    }
    if let Some(limit) = limit {
        form.push(("limit", limit));
    }
    form.extend(tag.iter().map(|tag| ("user_tags", tag.as_str())));
    form.extend(protected_tag.iter().map(|tag| ("protected_tags", tag.as_str())));
    session.say(&session.client.post("/vm", &form)?);
    Ok(())
}

pub(crate) fn word(value: &impl ValueEnum) -> String {
    value
        .to_possible_value()
        .map(|value| value.get_name().to_owned())
        .unwrap_or_default()
}

fn read_xml(file: &Path) -> Result<String> {
    if file == Path::new("-") {
        std::io::read_to_string(std::io::stdin())
    } else {
        fs::read_to_string(file)
    }
    .map_err(|error| CliError::failure(format!("Can not read {}: {error}", file.display())))
}

/// What of a change is still asked for.
#[derive(Debug, Clone, Copy)]
struct Confirmed {
    diff: Asking,
    restart: Asking,
}

fn modify(
    session: &Session,
    domain: &str,
    file: Option<&Path>,
    restart: bool,
    confirmed: Confirmed,
) -> Result<()> {
    let vm: Vm = typed(one(session, domain)?)?;
    let new = match file {
        Some(file) => read_xml(file)?,
        None => edit(&vm.name, &vm.xml)?,
    };
    // The API shows the present XML with single quotes; quotes alone are no difference.
    let shown = new.replace('"', "'");
    let changes = diff::lines(&vm.xml, &shown);
    if changes.iter().all(|line| matches!(line, Line::Same(_))) {
        session.say("Nothing has changed");
        return Ok(());
    }
    if confirmed.diff == Asking::Ask {
        anstream::eprint!("{}", diff::render(&changes, 1));
    }
    if confirm(&format!("Change VM {domain} like this?"), confirmed.diff)? == Answer::No {
        return Ok(());
    }
    let restart = restart
        && vm.state == VmState::Start
        && confirm(
            &format!("Restart VM {domain}, so that the change applies now?"),
            confirmed.restart,
        )? == Answer::Yes;
    let form = [
        ("xml", new.as_str()),
        ("restart", if restart { "true" } else { "false" }),
    ];
    session.say(&session.client.put(&path(domain), &form)?);
    Ok(())
}

/// Lets the administrator change `text` in an editor of their choice.
fn edit(name: &str, text: &str) -> Result<String> {
    let failed = |error: std::io::Error| CliError::failure(format!("Can not edit the XML: {error}"));
    let editor = std::env::var("EDITOR")
        .ok()
        .filter(|editor| !editor.is_empty())
        .unwrap_or_else(|| "editor".to_owned());
    let directory = std::env::temp_dir().join(format!("pvc-edit-{}", std::process::id()));
    fs::create_dir(&directory).map_err(failed)?;
    let file = directory.join(format!("{name}.xml"));
    let edited = fs::write(&file, text).map_err(failed).and_then(|()| {
        let mut words = editor.split_whitespace();
        let program = words.next().unwrap_or("editor");
        #[expect(
            clippy::disallowed_methods,
            reason = "an editor runs in the foreground for as long as a person wants"
        )]
        let status = std::process::Command::new(program)
            .args(words)
            .arg(&file)
            .status()
            .map_err(|error| {
                CliError::failure(format!(
                    "Can not run {program:?}: {error}; set EDITOR to your editor"
                ))
            })?;
        if !status.success() {
            return Err(CliError::failure(format!(
                "{program} ended with an error; nothing is changed"
            )));
        }
        fs::read_to_string(&file).map_err(failed)
    });
    let _ = fs::remove_dir_all(&directory);
    edited
}

fn dump(session: &Session, domain: &str, file: Option<&Path>) -> Result<()> {
    let vm: Vm = typed(one(session, domain)?)?;
    match file {
        None => {
            output::line(vm.xml.trim_end());
            Ok(())
        }
        Some(file) => {
            let text = format!("{}\n", vm.xml.trim_end());
            fs::write(file, text)
                .map_err(|error| CliError::failure(format!("Can not write {}: {error}", file.display())))?;
            session.say(&format!("Saved the XML of VM {} in {}", vm.name, file.display()));
            Ok(())
        }
    }
}
