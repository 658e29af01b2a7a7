//! Changes to a guest's XML that leave everything else as it is, to the last space: parts of the text are replaced at
//! the places that the parser names. So the difference that the administrator is shown is the change and nothing else.

use std::collections::BTreeSet;
use std::ops::Range;

use clap::ValueEnum;
use roxmltree::{Document, Node};

use crate::error::{CliError, Result};

/// Sockets, cores of each, threads of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Topology {
    sockets: u32,
    cores: u32,
    threads: u32,
}

impl Topology {
    /// One socket, as PVC 1.0.3 takes it if nothing else is said.
    pub(crate) const fn flat(vcpus: u32) -> Topology {
        Topology {
            sockets: 1,
            cores: vcpus,
            threads: 1,
        }
    }

    /// How many vCPUs that makes.
    pub(crate) fn vcpus(self) -> Option<u32> {
        self.sockets.checked_mul(self.cores)?.checked_mul(self.threads)
    }

    fn element(self) -> String {
        format!(
            "<topology sockets='{}' cores='{}' threads='{}'/>",
            self.sockets, self.cores, self.threads
        )
    }
}

impl std::str::FromStr for Topology {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Topology, String> {
        let numbers: Option<Vec<u32>> = text
            .split(',')
            .map(|part| part.trim().parse().ok().filter(|number| *number > 0))
            .collect();
        match numbers.as_deref() {
            Some([sockets, cores, threads]) => Ok(Topology {
                sockets: *sockets,
                cores: *cores,
                threads: *threads,
            }),
            Some(_) | None => Err("expected sockets,cores,threads, as in 1,4,1".to_owned()),
        }
    }
}

/// The bus that a disk is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Bus {
    Scsi,
    Ide,
    Usb,
    Virtio,
}

impl Bus {
    /// Its word in the XML.
    const fn word(self) -> &'static str {
        match self {
            Bus::Scsi => "scsi",
            Bus::Ide => "ide",
            Bus::Usb => "usb",
            Bus::Virtio => "virtio",
        }
    }

    /// What names of disks on it begin with.
    const fn prefix(self) -> &'static str {
        match self {
            Bus::Scsi | Bus::Usb => "sd",
            Bus::Ide => "hd",
            Bus::Virtio => "vd",
        }
    }
}

/// A guest's XML.
#[derive(Debug)]
pub(crate) struct GuestXml<'a> {
    text: &'a str,
    document: Document<'a>,
}

