//! The GUID of this machine, as it can be read from inside, without the network.

use std::future::Future;
use std::io;
use std::path::PathBuf;

use pvc_common::command::CommandRunner;

use super::Ipmitool;

/// Names a file with the GUID, for machines that have neither a BMC inside nor firmware: those of the lab.
const GUID_VARIABLE: &str = "PVC_MACHINE_GUID_FILE";
/// There if the kernel talks to a BMC.
const IPMI_DEVICE: &str = "/dev/ipmi0";
/// What the firmware tells.
const FIRMWARE: &str = "/sys/class/dmi/id/product_uuid";

/// This machine's own word on who it is.
pub trait MachineGuid: Clone + Send + Sync + 'static {
    /// The GUID, or why it can't be read.
    fn read(&self) -> impl Future<Output = Result<String, String>> + Send;
}

/// This host: by its BMC from inside where there is a way (which is the same word as over the network), else by its
/// firmware.
#[derive(Debug, Clone)]
pub struct HostGuid<R> {
    ipmitool: Ipmitool<R>,
    given: Option<PathBuf>,
    device: PathBuf,
    firmware: PathBuf,
}

impl<R: CommandRunner + Clone + 'static> HostGuid<R> {
    /// The kernel's files, or the one that `PVC_MACHINE_GUID_FILE` names.
    pub fn from_environment(ipmitool: Ipmitool<R>) -> HostGuid<R> {
        HostGuid {
            ipmitool,
            given: std::env::var_os(GUID_VARIABLE).map(PathBuf::from),
            device: IPMI_DEVICE.into(),
            firmware: FIRMWARE.into(),
        }
    }
}

impl<R: CommandRunner + Clone + 'static> MachineGuid for HostGuid<R> {
    async fn read(&self) -> Result<String, String> {
        if let Some(given) = &self.given {
            return read(given).map_err(|error| format!("{}: {error}", given.display()));
        }
        if self.device.exists()
            && let Some(guid) = self.ipmitool.local_guid().await
        {
            return Ok(guid);
        }
        read(&self.firmware).map_err(|error| {
            format!(
                "{} is of no use, and {}: {error}",
                self.device.display(),
                self.firmware.display()
            )
        })
    }
}

/// A line of a few bytes, from the kernel's memory.
fn read(path: &std::path::Path) -> io::Result<String> {
    Ok(std::fs::read_to_string(path)?.trim().to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use pvc_common::command::{CommandError, CommandOutput, Invocation};

    use super::*;

    #[derive(Debug, Clone)]
    struct Inside(&'static str);

    impl CommandRunner for Inside {
        async fn run(&self, invocation: &Invocation) -> Result<CommandOutput, CommandError> {
            // Without a host: this is the BMC of this machine.
            assert_eq!(invocation.command_line().to_string(), "ipmitool mc guid dump");
            Ok(CommandOutput {
                stdout: self.0.into(),
                stderr: String::new(),
            })
        }
    }

    #[tokio::test]
    async fn the_bmc_inside_is_asked_first_and_the_firmware_second() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        let host = |said| HostGuid {
            ipmitool: Ipmitool::new(Inside(said)),
            given: None,
            device: file("ipmi0"),
            firmware: file("product_uuid"),
        };
        let dump = include_str!("fixtures/ipmitool-1.8.19-mc-guid.txt");
        assert!(host(dump).read().await.is_err(), "nothing there");
        std::fs::write(file("product_uuid"), "0F1E2D3C-4B5A-6978-8796-A5B4C3D2E1F0\n").unwrap();
        let firmware = host(dump).read().await.unwrap();
        assert_eq!(firmware, "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0");
        std::fs::write(file("ipmi0"), "").unwrap();
        let inside = host(dump).read().await.unwrap();
        assert_eq!(inside, "3c2d1e0f5a4b78698796a5b4c3d2e1f0");
        assert!(pvc_core::bmc::same_machine(&inside, &firmware));
        assert_eq!(host("").read().await.unwrap(), firmware);
        let mut given = host(dump);
        given.given = Some(file("given"));
        assert!(given.read().await.is_err(), "what is given is not passed over");
    }
}
