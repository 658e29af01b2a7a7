//! What a flush would do, before anybody orders it.

use super::is_left;
use crate::ids::{NodeName, VmId};
use crate::placement::{GuestFigures, NoPlace, Survey};
use crate::states::VmState;

use super::DrainGuest;

/// What would become of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forecast {
    /// It would move to that node.
    Moves {
        /// The node, as things are now.
        to: NodeName,
    },
    /// It would be shut down, and start again when the node is made ready.
    ShutsDown {
        /// Why no node takes it.
        no_place: NoPlace,
    },
    /// It is on its way already, or ends: it would be waited for.
    WaitedFor,
}

/// What a flush of `node` would do to each guest there, one after another as a flush places them. What it would really
/// do depends on what the nodes have to carry then.
pub fn forecast_flush(node: &NodeName, survey: &Survey) -> Vec<(VmId, Forecast)> {
    let mut survey = survey.clone();
    let here: Vec<GuestFigures> = survey
        .guests
        .iter()
        .filter(|guest| is_left(node, &as_drained(guest)))
        .cloned()
        .collect();
    let mut forecasts = Vec::with_capacity(here.len());
    for guest in here {
        let stays = guest.state == VmState::Start && guest.node == *node;
        let wish = survey.wish(guest.vm, vec![node.clone()]).filter(|_| stays);
        let forecast = match wish {
            None => Forecast::WaitedFor,
            Some(wish) => match survey.place(&wish) {
                Ok(to) => {
                    survey.placed(&wish, &to, VmState::Migrate);
                    Forecast::Moves { to }
                }
                Err(no_place) => Forecast::ShutsDown { no_place },
            },
        };
        forecasts.push((guest.vm, forecast));
    }
    forecasts
}

fn as_drained(guest: &GuestFigures) -> DrainGuest {
    DrainGuest {
        vm: guest.vm,
        state: guest.state,
        node: guest.node.clone(),
        last_node: None,
        owner: guest.owner.clone(),
        moving: false,
        autostart: false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::placement::NodeFigures;
    use crate::states::{DaemonState, DomainState, NodeSelector};

    fn name(text: &str) -> NodeName {
        NodeName::new(text).unwrap()
    }

    fn vm(number: u128) -> VmId {
        VmId::new(uuid::Uuid::from_u128(number))
    }

    fn guest(number: u128, node: &str, state: VmState, memory_mib: u64) -> GuestFigures {
        GuestFigures {
            vm: vm(number),
            node: name(node),
            owner: Some(name("hv1")),
            state,
            memory_mib,
            vcpus: 1,
            limit: Vec::new(),
            selector: NodeSelector::Mem,
            groups: BTreeSet::new(),
        }
    }

    #[test]
    fn guests_are_placed_one_after_another_as_a_flush_does_it() {
        let node = |text| NodeFigures {
            name: name(text),
            daemon_state: DaemonState::Run,
            domain_state: DomainState::Ready,
            silent: false,
            memory_total_mib: 1000,
            memory_free_mib: 1000,
            load: 0.0,
            cpus: 8,
            running: BTreeSet::new(),
        };
        let survey = Survey {
            nodes: vec![node("hv1"), node("hv2")],
            guests: vec![
                guest(1, "hv1", VmState::Start, 600),
                guest(2, "hv1", VmState::Start, 600),
                guest(3, "hv2", VmState::Migrate, 100),
                guest(4, "hv1", VmState::Shutdown, 100),
                GuestFigures {
                    owner: None,
                    ..guest(5, "hv1", VmState::Stop, 100)
                },
            ],
            default_selector: None,
        };
        let forecasts = forecast_flush(&name("hv1"), &survey);
        assert_eq!(forecasts[0], (vm(1), Forecast::Moves { to: name("hv2") }));
        assert!(matches!(&forecasts[1], (id, Forecast::ShutsDown { .. }) if *id == vm(2)));
        assert_eq!(
            forecasts[2..],
            [(vm(3), Forecast::WaitedFor), (vm(4), Forecast::WaitedFor)]
        );
    }
}
