//! QEMU's command line: a PC with an IOMMU, NICs behind it, a disk, and a serial port for each stream.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use hal::MacAddress;

use crate::rig::command_line::{Netdev, option};
use crate::rig::{Model, VirtioOptions};

/// The slot of the first NIC on the root bus; each further one has the next.
pub(crate) const FIRST_SLOT: usize = 2;
/// How many NICs fit below the slots of the bridge, the disk, the port for standard input and the chip set.
pub(crate) const MAX_NICS: usize = BRIDGE_SLOT - FIRST_SLOT;
const DISK_SLOT: usize = 0x1d;
const STDIN_SLOT: usize = 0x1e;

/// The serial ports, in their order (ttyS0 on), with interrupts of their own: shared ISA interrupts get lost.
pub(crate) const SERIAL_PORTS: [(&str, u8); 4] = [("console", 4), ("stdout", 3), ("stderr", 5), ("control", 7)];
/// The socket behind the virtio port for standard input.
pub(crate) const STDIN: &str = "stdin";
/// The socket of the machine protocol.
pub(crate) const QMP: &str = "qmp";

/// `quiet` keeps the console for errors; /dev/kmsg has everything. On a busy host the emulated timer is late: the kernel then calibrates
/// the processor's clock slowly, and finds that "timer doesn't work", which is a panic. The self-tests of ciphers take half a second.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 quiet panic=-1 log_buf_len=1M tsc=reliable no_timer_check cryptomgr.notests";
const WITH_IOMMU: &str = " intel_iommu=on iommu=nopt";
/// The slot of the bridge that NICs may be behind, and its secondary bus: the only one that the firmware finds.
const BRIDGE_SLOT: usize = 0x1c;
const BEHIND_BRIDGE: u8 = 1;

/// A NIC and its netdev.
pub(crate) struct Nic {
    pub(crate) model: Model,
    pub(crate) virtio: VirtioOptions,
    pub(crate) netdev: Netdev,
    pub(crate) mac: Option<MacAddress>,
    pub(crate) pcap: Option<PathBuf>,
}

/// What is started.
pub(crate) struct Machine<'c> {
    pub(crate) qemu: &'c Path,
    pub(crate) setpriv: &'c Path,
    pub(crate) kernel: &'c Path,
    pub(crate) initramfs: &'c Path,
    pub(crate) disk: &'c Path,
    /// The directory of the sockets.
    pub(crate) sockets: &'c Path,
    pub(crate) memory_mib: u32,
    pub(crate) icount: bool,
    pub(crate) stdin: bool,
    pub(crate) iommu: bool,
    /// Features of the processor.
    pub(crate) cpu: Option<&'c str>,
    /// The NICs are behind one conventional PCI bridge.
    pub(crate) bridge: bool,
    pub(crate) nics: &'c [Nic],
}

impl Machine<'_> {
    /// `setpriv` as for the rig: the kernel kills QEMU when the thread that started it ends.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(self.setpriv);
        command.args(["--pdeathsig", "KILL", "--"]).arg(self.qemu);
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-accel", "tcg"]);
        // QEMU 7.2 emulates cmpxchg16b wrongly: about one boot in four of a 6.12 kernel, whose allocator uses it, ends in a panic.
        let features = self.cpu.map(|features| format!(",{features}")).unwrap_or_default();
        command.arg("-cpu").arg(format!("max,-cx16{features}"));
        if self.icount {
            command.args(["-icount", "shift=0,sleep=on"]);
        }
        // Interrupt remapping needs the split irqchip.
        command.args(["-machine", "q35,kernel-irqchip=split"]).arg("-m").arg(format!("{}M", self.memory_mib));
        let mut arguments = KERNEL_ARGUMENTS.to_owned();
        if self.iommu {
            command.args(["-device", "intel-iommu,intremap=on,caching-mode=on"]);
            arguments.push_str(WITH_IOMMU);
        }
        command.arg("-kernel").arg(self.kernel).arg("-initrd").arg(self.initramfs).arg("-append").arg(arguments);
        command.arg("-qmp").arg(option("unix:", self.sockets.join(QMP)));
        for (index, (name, interrupt)) in SERIAL_PORTS.into_iter().enumerate() {
            command.arg("-chardev").arg(self.chardev(name));
            command.arg("-device").arg(format!("isa-serial,chardev={name},index={index},irq={interrupt}"));
        }
        if self.stdin {
            // A virtio port, since a serial line has no end of file.
            command.arg("-chardev").arg(self.chardev(STDIN));
            command.arg("-device").arg(format!("virtio-serial-pci,addr={STDIN_SLOT:#x},disable-legacy=on,max_ports=2"));
            command.arg("-device").arg(format!("virtserialport,chardev={STDIN},nr=1"));
        }
        // Nobody wants the disk after a crash.
        command.arg("-drive").arg(option("if=none,id=disk,format=raw,cache=unsafe,file=", self.disk));
        command.arg("-device").arg(format!("virtio-blk-pci,drive=disk,addr={DISK_SLOT:#x},disable-legacy=on"));
        if self.bridge {
            command.arg("-device").arg(format!("i82801b11-bridge,id=bridge,addr={BRIDGE_SLOT:#x}"));
        }
        for (index, nic) in self.nics.iter().enumerate() {
            nic.add_to(&mut command, index, self);
        }
        command
    }

    fn chardev(&self, name: &str) -> OsString {
        option(&format!("socket,id={name},path="), self.sockets.join(name))
    }
}

