//! QEMU's command line: a machine whose processor halts at once, and one NIC.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use hal::MacAddress;

use super::nic::Model;
use super::virtio::VirtioOptions;
use crate::wire::HostForward;

/// The NIC's slot on the root bus.
pub(crate) const SLOT: u8 = 4;
/// How many DIMMs can be plugged.
pub(crate) const DIMM_SLOTS: u16 = 256;
/// Memory that the machine has of its own, and that nobody uses, in MiB.
pub(crate) const RAM_MIB: u64 = 64;
/// `maxmem`, in GiB. QEMU adds 1 GiB for each slot, and the emulated processor has 40 address bits: 900 is refused.
pub(crate) const MAX_MEMORY_GIB: u64 = 720;
/// The smallest BIOS that QEMU takes, in bytes.
const BIOS_LEN: usize = 64 << 10;

/// The BIOS: at the reset vector, 16 bytes below its end, the processor stops: `cli; hlt; jmp` back.
pub(crate) fn bios() -> Vec<u8> {
    let mut image = vec![0; BIOS_LEN];
    image[BIOS_LEN - 16..BIOS_LEN - 12].copy_from_slice(&[0xfa, 0xf4, 0xeb, 0xfd]);
    image
}

/// Where QEMU's netdev leads.
pub(crate) enum Netdev {
    /// slirp
    User(Vec<HostForward>),
    /// a TAP interface, and how many queue pairs of it are used
    Tap(String, u16),
    /// our listener at this path
    Stream(PathBuf),
}

/// What is started.
pub(crate) struct Machine<'c> {
    pub(crate) qemu: &'c Path,
    pub(crate) setpriv: &'c Path,
    pub(crate) bios: &'c Path,
    pub(crate) qtest: &'c Path,
    pub(crate) qmp: &'c Path,
    pub(crate) netdev: &'c Netdev,
    pub(crate) model: Model,
    pub(crate) virtio: &'c VirtioOptions,
    pub(crate) mac: Option<MacAddress>,
    pub(crate) pcap: Option<&'c Path>,
}

impl Machine<'_> {
    /// `setpriv` has the kernel kill QEMU when the thread that started it ends, then becomes QEMU. If that thread has ended before, QEMU
    /// finds nobody listening at the sockets that it connects to, and exits.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(self.setpriv);
        command.args(["--pdeathsig", "KILL", "--"]).arg(self.qemu);
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-accel", "tcg"]);
        // Without its timers the machine is silent, and no interrupt lines fill the qtest socket while nobody reads it.
        command.args(["-machine", "q35,pit=off,hpet=off"]);
        command.arg("-m").arg(format!("{RAM_MIB}M,slots={DIMM_SLOTS},maxmem={MAX_MEMORY_GIB}G"));
        command.arg("-bios").arg(self.bios);
        command.arg("-qtest").arg(option("unix:", self.qtest)).args(["-qtest-log", "none"]);
        command.arg("-qmp").arg(option("unix:", self.qmp));
        command.arg("-netdev").arg(self.netdev.option("n0"));
        let mut device = format!("{},netdev=n0,id=nic,addr={SLOT},romfile=", self.model.device_option(self.virtio));
        if let Some(mac) = self.mac {
            device.push_str(&format!(",mac={mac}"));
        }
        command.arg("-device").arg(device);
        if let Some(pcap) = self.pcap {
            // QEMU cuts frames at 65,536 bytes at most, which is the longest that there is.
            command.arg("-object").arg(option("filter-dump,id=pcap,netdev=n0,maxlen=65536,file=", pcap));
        }
        command
    }
}

impl Netdev {
    /// The value of `-netdev`, for a netdev called `id`.
    pub(crate) fn option(&self, id: &str) -> OsString {
        match self {
            Self::User(forwards) => {
                let forwards: String = forwards.iter().map(|forward| format!(",hostfwd={forward}")).collect();
                format!("user,id={id}{forwards}").into()
            }
            Self::Tap(name, queues) => {
                let mut text = option(&format!("tap,id={id},ifname="), name);
                text.push(",script=no,downscript=no");
                if *queues > 1 {
                    text.push(format!(",queues={queues}"));
                }
                text
            }
            Self::Stream(path) => option(&format!("stream,id={id},server=off,addr.type=unix,addr.path="), path),
        }
    }

    /// What may help when QEMU did not start with this netdev.
    pub(crate) fn remedy(&self) -> String {
        match self {
            Self::Tap(name, queues) => {
                let several = if *queues > 1 { " multi_queue" } else { "" };
                format!(
                    "\nif it is about the TAP interface, make one for this user: sudo ip tuntap add dev {name} mode tap{several} user $(id -un) \
                     && sudo ip link set {name} up"
                )
            }
            Self::User(_) | Self::Stream(_) => String::new(),
        }
    }
}

/// `prefix` and a value in QEMU's option syntax, where a comma in a value is written twice.
pub(crate) fn option(prefix: &str, value: impl AsRef<OsStr>) -> OsString {
    let mut text = prefix.as_bytes().to_vec();
    for &byte in value.as_ref().as_bytes() {
        text.push(byte);
        if byte == b',' {
            text.push(byte);
        }
    }
    OsString::from_vec(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_in_values_are_doubled() {
        assert_eq!(option("file=", Path::new("/a,b/c,,d")), "file=/a,,b/c,,,,d");
        assert_eq!(Netdev::Tap("t,script=/x".into(), 1).option("n0"), "tap,id=n0,ifname=t,,script=/x,script=no,downscript=no");
        assert_eq!(Netdev::Tap("t".into(), 4).option("n0"), "tap,id=n0,ifname=t,script=no,downscript=no,queues=4");
    }

    #[test]
    fn forwards_are_repeated_options() {
        let forwards = vec!["tcp:127.0.0.1:8080-:80".parse().unwrap(), "udp::53-:53".parse().unwrap()];
        assert_eq!(Netdev::User(forwards).option("n0"), "user,id=n0,hostfwd=tcp:127.0.0.1:8080-:80,hostfwd=udp::53-:53");
    }

    #[test]
    fn the_bios_stops_at_the_reset_vector() {
        assert_eq!(bios()[0xfff0..0xfff4], [0xfa, 0xf4, 0xeb, 0xfd]);
    }
}
