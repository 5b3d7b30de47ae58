//! One client of a [`Server`](super::Server): its session on its connection.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::answer;
use super::files::Files;
use super::response::{LogEntry, Piece, Response};
use super::server::{Access, LEAST_PROGRESS, ServerConfig};
use super::session::Session;
use super::site::Site;
use crate::file::RegularFile;
use crate::file::source::Available;
use crate::send::SendError;
use crate::tcp::{self, SharedFile, Socket, SocketError, Stack, State};

/// How long a connection waits for the client's end after its own.
const LINGER: Duration = Duration::from_secs(5);
/// Answers that may be on their way on one connection; requests beyond that wait.
const PIPELINE: usize = 16;
/// Own bytes (not files') that may be on their way on one connection before the next request is answered: lists of directories can be long.
const OWN_BYTES: u64 = 64 << 10;

/// What a client is expected to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// To ask: the first time, or the rest of a request.
    Ask,
    /// To ask again, or to go.
    AskAgain,
    /// To take its answers.
    Take,
    /// To close, after us.
    Leave,
}

impl Phase {
    /// How long it may take.
    pub fn patience(self, config: &ServerConfig) -> Duration {
        match self {
            Self::Ask => config.request_timeout,
            Self::AskAgain => config.keep_alive,
            Self::Take => config.stall_timeout,
            Self::Leave => LINGER,
        }
    }
}

/// Whether a client is still one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Stays,
    Leaves,
}

/// What a client is served with.
pub(super) struct Service<'s> {
    pub stack: &'s mut Stack,
    pub site: &'s Site,
    pub config: &'s ServerConfig,
    pub files: &'s mut Files,
    /// Room for what arrives.
    pub input: &'s mut [u8],
    pub now: Duration,
    /// The time of day.
    pub wall: SystemTime,
    /// Answers that are over are told here.
    pub log: &'s mut dyn FnMut(Access),
}

/// An answer on its way.
struct Answer {
    /// Once this is acknowledged, all of it has arrived.
    mark: u64,
    own_bytes: u64,
    started: Duration,
    entry: LogEntry,
}

/// Why a client gets no more.
struct Loss {
    why: String,
    /// The stack itself delivers what is on its way, and resets the connection then: only that is the end.
    resets_itself: bool,
}

impl From<SocketError> for Loss {
    fn from(error: SocketError) -> Self {
        Self { resets_itself: matches!(error, SocketError::FileChanged { .. }), why: error.to_string() }
    }
}

impl From<&str> for Loss {
    fn from(why: &str) -> Self {
        Self { why: why.to_owned(), resets_itself: false }
    }
}

pub(super) struct Client {
    socket: Socket,
    peer: SocketAddr,
    session: Session,
    answers: VecDeque<Answer>,
    /// It has asked something.
    asked: bool,
    /// It sends no more.
    ended: bool,
    /// We send no more than what is queued.
    closing: bool,
    phase: Phase,
    since: Duration,
    /// What it had acknowledged then.
    taken: u64,
}

impl Client {
    pub fn new(socket: Socket, peer: SocketAddr, now: Duration) -> Self {
        Self {
            socket,
            peer,
            session: Session::new(),
            answers: VecDeque::new(),
            asked: false,
            ended: false,
            closing: false,
            phase: Phase::Ask,
            since: now,
            taken: 0,
        }
    }

    /// When it has to be looked at, if nothing happens before.
    pub fn deadline(&self, config: &ServerConfig) -> Duration {
        self.since + self.phase.patience(config)
    }

    /// Goes on as far as possible.
    pub fn attend(&mut self, service: &mut Service<'_>) -> Fate {
        match self.go_on(service) {
            Ok(Fate::Stays) => {
                self.change_phase(service);
                Fate::Stays
            }
            Ok(Fate::Leaves) => {
                self.socket.close(service.stack);
                Fate::Leaves
            }
            Err(loss) if loss.resets_itself && self.is_open(service) => {
                self.change_phase(service);
                Fate::Stays
            }
            Err(loss) => self.lose(service, &loss),
        }
    }

    fn is_open(&self, service: &Service<'_>) -> bool {
        self.socket.state(service.stack).is_ok_and(|state| state != State::Closed)
    }

    /// The server stops.
    pub fn dismiss(&mut self, service: &mut Service<'_>) -> Fate {
        self.lose(service, &"the server was stopped".into())
    }

    /// Its time is over, if nothing has happened meanwhile.
    pub fn look(&mut self, service: &mut Service<'_>) -> Fate {
        if service.now < self.deadline(service.config) {
            return Fate::Stays;
        }
        match self.phase {
            Phase::Ask if self.session.in_request() => {
                let response = self.session.time_out(service.wall);
                match self.answer(service, response) {
                    Ok(()) => self.attend(service),
                    Err(loss) => self.lose(service, &loss),
                }
            }
            Phase::Ask | Phase::AskAgain => {
                self.close(service);
                self.attend(service)
            }
            Phase::Take => {
                let taken = self.socket.acknowledged(service.stack).unwrap_or(self.taken);
                if taken - self.taken < LEAST_PROGRESS {
                    return self.lose(service, &"the client takes its answer too slowly".into());
                }
                (self.taken, self.since) = (taken, service.now);
                Fate::Stays
            }
            Phase::Leave => self.lose(service, &"the client does not close".into()),
        }
    }

