//! What programs have in hand: connections and listeners of a [`Stack`], as small values that are copied freely.

use std::net::SocketAddr;
use std::ops::Range;

use super::connection::State;
use super::error::SocketError;
use super::file::SharedFile;
use super::link::Link;
use super::stack::Stack;
use super::table::Name;
use crate::file::source::Available;

/// A port of a stack at which peers open connections. See [`Stack::listen`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Listener {
    pub(super) port: u16,
}

/// A connection of a stack. Good until [`close`](Self::close).
///
/// Nothing here waits. What is sent is queued at once and goes out as [`Stack::poll`] is called; every method that queues returns the *mark* at
/// which it is complete: once [`acknowledged`](Self::acknowledged) has reached it, the peer has everything up to there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Socket {
    pub(super) name: Name,
}

/// What may be worth a look. Each is told once, until the program has taken it with [`Stack::next_event`]; then again when something new
/// happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// There are connections to [accept](Listener::accept): take all of them.
    Incoming(Listener),
    /// The handshake is complete, something can be [received](Socket::recv), something was acknowledged, or the connection is over.
    Socket(Socket),
}

/// A part of what [`Socket::sendfilev`] sends.
#[derive(Clone, Debug)]
pub enum Piece<'a> {
    /// Bytes of the program. They are copied, since they have to stay until they are acknowledged: heads, not contents.
    Bytes(&'a [u8]),
    /// A range of a file, which the NIC reads from the page cache.
    File(&'a SharedFile, Range<u64>),
}

impl Listener {
    /// The port.
    pub fn port(self) -> u16 {
        self.port
    }

    /// The next connection whose handshake is complete, in order; `None` when there is none now.
    pub fn accept(self, stack: &mut Stack) -> Option<Socket> {
        stack.connections.accept(self.port)
    }

    /// Ends the listening. Connections that were accepted go on; others are reset.
    pub fn close(self, stack: &mut Stack) {
        stack.connections.unlisten(self.port);
    }
}

impl Socket {
    /// Sends a range of a file, from its page cache, without a copy where the NIC can. Returns the mark at which all of it has arrived.
    ///
    /// The file may be changed again when the mark is reached (see [`SharedFile`]).
    ///
    /// # Errors
    /// [`SocketError::Range`] for bytes that the file does not have, [`SocketError::FileChanged`] for one that changed since it was opened, and
    /// what ended the connection.
    pub fn sendfile(self, stack: &mut Stack, file: &SharedFile, range: Range<u64>) -> Result<u64, SocketError> {
        self.sendfilev(stack, &[Piece::File(file, range)])
    }

    /// Sends bytes of the program and ranges of files behind each other, as one: a head, a file, a tail. All or nothing of it is queued. Returns
    /// the mark at which all of it has arrived.
    ///
    /// # Errors
    /// As [`sendfile`](Self::sendfile).
    pub fn sendfilev(self, stack: &mut Stack, pieces: &[Piece<'_>]) -> Result<u64, SocketError> {
        for piece in pieces {
            let Piece::File(file, range) = piece else { continue };
            if range.start > range.end || range.end > file.size() {
                let (name, size) = (file.file().name().to_owned(), file.size());
                return Err(SocketError::Range { name, start: range.start, end: range.end, size });
            }
            if let Some(how) = file.disturbed() {
                let (name, how) = (file.file().name().to_owned(), how.to_owned());
                return Err(SocketError::FileChanged { name, how, delivered: range.start });
            }
        }
        let len = |piece: &Piece<'_>| match piece {
            Piece::Bytes(bytes) => bytes.len() as u64,
            Piece::File(_, range) => range.end - range.start,
        };
        let link = self.link_mut(stack)?;
        if let Some(error) = link.error() {
            return Err(error);
        }
        link.engine.offer(pieces.iter().map(len).sum())?;
        for piece in pieces {
            match piece {
                Piece::Bytes(bytes) => link.outbox.extents.push_bytes(*bytes),
                Piece::File(file, range) => link.outbox.extents.push_file((*file).clone(), range.clone()),
            }
        }
        let mark = link.outbox.extents.end();
        for piece in pieces {
            if let Piece::File(file, _) = piece {
                stack.connections.remember(file);
            }
        }
        stack.connections.wake(self.name);
        Ok(mark)
    }

    /// Sends bytes of the program. Returns the mark at which they have arrived.
    ///
    /// # Errors
    /// What ended the connection.
    pub fn send(self, stack: &mut Stack, bytes: &[u8]) -> Result<u64, SocketError> {
        self.sendfilev(stack, &[Piece::Bytes(bytes)])
    }

    /// Takes what has arrived, as far as `bytes` has room.
    ///
    /// # Errors
    /// What ended the connection, once everything is taken.
    pub fn recv(self, stack: &mut Stack, bytes: &mut [u8]) -> Result<Available, SocketError> {
        let link = self.link_mut(stack)?;
        let available = match link.engine.read(bytes) {
            0 if link.engine.is_finished() => Available::End,
            0 => link.error().map_or(Ok(Available::NotYet), Err)?,
            len => Available::Bytes(len),
        };
        if let Available::Bytes(_) = available {
            // What was read makes room in the window, which the peer may have to be told.
            stack.connections.wake(self.name);
        }
        Ok(available)
    }

    /// Ends the own direction behind what is queued. What the peer sends is still received.
    ///
    /// # Errors
    /// [`SocketError::Gone`].
    pub fn shutdown(self, stack: &mut Stack) -> Result<(), SocketError> {
        self.link_mut(stack)?.shutdown();
        stack.connections.wake(self.name);
        Ok(())
    }

    /// Ends the connection at once, with a RST; what is queued is not sent.
    ///
    /// # Errors
    /// [`SocketError::Gone`].
    pub fn abort(self, stack: &mut Stack) -> Result<(), SocketError> {
        self.link_mut(stack)?.engine.abort();
        stack.connections.wake(self.name);
        Ok(())
    }

    /// Gives the handle back: the program does not need the connection any more. What is queued is still sent, then the connection ends; without
    /// this it is kept even when it is over.
    pub fn close(self, stack: &mut Stack) {
        let Ok(link) = self.link_mut(stack) else { return };
        link.released = true;
        if link.engine.state() == State::SynSent && link.outbox.extents.is_empty() {
            // Nobody is waiting for it to open.
            link.engine.abort();
        } else {
            link.shutdown();
        }
        stack.connections.wake(self.name);
    }

    /// The mark up to which the peer has everything.
    ///
    /// # Errors
    /// [`SocketError::Gone`].
    pub fn acknowledged(self, stack: &Stack) -> Result<u64, SocketError> {
        Ok(self.link(stack)?.engine.acknowledged())
    }

    /// Whether the peer has everything that was queued, and has acknowledged the end that [`shutdown`](Self::shutdown) put behind it.
    ///
    /// # Errors
    /// What ended the connection.
    pub fn delivered(self, stack: &Stack) -> Result<bool, SocketError> {
        let link = self.link(stack)?;
        let ended = matches!(link.engine.state(), State::FinWait2 | State::TimeWait | State::Closed);
        match link.error() {
            Some(error) => Err(error),
            None => Ok(ended && link.engine.acknowledged() == link.outbox.extents.end()),
        }
    }

    /// How many bytes are queued and not acknowledged.
    ///
    /// # Errors
    /// [`SocketError::Gone`].
    pub fn queued(self, stack: &Stack) -> Result<u64, SocketError> {
        let link = self.link(stack)?;
        Ok(link.outbox.extents.end() - link.engine.acknowledged())
    }

    /// The state of the connection.
    ///
    /// # Errors
    /// [`SocketError::Gone`].
    pub fn state(self, stack: &Stack) -> Result<State, SocketError> {
        Ok(self.link(stack)?.engine.state())
    }

    /// Why the connection ended, or is about to, otherwise than by both sides closing it.
    pub fn error(self, stack: &Stack) -> Option<SocketError> {
        match self.link(stack) {
            Ok(link) => link.error(),
            Err(error) => Some(error),
        }
    }

    /// The peer's address and port.
    ///
    /// # Errors
    /// [`SocketError::Gone`].
    pub fn peer(self, stack: &Stack) -> Result<SocketAddr, SocketError> {
        Ok(self.link(stack)?.peer)
    }

    fn link(self, stack: &Stack) -> Result<&Link, SocketError> {
        stack.connections.table.get(self.name).filter(|link| !link.released).ok_or(SocketError::Gone)
    }

    fn link_mut(self, stack: &mut Stack) -> Result<&mut Link, SocketError> {
        stack.connections.table.get_mut(self.name).filter(|link| !link.released).ok_or(SocketError::Gone)
    }
}
