//! `pvc vm meta`.

use pvc_api::vm::VmMeta;

use crate::Session;
use crate::args::VmCommand;
use crate::client::typed;
use crate::error::Result;
use crate::output::Lines;
use crate::vm::{path, word};

pub(crate) fn run(command: &VmCommand, session: &Session) -> Result<()> {
    let VmCommand::Meta {
        domain,
        limit,
        node_selector,
        autostart,
        no_autostart,
        method,
        max_downtime,
        profile,
        recovery_priority,
        anti_affinity,
    } = command
    else {
        return Ok(());
    };
    let mut form: Vec<(&str, String)> = Vec::new();
    let mut add = |name, value: Option<String>| form.extend(value.map(|value| (name, value)));
    add("limit", limit.clone());
    add("selector", node_selector.as_ref().map(word));
    add("autostart", autostart.then(|| "true".to_owned()));
    add("autostart", no_autostart.then(|| "false".to_owned()));
    add("migration_method", method.as_ref().map(word));
    add(
        "migration_max_downtime",
        max_downtime.map(|downtime| downtime.to_string()),
    );
    add("profile", profile.clone());
    add(
        "recovery_priority",
        recovery_priority.map(|priority| priority.to_string()),
    );
    for group in anti_affinity {
        add("anti_affinity", Some(group.clone()));
    }
    let path = format!("{}/meta", path(domain));
    if form.is_empty() {
        return show(session, &path);
    }
    let form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
    session.say(&session.client.post(&path, &form)?);
    Ok(())
}

fn show(session: &Session, path: &str) -> Result<()> {
    let meta: VmMeta = typed(session.client.get(path, &[])?)?;
    let limit = meta.node_limit.unwrap_or_default().join(", ");
    let or = |text: String, otherwise: &str| {
        if text.is_empty() {
            otherwise.to_owned()
        } else {
            text
        }
    };
    let mut lines = Lines::default();
    lines.add("Name", &meta.name);
    lines.add("Node limit", or(limit, "any node"));
    lines.add("Node selector", &meta.node_selector);
    lines.add(
        "Autostart",
        if meta.node_autostart == "True" {
            "yes"
        } else {
            "no"
        },
    );
    lines.add(
        "Migration",
        format!(
            "method {}, pause of {} ms at most",
            meta.migration_method, meta.migration_max_downtime
        ),
    );
    lines.add("Recovery priority", meta.recovery_priority);
    lines.add("Keep apart", or(meta.anti_affinity.join(", "), "-"));
    lines.print();
    Ok(())
}
