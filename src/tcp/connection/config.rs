//! What a connection is asked to be.

use std::time::Duration;

use crate::tcp::Congestion;

/// How a connection behaves. The default suits a server on Ethernet with IPv4.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TcpConfig {
    /// The largest segment that this side takes, in bytes without any header, 88..=65495: the MTU less 40 for IPv4, less 60 for IPv6. What is
    /// sent is no larger either. Default 1460.
    pub mss: u16,
    /// The receive window in bytes, 1..=2^30: what may arrive before it is read. Default 65535. Memory is taken only
    /// for what arrives.
    pub window: u32,
    /// Which algorithm finds the congestion window. Default [`Congestion::Cubic`].
    pub congestion: Congestion,
    /// Probes of a silent peer. Default `None` (RFC 9293 3.8.4).
    pub keep_alive: Option<KeepAlive>,
    /// After this long without a byte that arrived or was acknowledged the connection ends with [`TcpError::Idle`](super::TcpError::Idle):
    /// bounds slow and vanished clients. Default 5 minutes; `None` waits for ever.
    pub idle_timeout: Option<Duration>,
    /// After this long of retransmissions that nothing answers the connection ends with [`TcpError::TimedOut`](super::TcpError::TimedOut)
    /// (RFC 9293 3.8.3: 100 s at least). Default 120 s. A handshake has a number of attempts instead.
    pub user_timeout: Duration,
    /// How long a connection stays in TIME-WAIT: twice the longest life of a segment. Default 60 s, as Linux.
    pub time_wait: Duration,
    /// Whether bursts are spread over the round trip. Default true.
    pub pacing: bool,
    /// The most payload of an [`Outgoing`](super::Outgoing): what the NIC segments at once, 0..=65495. Less than a segment means that it does
    /// not. Default 65160, 45 segments with timestamps on Ethernet.
    pub max_burst: u32,
    /// Whether timestamps are offered and accepted (RFC 7323). Default true.
    pub timestamps: bool,
    /// Whether selective acknowledgements are offered and accepted (RFC 2018). Default true.
    pub sack: bool,
}

/// When a silent peer is probed (RFC 9293 3.8.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeepAlive {
    /// after how long a silence the first probe goes out
    pub idle: Duration,
    /// the time between probes
    pub interval: Duration,
    /// after how many without an answer the connection ends with [`TcpError::Silent`](super::TcpError::Silent)
    pub probes: u8,
}

impl Default for TcpConfig {
    fn default() -> Self {
        Self {
            mss: 1460,
            window: 65535,
            congestion: Congestion::Cubic,
            keep_alive: None,
            idle_timeout: Some(Duration::from_secs(300)),
            user_timeout: Duration::from_secs(120),
            time_wait: Duration::from_secs(60),
            pacing: true,
            max_burst: 65160,
            timestamps: true,
            sack: true,
        }
    }
}

impl Default for KeepAlive {
    /// Two hours, then nine probes 75 s apart, as Linux.
    fn default() -> Self {
        Self { idle: Duration::from_secs(7200), interval: Duration::from_secs(75), probes: 9 }
    }
}
