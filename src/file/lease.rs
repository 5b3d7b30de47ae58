//! Read leases: nobody changes the file while we send it, without our being told first (fcntl(2), `F_SETLEASE`).
//!
//! While a lease is held, whoever opens the file for writing or truncates it waits, and we get a signal. We stop posting, let the device
//! finish, unmap, and give the lease up; the other then goes on. The kernel takes the lease away after
//! `/proc/sys/fs/lease-break-time` (45 s).
//!
//! The signal's default action kills the process. So one thread, the *lease keeper*, blocks it for itself, and every lease directs it
//! to that thread (`F_SETOWN_EX` with a thread id): the signals of the rest of the program stay as they are. The keeper reads the signals from
//! a signalfd and sets the flag of the lease, which a sender looks at once a burst: no system call on the hot path.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// A read lease on a file. Given up when dropped.
#[derive(Debug)]
pub struct Lease {
    /// A descriptor of its own (of the same open file), so that its number stays ours as long as the keeper knows it.
    file: File,
    broken: Arc<AtomicBool>,
    keeper: &'static Keeper,
}

/// Why there is no lease.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// EAGAIN.
    #[error("another process has the file open for writing")]
    Writer,
    /// EACCES.
    #[error("the file belongs to another user (a lease needs the owner, or CAP_LEASE)")]
    NotOwner,
    /// EINVAL.
    #[error("this kind of file or file system has no leases")]
    Unsupported,
    /// Anything else.
    #[error("no lease: {0}")]
    Other(#[from] io::Error),
}

impl Lease {
    /// Takes a lease on a file that is open for reading only.
    ///
    /// # Errors
    /// [`LeaseError`] says why there is none; whoever sends then has to trust that nobody changes the file, and says so.
    pub fn take(file: &File) -> Result<Self, LeaseError> {
        let keeper = Keeper::get()?;
        let file = file.try_clone()?;
        let broken = Arc::new(AtomicBool::new(false));
        let fd = file.as_raw_fd();
        let owner = FileOwner { kind: F_OWNER_TID, id: keeper.thread };
        // The keeper looks at no signal meanwhile: it would find nobody, or a lease that does not exist yet.
        let mut flags = keeper.flags();
        // SAFETY: fcntl with arguments as fcntl(2) has them; `owner` lives through the call.
        let result = unsafe {
            match libc::fcntl(fd, F_SETOWN_EX, &owner) {
                0 => match libc::fcntl(fd, F_SETSIG, keeper.signal) {
                    0 => libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK),
                    error => error,
                },
                error => error,
            }
        };
        if result == 0 {
            flags.insert(fd, Arc::clone(&broken));
            drop(flags);
            return Ok(Self { file, broken, keeper });
        }
        let error = io::Error::last_os_error();
        Err(match error.raw_os_error() {
            Some(libc::EAGAIN) => LeaseError::Writer,
            Some(libc::EACCES) => LeaseError::NotOwner,
            Some(libc::EINVAL) => LeaseError::Unsupported,
            _ => LeaseError::Other(error),
        })
    }

    /// Whether somebody wants to change the file: stop, let the device finish, unmap, and drop the lease.
    #[inline]
    pub fn broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// Gives the lease up, though others still refer to it: whoever waits to change the file goes on. Once more does nothing.
    pub fn give_up(&self) {
        // SAFETY: fcntl with arguments as fcntl(2) has them. Where no lease is held this fails, which is all right.
        unsafe { libc::fcntl(self.file.as_raw_fd(), libc::F_SETLEASE, libc::F_UNLCK) };
    }

    /// How many leases of this process were broken until now. While it does not change, there is no need to look at any one of them.
    #[inline]
    pub fn breaks() -> u64 {
        BREAKS.load(Ordering::Acquire)
    }
}

static BREAKS: AtomicU64 = AtomicU64::new(0);