impl<'a> GuestXml<'a> {
    pub(crate) fn parse(text: &'a str) -> Result<GuestXml<'a>> {
        let document = Document::parse(text).map_err(|error| {
            CliError::failure(format!(
                "The XML of the VM can not be read ({error}); repair it with 'pvc vm modify --editor'"
            ))
        })?;
        Ok(GuestXml { text, document })
    }

    /// With that many vCPUs. A topology that is there is adapted; one is added only if it was asked for.
    pub(crate) fn with_vcpus(&self, vcpus: u32, topology: Option<Topology>) -> Result<String> {
        let vcpu = self.top("vcpu")?;
        let mut edits = vec![inner(vcpu, self.text, vcpus.to_string())?];
        if let Some(current) = vcpu.attribute_node("current") {
            edits.push((current.range_value(), vcpus.to_string()));
        }
        let cpu = child(self.document.root_element(), "cpu");
        let present = cpu.and_then(|cpu| child(cpu, "topology"));
        let wanted = topology.unwrap_or(Topology::flat(vcpus)).element();
        match (present, cpu, topology) {
            (Some(present), _, _) => edits.push((present.range(), wanted)),
            (None, _, None) => {}
            (None, Some(cpu), Some(_)) => edits.push(self.insert_last(cpu, &wanted)),
            (None, None, Some(_)) => {
                let end = vcpu.range().end;
                let indent = self.indent_of(vcpu);
                edits.push((
                    end..end,
                    format!("\n{indent}<cpu>\n{indent}  {wanted}\n{indent}</cpu>"),
                ));
            }
        }
        Ok(self.spliced(edits))
    }

    /// With that much memory.
    pub(crate) fn with_memory(&self, mebibytes: u64) -> Result<String> {
        let mut edits = Vec::new();
        let memory = self.top("memory")?;
        let current = child(self.document.root_element(), "currentMemory");
        for element in [Some(memory), current].into_iter().flatten() {
            edits.push(inner(element, self.text, mebibytes.to_string())?);
            match element.attribute_node("unit") {
                Some(unit) => edits.push((unit.range_value(), "MiB".to_owned())),
                None => {
                    let at = element.range().start + 1 + element.tag_name().name().len();
                    edits.push((at..at, " unit='MiB'".to_owned()));
                }
            }
        }
        Ok(self.spliced(edits))
    }

    /// With one more device.
    pub(crate) fn with_device(&self, device: &str) -> Result<String> {
        let devices = self.top("devices")?;
        Ok(self.spliced(vec![self.insert_last(devices, device)]))
    }

    /// Without that device, and the space before it.
    pub(crate) fn without(&self, device: Node<'_, '_>) -> String {
        let range = device.range();
        let before = &self.text[..range.start];
        let start = before.trim_end_matches([' ', '\t']).trim_end_matches('\n').len();
        self.spliced(vec![(start..range.end, String::new())])
    }

    /// The text of an element.
    pub(crate) fn source(&self, node: Node<'_, '_>) -> String {
        self.text[node.range()].to_owned()
    }

    /// The interface with that MAC address.
    pub(crate) fn interface(&self, mac: &str) -> Option<Node<'_, 'a>> {
        self.devices("interface").find(|interface| {
            child(*interface, "mac")
                .and_then(|element| element.attribute("address"))
                .is_some_and(|address| address.eq_ignore_ascii_case(mac))
        })
    }

    /// Whether that MAC address is taken.
    pub(crate) fn has_mac(&self, mac: &str) -> bool {
        self.interface(mac).is_some()
    }

    /// The disk with that source (`pool/volume` or a file), or of that name (`sda`).
    pub(crate) fn disk(&self, wanted: &str) -> Option<Node<'_, 'a>> {
        self.devices("disk")
            .find(|disk| source_of(*disk) == Some(wanted) || target_of(*disk) == Some(wanted))
    }

    /// The first name that no disk has on that bus.
    pub(crate) fn free_disk(&self, bus: Bus) -> Result<String> {
        let taken: BTreeSet<&str> = self.devices("disk").filter_map(target_of).collect();
        ('a'..='z')
            .map(|letter| format!("{}{letter}", bus.prefix()))
            .find(|name| !taken.contains(name.as_str()))
            .ok_or_else(|| CliError::failure("All names of disks are taken; name one with --disk-id"))
    }

    /// A disk on that RBD volume, with monitors and secret of an RBD disk that the guest has.
    pub(crate) fn rbd_disk(&self, volume: &str, name: &str, bus: Bus) -> Result<String> {
        let model = self
            .devices("disk")
            .find(|disk| disk.attribute("type") == Some("network"))
            .ok_or_else(|| {
                CliError::failure(
                    "The VM has no RBD disk from which monitors and secret could be taken; add the disk with \
                     'pvc vm modify --editor'",
                )
            })?;
        let mut edits = Vec::new();
        for element in model.children().filter(Node::is_element) {
            match element.tag_name().name() {
                "source" => {
                    if let Some(source) = element.attribute_node("name") {
                        edits.push((source.range_value(), volume.to_owned()));
                    }
                }
                "target" => {
                    edits.push((element.range(), target_element(name, bus)));
                }
                // These belong to one device: libvirt gives others to the new one.
                "address" | "alias" | "serial" | "wwn" | "boot" | "shareable" | "readonly" => {
                    let before = &self.text[..element.range().start];
                    edits.push((before.trim_end().len()..element.range().end, String::new()));
                }
                _ => {}
            }
        }
        Ok(splice(self.text, edits, model.range()))
    }

    /// A disk in a file of the node.
    pub(crate) fn file_disk(path: &str, name: &str, bus: Bus) -> String {
        format!(
            "<disk type='file' device='disk'>\n      <driver name='qemu' type='raw'/>\n      <source file='{}'/>\n      {}\n    </disk>",
            escaped(path),
            target_element(name, bus)
        )
    }

    fn devices(&self, name: &'static str) -> impl Iterator<Item = Node<'_, 'a>> {
        child(self.document.root_element(), "devices")
            .into_iter()
            .flat_map(|devices| devices.children())
            .filter(move |device| device.is_element() && device.tag_name().name() == name)
    }

    fn top(&self, name: &str) -> Result<Node<'_, 'a>> {
        child(self.document.root_element(), name)
            .ok_or_else(|| CliError::failure(format!("The XML of the VM has no element <{name}>")))
    }

    /// The spaces before an element on its line.
    fn indent_of(&self, node: Node<'_, '_>) -> String {
        let before = &self.text[..node.range().start];
        let line = &before[before.rfind('\n').map_or(0, |at| at + 1)..];
        if line.trim().is_empty() {
            line.to_owned()
        } else {
            String::new()
        }
    }

    /// The edit that makes `new` the last child of `parent`.
    fn insert_last(&self, parent: Node<'_, '_>, new: &str) -> (Range<usize>, String) {
        let indent = self.indent_of(parent);
        let range = parent.range();
        let source = &self.text[range.clone()];
        if let Some(open) = source.strip_suffix("/>") {
            let name = parent.tag_name().name();
            let text = format!("{}>\n{indent}  {new}\n{indent}</{name}>", open.trim_end());
            return (range, text);
        }
        let close = range.start + source.rfind("</").unwrap_or(source.len());
        let at = self.text[..close].trim_end().len();
        (at..close, format!("\n{indent}  {new}\n{indent}"))
    }

    fn spliced(&self, edits: Vec<(Range<usize>, String)>) -> String {
        splice(self.text, edits, 0..self.text.len())
    }
}

/// `text` within `window`, with each range replaced. Ranges do not overlap.
fn splice(text: &str, mut edits: Vec<(Range<usize>, String)>, window: Range<usize>) -> String {
    edits.sort_by_key(|(range, _)| range.start);
    let mut result = String::new();
    let mut at = window.start;
    for (range, new) in edits {
        result.push_str(&text[at..range.start]);
        result.push_str(&new);
        at = range.end;
    }
    result.push_str(&text[at..window.end]);
    result
}

/// The edit that gives an element another text.
fn inner(node: Node<'_, '_>, text: &str, new: String) -> Result<(Range<usize>, String)> {
    let inside: Vec<Node<'_, '_>> = node.children().collect();
    match inside.as_slice() {
        [only] if only.is_text() => Ok((only.range(), new)),
        _ => Err(CliError::failure(format!(
            "Element {} in the XML of the VM holds no number",
            &text[node.range()]
        ))),
    }
}

fn child<'a, 'input>(node: Node<'a, 'input>, name: &str) -> Option<Node<'a, 'input>> {
    node.children()
        .find(|child| child.is_element() && child.tag_name().name() == name)
}

fn source_of<'a>(disk: Node<'a, '_>) -> Option<&'a str> {
    let source = child(disk, "source")?;
    source
        .attribute("name")
        .or_else(|| source.attribute("file"))
        .or_else(|| source.attribute("dev"))
}

fn target_of<'a>(disk: Node<'a, '_>) -> Option<&'a str> {
    child(disk, "target")?.attribute("dev")
}

fn target_element(name: &str, bus: Bus) -> String {
    format!("<target dev='{}' bus='{}'/>", escaped(name), bus.word())
}

/// Text that may stand in an attribute.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('\'', "&apos;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUEST: &str = "<domain type='kvm'>
  <name>web1</name>
  <memory unit='KiB'>524288</memory>
  <currentMemory>524288</currentMemory>
  <vcpu placement='static' current='2'>2</vcpu>
  <cpu mode='host-model'/>
  <devices>
    <emulator>/usr/bin/kvm</emulator>
    <disk type='network' device='disk'>
      <auth username='libvirt'><secret type='ceph' uuid='u'/></auth>
      <source protocol='rbd' name='vms/web1_a'>
        <host name='hv1'/>
      </source>
      <target dev='sda' bus='scsi'/>
      <address type='drive' unit='0'/>
    </disk>
    <interface type='bridge'>
      <mac address='52:54:00:11:22:33'/>
      <source bridge='vmbr100'/>
    </interface>
  </devices>
</domain>
";

