//! A TCP stack on one NIC: all its connections, and the NIC's port.

use std::collections::VecDeque;
use std::io::Read;
use std::net::SocketAddr;
use std::time::Duration;

use hal::nic::TxCounters;
use hal::receive::RxFlags;
use hal::{Burst, MacAddress};

use super::connection::TcpConfig;
use super::connections::Connections;
use super::error::{SocketError, no_secret};
use super::file::SharedFile;
use super::frame::{Account, Framer, Outbox};
use super::path::Path;
use super::report::StackReport;
use super::socket::{Event, Listener, Socket};
use super::transmit::{Frame, Unsent};
use crate::file::{Lease, WindowStatistics};
use crate::net::{self, Interface};
use crate::send::{Audience, Checked, Port, SendError, Stability, Step};

/// How a [`Stack`] behaves.
#[derive(Clone, Copy, Debug)]
pub struct StackConfig {
    /// How each connection behaves. The stack itself sets [`TcpConfig::mss`] by the MTU, and [`TcpConfig::max_burst`] by what the NIC can.
    pub tcp: TcpConfig,
    /// The most connections at once; SYNs beyond that are dropped. Default 16,384.
    pub connections: usize,
    /// Frames posted with one doorbell, 1 to 256. Default 32.
    pub burst: usize,
    /// What initial sequence numbers are made with; `None` draws it from the system. Only tests want the same one each time.
    pub secret: Option<[u8; 16]>,
}

impl Default for StackConfig {
    fn default() -> Self {
        Self { tcp: TcpConfig::default(), connections: 16_384, burst: 32, secret: None }
    }
}

/// The connections, at a time.
struct Arriving<'c> {
    connections: &'c mut Connections,
    now: Duration,
}

impl Audience for Arriving<'_> {
    const EXPECTS: bool = true;

    #[inline]
    fn expects(&mut self, packet: &[u8], checked: RxFlags) -> bool {
        self.connections.receive_alike(packet, checked)
    }

    #[inline]
    fn hears(&mut self, packet: &[u8], checked: RxFlags) -> bool {
        self.connections.receive(packet, checked, self.now)
    }
}

/// TCP on a [`Port`]. It does nothing by itself: call [`poll`](Self::poll) again and again, [`run`](super::run()) is a loop that does.
///
/// `now` is the time since an epoch of the caller's choice, and never goes back.
pub struct Stack {
    pub(super) port: Port,
    pub(super) connections: Connections,
    pub(super) framer: Framer,
    pub(super) burst: Burst<'static>,
    pub(super) burst_limit: usize,
    /// What connections gave to be sent, and has not been posted.
    pub(super) unsent: VecDeque<Unsent>,
    pub(super) frames: Vec<Frame>,
    pub(super) accounts: Vec<Account>,
    /// What frames without payload send from.
    pub(super) nothing: Outbox,
    /// The ring is full, or there are no buffers or windows: wait for a completion.
    pub(super) blocked: bool,
    /// Files that are no longer sent, and whose leases are given up as soon as nothing of them is mapped.
    leaving: Vec<SharedFile>,
    breaks: u64,
    frame: Vec<u8>,
    before: (TxCounters, WindowStatistics),
}

