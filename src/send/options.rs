//! What is to be sent as datagrams, and how.

use std::net::SocketAddr;

use hal::MacAddress;

use crate::net::Rate;

/// How a file becomes datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// File bytes and nothing else.
    #[default]
    Raw,
    /// The offset of the datagram's first byte in the file, 8 bytes big-endian, then file bytes. A receiver can put them in order and see gaps.
    Offset,
}

impl Framing {
    /// Bytes in front of the file's.
    pub fn prefix_len(self) -> usize {
        match self {
            Self::Raw => 0,
            Self::Offset => 8,
        }
    }
}

/// How a file is kept from changing while it is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stability {
    /// By a lease where there is one, else by trust.
    #[default]
    Auto,
    /// By a lease, or not at all.
    Lease,
    /// Nobody changes it; its size and times are looked at now and then. Stores through another process's shared mapping may go unseen.
    Trust,
}

/// What is to be sent, and how.
#[derive(Clone, Debug)]
pub struct UdpOptions {
    /// To whom.
    pub target: SocketAddr,
    /// From which port. Default 49152, the first of the dynamic ports (RFC 6335).
    pub source_port: u16,
    /// The next hop's Ethernet address; `None` asks for it by ARP or neighbour discovery.
    pub station: Option<MacAddress>,
    /// What a datagram holds.
    pub framing: Framing,
    /// The first byte of the file to be sent.
    pub offset: u64,
    /// How many bytes at most; `None` for all.
    pub length: Option<u64>,
    /// The most bits of frames (from the Ethernet header to the payload's end) a second; `None`: as many as the NIC takes.
    pub rate: Option<Rate>,
    /// Frames posted with one doorbell, 1 to 256. Default 32.
    pub burst: usize,
    /// How the file is kept from changing.
    pub stability: Stability,
    /// A file of fewer bytes than this, or what is left of one, is copied if it is not mapped already: to map so little costs more than it
    /// saves. 0: nothing is copied that can be mapped. Default [`COPY_BELOW`].
    pub copy_below: u64,
}

/// Where mapping begins to cost less than copying, as `pagewire bench map` measures it (docs/measurements.md).
pub const COPY_BELOW: u64 = 128 << 10;

impl UdpOptions {
    /// Everything of the file to `target`, by the defaults.
    pub fn to(target: SocketAddr) -> Self {
        Self {
            target,
            source_port: 49152,
            station: None,
            framing: Framing::Raw,
            offset: 0,
            length: None,
            rate: None,
            burst: 32,
            stability: Stability::Auto,
            copy_below: COPY_BELOW,
        }
    }
}