/// Tells the holder: first the lease's own flag, then the count for all.
fn tell(flag: &AtomicBool) {
    flag.store(true, Ordering::Release);
    BREAKS.fetch_add(1, Ordering::Release);
}

impl Drop for Lease {
    fn drop(&mut self) {
        let fd = self.file.as_raw_fd();
        self.give_up();
        // Before the descriptor is closed: its number may then be another file's.
        self.keeper.flags().remove(&fd);
    }
}

const F_SETSIG: libc::c_int = 10;
const F_SETOWN_EX: libc::c_int = 15;
const F_OWNER_TID: libc::c_int = 0;

/// `struct f_owner_ex` of fcntl(2), which libc does not have.
#[repr(C)]
struct FileOwner {
    kind: libc::c_int,
    id: libc::pid_t,
}

/// The thread that takes the signals, and the leases that it knows.
#[derive(Debug)]
struct Keeper {
    thread: libc::pid_t,
    signal: libc::c_int,
    flags: Mutex<HashMap<RawFd, Arc<AtomicBool>>>,
}

impl Keeper {
    /// The keeper of this process; its thread starts with the first lease and lives as long as the process.
    fn get() -> io::Result<&'static Self> {
        static KEEPER: OnceLock<Keeper> = OnceLock::new();
        static STARTING: Mutex<()> = Mutex::new(());
        let _one_at_a_time = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(keeper) = KEEPER.get() {
            return Ok(keeper);
        }
        // A real-time signal: they queue, and carry the descriptor.
        let signal = libc::SIGRTMIN() + 4;
        let (sender, receiver) = crossbeam::channel::bounded(1);
        std::thread::Builder::new().name("lease-keeper".into()).spawn(move || {
            match block_and_open(signal) {
                Ok(signals) => {
                    // SAFETY: gettid has no arguments and cannot fail.
                    let thread = unsafe { libc::gettid() };
                    if sender.send(Ok(thread)).is_ok() {
                        drop(sender);
                        watch(signals, &KEEPER);
                    }
                }
                Err(error) => drop(sender.send(Err(error))),
            };
        })?;
        let thread = receiver.recv().map_err(io::Error::other)??;
        Ok(KEEPER.get_or_init(|| Self { thread, signal, flags: Mutex::default() }))
    }

    fn flags(&self) -> std::sync::MutexGuard<'_, HashMap<RawFd, Arc<AtomicBool>>> {
        self.flags.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Blocks the signals for this thread alone, and opens a descriptor to read them from.
fn block_and_open(signal: libc::c_int) -> io::Result<File> {
    // SAFETY: a signal set is made valid by sigemptyset before it is used; all pointers live through their calls; the descriptor is new
    // and owned by nobody else.
    unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, signal);
        // When the queue of real-time signals is full, the kernel sends SIGIO instead.
        libc::sigaddset(&mut set, libc::SIGIO);
        let error = libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        let fd = libc::signalfd(-1, &set, libc::SFD_CLOEXEC);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(File::from(OwnedFd::from_raw_fd(fd)))
    }
}

