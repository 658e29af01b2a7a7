//! Keys of a node.

use pvc_core::hold::HoldRecord;
use pvc_core::ids::NodeName;
use pvc_core::records::{AgentFigures, BmcReport, DrainReport, NodeAddresses, Reserved, UpstreamReading};
use pvc_core::states::{CoordinatorState, DaemonMode, DaemonState, DomainState};

use super::values::{
    Json, Load, Nothing, OrNone, Release, RunningDomains, SchemaVersion, SpaceList, StaticData,
};
use super::{Container, Key, key_group};
use crate::secret::Secret;

key_group!(
    /// One node.
    NodeKeys {
        /// The node's mode again, as PVC 1.0.3 writes it into the node's own znode.
        root: Key<DaemonMode> = "",
        /// When the node last wrote its statistics, in seconds since 1970. Liveness is judged by the node's lease.
        keepalive: Key<u64> = "/keepalive",
        /// What the node is for.
        daemon_mode: Key<DaemonMode> = "/daemonmode",
        /// The schema version that its agent works by.
        active_schema: Key<SchemaVersion> = "/activeschema",
        /// The highest schema version that its agent knows.
        latest_schema: Key<SchemaVersion> = "/latestschema",
        /// CPUs, kernel, operating system and architecture.
        static_data: Key<Option<StaticData>> = "/staticdata",
        /// The release of its agent.
        pvc_version: Key<Release> = "/pvcversion",
        /// The guests that run there.
        running_domains: Key<RunningDomains> = "/runningdomains",
        /// How many guests run there.
        domains_count: Key<u32> = "/domainscount",
        /// How many networks it had when its agent first started.
        networks_count: Key<u32> = "/networkscount",
        /// How its agent is.
        daemon_state: Key<DaemonState> = "/daemonstate",
        /// Its part in the primary role.
        coordinator_state: Key<CoordinatorState> = "/routerstate",
        /// Whether it takes guests.
        domain_state: Key<DomainState> = "/domainstate",
        /// Its load average over one minute.
        cpu_load: Key<Load> = "/cpuload",
        /// vCPUs of the guests that run there.
        vcpu_allocated: Key<u64> = "/vcpualloc",
        /// Memory it has, in MiB.
        memory_total_mib: Key<u64> = "/memtotal",
        /// Memory in use, in MiB.
        memory_used_mib: Key<u64> = "/memused",
        /// Memory available to new processes, in MiB.
        memory_free_mib: Key<u64> = "/memfree",
        /// Memory of the guests that run there, in MiB.
        memory_allocated_mib: Key<u64> = "/memalloc",
        /// Memory of all guests placed there, in MiB.
        memory_provisioned_mib: Key<u64> = "/memprov",
        /// Its BMC's host name or address.
        ipmi_hostname: Key<String> = "/ipmihostname",
        /// The user to log in to its BMC as.
        ipmi_username: Key<String> = "/ipmiusername",
        /// That user's password.
        ipmi_password: Key<Secret> = "/ipmipassword",
        /// Above its SR-IOV functions.
        sriov: Key<Nothing> = "/sriov",
        /// Above its SR-IOV physical functions.
        sriov_pf: Key<Nothing> = "/sriov/pf",
        /// Above its SR-IOV virtual functions.
        sriov_vf: Key<Nothing> = "/sriov/vf",
        /// Names of its monitoring plugins.
        monitoring_plugins: Key<SpaceList<String>> = "/monitoring_plugins",
        /// Above the results of its monitoring plugins.
        monitoring_data: Key<Nothing> = "/monitoring_data",
        /// Its health in percent; none while it is not watched.
        monitoring_health: Key<OrNone<u32>> = "/monitoring_health",
        /// Rates of its network interfaces.
        network_stats: Key<Option<Json<serde_json::Value>>> = "/network_stats",
        /// Whether the node reaches the upstream network (schema 16); empty until it has looked.
        upstream: Key<Option<UpstreamReading>> = "/upstream",
        /// Placements on the node (schema 16); empty before the first.
        reserved: Key<Option<Reserved>> = "/reserved",
        /// Its fixed addresses (schema 16); empty before its first life under this schema.
        addresses: Key<Option<NodeAddresses>> = "/addresses",
        /// What is known of its BMC (schema 16); empty while it has none.
        bmc: Key<Option<BmcReport>> = "/bmc",
        /// Whether it holds still since the store may tell of the past (schema 16); empty before its first life.
        hold: Key<Option<HoldRecord>> = "/hold",
        /// How far its emptying or filling is, or how the last one ended (schema 16); empty before the first.
        drain: Key<Option<DrainReport>> = "/drain",
        /// What its agent measures of itself (schema 16); empty before its first heartbeat.
        agent_stats: Key<Option<AgentFigures>> = "/agent_stats",
    }
);

/// Keys of a node.
pub fn node(name: &NodeName) -> NodeKeys {
    NodeKeys::below(format!("/nodes/{name}"))
}

/// Nodes by name.
pub fn nodes() -> Container<NodeName> {
    Container::at("/nodes")
}

key_group!(
    /// The last result of a monitoring plugin on a node.
    PluginKeys {
        /// The plugin's name.
        root: Key<String> = "",
        /// When it last ran, in seconds since 1970.
        last_run: Key<u64> = "/last_run",
        /// What it takes from the node's health, in percent.
        health_delta: Key<u32> = "/health_delta",
        /// What it found.
        message: Key<String> = "/message",
        /// What it found, for programs.
        data: Key<Option<Json<serde_json::Value>>> = "/data",
        /// How long it ran, in seconds with two decimals.
        runtime_seconds: Key<Load> = "/runtime",
    }
);

/// Keys of a plugin's result; `plugin` is a child of [`monitoring_plugins`].
pub fn monitoring_plugin(node: &NodeName, plugin: &str) -> PluginKeys {
    PluginKeys::below(format!("/nodes/{node}/monitoring_data/{plugin}"))
}

/// Results of monitoring plugins by name.
pub fn monitoring_plugins(node: &NodeName) -> Container<String> {
    Container::at(format!("/nodes/{node}/monitoring_data"))
}
