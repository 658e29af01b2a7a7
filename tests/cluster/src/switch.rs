//! Threads that stand where the users are: inside the lab's switch.

use std::fs::File;
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where the network namespace of the switch is.
const SWITCH: &str = "/run/netns/pvc-lab";

/// Moves the calling thread into the switch's network, for good.
pub(crate) fn enter() -> Result<()> {
    let switch = File::open(SWITCH).context("the lab has no switch")?;
    move_into_link_name_space(switch.as_fd(), Some(LinkNameSpaceType::Network))
        .context("cannot enter the lab's switch")
}