/// Sets the flag of each lease that is broken.
fn watch(mut signals: File, keeper: &OnceLock<Keeper>) {
    // The layout of signalfd_siginfo (signalfd(2)): 128 bytes, the signal at 0, the descriptor at 20.
    let mut info = [0_u8; 128];
    while signals.read_exact(&mut info).is_ok() {
        let word = |at: usize| i32::from_ne_bytes([info[at], info[at + 1], info[at + 2], info[at + 3]]);
        let (signal, fd) = (word(0), word(20));
        let Some(keeper) = keeper.get() else { continue };
        let flags = keeper.flags();
        // Another signal stands for any of them.
        for (fd, flag) in flags.iter().filter(|(known, _)| signal != keeper.signal || **known == fd) {
            // The signal may be that of a lease before, whose descriptor had the same number.
            // SAFETY: fcntl without an argument; the map holds descriptors of live leases only.
            if unsafe { libc::fcntl(*fd, libc::F_GETLEASE) } != libc::F_RDLCK {
                tell(flag);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::OpenOptions;
    use std::os::unix::fs::OpenOptionsExt;
    use std::time::{Duration, Instant};

    fn wait_for(lease: &Lease) -> bool {
        let start = Instant::now();
        while !lease.broken() && start.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(1));
        }
        lease.broken()
    }

    #[test]
    fn a_writer_breaks_the_lease_and_goes_on_when_it_is_given_up() {
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let lease = Lease::take(&File::open(&path).unwrap()).unwrap();
        assert!(!lease.broken());
        let writer = std::thread::spawn({
            let path = path.to_path_buf();
            move || OpenOptions::new().write(true).open(path).map(drop)
        });
        assert!(wait_for(&lease));
        assert!(!writer.is_finished(), "the writer waits while the lease is held");
        drop(lease);
        writer.join().unwrap().unwrap();
    }

    #[test]
    fn a_lease_that_is_given_up_lets_the_writer_go_on_while_others_still_see_that_it_was_broken() {
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let before = Lease::breaks();
        let lease = Lease::take(&File::open(&path).unwrap()).unwrap();
        let writer = std::thread::spawn({
            let path = path.to_path_buf();
            move || OpenOptions::new().write(true).open(path).map(drop)
        });
        assert!(wait_for(&lease));
        assert!(Lease::breaks() > before);
        lease.give_up();
        writer.join().unwrap().unwrap();
        assert!(lease.broken());
    }

    #[test]
    fn a_truncation_breaks_the_lease() {
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let lease = Lease::take(&File::open(&path).unwrap()).unwrap();
        // Without waiting: the open fails, but the holder is told.
        let truncate = OpenOptions::new().write(true).truncate(true).custom_flags(libc::O_NONBLOCK).open(&path);
        assert_eq!(truncate.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!(wait_for(&lease));
    }

    #[test]
    fn a_reader_does_not_break_the_lease() {
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let lease = Lease::take(&File::open(&path).unwrap()).unwrap();
        File::open(&path).unwrap();
        let other = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let other_lease = Lease::take(&File::open(&other).unwrap()).unwrap();
        OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&other).unwrap_err();
        assert!(wait_for(&other_lease));
        assert!(!lease.broken(), "only the lease that was broken is told");
    }

    /// As one that the kernel sent for an earlier lease, and that comes only now.
    #[test]
    fn a_signal_for_a_descriptor_of_the_same_number_breaks_nothing() {
        let (path, other) =
            (tempfile::NamedTempFile::new().unwrap().into_temp_path(), tempfile::NamedTempFile::new().unwrap().into_temp_path());
        let lease = Lease::take(&File::open(&path).unwrap()).unwrap();
        let other_lease = Lease::take(&File::open(&other).unwrap()).unwrap();
        let mut words = [0_i32; 32];
        // siginfo_t of 64-bit systems: the signal, 0, SI_SIGIO (which has a descriptor, and which a program may send), and behind si_band
        // the descriptor.
        (words[0], words[2], words[6]) = (lease.keeper.signal, -5, lease.file.as_raw_fd());
        // SAFETY: the call reads a siginfo_t of 128 bytes, which `words` has.
        let sent =
            unsafe { libc::syscall(libc::SYS_rt_tgsigqueueinfo, libc::getpid(), lease.keeper.thread, lease.keeper.signal, words.as_ptr()) };
        assert_eq!(sent, 0, "{}", io::Error::last_os_error());
        // Real-time signals come in the order in which they were sent.
        OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&other).unwrap_err();
        assert!(wait_for(&other_lease));
        assert!(!lease.broken());
    }

    #[test]
    fn a_file_that_is_open_for_writing_has_no_lease() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(Lease::take(&File::open(file.path()).unwrap()), Err(LeaseError::Writer)));
    }
}
