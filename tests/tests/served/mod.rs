//! A server on a stack of this process.

use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use pagewire::device::{self, OpenOptions};
use pagewire::file::source::Available;
use pagewire::net::Interface;
use pagewire::send::{Port, PortConfig, Wait};
use pagewire::tcp::{Event, SharedFile, Stack, StackConfig, StackReport, run};

/// The port of the stack.
pub const PORT: u16 = 1033;

/// A stack of a thread of its own. Who asks with a range (two numbers of 8 bytes, big-endian) gets these bytes of the file, and the end.
pub struct Served {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<StackReport>,
}

impl Served {
    pub fn start(nic: String, own: &str, path: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (flag, own, file) = (Arc::clone(&stop), own.to_owned(), SharedFile::open(path).unwrap());
        let thread = std::thread::spawn(move || serve(&nic, &own, &file, &flag));
        Self { stop, thread }
    }

    pub fn end(self) -> StackReport {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn serve(nic: &str, own: &str, file: &SharedFile, stop: &AtomicBool) -> StackReport {
    let device = device::open(&nic.parse().unwrap(), OpenOptions::default()).unwrap();
    let interface = Interface::new(device.nic.mac(), own.parse().unwrap(), None, 1500, None).unwrap();
    let mut stack = Stack::new(Port::new(device.nic, interface, PortConfig::default()).unwrap(), StackConfig::default()).unwrap();
    stack.listen(PORT, 300).unwrap();
    let mut queued = 0;
    let end = run(&mut stack, Wait::default(), &AtomicBool::new(false), |stack, _| {
        while let Some(event) = stack.next_event() {
            match event {
                Event::Incoming(listener) => while listener.accept(stack).is_some() {},
                Event::Socket(socket) => {
                    let mut request = [0; 16];
                    if let Ok(Available::Bytes(16)) = socket.recv(stack, &mut request) {
                        let number = |at: usize| u64::from_be_bytes(request[at..at + 8].try_into().unwrap());
                        queued += socket.sendfile(stack, file, number(0)..number(8)).unwrap();
                        socket.close(stack);
                    }
                }
            }
        }
        // A client may have everything before its last acknowledgement is here.
        let over = stop.load(Ordering::Relaxed) && stack.report().acknowledged == queued;
        if over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!(end.unwrap(), Some(()));
    stack.report()
}

/// Asks for these bytes.
pub fn request(range: Range<u64>) -> Vec<u8> {
    [range.start.to_be_bytes(), range.end.to_be_bytes()].concat()
}
