//! The server's side of one connection.

use std::time::SystemTime;

use super::answer;
use super::request::{self, MAX_HEAD, Parsed};
use super::response::Response;
use super::site::Site;

/// Requests of one connection, answered in order; they may come before the last one is answered (pipelining).
///
/// It holds the bytes of requests that are not answered yet, no more than [`wants`](Self::wants) asked for.
#[derive(Debug, Default)]
pub struct Session {
    input: Vec<u8>,
    closing: bool,
}

impl Session {
    /// A connection on which nothing has arrived.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many bytes it takes at the moment; what is not taken stays in the connection's receive window, so that the client waits.
    pub fn wants(&self) -> usize {
        if self.closing { 0 } else { MAX_HEAD.saturating_sub(self.input.len()) }
    }

    /// Bytes that arrived. What comes after the last request of a connection is ignored.
    pub fn receive(&mut self, bytes: &[u8]) {
        if !self.closing {
            self.input.extend_from_slice(bytes);
        }
    }

    /// Whether the start of a request is there, and its end is not: the client has to hurry.
    pub fn in_request(&self) -> bool {
        !self.closing && !self.input.is_empty()
    }

    /// Answers the next request, when all of it is there. `now` is the time of day, for the header. After a response that
    /// [closes](Response::close) there is none.
    pub fn respond(&mut self, site: &Site, now: SystemTime) -> Option<Response> {
        if self.closing {
            return None;
        }
        // An empty line in front of a request line is ignored (RFC 9112, 2.2).
        let blank = self.input.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        self.input.drain(..blank);
        if self.input.is_empty() {
            return None;
        }
        let response = match request::parse(&self.input) {
            Ok(Parsed::Partial) => return None,
            Ok(Parsed::Request(request, len)) => {
                self.input.drain(..len);
                answer::answer(&request, site, now)
            }
            Err(bad) => answer::refuse(bad, now),
        };
        if response.close {
            self.closing = true;
            self.input = Vec::new();
        }
        Some(response)
    }

    /// The client took too long for a request: what it is told (408), before the connection is closed.
    pub fn time_out(&mut self, now: SystemTime) -> Response {
        self.closing = true;
        self.input = Vec::new();
        answer::time_out(now)
    }
}
