//! The cases. Each leaves the cluster in any state; the runner mends it before the next.

mod failover;
pub(crate) mod ha;
mod hotplug;
mod lifecycle;
mod names;
mod races;
mod role;
mod volumes;

use crate::runner::Case;

/// All cases, in the order in which they run: what others rely on comes first.
pub(crate) const ALL: &[Case] = &[
    Case {
        name: "a-three-nodes-one-primary",
        run: role::one_primary,
    },
    Case {
        name: "b-move-by-command",
        run: role::move_by_command,
    },
    Case {
        name: "c-twenty-moves",
        run: role::twenty_moves,
    },
    Case {
        name: "d-kill-agent",
        run: failover::kill_agent,
    },
    Case {
        name: "d-freeze-agent",
        run: failover::freeze_agent,
    },
    Case {
        name: "d-power-off",
        run: failover::power_off,
    },
    Case {
        name: "d-power-off-zookeeper-leader",
        run: failover::power_off_leader,
    },
    Case {
        name: "e-guest-life",
        run: lifecycle::guest_life,
    },
    Case {
        name: "f-kill-qemu",
        run: lifecycle::kill_qemu,
    },
    Case {
        name: "f-power-cycle",
        run: lifecycle::power_cycle,
    },
    Case {
        name: "g-foreign-lock",
        run: volumes::foreign_lock,
    },
    Case {
        name: "g-foreign-watcher",
        run: volumes::foreign_watcher,
    },
    Case {
        name: "h-agent-restart",
        run: lifecycle::agent_restart,
    },
    Case {
        name: "h-hot-plug",
        run: hotplug::attach_and_detach,
    },
    Case {
        name: "i-killed-while-attaching",
        run: hotplug::killed_while_attaching,
    },
    Case {
        name: "i-frozen-before-create",
        run: races::frozen_before_create,
    },
    Case {
        name: "i-frozen-before-resume",
        run: races::frozen_before_resume,
    },
    Case {
        name: "j-held-before-refresh",
        run: races::held_before_refresh,
    },
    Case {
        name: "j-held-within-refresh",
        run: races::held_within_refresh,
    },
    Case {
        name: "k-two-of-one-name",
        run: names::two_of_one_name,
    },
    Case {
        name: "l-survivor-stall",
        run: ha::survivor_stall,
    },
    Case {
        name: "l-power-loss",
        run: ha::power_loss,
    },
    Case {
        name: "l-power-loss-dead-bmc",
        run: ha::power_loss_dead_bmc,
    },
    Case {
        name: "l-freeze-and-thaw",
        run: ha::freeze_and_thaw,
    },
    Case {
        name: "l-cut-from-cluster-and-storage",
        run: ha::from_cluster_and_storage,
    },
    Case {
        name: "l-cut-from-cluster",
        run: ha::from_cluster,
    },
    Case {
        name: "l-cut-from-upstream",
        run: ha::from_upstream,
    },
    Case {
        name: "l-two-store-servers-down",
        run: ha::two_servers_down,
    },
    Case {
        name: "l-fencer-killed",
        run: ha::fencer_killed,
    },
    Case {
        name: "l-fencer-stopped",
        run: ha::fencer_stopped,
    },
    Case {
        name: "m-moved-with-other-disks",
        run: hotplug::moved_with_other_disks,
    },
    Case {
        name: "m-fifty-moves",
        run: ha::back_and_forth,
    },
];
