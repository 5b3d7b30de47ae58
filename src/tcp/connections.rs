//! The part of a stack that needs no NIC: which connections there are, what arrives for them, and who has to be looked at.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use hal::MacAddress;
use hal::receive::RxFlags;

use super::acks::Acks;
use super::alarms::Alarms;
use super::connection::{Connection, Events, TcpConfig};
use super::error::SocketError;
use super::file::{SharedFile, WeakFile};
use super::inbound::{self, Arrival};
use super::isn::IsnGenerator;
use super::link::Link;
use super::path::Path;
use super::report::StackReport;
use super::segment::{Flags, Segment, TcpHeader, refuse};
use super::socket::{Event, Listener, Socket};
use super::table::{Ends, Name, Table};
use crate::net::{Interface, Resolution};

/// The most answers to segments without a connection that wait for room: more than that, and they are dropped.
const MOST_REPLIES: usize = 64;
/// The first of the dynamic ports (RFC 6335), and how many there are.
const DYNAMIC_PORTS: (u16, u16) = (49152, 16384);
/// The bytes of IP and TCP headers without options.
const HEADERS_V4: u16 = 40;
const HEADERS_V6: u16 = 60;

/// A listening port.
#[derive(Debug)]
pub(super) struct Backlog {
    limit: usize,
    /// Connections that the program has not accepted yet, those included whose handshake is not complete.
    count: usize,
    pub waiting: VecDeque<Name>,
    pub told: bool,
}

/// A connection whose next hop is asked for.
pub(super) struct Resolving {
    pub name: Name,
    pub resolution: Box<Resolution>,
}

/// The connections.
pub(super) struct Connections {
    pub interface: Interface,
    pub config: TcpConfig,
    /// The most connections.
    pub most: usize,
    pub table: Table,
    pub listeners: HashMap<u16, Backlog>,
    /// Those that may have something to send.
    pub ready: VecDeque<Name>,
    pub alarms: Alarms,
    /// What the program has not been told yet.
    pub events: VecDeque<Event>,
    pub replies: VecDeque<(Path, TcpHeader)>,
    /// The ACKs of one connection that come together.
    pub acks: Option<Acks>,
    pub resolving: Vec<Resolving>,
    pub report: StackReport,
    isn: IsnGenerator,
    next_port: u16,
    /// Files that were sent and may still be, for when one of their leases is broken.
    files: HashMap<usize, WeakFile>,
    files_swept: usize,
}

impl Connections {
    pub fn new(interface: Interface, config: TcpConfig, most: usize, secret: [u8; 16]) -> Self {
        let own = interface.address().address();
        let config = TcpConfig { mss: interface.mtu() - if own.is_ipv4() { HEADERS_V4 } else { HEADERS_V6 }, ..config };
        let (table, listeners, ready, alarms, events, replies, resolving, report, files) = Default::default();
        let next_port = u16::from_le_bytes([secret[0], secret[1]]) % DYNAMIC_PORTS.1;
        let isn = IsnGenerator::new(secret);
        Self {
            interface,
            config,
            most,
            table,
            listeners,
            ready,
            alarms,
            events,
            replies,
            acks: None,
            resolving,
            report,
            isn,
            next_port,
            files,
            files_swept: 0,
        }
    }

    /// Takes a frame. Whether it was for a connection, or could have been, so that nobody else wants it.
    pub fn receive(&mut self, frame: &[u8], checked: RxFlags, now: Duration) -> bool {
        if self.receive_alike(frame, checked) {
            return true;
        }
        for resolving in &mut self.resolving {
            resolving.resolution.receive(frame);
        }
        // Whoever has a connection was found to be a station when it was opened.
        if let Some((peer, segment)) = inbound::parse_usual(&self.interface, frame, checked) {
            let ends = Ends { peer: (peer, segment.header.source_port).into(), local_port: segment.header.destination_port };
            if self.receive_first(frame, ends, &segment, now) || self.receive_connected(ends, &segment, now) {
                self.report.segments += 1;
                return true;
            }
        }
        self.flush(now);
        match inbound::parse(&self.interface, frame, checked) {
            Some(Arrival::Segment { station, peer, segment }) => {
                self.report.segments += 1;
                let ends = Ends { peer: SocketAddr::new(peer, segment.header.source_port), local_port: segment.header.destination_port };
                self.receive_segment(station, ends, &segment, now);
                true
            }
            Some(Arrival::TooBig { peer, local_port, seq, mtu }) => {
                let Some(name) = self.table.find(Ends { peer, local_port }) else { return true };
                let Some(link) = self.table.get_mut(name) else { return true };
                let headers = if peer.is_ipv4() { HEADERS_V4 } else { HEADERS_V6 };
                if link.engine.is_under_way(seq) {
                    link.engine.set_path_mtu(mtu.saturating_sub(headers), now);
                    self.wake(name);
                }
                true
            }
            None => false,
        }
    }

