//! The states of a connection, and what can end one.

use bitflags::bitflags;

/// The state of a connection (RFC 9293 3.3.2). LISTEN belongs to the caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// a SYN is sent
    SynSent,
    /// a SYN has come and is answered
    SynReceived,
    /// both ways are open
    Established,
    /// a FIN is sent
    FinWait1,
    /// a FIN is sent and acknowledged
    FinWait2,
    /// a FIN has come
    CloseWait,
    /// FINs have crossed
    Closing,
    /// a FIN has come, and ours is sent
    LastAck,
    /// both ways are closed; answers to what comes late
    TimeWait,
    /// it is over
    Closed,
}

impl State {
    /// Whether both sides know each other's sequence numbers.
    #[inline]
    pub fn is_synchronized(self) -> bool {
        !matches!(self, State::SynSent | State::SynReceived | State::Closed)
    }

    /// Whether the peer may send data.
    #[inline]
    pub(super) fn receives(self) -> bool {
        matches!(self, State::SynReceived | State::Established | State::FinWait1 | State::FinWait2)
    }
}

/// Why a connection ended before both sides had closed it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TcpError {
    /// A RST answered the SYN.
    #[error("the connection was refused: nothing listens on this port of the peer; start the server, or give another port")]
    Refused,
    /// The peer sent a RST.
    #[error("the peer reset the connection: its program ended or gave up; see its log, and try again")]
    Reset,
    /// [`abort`](super::Connection::abort) was called.
    #[error("the connection was aborted on this side")]
    Aborted,
    /// Nobody answered the SYN.
    #[error("the peer did not answer: is it on, and does a firewall drop what is sent to this port?")]
    NoAnswer,
    /// Retransmissions were not answered.
    #[error("the peer stopped answering while data was under way: the path or the peer is gone; try again when it is back")]
    TimedOut,
    /// Nothing arrived and nothing was acknowledged for as long as [`idle_timeout`](super::TcpConfig::idle_timeout) allows.
    #[error("no byte moved for as long as the idle time-out allows: the peer does not read or does not send; give a longer one if it may")]
    Idle,
    /// Keep-alive probes were not answered.
    #[error("the peer does not answer keep-alive probes: it was switched off, or the path is gone; connect again when it is back")]
    Silent,
    /// Something was offered after [`shutdown`](super::Connection::shutdown), or the connection is over.
    #[error("nothing can be sent any more, as the sending side was shut down or the connection is over; open another connection")]
    NotOpen,
}

bitflags! {
    /// What a segment has changed.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Events: u8 {
        /// [`acknowledged`](super::Connection::acknowledged) has grown
        const ACKNOWLEDGED = 1;
        /// there is something to [`read`](super::Connection::read)
        const READABLE = 1 << 1;
        /// the handshake is complete
        const ESTABLISHED = 1 << 2;
        /// the peer has sent its FIN: after what can be read now nothing follows
        const FINISHED = 1 << 3;
        /// the connection is over or in TIME-WAIT: see [`error`](super::Connection::error)
        const CLOSED = 1 << 4;
    }
}