impl Stack {
    /// A stack on a port.
    ///
    /// # Errors
    /// [`SendError::Config`] for a burst outside 1 to 256.
    pub fn new(mut port: Port, config: StackConfig) -> Result<Self, SendError> {
        if !(1..=256).contains(&config.burst) {
            return Err(SendError::Config(format!("a burst of {} frames; use 1 to 256", config.burst)));
        }
        let interface = *port.interface();
        let framer = Framer::new(&interface, &port.capabilities(), port.gathers(), port.pool.buffer_size());
        let tcp = TcpConfig { max_burst: framer.max_burst(interface.address().address().is_ipv4()), ..config.tcp };
        let secret = match config.secret {
            Some(secret) => secret,
            None => {
                let mut secret = [0; 16];
                std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut secret)).map_err(no_secret)?;
                secret
            }
        };
        let before = (port.nic.tx(0).counters(), port.windows.statistics());
        Ok(Self {
            connections: Connections::new(interface, tcp, config.connections, secret),
            port,
            framer,
            burst: Burst::with_capacity(config.burst),
            burst_limit: config.burst,
            unsent: VecDeque::new(),
            frames: Vec::with_capacity(config.burst),
            accounts: Vec::with_capacity(config.burst),
            nothing: Outbox::default(),
            blocked: false,
            leaving: Vec::new(),
            breaks: Lease::breaks(),
            frame: Vec::new(),
            before,
        })
    }

    /// Lets peers open connections to `port`. At most `backlog` of them wait to be [accepted](Listener::accept), those included that are
    /// half open; further SYNs are dropped until there is room.
    ///
    /// # Errors
    /// [`SocketError::PortInUse`].
    pub fn listen(&mut self, port: u16, backlog: usize) -> Result<Listener, SocketError> {
        self.connections.listen(port, backlog)
    }

    /// Opens a connection to a peer. What is sent on it waits until it is open.
    ///
    /// # Errors
    /// [`SocketError::Net`] for an address that cannot be reached from the interface, [`SocketError::Full`].
    pub fn connect(&mut self, peer: SocketAddr, now: Duration) -> Result<Socket, SocketError> {
        self.connections.connect(peer, None, now)
    }

    /// As [`connect`](Self::connect), through a station that is known: nobody is asked for it.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn connect_by(&mut self, peer: SocketAddr, station: MacAddress, now: Duration) -> Result<Socket, SocketError> {
        let path = Path::new(&self.connections.interface, station, peer.ip())?;
        self.connections.connect(peer, Some(path), now)
    }

    /// Frames that are posted and not completed.
    pub fn outstanding(&mut self) -> u64 {
        self.port.outstanding()
    }

    /// What happened since the last call that the program may want to know; `None` when there is nothing.
    pub fn next_event(&mut self) -> Option<Event> {
        self.connections.next_event()
    }

    /// Does what there is to do now, without waiting: takes completions and what arrived, and posts a burst.
    ///
    /// # Errors
    /// [`SendError::Nic`] when the device does not do what it should; all connections are lost then. Never [`Step::Done`].
    pub fn poll(&mut self, now: Duration) -> Result<Step, SendError> {
        let completed = self.port.nic.tx(0).reap()?;
        self.blocked &= completed == 0;
        let Self { port, connections, .. } = self;
        let arrived = port.service_with(&mut Arriving { connections, now })?;
        connections.flush(now);
        self.leave_files()?;
        self.connections.ring(now);
        let resolving = self.resolve(now)?;
        let posted = self.transmit(now)?;
        if completed + arrived + posted > 0 || self.has_work() {
            return Ok(Step::Busy);
        }
        Ok(Step::Idle { until: self.connections.alarms.first().into_iter().chain(resolving).min() })
    }

    /// Whether the next [`poll`](Self::poll) has something to do without anything happening before.
    pub(super) fn has_work(&self) -> bool {
        let idle = self.connections.ready.is_empty() && self.connections.replies.is_empty() && self.unsent.is_empty();
        !self.blocked && !idle
    }

    /// Whether all that was to be sent now is sent, and the NIC is done with it. Time-outs and peers may give it more to do.
    pub fn is_quiet(&mut self) -> bool {
        !self.blocked && !self.has_work() && self.outstanding() == 0
    }

    /// Sleeps until the NIC has something for us, at most `timeout`. Returns whether it has.
    ///
    /// # Errors
    /// What the NIC says; [`hal::BusError::NoInterrupt`] when it cannot wake us.
    pub fn wait(&mut self, timeout: Duration) -> Result<bool, SendError> {
        // While ACKs are to come, nobody has any use for completions before them, unless something waits for room or for a file to be let go.
        let acks = self.connections.has_acks_to_come() && !self.blocked && self.leaving.is_empty();
        Ok(if acks { self.port.nic.wait_received(timeout) } else { self.port.nic.wait(timeout) }?)
    }

    /// Looks whether the device is alive. Now and then while idle. One that has to be is reset: connections stay, and send again
    /// what was lost.
    ///
    /// # Errors
    /// [`hal::NicError::Hang`], [`hal::NicError::Vanished`].
    pub fn check(&mut self, now: Duration) -> Result<(), SendError> {
        let Checked { reset, lost, trouble } = self.port.check(now);
        self.connections.report.resets += u64::from(reset);
        self.connections.report.frames_lost += lost;
        self.blocked &= !reset;
        trouble.map_or(Ok(()), |trouble| Err(trouble.into()))
    }

    /// The port's address in its network.
    pub fn interface(&self) -> &Interface {
        self.port.interface()
    }

    /// How files can be kept from changing when they are sent from here; see [`Port::stability`].
    ///
    /// # Errors
    /// As [`Port::stability`].
    pub fn stability(&self, wanted: Stability) -> Result<Stability, SendError> {
        self.port.stability(wanted)
    }

    /// What was done so far.
    pub fn report(&mut self) -> StackReport {
        let (counters, windows) = (self.port.nic.tx(0).counters(), self.port.windows.statistics());
        let (counters_before, windows_before) = &self.before;
        StackReport {
            connections: self.connections.table.len() as u64,
            frames: counters.frames - counters_before.frames,
            descriptors: counters.descriptors - counters_before.descriptors,
            doorbells: counters.doorbells - counters_before.doorbells,
            tags_written: if self.port.interface().written_tag().is_some() { counters.frames - counters_before.frames } else { 0 },
            windows: WindowStatistics {
                mapped: windows.mapped - windows_before.mapped,
                hits: windows.hits - windows_before.hits,
                evicted: windows.evicted - windows_before.evicted,
            },
            ..self.connections.report.clone()
        }
    }

    /// Ends the stack: connections are forgotten without a word. The port can be used again; frames may be on their way.
    pub fn into_port(mut self) -> Port {
        for name in self.connections.table.names() {
            if let Some(mut link) = self.connections.table.remove(name) {
                link.outbox.held.let_go(&mut self.port.windows);
            }
        }
        self.port
    }

    /// Ends the use of files that others want to change.
    fn leave_files(&mut self) -> Result<(), SendError> {
        let breaks = Lease::breaks();
        if breaks != self.breaks {
            self.breaks = breaks;
            for (file, how) in self.connections.disturbed_files() {
                self.leave(&file, how);
            }
        }
        if !self.leaving.is_empty() {
            self.port.windows.sweep()?;
            let windows = &self.port.windows;
            self.leaving.retain(|file| {
                let mapped = windows.has_forgotten(file.file());
                if !mapped {
                    file.give_up_lease();
                }
                mapped
            });
        }
        Ok(())
    }

    /// Ends the use of one file on all connections. What of it is on its way is copied and delivered.
    pub(super) fn leave(&mut self, file: &SharedFile, how: &str) {
        for name in self.connections.table.names() {
            if let Some(link) = self.connections.table.get_mut(name)
                && link.leave(file, how, &mut self.port.windows, &mut self.connections.report)
            {
                self.connections.tell(name);
                self.connections.wake(name);
            }
        }
        self.port.windows.forget(file.file());
        self.connections.forget(file);
        self.leaving.push(file.clone());
    }

    /// Goes on with asking for next hops. Returns when there is more to do.
    fn resolve(&mut self, now: Duration) -> Result<Option<Duration>, SendError> {
        let mut next: Option<Duration> = None;
        let mut place = 0;
        while let Some(resolving) = self.connections.resolving.get_mut(place) {
            let name = resolving.name;
            let Some(link) = self.connections.table.get_mut(name).filter(|link| !link.engine.is_closed()) else {
                self.connections.resolving.swap_remove(place);
                self.connections.wake(name);
                continue;
            };
            match resolving.resolution.poll(now, &mut self.frame) {
                net::Step::Send => {
                    self.port.transmit(&self.frame)?;
                    continue;
                }
                net::Step::Wait { until } => {
                    next = Some(next.map_or(until, |next| next.min(until)));
                    place += 1;
                    continue;
                }
                net::Step::Resolved(station) => match Path::new(&self.connections.interface, station, link.peer.ip()) {
                    Ok(path) => link.path = Some(path),
                    Err(error) => link.give_up(SocketError::Net(error)),
                },
                net::Step::TimedOut => link.give_up(SocketError::Net(resolving.resolution.no_answer())),
            }
            self.connections.resolving.swap_remove(place);
            self.connections.wake(name);
        }
        Ok(next)
    }
}

#[cfg(test)]
mod tests;
