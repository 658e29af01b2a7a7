//! Disks tell that they are failing, by SMART.

use std::time::Duration;

use futures::future::join_all;
use pvc_common::command::{CommandError, CommandRunner, Exit, Invocation, Program};
use serde_json::{Map, Value, json};

use super::Finding;

/// What each thing that is found takes.
const DELTA: u32 = 10;
/// How much of its life an NVMe disk may have used up, in percent.
const WORN_ABOVE: u64 = 90;
/// How long one call may take: a disk that sleeps has to wake.
const LIMIT: Duration = Duration::from_secs(20);
/// The kernel's numbers for SCSI and NVMe disks.
const MAJORS: &str = "8,259";

pub(super) async fn check<R: CommandRunner>(commands: &R) -> Finding {
    let list = Invocation::new(Program::Lsblk, LIMIT)
        .args([
            "--json",
            "--nodeps",
            "--paths",
            "--include",
            MAJORS,
            "--output",
            "NAME,TYPE",
        ])
        .output_limit(1024 * 1024);
    let disks = match commands.run(&list).await {
        Ok(output) => disks(&output.text()),
        Err(error) => return Finding::not_checked(format!("the disks can't be listed ({error})")),
    };
    if disks.is_empty() {
        return Finding::not_checked("this host has no disk of its own");
    }
    let asked = disks.iter().map(|disk| read(commands, disk));
    let mut readings = Vec::new();
    for (disk, reading) in disks.iter().zip(join_all(asked).await) {
        match reading {
            Ok(reading) => readings.push((disk.clone(), reading)),
            Err(error @ CommandError::NotFound { .. }) => return Finding::not_checked(error),
            Err(error) => readings.push((disk.clone(), Err(error.to_string()))),
        }
    }
    judge(&readings)
}

/// What SMART says of a disk, or why it says nothing.
type Reading = Result<Value, String>;

async fn read<R: CommandRunner>(commands: &R, disk: &str) -> Result<Reading, CommandError> {
    let call = Invocation::new(Program::Smartctl, LIMIT)
        .args(["--json", "--info", "--health", "--attributes", disk])
        .output_limit(1024 * 1024);
    match commands.run(&call).await {
        Ok(output) => Ok(serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())),
        // With these options a status without the three lowest bits says: this disk fails, or has had values that were
        // beyond its maker's limits.
        Err(CommandError::Failed {
            exit: Exit::Code(status),
            ..
        }) if status & 7 == 0 => Ok(Ok(json!({"smart_status": {"passed": false}}))),
        Err(error @ CommandError::Failed { .. }) => Ok(Err(error.to_string())),
        Err(error) => Err(error),
    }
}

fn disks(text: &str) -> Vec<String> {
    let parsed: Value = serde_json::from_str(text).unwrap_or_default();
    parsed["blockdevices"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|device| device["type"] == json!("disk"))
        .filter_map(|device| Some(device["name"].as_str()?.to_owned()))
        .collect()
}

fn judge(readings: &[(String, Reading)]) -> Finding {
    let (mut flaws, mut data) = (Vec::new(), Map::new());
    for (disk, reading) in readings {
        let found = match reading {
            Ok(smart) => flaws_of(smart),
            Err(reason) => vec![format!("SMART tells nothing ({reason})")],
        };
        data.insert(disk.clone(), json!(found));
        flaws.extend(found.into_iter().map(|flaw| format!("{disk}: {flaw}")));
    }
    let message = if flaws.is_empty() {
        format!("{} disks are well", readings.len())
    } else {
        flaws.join("; ")
    };
    let delta = u32::try_from(flaws.len())
        .unwrap_or(u32::MAX)
        .saturating_mul(DELTA);
    Finding::new(delta, message, Value::Object(data))
}

fn flaws_of(smart: &Value) -> Vec<String> {
    let mut flaws = Vec::new();
    if smart["smart_status"]["passed"] == json!(false) {
        flaws.push("it says itself that it is failing".to_owned());
    }
    let log = &smart["nvme_smart_health_information_log"];
    let figure = |name: &str| log[name].as_u64().unwrap_or(0);
    if figure("critical_warning") > 0 {
        flaws.push(format!("critical warning {:#x}", figure("critical_warning")));
    }
    if figure("media_errors") > 0 {
        flaws.push(format!("{} media errors", figure("media_errors")));
    }
    if figure("percentage_used") > WORN_ABOVE {
        flaws.push(format!("{} % of its life is used up", figure("percentage_used")));
    }
    for attribute in smart["ata_smart_attributes"]["table"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let when = attribute["when_failed"].as_str().unwrap_or_default();
        if !when.is_empty() {
            let name = attribute["name"].as_str().unwrap_or("an attribute");
            flaws.push(format!("{name} has failed ({when})"));
        }
    }
    flaws
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_found_and_partitions_are_not() {
        let text = r#"{"blockdevices": [{"name":"/dev/sda","type":"disk"},{"name":"/dev/sda1","type":"part"},
            {"name":"/dev/nvme0n1","type":"disk"}]}"#;
        assert_eq!(disks(text), ["/dev/sda", "/dev/nvme0n1"]);
        assert_eq!(disks("no JSON"), Vec::<String>::new());
    }

    #[test]
    fn each_thing_that_is_wrong_counts() {
        let check = |smart: Value| judge(&[("/dev/sda".to_owned(), Ok(smart))]).delta;
        assert_eq!(check(json!({"smart_status": {"passed": true}})), 0);
        assert_eq!(check(json!({"smart_status": {"passed": false}})), 10);
        let nvme = |warning: u64, errors: u64, used: u64| {
            json!({"nvme_smart_health_information_log": {
                "critical_warning": warning, "media_errors": errors, "percentage_used": used,
            }})
        };
        assert_eq!(check(nvme(0, 0, 90)), 0);
        assert_eq!(check(nvme(1, 2, 91)), 30);
        let ata = json!({"ata_smart_attributes": {"table": [
            {"name": "Reallocated_Sector_Ct", "when_failed": "now"}, {"name": "Power_On_Hours", "when_failed": ""},
        ]}});
        assert_eq!(check(ata), 10);
        let silent = judge(&[("/dev/sda".to_owned(), Err("no answer".to_owned()))]);
        assert_eq!(silent.delta, 10);
    }
}
