//! `pagewire nics`: the NICs that there are.

use clap::Args;
use hw_sim::rig;
use pagewire::device::{self, DeviceAddress, SimulatedNic};
use serde::Serialize;
use vfio::{Controller, Sysfs};

use super::details::Details;
use super::{Failure, Outcome, print, print_json};

/// List the NICs: simulated ones, and this machine's
#[derive(Args)]
#[command(after_help = "\
Examples:
    pagewire nics
    pagewire nics --json
    pagewire nics -v sim:virtio-net,packed=on

The options of a simulated NIC, after commas:
    wire=user                   QEMU's user network: this host is 10.0.2.2 (and fec0::2), ordinary sockets are the peer (default)
    wire=dgram:LOCAL:REMOTE     Unix datagram sockets, one frame a datagram
    wire=tap:NAME               a TAP interface
    hostfwd=tcp:127.0.0.1:8080-:80   with wire=user: a port of this host that leads to the NIC
    pcap=FILE                   write every frame into a capture
    mac=52:54:00:12:34:56       the NIC's Ethernet address
    tx-ring=N, rx-ring=N        descriptors (default 256)
    checksum=off, gather=off    do without what the NIC can do, to see the fallback
    packed=on|off, queues=N     of virtio-net: packed or split rings, and how many queue pairs (N > 1: with wire=tap)
    msix=on                     of virtio-net: an interrupt for each queue, instead of one for all (INTx)
    event_idx=off, vectors=N, host_mtu=N, ...   of virtio-net: what QEMU's device offers, in QEMU's words

The options of a NIC of this machine: tx-ring, rx-ring, checksum, gather, packed, queues, mac (of a virtio card: another
Ethernet address than its own), and
    noiommu=on                  also without an IOMMU, in VFIO's unsafe mode: as root, every byte copied, nothing protects the memory
The options of a vhost-user back end (vhost-user:/path/socket): tx-ring, rx-ring, checksum, gather, packed, queues, mac
(without it, a random one each time), and
    server=on                   listen at the socket for the back end, instead of connecting to it
    files=on                    let the back end map files, for writing too; without, file bytes are copied")]
pub struct Nics {
    /// NICs to open, for what -v says of them
    #[arg(value_name = "ADDRESS", requires = "verbose")]
    addresses: Vec<DeviceAddress>,

    /// Open the NICs of these addresses, and print what each can do and which features were negotiated: offered, accepted, and why not
    #[arg(short, long, requires = "addresses")]
    verbose: bool,

    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Row {
    address: String,
    name: String,
    driver: Option<String>,
    interfaces: Vec<String>,
    iommu_group: Option<u32>,
    iommu_group_members: Vec<String>,
    usable: bool,
    why: String,
}

impl Nics {
    pub fn run(self) -> Result<Outcome, Failure> {
        if self.verbose {
            let details = self.addresses.iter().map(Details::of).collect::<Result<Vec<_>, _>>()?;
            if self.json {
                print_json(&details)?;
            } else {
                print(&details.iter().map(Details::render).collect::<Vec<_>>().join("\n"))?;
            }
            return Ok(Outcome::Done);
        }
        let qemu = match rig::qemu_version() {
            Some(version) => format!("on QEMU {version}"),
            None => "on QEMU, which the first use installs (or says how to)".into(),
        };
        let simulated = SimulatedNic::ALL.map(|nic| Row {
            address: format!("sim:{}", nic.name()),
            name: nic.product().into(),
            driver: None,
            interfaces: Vec::new(),
            iommu_group: None,
            iommu_group_members: Vec::new(),
            usable: true,
            why: qemu.clone(),
        });
        let rows: Vec<Row> = simulated.into_iter().chain(Sysfs::default().controllers().into_iter().map(row)).collect();
        if self.json {
            print_json(&rows)?;
        } else {
            print(&render(&rows))?;
        }
        Ok(Outcome::Done)
    }
}

/// A network controller of this machine: usable when there is a driver of ours, and VFIO lets us.
fn row(controller: Controller) -> Row {
    let why = match (&controller.obstacle, device::has_driver(controller.identity)) {
        (_, false) => format!("there is no driver for {} yet", controller.identity),
        (Some(_), true) if controller.usable_without_iommu() => {
            format!("copying only, no IOMMU: pci:{},noiommu=on, as root", controller.address)
        }
        (Some(obstacle), true) => obstacle.to_string(),
        (None, true) => "through VFIO".into(),
    };
    let members = controller.group.iter().flat_map(|group| &group.members).map(|member| member.address.to_string()).collect();
    Row {
        address: format!("pci:{}", controller.address),
        usable: (controller.usable() || controller.usable_without_iommu()) && device::has_driver(controller.identity),
        name: controller.name,
        driver: controller.driver,
        interfaces: controller.interfaces,
        iommu_group: controller.group.map(|group| group.number),
        iommu_group_members: members,
        why,
    }
}

fn render(rows: &[Row]) -> String {
    let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    let header = ["ADDRESS", "NAME", "DRIVER", "INTERFACE", "GROUP", "USABLE"].map(str::to_owned);
    let lines: Vec<[String; 6]> = std::iter::once(header)
        .chain(rows.iter().map(|row| {
            let group = match (row.iommu_group, row.iommu_group_members.len()) {
                (Some(group), 0 | 1) => group.to_string(),
                (Some(group), count) => format!("{group} (with {} more)", count - 1),
                (None, _) => String::new(),
            };
            [
                row.address.clone(),
                row.name.clone(),
                or_dash(row.driver.clone().unwrap_or_default()),
                or_dash(row.interfaces.join(",")),
                or_dash(group),
                format!("{}, {}", if row.usable { "yes" } else { "no" }, row.why),
            ]
        }))
        .collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths = [0, 1, 2, 3, 4].map(width);
    lines
        .iter()
        .map(|[address, name, driver, interface, group, usable]| {
            let [a, b, c, d, e] = widths;
            format!("{address:<a$}  {name:<b$}  {driver:<c$}  {interface:<d$}  {group:<e$}  {usable}\n")
        })
        .collect()
}
