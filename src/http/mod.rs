//! HTTP/1.1 for files (RFC 9110, RFC 9112): sessions that own no connection — bytes of requests in, pieces of answers out — and a server that runs
//! them on a [TCP stack](crate::tcp).
//!
//! A [`Session`] is the server's side of one connection. It takes what arrived and gives [`Response`]s, whose bodies are ranges of files that
//! nobody has read: whoever owns the connection hands them to the NIC.
//!
//! | room | holds |
//! |---|---|
//! | [`site`](mod@site) | [`Site`]: the directory that is served; nothing outside it can be named |
//! | [`session`](mod@session) | [`Session`]: requests of one connection, in order |
//! | [`request`](mod@request) | one request, parsed |
//! | [`response`](mod@response) | [`Response`]: what is sent, as pieces, and the line of the log |
//! | [`server`](mod@server) | [`Server`]: a session for each client of a listener, bounded in time and memory |
//! | `condition`, `range`, `answer` | If-None-Match and its kin; Range; what a request is answered with |
//!
//! ```
//! use std::time::SystemTime;
//! use pagewire::http::{Piece, Session, Site};
//!
//! let directory = tempfile::tempdir()?;
//! std::fs::write(directory.path().join("hello.txt"), "Hello, wire\n")?;
//! let site = Site::open(directory.path())?;
//!
//! let mut session = Session::new();
//! session.receive(b"GET /hello.txt HTTP/1.1\r\nHost: a\r\nRange: bytes=0-4\r\n\r\n");
//! let response = session.respond(&site, SystemTime::now()).unwrap();
//! assert_eq!(response.status, 206);
//! assert!(matches!(&response.pieces[1], Piece::File { range, .. } if *range == (0..5)));
//! # Ok::<(), std::io::Error>(())
//! ```

mod answer;
mod client;
mod condition;
mod files;
mod listing;
mod range;
pub mod request;
pub mod response;
pub mod server;
pub mod session;
pub mod site;

pub use response::{LogEntry, Piece, Response};
pub use server::{Access, Server, ServerConfig, ServerReport};
pub use session::Session;
pub use site::Site;

#[cfg(test)]
mod tests;