    /// Takes a segment for a connection that there is. Whether there is one.
    fn receive_connected(&mut self, ends: Ends, segment: &Segment<'_>, now: Duration) -> bool {
        self.table.find(ends).is_some_and(|name| self.receive_for(name, segment, now))
    }

    /// As [`receive_connected`](Self::receive_connected), by the connection's name.
    pub fn receive_for(&mut self, name: Name, segment: &Segment<'_>, now: Duration) -> bool {
        let Some(link) = self.table.get_mut(name) else { return false };
        if link.engine.is_closed() {
            // The program has not taken note of its end yet: for the peer there is no connection any more.
            if let (Some(path), true) = (&link.path, self.replies.len() < MOST_REPLIES) {
                self.replies.extend(refuse(segment).map(|header| (path.clone(), header)));
            }
            return true;
        }
        if link.engine.may_be_replaced_by(segment) {
            self.remove(name);
            return false;
        }
        self.report.received += segment.payload.len() as u64;
        let events = link.engine.receive(segment, now);
        let (news, opened) = (!events.is_empty() && !link.told, events.contains(Events::ESTABLISHED) && link.in_backlog);
        // Of the segments that come together only the first gets further.
        if !std::mem::replace(&mut link.queued, true) {
            self.ready.push_back(name);
        }
        if opened {
            self.established(name, segment.header.destination_port);
        }
        if news {
            self.tell(name);
        }
        true
    }

    fn receive_segment(&mut self, station: MacAddress, ends: Ends, segment: &Segment<'_>, now: Duration) {
        if self.receive_connected(ends, segment, now) {
            return;
        }
        let opens = segment.header.flags & (Flags::SYN | Flags::ACK | Flags::RST) == Flags::SYN;
        let Ok(path) = Path::new(&self.interface, station, ends.peer.ip()) else { return };
        match self.listeners.get_mut(&ends.local_port) {
            Some(backlog) if opens => {
                if backlog.count >= backlog.limit || self.table.len() >= self.most {
                    // The peer asks again; then there may be room.
                    self.report.dropped += 1;
                    return;
                }
                backlog.count += 1;
                let isn = self.isn.generate(self.local(ends.local_port), ends.peer, now);
                let engine = Connection::accept(self.config, segment, isn, now);
                let name = self.table.insert(Link::new(engine, Some(path), ends.peer, true, now));
                self.wake(name);
            }
            _ => {
                if self.replies.len() < MOST_REPLIES {
                    self.replies.extend(refuse(segment).map(|header| (path, header)));
                }
            }
        }
    }

