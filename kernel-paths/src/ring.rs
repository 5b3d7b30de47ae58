//! io_uring's `SEND_ZC`: one send at a time, as TCP wants its bytes in order, while the notifications of earlier ones are still to come.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use io_uring::{IoUring, cqueue, opcode, types};

use crate::mapping::Mapping;
use crate::{Account, not_the_end};

/// `IORING_SEND_ZC_REPORT_USAGE`, and the bit of a notification's result that it asks for, `IORING_NOTIF_USAGE_ZC_COPIED` (Linux 6.2).
const REPORT_USAGE: u16 = 1 << 3;
const USAGE_COPIED: i32 = i32::MIN;
const ENTRIES: u32 = 64;

pub(crate) struct Ring {
    ring: IoUring,
    /// Whether the kernel tells what became of a send.
    tells: bool,
    /// Notifications that are still to come.
    reading: u32,
}

impl Ring {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { ring: IoUring::new(ENTRIES)?, tells: true, reading: 0 })
    }

    pub(crate) fn send_all(
        &mut self,
        socket: BorrowedFd<'_>,
        mapping: &Mapping,
        len: u64,
        chunk: usize,
        account: &mut Account,
    ) -> io::Result<()> {
        let sent = self.send_rest(socket, mapping, len, chunk, account);
        // The mapping must stay until the kernel has let go of it, whatever went wrong.
        while self.reading > 0 {
            self.enter(account)?;
            self.take(account);
        }
        if !self.tells {
            account.copied = None;
        }
        sent
    }

    fn send_rest(&mut self, socket: BorrowedFd<'_>, mapping: &Mapping, len: u64, chunk: usize, account: &mut Account) -> io::Result<()> {
        while account.bytes < len {
            let (start, part) = mapping.part(account.bytes as usize, chunk);
            let flags = if self.tells { REPORT_USAGE } else { 0 };
            let entry = opcode::SendZc::new(types::Fd(socket.as_raw_fd()), start, part as u32)
                .flags(libc::MSG_WAITALL)
                .zc_flags(flags)
                .build()
                .user_data(part as u64);
            // SAFETY: the bytes stay mapped and the socket open until the completion and the notification were taken: `send_all` waits for them.
            unsafe { self.ring.submission().push(&entry) }.map_err(io::Error::other)?;
            let result = loop {
                self.enter(account)?;
                if let Some(result) = self.take(account) {
                    break result;
                }
            };
            if result == -libc::EINVAL && self.tells {
                self.tells = false;
            } else if result < 0 {
                return Err(io::Error::from_raw_os_error(-result));
            } else {
                account.bytes += not_the_end(result as usize)? as u64;
            }
        }
        Ok(())
    }

    fn enter(&self, account: &mut Account) -> io::Result<()> {
        account.calls += 1;
        match self.ring.submit_and_wait(1) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }

    /// Takes completions. What the send became, if that is among them.
    fn take(&mut self, account: &mut Account) -> Option<i32> {
        let mut result = None;
        for entry in self.ring.completion() {
            if cqueue::notif(entry.flags()) {
                self.reading -= 1;
                if self.tells && entry.result() & USAGE_COPIED != 0 {
                    account.copied = account.copied.map(|copied| copied + entry.user_data());
                }
            } else {
                self.reading += u32::from(cqueue::more(entry.flags()));
                result = Some(entry.result());
            }
        }
        result
    }
}
