//! Moves frames between QEMU's stream netdev and an [`End`], one thread for each direction.
//!
//! On the stream a frame is its length, 4 bytes big-endian, and its bytes (QEMU's net/stream.c).

use std::io::{self, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded, select};
use rustix::event::{PollFd, PollFlags, poll};

use super::End;

/// The longest frame in QEMU's stream framing, in bytes (NET_BUFSIZE).
const STREAM_MAX: usize = 4096 + 65_536;

/// Two threads and the stream between them. Ends both when dropped.
pub(crate) struct Relay {
    stream: UnixStream,
    traffic: Arc<Traffic>,
    /// Dropped to wake a thread that waits at a channel.
    running: Option<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

/// How far the device's frames are, for the [gate](super::Gate).
#[derive(Default)]
pub(super) struct Traffic {
    /// The relay has taken bytes out of the stream, or is about to, that are not yet whole frames in the queue.
    busy: AtomicBool,
    /// Nothing will come out of the stream any more.
    ended: AtomicBool,
    frames: AtomicU64,
    bytes: AtomicU64,
    lock: Mutex<()>,
    changed: Condvar,
}

impl Traffic {
    pub(super) fn busy(&self) -> bool {
        self.busy.load(Ordering::SeqCst)
    }

    pub(super) fn ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// Frames and bytes that have gone through since the start.
    pub(super) fn passed(&self) -> (u64, u64) {
        (self.frames.load(Ordering::SeqCst), self.bytes.load(Ordering::SeqCst))
    }

    /// Waits for a change, at most `patience`: the gate looks again anyway.
    pub(super) fn wait_change(&self, patience: Duration) {
        let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self.changed.wait_timeout(guard, patience);
    }

    fn set_busy(&self, busy: bool) {
        self.busy.store(busy, Ordering::SeqCst);
        if !busy {
            self.changed.notify_all();
        }
    }
}

impl Relay {
    /// Connects `stream` (QEMU's netdev) and `end`.
    pub(crate) fn start(stream: UnixStream, end: End) -> io::Result<Self> {
        let End { from_device, to_device, plugged } = end;
        let traffic = Arc::new(Traffic::default());
        let (running, stop) = bounded(0);
        let mut relay = Self { stream, traffic: Arc::clone(&traffic), running: Some(running), threads: Vec::new() };

        let (outward, stopped) = (relay.stream.try_clone()?, stop.clone());
        relay.spawn("rig-wire-out", move || {
            outbound(outward, &traffic, from_device, &stopped);
            traffic.ended.store(true, Ordering::SeqCst);
            traffic.set_busy(false);
            drop(plugged);
        })?;
        let inward = relay.stream.try_clone()?;
        relay.spawn("rig-wire-in", move || inbound(inward, to_device, &stop))?;
        Ok(relay)
    }

    pub(super) fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic)
    }

    pub(super) fn stream(&self) -> io::Result<UnixStream> {
        self.stream.try_clone()
    }

    fn spawn(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.threads.push(std::thread::Builder::new().name(name.into()).spawn(work)?);
        Ok(())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.running = None;
        // Fails only when QEMU has closed it already.
        let _ = self.stream.shutdown(Shutdown::Both);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// From the device to the queue, until the stream ends.
fn outbound(stream: UnixStream, traffic: &Traffic, queue: Sender<Vec<u8>>, stop: &Receiver<()>) {
    let mut queue = Some(queue);
    let Ok(watched) = stream.try_clone() else { return };
    let mut stream = BufReader::with_capacity(STREAM_MAX, stream);
    loop {
        if stream.buffer().is_empty() {
            // `busy` is set before the first byte leaves the kernel's buffer: whoever finds that buffer empty and then `busy` clear
            // knows that all that was in it has been queued.
            traffic.set_busy(false);
            wait_readable(watched.as_fd());
            traffic.set_busy(true);
        }
        let frame = match next_frame(&mut stream) {
            Ok(Some(frame)) => frame,
            Ok(None) => return,
            Err(error) => return tracing::debug!("the wire's stream from QEMU ended: {error}"),
        };
        let len = frame.len() as u64;
        if let Some(open) = &queue {
            select! {
                send(open, frame) -> sent => if sent.is_err() {
                    tracing::debug!("the wire was unplugged: frames that the device sends are discarded from here on");
                    queue = None;
                },
                recv(stop) -> _ => return,
            }
        }
        traffic.bytes.fetch_add(len, Ordering::SeqCst);
        traffic.frames.fetch_add(1, Ordering::SeqCst);
    }
}

/// A frame off the stream; `None` at its end.
fn next_frame(stream: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut len = [0; 4];
    match stream.read_exact(&mut len) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let len = u32::from_be_bytes(len) as usize;
    if len > STREAM_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {len} bytes")));
    }
    let mut frame = vec![0; len];
    stream.read_exact(&mut frame)?;
    Ok(Some(frame))
}

/// From the queue to the device. QEMU stops reading while the device has no buffers, and this thread waits with it.
fn inbound(mut stream: UnixStream, queue: Receiver<Vec<u8>>, stop: &Receiver<()>) {
    loop {
        let frame = select! {
            recv(queue) -> frame => match frame {
                Ok(frame) => frame,
                Err(_) => return,
            },
            recv(stop) -> _ => return,
        };
        let mut message = Vec::with_capacity(4 + frame.len());
        message.extend_from_slice(&(frame.len() as u32).to_be_bytes());
        message.extend_from_slice(&frame);
        if let Err(error) = stream.write_all(&message) {
            return tracing::debug!("the wire's stream to QEMU ended: {error}");
        }
    }
}

fn wait_readable(stream: BorrowedFd<'_>) {
    // A signal or an error ends the wait early; the read that follows blocks then, or tells the error.
    let _ = poll(&mut [PollFd::new(&stream, PollFlags::IN)], None);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::local;

    const LONG: Duration = Duration::from_secs(10);

    #[test]
    fn frames_go_both_ways_in_the_streams_framing() {
        let (ours, mut qemu) = UnixStream::pair().unwrap();
        let (end, wire) = local();
        let relay = Relay::start(ours, end).unwrap();
        qemu.write_all(b"\0\0\0\x03abc\0\0\0\x02de").unwrap();
        assert_eq!(wire.receive(LONG).unwrap(), b"abc");
        assert_eq!(wire.receive(LONG).unwrap(), b"de");
        wire.send(b"xyz").unwrap();
        let mut message = [0; 7];
        qemu.read_exact(&mut message).unwrap();
        assert_eq!(&message, b"\0\0\0\x03xyz");
        drop(relay);
        assert!(wire.rig_is_gone());
    }

    #[test]
    fn a_relay_ends_although_nobody_reads_and_the_device_takes_nothing() {
        let (ours, qemu) = UnixStream::pair().unwrap();
        let (end, wire) = local();
        let relay = Relay::start(ours, end).unwrap();
        let writer = std::thread::spawn(move || {
            let mut qemu = qemu;
            while qemu.write_all(&[0, 0, 0, 1, 7]).is_ok() {}
        });
        while wire.from_device.len() < super::super::QUEUE {
            std::thread::yield_now();
        }
        for _ in 0..100 {
            wire.send(&[0; 65_000]).unwrap();
        }
        drop(relay);
        writer.join().unwrap();
    }

    #[test]
    fn a_length_that_is_not_qemus_ends_the_wire() {
        let (ours, mut qemu) = UnixStream::pair().unwrap();
        let (end, wire) = local();
        let _relay = Relay::start(ours, end).unwrap();
        qemu.write_all(&[0xff; 8]).unwrap();
        assert_eq!(wire.receive(LONG), None);
    }
}
