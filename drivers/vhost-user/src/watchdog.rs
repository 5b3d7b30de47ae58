//! Ends a call that the back end does not answer: the protocol crate waits for ever.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// Watches calls on one connection. A call that takes longer than it may has its socket shut down, and so fails.
pub struct Watchdog(Sender<Event>);

enum Event {
    Started,
    Ended,
}

impl Watchdog {
    /// For the connection that `stream` is a handle of.
    pub fn new(stream: UnixStream, patience: Duration) -> std::io::Result<Self> {
        let (sender, events) = channel();
        std::thread::Builder::new().name("vhost-user-watchdog".into()).spawn(move || watch(&stream, &events, patience))?;
        Ok(Self(sender))
    }

    /// Makes a call under watch.
    pub fn call<T>(&self, call: impl FnOnce() -> T) -> T {
        // The thread ends with the connection; a call on what is shut down fails by itself.
        let _ = self.0.send(Event::Started);
        let result = call();
        let _ = self.0.send(Event::Ended);
        result
    }
}

fn watch(stream: &UnixStream, events: &Receiver<Event>, patience: Duration) {
    while let Ok(event) = events.recv() {
        if matches!(event, Event::Ended) {
            continue;
        }
        match events.recv_timeout(patience) {
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout) => {
                tracing::warn!("the vhost-user back end has not answered for {patience:?}; the connection is closed");
                let _ = stream.shutdown(Shutdown::Both);
                return;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
