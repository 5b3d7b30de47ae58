//! A server: sessions on the connections of a [`Stack`].

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::client::{Client, Fate, Service};
use super::files::Files;
use super::request::MAX_HEAD;
use super::response::LogEntry;
use super::site::Site;
use crate::send::Stability;
use crate::tcp::{Event, Listener, Socket, Stack};

/// The bytes of its answers that a client has to take in [`ServerConfig::stall_timeout`].
pub const LEAST_PROGRESS: u64 = 64 << 10;

/// How a [`Server`] behaves. The times bound slow and vanished clients; what the network loses is TCP's affair
/// ([`TcpConfig`](crate::tcp::TcpConfig)).
#[derive(Clone, Copy, Debug)]
pub struct ServerConfig {
    /// Clients that are served at once; others wait to be accepted. Default 10,000.
    pub clients: usize,
    /// How long a request may take from its first byte, or from the connection's start, to its last. Default 10 s.
    pub request_timeout: Duration,
    /// How long a connection without a request is kept. Default 60 s.
    pub keep_alive: Duration,
    /// How long a client may take for the next [`LEAST_PROGRESS`] bytes of its answers. Default 30 s.
    pub stall_timeout: Duration,
    /// How files are kept from changing while they are sent.
    pub stability: Stability,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            clients: 10_000,
            request_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(30),
            stability: Stability::Auto,
        }
    }
}

/// One request and what became of its answer.
#[derive(Clone, Debug, Serialize)]
pub struct Access {
    /// Who asked.
    pub client: SocketAddr,
    /// What was asked and answered.
    #[serde(flatten)]
    pub entry: LogEntry,
    /// How long it took, to the acknowledgement of the last byte, in seconds.
    pub seconds: f64,
    /// Why the client did not get all of it; `None` when it did.
    pub failed: Option<String>,
}

/// What was served since the server was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ServerReport {
    /// Connections accepted.
    pub clients: u64,
    /// Answers, by status code.
    pub responses: BTreeMap<u16, u64>,
    /// Bytes of bodies that arrived.
    pub body_bytes: u64,
    /// Answers that did not arrive whole.
    pub cut_off: u64,
}

/// Serves a [`Site`] to the clients of a listener.
pub struct Server {
    site: Site,
    listener: Listener,
    config: ServerConfig,
    clients: HashMap<Socket, Entry>,
    /// When to look at clients: time and a number of its own, so that two may have the same time.
    looks: BTreeMap<(Duration, u64), Socket>,
    files: Files,
    number: u64,
    input: Vec<u8>,
    report: ServerReport,
}

struct Entry {
    client: Client,
    look: (Duration, u64),
}

impl Server {
    /// A server for `site`.
    pub fn new(site: Site, listener: Listener, config: ServerConfig) -> Self {
        let (clients, looks, files, number, report) = Default::default();
        Self { site, listener, config, clients, looks, files, number, input: vec![0; MAX_HEAD], report }
    }

    /// What was served so far.
    pub fn report(&self) -> &ServerReport {
        &self.report
    }

    /// How many clients there are now.
    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Does what there is to do now: takes all [events](Stack::next_event), answers requests, ends what takes too long. To be called after each
    /// [`Stack::poll`], and at least every now and then when that has nothing to do.
    ///
    /// `wall` is the time of day, which goes into headers. `log` is told of every answer that has arrived, or will not.
    pub fn serve(&mut self, stack: &mut Stack, now: Duration, wall: SystemTime, mut log: impl FnMut(Access)) {
        while let Some(event) = stack.next_event() {
            if let Event::Socket(socket) = event {
                self.with(stack, socket, now, wall, &mut log, Client::attend);
            }
        }
        // Also those that found no room before.
        while self.clients.len() < self.config.clients
            && let Some(socket) = self.listener.accept(stack)
        {
            let Ok(peer) = socket.peer(stack) else { continue };
            self.report.clients += 1;
            let client = Client::new(socket, peer, now);
            let look = self.look_at(socket, client.deadline(&self.config));
            self.clients.insert(socket, Entry { client, look });
            self.with(stack, socket, now, wall, &mut log, Client::attend);
        }
        while let Some((&(time, _), &socket)) = self.looks.first_key_value()
            && time <= now
        {
            self.looks.pop_first();
            self.with(stack, socket, now, wall, &mut log, Client::look);
        }
    }

    /// Ends the service: resets all connections, so that nobody takes a part for the whole, and listens no more. Go on polling the stack until it
    /// is [quiet](Stack::is_quiet).
    pub fn stop(&mut self, stack: &mut Stack, now: Duration, wall: SystemTime, mut log: impl FnMut(Access)) {
        self.listener.close(stack);
        for socket in self.clients.keys().copied().collect::<Vec<_>>() {
            self.with(stack, socket, now, wall, &mut log, Client::dismiss);
        }
    }

    fn look_at(&mut self, socket: Socket, time: Duration) -> (Duration, u64) {
        self.number += 1;
        self.looks.insert((time, self.number), socket);
        (time, self.number)
    }

    fn with(
        &mut self,
        stack: &mut Stack,
        socket: Socket,
        now: Duration,
        wall: SystemTime,
        log: &mut dyn FnMut(Access),
        work: impl FnOnce(&mut Client, &mut Service<'_>) -> Fate,
    ) {
        let Some(Entry { client, look }) = self.clients.get_mut(&socket) else { return };
        let report = &mut self.report;
        let mut log = |access: Access| {
            *report.responses.entry(access.entry.status).or_default() += 1;
            report.body_bytes += access.entry.bytes;
            report.cut_off += u64::from(access.failed.is_some());
            log(access);
        };
        let mut service = Service {
            stack,
            site: &self.site,
            config: &self.config,
            files: &mut self.files,
            input: &mut self.input,
            now,
            wall,
            log: &mut log,
        };
        let fate = work(client, &mut service);
        let (deadline, look) = (client.deadline(&self.config), *look);
        if fate == Fate::Leaves {
            self.looks.remove(&look);
            self.clients.remove(&socket);
        } else if deadline != look.0 || !self.looks.contains_key(&look) {
            self.looks.remove(&look);
            let look = self.look_at(socket, deadline);
            if let Some(entry) = self.clients.get_mut(&socket) {
                entry.look = look;
            }
        }
    }
}
