//! `MSG_ZEROCOPY`: the kernel pins the pages, and says on the socket's error queue when it has let go of them, and whether it copied after all.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, poll};

use crate::Account;
use crate::mapping::Mapping;

/// How many sends there are between two looks at the error queue, as in the kernel's own example.
const LOOK: u32 = 16;
/// The bytes of a control message's header (`struct cmsghdr`), and of what follows it here (`struct sock_extended_err`).
const HEADER: usize = 16;
const EXTENDED: usize = 16;
/// `SO_EE_ORIGIN_ZEROCOPY` and `SO_EE_CODE_ZEROCOPY_COPIED` of `linux/errqueue.h`.
const ORIGIN: u8 = 5;
const COPIED: u8 = 1;

pub(crate) struct ZeroCopy<'s> {
    socket: BorrowedFd<'s>,
    /// The bytes of the sends that are not completed; the first has the number `first`.
    sends: VecDeque<(usize, bool)>,
    first: u32,
}

impl<'s> ZeroCopy<'s> {
    /// For a socket over which nothing was sent this way.
    pub(crate) fn new(socket: BorrowedFd<'s>) -> io::Result<Self> {
        let on: libc::c_int = 1;
        // SAFETY: the option's value is an int, whose size is given.
        let set = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ZEROCOPY,
                (&raw const on).cast(),
                size_of_val(&on) as libc::socklen_t,
            )
        };
        if set < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { socket, sends: VecDeque::new(), first: 0 })
    }

    pub(crate) fn send_all(mut self, mapping: &Mapping, len: u64, chunk: usize, account: &mut Account) -> io::Result<()> {
        let mut sends = 0;
        while account.bytes < len {
            let sent = mapping.send(self.socket, account.bytes as usize, chunk, libc::MSG_ZEROCOPY);
            account.calls += 1;
            match sent {
                Ok(sent) => {
                    account.bytes += sent as u64;
                    self.sends.push_back((sent, false));
                    sends += 1;
                    if sends % LOOK == 0 {
                        self.reap(account)?;
                    }
                }
                // No memory for another notification: take some first.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) && !self.sends.is_empty() => self.wait(account)?,
                Err(error) => return Err(error),
            }
        }
        while !self.sends.is_empty() {
            self.wait(account)?;
        }
        Ok(())
    }

    fn wait(&mut self, account: &mut Account) -> io::Result<()> {
        poll(&mut [PollFd::from_borrowed_fd(self.socket, PollFlags::empty())], None)?;
        account.calls += 1;
        self.reap(account)
    }

    /// Takes what the error queue has.
    fn reap(&mut self, account: &mut Account) -> io::Result<()> {
        loop {
            // Aligned as the header of a control message.
            let mut control = [0_u64; 16];
            // SAFETY: zeroes are a message header without anything.
            let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = size_of_val(&control);
            // SAFETY: the header names the array above, with its size, and nothing else.
            let read = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut message, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT) };
            account.calls += 1;
            if read < 0 {
                let error = io::Error::last_os_error();
                return if error.kind() == io::ErrorKind::WouldBlock { Ok(()) } else { Err(error) };
            }
            let bytes: Vec<u8> = control.iter().flat_map(|word| word.to_ne_bytes()).collect();
            let Some(told) = bytes.get(HEADER..HEADER + EXTENDED).filter(|_| message.msg_controllen >= HEADER + EXTENDED) else { continue };
            let word = |at: usize| u32::from_ne_bytes([told[at], told[at + 1], told[at + 2], told[at + 3]]);
            if told[4] != ORIGIN {
                return Err(io::Error::from_raw_os_error(word(0) as i32));
            }
            self.completed(word(8), word(12), told[6] & COPIED != 0, account);
        }
    }

    /// The sends from number `from` to number `to` are complete. TCP completes in order, but nothing promises that.
    fn completed(&mut self, from: u32, to: u32, copied: bool, account: &mut Account) {
        for number in from..=to {
            if let Some((bytes, done)) = self.sends.get_mut(number.wrapping_sub(self.first) as usize)
                && !std::mem::replace(done, true)
                && copied
            {
                account.copied = account.copied.map(|before| before + *bytes as u64);
            }
        }
        while self.sends.front().is_some_and(|(_, done)| *done) {
            self.sends.pop_front();
            self.first = self.first.wrapping_add(1);
        }
    }
}