    fn guest() -> GuestXml<'static> {
        GuestXml::parse(GUEST).unwrap()
    }

    #[test]
    fn vcpus_change_where_they_are_told_and_nowhere_else() {
        let more = guest().with_vcpus(4, None).unwrap();
        assert_eq!(more, GUEST.replace("current='2'>2<", "current='4'>4<"));
        let shaped = guest().with_vcpus(4, Some("2,2,1".parse().unwrap())).unwrap();
        assert!(
            shaped.contains(
                "  <cpu mode='host-model'>\n    <topology sockets='2' cores='2' threads='1'/>\n  </cpu>\n"
            ),
            "{shaped}"
        );
        // A topology that is there has to fit the number.
        let again = GuestXml::parse(&shaped).unwrap().with_vcpus(8, None).unwrap();
        assert!(
            again.contains("<topology sockets='1' cores='8' threads='1'/>"),
            "{again}"
        );
        let bare = GUEST.replace("  <cpu mode='host-model'/>\n", "");
        let shaped = GuestXml::parse(&bare)
            .unwrap()
            .with_vcpus(2, Some(Topology::flat(2)))
            .unwrap();
        assert!(GuestXml::parse(&shaped).is_ok());
        assert!(
            shaped.contains("<cpu>\n    <topology sockets='1' cores='2'"),
            "{shaped}"
        );
    }

    #[test]
    fn memory_is_told_in_mebibytes_in_both_places() {
        let more = guest().with_memory(1024).unwrap();
        assert!(more.contains("<memory unit='MiB'>1024</memory>"), "{more}");
        assert!(
            more.contains("<currentMemory unit='MiB'>1024</currentMemory>"),
            "{more}"
        );
        assert_eq!(more.lines().count(), GUEST.lines().count());
    }

    #[test]
    fn a_device_that_is_added_and_removed_leaves_no_trace() {
        let guest = guest();
        let disk = guest
            .rbd_disk("vms/web1_b", &guest.free_disk(Bus::Scsi).unwrap(), Bus::Scsi)
            .unwrap();
        assert!(
            disk.contains("name='vms/web1_b'") && disk.contains("dev='sdb' bus='scsi'"),
            "{disk}"
        );
        assert!(
            disk.contains("<host name='hv1'/>") && !disk.contains("<address"),
            "{disk}"
        );
        let added = guest.with_device(&disk).unwrap();
        let seen = GuestXml::parse(&added).unwrap();
        assert_eq!(seen.source(seen.disk("vms/web1_b").unwrap()), disk);
        assert_eq!(seen.without(seen.disk("sdb").unwrap()), GUEST);
        assert!(seen.disk("vms/other").is_none());
        assert_eq!(seen.free_disk(Bus::Scsi).unwrap(), "sdc");
        assert_eq!(seen.free_disk(Bus::Virtio).unwrap(), "vda");
        let interface = guest.interface("52:54:00:11:22:33").unwrap();
        assert!(!guest.without(interface).contains("vmbr100"));
        assert!(guest.interface("52:54:00:11:22:34").is_none());
    }

    #[test]
    fn topologies_are_three_numbers() {
        let topology: Topology = "2,4,1".parse().unwrap();
        assert_eq!(topology.vcpus(), Some(8));
        for wrong in ["", "4", "1,2", "1,2,3,4", "0,1,1", "a,b,c"] {
            assert!(wrong.parse::<Topology>().is_err(), "{wrong}");
        }
        let huge: Topology = "65536,65536,2".parse().unwrap();
        assert_eq!(huge.vcpus(), None);
    }

    #[test]
    fn names_can_not_break_out_of_their_attribute() {
        let disk = GuestXml::file_disk("/tmp/a'/><x", "sdb", Bus::Scsi);
        let document = Document::parse(&disk).unwrap();
        assert_eq!(source_of(document.root_element()), Some("/tmp/a'/><x"));
    }
}
