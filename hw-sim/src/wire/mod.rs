//! The other end of the rig's network cable: what it is plugged into, frames in and out, an independent checker of frames,
//! and a path that loses some.
//!
//! QEMU drops transmitted frames without a word once 10,000 of them wait for a peer that does not read. A wire that ends in this process
//! or in a datagram socket therefore goes through a relay, and the relay's gate withholds the doorbell until everything
//! that earlier doorbells sent has left QEMU. So at most one doorbell's frames ever wait inside QEMU, and nothing is lost as long as one
//! doorbell covers at most 10,000 frames.

use std::io;
use std::path::PathBuf;

pub mod check;
mod datagram;
mod forward;
mod gate;
mod local;
mod path;
mod relay;

pub use check::check;
pub(crate) use datagram::Bridge;
pub use forward::{ForwardProtocol, HostForward, ParseForwardError};
pub(crate) use gate::Gate;
pub use local::{End, Wire, local};
pub use path::{Impairment, Path};
pub(crate) use relay::Relay;

/// The longest frame that a wire carries, in bytes: QEMU takes 69,632, but no device sends or receives more than 64 KiB.
pub const MAX_FRAME: usize = 65_536;

/// How many frames wait between a relay and a slow reader before the doorbell is withheld.
const QUEUE: usize = 4096;

/// What a simulated NIC is plugged into.
#[derive(Debug)]
pub enum WireConfig {
    /// Something outside of this process.
    Host(HostWire),
    /// The test itself: see [`local()`].
    Local(End),
}

impl Default for WireConfig {
    fn default() -> Self {
        HostWire::default().into()
    }
}

impl From<HostWire> for WireConfig {
    fn from(wire: HostWire) -> Self {
        Self::Host(wire)
    }
}

/// A wire that leads out of this process. Unlike a [`WireConfig`] it can be cloned and compared, since it only names its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostWire {
    /// QEMU's own little network (slirp): TCP and UDP with ordinary programs on this host as the peer, no privileges needed. The host is
    /// 10.0.2.2, a DHCP client gets 10.0.2.15.
    User {
        /// Ports of this host that lead to the device.
        forwards: Vec<HostForward>,
    },
    /// One frame a datagram, over Unix sockets. Two rigs with `local` and `remote` crossed are connected to each other.
    Dgram {
        /// The socket that receives frames for the device; made when the rig starts, removed when it ends.
        local: PathBuf,
        /// The socket that gets the device's frames. It may appear later: frames wait for it, up to the wire's time-out.
        remote: PathBuf,
    },
    /// A TAP interface of this host that exists and may be used by this user.
    Tap {
        /// The interface's name.
        name: String,
    },
}

impl Default for HostWire {
    /// The `user` wire without forwards.
    fn default() -> Self {
        Self::User { forwards: Vec::new() }
    }
}

/// Whether the kernel takes `name` for an interface (`dev_valid_name`): less than IFNAMSIZ bytes, none of them special.
pub(crate) fn is_interface_name(name: &str) -> bool {
    (1..16).contains(&name.len()) && name != "." && name != ".." && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace())
}

/// Whether there is such an interface. As root QEMU would make one, which leads nowhere.
pub(crate) fn interface_exists(name: &str) -> io::Result<bool> {
    use rustix::net::{AddressFamily, SocketType, netdevice, socket};
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    Ok(netdevice::name_to_index(&any, name).is_ok())
}

/// A wire that cannot be had, or a frame that cannot go over it.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Something is at the path of the local socket already.
    #[error("the socket {path} is in use, or was left behind: end the program that made it, or remove it with `rm {path}`")]
    InUse {
        /// the path
        path: PathBuf,
    },
    /// The local socket cannot be made.
    #[error("the socket {path} cannot be made: {source}")]
    Bind {
        /// the path
        path: PathBuf,
        /// what the system said
        source: io::Error,
    },
    /// No interface can have this name, and QEMU would cut it off without a word.
    #[error("{0:?} is not the name of a network interface: 1 to 15 bytes, without spaces and slashes")]
    TapName(String),
    /// There is no such interface.
    #[error("there is no TAP interface {0}; make it first: `sudo ip tuntap add dev {0} mode tap user $USER && sudo ip link set {0} up`")]
    NoTap(String),
    /// A thread for the wire cannot be started, or a socket not prepared.
    #[error("the wire cannot be set up: {0}")]
    Setup(#[from] io::Error),
    /// The frame is empty or too long.
    #[error("a frame of {0} bytes: a wire carries 1 to {MAX_FRAME}")]
    Length(usize),
    /// The rig is gone.
    #[error("the rig at the other end of the wire is gone")]
    Gone,
    /// The device does not take frames.
    #[error("the device has not taken a frame for {0} s and {QUEUE} are waiting: is its receiver enabled, and are buffers posted?")]
    Full(u64),
}
