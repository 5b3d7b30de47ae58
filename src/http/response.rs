//! What is sent for a request.

use std::fmt::Write;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use crate::file::RegularFile;

/// A part of a response.
#[derive(Clone, Debug)]
pub enum Piece {
    /// Bytes of the program's own: a header, a boundary, a page.
    Bytes(Vec<u8>),
    /// Bytes of a file, which nobody has read.
    File {
        /// the file
        file: Arc<RegularFile>,
        /// which of its bytes, not empty
        range: Range<u64>,
    },
}

impl Piece {
    /// How many bytes it is.
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { range, .. } => range.end - range.start,
        }
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// An answer to one request.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// What is sent, in order; the first has the header.
    pub pieces: Vec<Piece>,
    /// Whether the connection is closed after it.
    pub close: bool,
    /// For the log.
    pub log: LogEntry,
}

/// One line of an access log, but for the client and the time, which are the connection's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogEntry {
    /// The request line; `-` for what was none.
    pub request: String,
    /// The status code.
    pub status: u16,
    /// Bytes of the body; in an [`Access`](super::Access), those that arrived.
    pub bytes: u64,
}

/// The reason phrase of the codes that this server gives.
pub(super) fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        206 => "Partial Content",
        301 => "Moved Permanently",
        304 => "Not Modified",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        412 => "Precondition Failed",
        414 => "URI Too Long",
        416 => "Range Not Satisfiable",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Unknown",
    }
}

/// A header under construction.
pub(super) struct Head {
    status: u16,
    text: String,
}

impl Head {
    pub fn new(status: u16, now: SystemTime) -> Self {
        let mut text = String::with_capacity(320);
        let date = httpdate::fmt_http_date(now);
        let _ = write!(text, "HTTP/1.1 {status} {}\r\nServer: pagewire\r\nDate: {date}\r\n", reason(status));
        Self { status, text }
    }

    /// Adds a field. Values are made here or percent-encoded: none has a line break.
    pub fn field(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        let _ = write!(self.text, "{name}: {value}\r\n");
        self
    }

    /// The response: the header, and the body unless the request was for the header alone.
    pub fn finish(self, request_line: String, close: bool, body: Vec<Piece>, with_body: bool) -> Response {
        let connection = if close { "close" } else { "keep-alive" };
        let Self { status, mut text } = self.field("Connection", connection);
        text.push_str("\r\n");
        let mut pieces = vec![Piece::Bytes(text.into_bytes())];
        if with_body {
            pieces.extend(body.into_iter().filter(|piece| !piece.is_empty()));
        }
        let bytes = pieces[1..].iter().map(Piece::len).sum();
        Response { status, pieces, close, log: LogEntry { request: request_line, status, bytes } }
    }
}