    fn local(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.interface.address().address(), port)
    }

    /// A handshake is complete: the program may accept the connection.
    fn established(&mut self, name: Name, port: u16) {
        self.report.accepted += 1;
        let Some(backlog) = self.listeners.get_mut(&port) else { return };
        backlog.waiting.push_back(name);
        if !std::mem::replace(&mut backlog.told, true) {
            self.events.push_back(Event::Incoming(Listener { port }));
        }
    }

    /// Starts to listen.
    pub fn listen(&mut self, port: u16, backlog: usize) -> Result<Listener, SocketError> {
        if self.listeners.contains_key(&port) {
            return Err(SocketError::PortInUse(port));
        }
        self.listeners.insert(port, Backlog { limit: backlog.max(1), count: 0, waiting: VecDeque::new(), told: false });
        Ok(Listener { port })
    }

    /// The next connection of a listener.
    pub fn accept(&mut self, port: u16) -> Option<Socket> {
        let backlog = self.listeners.get_mut(&port)?;
        let Some(name) = backlog.waiting.pop_front() else {
            backlog.told = false;
            return None;
        };
        backlog.count -= 1;
        let link = self.table.get_mut(name)?;
        link.in_backlog = false;
        // What came before nobody was there to be told of.
        if link.engine.readable() > 0 || link.engine.is_finished() || link.engine.is_closed() {
            self.tell(name);
        }
        Some(Socket { name })
    }

    /// Stops listening. Connections that nobody accepted are reset.
    pub fn unlisten(&mut self, port: u16) {
        self.listeners.remove(&port);
        for name in self.table.names() {
            if let Some(link) = self.table.get_mut(name).filter(|link| link.in_backlog && link.engine.local_port() == port) {
                link.engine.abort();
                self.wake(name);
            }
        }
    }

    /// Begins a connection to a peer. Where the way is not known, the next hop is asked for first.
    pub fn connect(&mut self, peer: SocketAddr, path: Option<Path>, now: Duration) -> Result<Socket, SocketError> {
        let resolution = Resolution::new(&self.interface, peer.ip(), now)?;
        if self.table.len() >= self.most {
            return Err(SocketError::Full(self.most));
        }
        let (first, count) = DYNAMIC_PORTS;
        let local_port = (0..count)
            .map(|step| first + (self.next_port + step) % count)
            .find(|port| !self.listeners.contains_key(port) && self.table.find(Ends { peer, local_port: *port }).is_none())
            .ok_or(SocketError::Full(count.into()))?;
        self.next_port = (local_port - first + 1) % count;
        let isn = self.isn.generate(self.local(local_port), peer, now);
        let engine = Connection::connect(self.config, local_port, peer.port(), isn, now);
        let resolve = path.is_none();
        let name = self.table.insert(Link::new(engine, path, peer, false, now));
        if resolve {
            self.resolving.push(Resolving { name, resolution: Box::new(resolution) });
        }
        self.wake(name);
        self.report.opened += 1;
        Ok(Socket { name })
    }

    /// The connection has to be looked at.
    pub fn wake(&mut self, name: Name) {
        if let Some(link) = self.table.get_mut(name)
            && !std::mem::replace(&mut link.queued, true)
        {
            self.ready.push_back(name);
        }
    }

    /// Those whose time has come have to be looked at.
    pub fn ring(&mut self, now: Duration) {
        while let Some(place) = self.alarms.take(now) {
            let Some(name) = self.table.at(place) else { continue };
            let Some(deadline) = self.table.get(name).and_then(|link| link.engine.deadline()) else { continue };
            if deadline <= now {
                self.wake(name);
            } else {
                // It was put off.
                self.alarms.set(place, deadline);
            }
        }
    }

    /// A connection has nothing to send now: it is looked at again at its time, or it is over.
    pub fn rest(&mut self, name: Name) {
        let Some(link) = self.table.get_mut(name) else { return };
        // Mostly it is put off, and the alarm that is set is early enough.
        if self.alarms.of(name.place).is_none_or(|alarm| link.engine.may_be_due_before(alarm))
            && let Some(deadline) = link.engine.deadline()
        {
            self.alarms.set(name.place, deadline);
        }
        if link.released && link.engine.readable() > 0 && link.outbox.extents.is_empty() && !link.engine.is_closed() {
            // Nobody will ever read it (RFC 2525 2.17).
            link.engine.abort();
            return self.wake(name);
        }
        if link.engine.is_closed() {
            if link.is_over() || link.in_backlog {
                self.remove(name);
            } else {
                self.tell(name);
            }
        }
    }

    /// Something happened that the program may want to know.
    pub fn tell(&mut self, name: Name) {
        if let Some(link) = self.table.get_mut(name)
            && !link.in_backlog
            && !link.released
            && !std::mem::replace(&mut link.told, true)
        {
            self.events.push_back(Event::Socket(Socket { name }));
        }
    }

    /// The next event that still means something.
    pub fn next_event(&mut self) -> Option<Event> {
        loop {
            match self.events.pop_front()? {
                Event::Socket(socket) => {
                    if let Some(link) = self.table.get_mut(socket.name) {
                        link.told = false;
                        return Some(Event::Socket(socket));
                    }
                }
                Event::Incoming(listener) => {
                    if let Some(backlog) = self.listeners.get_mut(&listener.port) {
                        backlog.told = false;
                        return Some(Event::Incoming(listener));
                    }
                }
            }
        }
    }

    /// Forgets a connection that is over.
    pub fn remove(&mut self, name: Name) {
        let Some(link) = self.table.remove(name) else { return };
        self.alarms.clear(name.place);
        self.report.failed += u64::from(link.error().is_some());
        if link.in_backlog
            && let Some(backlog) = self.listeners.get_mut(&link.engine.local_port())
        {
            backlog.count -= 1;
            backlog.waiting.retain(|waiting| *waiting != name);
        }
    }

    /// A file is sent: it has to be found when its lease is broken.
    pub fn remember(&mut self, file: &SharedFile) {
        let (address, weak) = file.remember();
        self.files.insert(address, weak);
        if self.files.len() >= 2 * self.files_swept.max(32) {
            self.files.retain(|_, file| !file.is_gone());
            self.files_swept = self.files.len();
        }
    }

    /// The files that changed or are about to.
    pub fn disturbed_files(&mut self) -> Vec<(SharedFile, &'static str)> {
        self.files.retain(|_, file| !file.is_gone());
        let files = self.files.values().filter_map(WeakFile::upgrade);
        files.filter_map(|file| file.disturbed().map(|how| (file, how))).collect()
    }

    /// A file is no longer sent.
    pub fn forget(&mut self, file: &SharedFile) {
        self.files.remove(&file.remember().0);
    }
}
