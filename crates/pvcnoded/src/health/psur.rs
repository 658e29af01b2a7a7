//! Power supplies are redundant, as the BMC says from inside.

use std::time::Duration;

use pvc_common::command::{CommandError, CommandRunner, Invocation, Program};
use serde_json::{Map, Value, json};

use super::{Finding, HealthFiles};

/// The sensors that makers have for it.
const SENSORS: [&str; 3] = ["PS Redundancy", "Power Supplies", "PS_RDNDNT_MODE"];
/// What a sensor without a reading takes.
const NO_READING: u32 = 5;
/// What one takes that says anything but redundant.
const NOT_REDUNDANT: u32 = 10;
/// How long the tool may take: a BMC is slow from inside too.
const LIMIT: Duration = Duration::from_secs(15);

pub(super) async fn check<R: CommandRunner>(commands: &R, files: &HealthFiles) -> Finding {
    if !files.ipmi_device.exists() {
        return Finding::not_checked("this host has no way to a BMC from inside");
    }
    let call = Invocation::new(Program::Ipmitool, LIMIT)
        .args(["-c", "sdr", "type", "Power Supply"])
        .output_limit(256 * 1024);
    match commands.run(&call).await {
        Ok(output) => judge(&output.text()),
        Err(error @ CommandError::NotFound { .. }) => Finding::not_checked(error),
        Err(error) => Finding::not_checked(format!("the BMC does not tell ({error})")),
    }
}

/// `text` has a line for each sensor: name, number, status, entity, reading.
fn judge(text: &str) -> Finding {
    let (mut delta, mut told, mut data) = (0, Vec::new(), Map::new());
    for line in text.lines() {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let [name, .., reading] = fields.as_slice() else {
            continue;
        };
        if !SENSORS.contains(name) {
            continue;
        }
        delta += match *reading {
            "" | "No Reading" => NO_READING,
            "Fully Redundant" => 0,
            _ => NOT_REDUNDANT,
        };
        told.push(format!("{name}: {reading}"));
        data.insert((*name).to_owned(), json!(reading));
    }
    if told.is_empty() {
        return Finding::not_checked("this host's BMC has no sensor for it");
    }
    Finding::new(delta, told.join("; "), Value::Object(data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_full_redundancy_costs_nothing() {
        assert_eq!(judge("PS Redundancy,77h,ok,7.1,Fully Redundant\n").delta, 0);
        assert_eq!(judge("PS Redundancy,77h,ok,7.1,Redundancy Lost\n").delta, 10);
        assert_eq!(judge("PS Redundancy,77h,ns,7.1,No Reading\n").delta, 5);
        let none = judge("PS1 Status,85h,ok,10.1,Presence detected\n");
        assert_eq!((none.delta, none.message.starts_with("not checked")), (0, true));
    }
}