    fn go_on(&mut self, service: &mut Service<'_>) -> Result<Fate, Loss> {
        self.settle(service);
        loop {
            let took = self.receive(service)?;
            let mut answered = false;
            while self.has_room()
                && !self.closing
                && let Some(response) = self.session.respond(service.site, service.wall)
            {
                self.answer(service, response)?;
                answered = true;
            }
            if !took && !answered {
                break;
            }
        }
        if self.ended && self.has_room() {
            // It asks no more, and all that it has asked for is answered; what is on its way is still sent.
            self.close(service);
        }
        Ok(if self.ended && self.answers.is_empty() { Fate::Leaves } else { Fate::Stays })
    }

    /// Whether another request may be answered.
    fn has_room(&self) -> bool {
        self.answers.len() < PIPELINE && self.answers.iter().map(|answer| answer.own_bytes).sum::<u64>() < OWN_BYTES
    }

    /// Tells of the answers that have arrived.
    fn settle(&mut self, service: &mut Service<'_>) {
        let Ok(acknowledged) = self.socket.acknowledged(service.stack) else { return };
        while let Some(answer) = self.answers.pop_front_if(|answer| answer.mark <= acknowledged) {
            self.tell(service, answer, None);
        }
    }

    /// Takes what has arrived; whether there was anything.
    fn receive(&mut self, service: &mut Service<'_>) -> Result<bool, SocketError> {
        // After its last answer a client may still send: that is taken and forgotten, since closing with something unread cuts the answer off.
        let room = if self.closing { service.input.len() } else { self.session.wants().min(service.input.len()) };
        if room == 0 || self.ended {
            return Ok(false);
        }
        match self.socket.recv(service.stack, &mut service.input[..room])? {
            Available::Bytes(len) => {
                if !self.closing {
                    self.session.receive(&service.input[..len]);
                }
                Ok(true)
            }
            Available::NotYet => Ok(false),
            Available::End => {
                self.ended = true;
                Ok(false)
            }
        }
    }

    /// Queues an answer. An error ends the connection.
    fn answer(&mut self, service: &mut Service<'_>, mut response: Response) -> Result<(), Loss> {
        let files = match share(service, &response) {
            Ok(files) => files,
            Err(error) => {
                tracing::warn!("{}: {error}", response.log.request.escape_debug());
                response = answer::not_now(&response, service.wall);
                Vec::new()
            }
        };
        let Response { pieces, close, log: entry, .. } = response;
        let shared = |wanted: &Arc<RegularFile>| files.iter().find(|(known, _)| Arc::ptr_eq(known, wanted)).map(|(_, shared)| shared);
        let parts = pieces.iter().filter_map(|piece| match piece {
            Piece::Bytes(bytes) => Some(tcp::Piece::Bytes(bytes)),
            Piece::File { file, range } => Some(tcp::Piece::File(shared(file)?, range.clone())),
        });
        let parts: Vec<tcp::Piece<'_>> = parts.collect();
        let own_bytes = pieces.iter().map(|piece| if let Piece::Bytes(bytes) = piece { bytes.len() as u64 } else { 0 }).sum();
        let mut answer = Answer { mark: u64::MAX, own_bytes, started: service.now, entry };
        match self.socket.sendfilev(service.stack, &parts) {
            Ok(mark) => answer.mark = mark,
            Err(error) => {
                let loss = Loss::from(error);
                self.tell(service, answer, Some(loss.why.clone()));
                return Err(loss);
            }
        }
        self.answers.push_back(answer);
        self.asked = true;
        if close {
            self.close(service);
        }
        Ok(())
    }

    /// Ends our side behind what is queued.
    fn close(&mut self, service: &mut Service<'_>) {
        if !self.closing {
            self.closing = true;
            // A connection that is over already says so at the next look.
            let _ = self.socket.shutdown(service.stack);
        }
    }

    /// Ends the connection with a reset, so that nobody takes what has arrived for the whole.
    fn lose(&mut self, service: &mut Service<'_>, loss: &Loss) -> Fate {
        self.settle(service);
        while let Some(answer) = self.answers.pop_front() {
            self.tell(service, answer, Some(loss.why.clone()));
        }
        // It may be over already.
        let _ = self.socket.abort(service.stack);
        self.socket.close(service.stack);
        Fate::Leaves
    }

    fn tell(&self, service: &mut Service<'_>, answer: Answer, failed: Option<String>) {
        let Answer { mark, mut entry, started, .. } = answer;
        if failed.is_some() {
            // The body is the last part of an answer.
            let arrived = self.socket.acknowledged(service.stack).unwrap_or(0);
            entry.bytes = arrived.saturating_sub(mark.saturating_sub(entry.bytes)).min(entry.bytes);
        }
        let seconds = service.now.saturating_sub(started).as_secs_f64();
        (service.log)(Access { client: self.peer, entry, seconds, failed });
    }

    fn change_phase(&mut self, service: &mut Service<'_>) {
        let phase = if !self.answers.is_empty() {
            Phase::Take
        } else if self.closing {
            Phase::Leave
        } else if self.session.in_request() || !self.asked {
            Phase::Ask
        } else {
            Phase::AskAgain
        };
        if phase != self.phase {
            (self.phase, self.since) = (phase, service.now);
            self.taken = self.socket.acknowledged(service.stack).unwrap_or(self.taken);
        }
    }
}

/// The files of an answer, each kept from changing.
fn share(service: &mut Service<'_>, response: &Response) -> Result<Vec<(Arc<RegularFile>, SharedFile)>, SendError> {
    let stability = service.stack.stability(service.config.stability)?;
    let mut files: Vec<(Arc<RegularFile>, SharedFile)> = Vec::new();
    for piece in &response.pieces {
        if let Piece::File { file, .. } = piece
            && !files.iter().any(|(known, _)| Arc::ptr_eq(known, file))
        {
            files.push((Arc::clone(file), service.files.share(file, stability)?));
        }
    }
    Ok(files)
}
