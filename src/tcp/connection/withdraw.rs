//! What was offered and cannot be sent after all.

use super::Connection;

impl Connection {
    /// Takes back what was offered and never sent, and a FIN that was not sent: the source of these bytes is gone. The stream stays open, so
    /// that the peer cannot take its end for a complete one; when what is on its way has arrived, the owner [aborts](Self::abort).
    /// Returns the length of the stream from now on.
    pub fn withdraw(&mut self) -> u64 {
        // A FIN counts as the position behind the stream.
        if self.next <= self.offered + 1 {
            self.shut = false;
        }
        self.offered -= self.unsent();
        self.offered
    }
}
