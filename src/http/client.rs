//! One client of a [`Server`](super::Server): its session on its connection.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use super::response::{LogEntry, Piece, Response};
use super::server::{Access, ServerConfig};
use super::session::Session;
use super::site::Site;
use crate::file::source::Available;
use crate::tcp::{self, SharedFile, Socket, Stack};

/// How often it is looked at whether a client takes its answer.
const PROGRESS: Duration = Duration::from_secs(30);
/// How long a connection waits for the client's end after its own.
const LINGER: Duration = Duration::from_secs(5);
/// Answers that may be on their way on one connection; requests beyond that wait.
const PIPELINE: usize = 16;

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
            Self::Take => PROGRESS,
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
    mark: u64,
    started: Duration,
    entry: LogEntry,
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
            Err(why) => self.lose(service, &why),
        }
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
                    Err(why) => self.lose(service, &why),
                }
            }
            Phase::Ask | Phase::AskAgain => {
                self.close(service);
                self.attend(service)
            }
            Phase::Take => {
                let taken = self.socket.acknowledged(service.stack).unwrap_or(self.taken);
                if taken - self.taken < service.config.least_progress {
                    return self.lose(service, "the client takes its answer too slowly");
                }
                (self.taken, self.since) = (taken, service.now);
                Fate::Stays
            }
            Phase::Leave => self.lose(service, "the client does not close"),
        }
    }

    fn go_on(&mut self, service: &mut Service<'_>) -> Result<Fate, String> {
        self.settle(service);
        loop {
            let took = self.receive(service)?;
            let mut answered = false;
            while self.answers.len() < PIPELINE
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
        if self.ended {
            // It asks no more; what it has asked for is still sent.
            self.close(service);
        }
        Ok(if self.ended && self.answers.is_empty() { Fate::Leaves } else { Fate::Stays })
    }

    /// Tells of the answers that have arrived.
    fn settle(&mut self, service: &mut Service<'_>) {
        let Ok(acknowledged) = self.socket.acknowledged(service.stack) else { return };
        while let Some(answer) = self.answers.pop_front_if(|answer| answer.mark <= acknowledged) {
            self.tell(service, answer, None);
        }
    }

    /// Takes what has arrived; whether there was anything.
    fn receive(&mut self, service: &mut Service<'_>) -> Result<bool, String> {
        // After its last answer a client may still send: that is taken and forgotten, since closing with something unread cuts the answer off.
        let room = if self.closing { service.input.len() } else { self.session.wants().min(service.input.len()) };
        if room == 0 || self.ended {
            return Ok(false);
        }
        match self.socket.recv(service.stack, &mut service.input[..room]).map_err(|error| error.to_string())? {
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

    /// Queues an answer; after an error the connection has to end, since a part of it may be queued.
    fn answer(&mut self, service: &mut Service<'_>, response: Response) -> Result<(), String> {
        let Response { pieces, close, log: entry, .. } = response;
        let mut files = Vec::new();
        for piece in &pieces {
            if let Piece::File { file, .. } = piece
                && !files.iter().any(|known: &SharedFile| std::ptr::eq(known.file(), &**file))
            {
                let secured =
                    service.stack.stability(service.config.stability).and_then(|stability| SharedFile::new(file.clone(), stability));
                files.push(secured.map_err(|error| error.to_string())?);
            }
        }
        let shared = |wanted| files.iter().find(|known| std::ptr::eq(known.file(), wanted));
        let parts = pieces.iter().filter_map(|piece| {
            Some(match piece {
                Piece::Bytes(bytes) => tcp::Piece::Bytes(bytes),
                Piece::File { file, range } => tcp::Piece::File(shared(&**file)?, range.clone()),
            })
        });
        let parts: Vec<tcp::Piece<'_>> = parts.collect();
        let mark = self.socket.sendfilev(service.stack, &parts).map_err(|error| error.to_string())?;
        self.answers.push_back(Answer { mark, started: service.now, entry });
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

    /// Ends the connection at once: what is on its way is cut off, so that nobody takes it for the whole.
    fn lose(&mut self, service: &mut Service<'_>, why: &str) -> Fate {
        self.settle(service);
        while let Some(answer) = self.answers.pop_front() {
            self.tell(service, answer, Some(why.to_owned()));
        }
        let _ = self.socket.abort(service.stack);
        self.socket.close(service.stack);
        Fate::Leaves
    }

    fn tell(&self, service: &mut Service<'_>, answer: Answer, failed: Option<String>) {
        let seconds = service.now.saturating_sub(answer.started).as_secs_f64();
        (service.log)(Access { client: self.peer, entry: answer.entry, seconds, failed });
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