impl Nic {
    fn add_to(&self, command: &mut Command, index: usize, machine: &Machine<'_>) {
        let id = format!("n{index}");
        command.arg("-netdev").arg(self.netdev.option(&id));
        // Without an IOMMU there is nothing that a virtio device could go past.
        let virtio = if machine.iommu { self.virtio.clone().behind_iommu() } else { self.virtio.clone() };
        let mut device = format!("{},netdev={id},addr={:#x},romfile=", self.model.device_option(&virtio), FIRST_SLOT + index);
        if machine.bridge {
            device.push_str(",bus=bridge");
        }
        if let Some(mac) = self.mac {
            device.push_str(&format!(",mac={mac}"));
        }
        command.arg("-device").arg(device);
        if let Some(pcap) = &self.pcap {
            command.arg("-object").arg(option(&format!("filter-dump,id=pcap{index},netdev={id},maxlen=65536,file="), pcap));
        }
    }
}

/// Whether `features` are features of a processor as QEMU's command line has them, and nothing else.
pub(crate) fn are_features(features: &str) -> bool {
    let name = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    features.split(',').all(|feature| feature.strip_prefix(['+', '-']).is_some_and(name))
}

/// The guest's address of NIC `index`.
pub(crate) fn address(index: usize, bridge: bool) -> String {
    format!("0000:{:02x}:{:02x}.0", if bridge { BEHIND_BRIDGE } else { 0 }, FIRST_SLOT + index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(nics: &[Nic], stdin: bool) -> String {
        line_of(nics, stdin, true, false)
    }

    fn line_of(nics: &[Nic], stdin: bool, iommu: bool, bridge: bool) -> String {
        let path = Path::new("/x,y");
        let machine = Machine {
            qemu: path,
            setpriv: path,
            kernel: path,
            initramfs: path,
            disk: path,
            sockets: path,
            memory_mib: 512,
            icount: false,
            stdin,
            iommu,
            cpu: Some("-erms,-fsrm"),
            bridge,
            nics,
        };
        let command = machine.command();
        command.get_args().map(|argument| argument.to_string_lossy().into_owned() + " ").collect()
    }

    #[test]
    fn nics_are_at_2_and_3_and_behind_the_iommu() {
        let nic = |model| Nic { model, virtio: VirtioOptions::default(), netdev: Netdev::User(Vec::new()), mac: None, pcap: None };
        let line = line(&[nic(Model::E1000), nic(Model::VirtioNet)], false);
        assert!(line.contains("-device e1000,netdev=n0,addr=0x2,romfile= "), "{line}");
        assert!(line.contains(",iommu_platform=on,netdev=n1,addr=0x3,romfile= "), "{line}");
        assert_eq!([address(0, false), address(1, false)], ["0000:00:02.0", "0000:00:03.0"]);
    }

    #[test]
    fn nics_are_behind_a_bridge_or_without_an_iommu_when_that_is_asked_for() {
        let nic = |model| Nic { model, virtio: VirtioOptions::default(), netdev: Netdev::User(Vec::new()), mac: None, pcap: None };
        let bridged = line_of(&[nic(Model::E1000), nic(Model::E1000)], false, true, true);
        assert!(
            bridged.contains("i82801b11-bridge,id=bridge,addr=0x1c ") && bridged.contains("addr=0x3,romfile=,bus=bridge "),
            "{bridged}"
        );
        assert_eq!(address(1, true), "0000:01:03.0");
        let without = line_of(&[nic(Model::VirtioNet)], false, false, false);
        assert!(!without.contains("iommu"), "{without}");
    }

    #[test]
    fn features_of_the_processor_are_those_and_no_other_options() {
        assert!(line(&[], false).contains("-cpu max,-cx16,-erms,-fsrm "));
        assert!(are_features("-erms,+avx2,-sse4.1") && are_features("-fsrm"));
        for other in ["", "erms", "-", "-erms,", "-erms -device x", "enforce=on"] {
            assert!(!are_features(other), "{other:?}");
        }
    }

    #[test]
    fn commas_in_paths_are_doubled_where_qemu_parses_options() {
        let line = line(&[], true);
        assert!(line.contains("path=/x,,y/stdin ") && line.contains("file=/x,,y ") && line.contains("-kernel /x,y "), "{line}");
    }
}
