//! `pvc vm list`.

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use comfy_table::Cell;
use pvc_api::vm::Vm;
use pvc_core::states::VmState;

use crate::client::typed;
use crate::error::Result;
use crate::output::{self, Format, formats};
use crate::session::Session;
use crate::watch;

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only those whose name matches this regular expression
    limit: Option<String>,
    /// Only those on this node
    // An empty variable in a script must not stand for all guests.
    #[arg(short, long, value_parser = NonEmptyStringValueParser::new())]
    target: Option<String>,
    /// Only those in this state
    #[arg(short, long, value_parser = NonEmptyStringValueParser::new())]
    state: Option<String>,
    /// Only those with this tag
    #[arg(short = 'g', long, value_parser = NonEmptyStringValueParser::new())]
    tag: Option<String>,
    /// Those that node, state and tag do not fit
    #[arg(short, long)]
    negate: bool,
    /// How to show them
    #[arg(short, long, default_value = "pretty", value_parser = formats(&["pretty", "raw", "json", "json-pretty"]))]
    format: Format,
    /// Show it again whenever something changes, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

impl List {
    pub(crate) fn run(&self, session: &Session) -> Result<()> {
        watch::show(session, self.watch, self.format, || self.text(session))
    }

    fn query(&self) -> Vec<(&str, &str)> {
        let mut query: Vec<(&str, &str)> = [
            ("limit", &self.limit),
            ("node", &self.target),
            ("state", &self.state),
            ("tag", &self.tag),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.as_deref()?)))
        .collect();
        if self.negate {
            query.push(("negate", "true"));
        }
        query
    }

    fn text(&self, session: &Session) -> Result<String> {
        let value = session.client.list("/vm", &self.query())?;
        if self.format.is_json() {
            return output::json(&value, self.format);
        }
        let vms: Vec<Vm> = typed(value)?;
        if self.format == Format::Raw {
            return Ok(output::words(vms.iter().map(|vm| &vm.name)));
        }
        if vms.is_empty() {
            return Ok("There are no VMs\n".to_owned());
        }
        Ok(table(&vms))
    }
}

fn table(vms: &[Vm]) -> String {
    let mut table = output::table(&[
        "Name", "State", "Node", "Runs on", "Migrated", ">vCPUs", ">Memory", "Networks", "Tags",
    ]);
    for vm in vms {
        let networks: Vec<&str> = vm.networks.iter().map(|network| network.vni.as_str()).collect();
        let tags: Vec<&str> = vm.tags.iter().map(|tag| tag.name.as_str()).collect();
        table.add_row(vec![
            Cell::new(&vm.name),
            output::vm_state(vm.state.as_str()),
            Cell::new(&vm.node),
            Cell::new(if vm.running { &vm.owner } else { "-" }),
            Cell::new(if vm.last_node.is_empty() {
                "-"
            } else {
                &vm.migrated
            }),
            output::number(vm.vcpu),
            output::number(output::mebibytes(vm.memory)),
            Cell::new(output::or_dash(&networks.join(","))),
            Cell::new(output::or_dash(&tags.join(","))),
        ]);
    }
    let mut text = output::render(table);
    for vm in vms.iter().filter(|vm| vm.state == VmState::Fail) {
        text.push_str(&format!(
            "\x1b[31m{} has failed:\x1b[0m {}\n",
            vm.name, vm.failed_reason
        ));
    }
    text
}
