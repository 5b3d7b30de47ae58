//! The receiver of a comparison: ordinary sockets of this host, which hash what arrives.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use sha2::{Digest, Sha256};

/// What one connection brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    pub bytes: u64,
    pub right: bool,
}

/// One port. Its thread ends with the process: nothing tells a blocked `accept` that the guest is gone.
pub struct Sink {
    pub port: u16,
    received: Arc<Mutex<Vec<Received>>>,
}

/// The hash of what has to arrive, for each length that may.
pub struct Expected {
    content: Vec<u8>,
    whole: [u8; 32],
}

impl Expected {
    pub fn new(content: Vec<u8>) -> Self {
        let whole = Sha256::digest(&content).into();
        Self { content, whole }
    }

    fn judge(&self, bytes: u64, hash: [u8; 32]) -> Received {
        let right = match self.content.get(..bytes as usize) {
            Some(content) if content.len() == self.content.len() => hash == self.whole,
            // A send of a part of the file.
            Some(part) => bytes > 0 && hash == <[u8; 32]>::from(Sha256::digest(part)),
            None => false,
        };
        Received { bytes, right }
    }
}

impl Sink {
    pub fn tcp(address: IpAddr, expected: &Arc<Expected>) -> io::Result<Self> {
        let listener = TcpListener::bind(SocketAddr::new(address, 0))?;
        let port = listener.local_addr()?.port();
        let received = Arc::<Mutex<Vec<_>>>::default();
        let (results, expected) = (Arc::clone(&received), Arc::clone(expected));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let result = take(stream, &expected);
                results.lock().unwrap_or_else(PoisonError::into_inner).push(result);
            }
        });
        Ok(Self { port, received })
    }

    /// Datagrams have no end: a pass is over when as many bytes have arrived as the file has.
    pub fn udp(address: IpAddr, expected: &Arc<Expected>) -> io::Result<Self> {
        let socket = UdpSocket::bind(SocketAddr::new(address, 0))?;
        // As much as the system gives: nobody sends a datagram again.
        socket2::SockRef::from(&socket).set_recv_buffer_size(64 << 20)?;
        let port = socket.local_addr()?.port();
        let received = Arc::<Mutex<Vec<_>>>::default();
        let (results, expected) = (Arc::clone(&received), Arc::clone(expected));
        thread::spawn(move || {
            let (mut hash, mut bytes, mut datagram) = (Sha256::new(), 0, vec![0; 65_536]);
            while let Ok(len) = socket.recv(&mut datagram) {
                hash.update(&datagram[..len]);
                bytes += len as u64;
                if bytes >= expected.content.len() as u64 {
                    let result = expected.judge(bytes, hash.finalize_reset().into());
                    results.lock().unwrap_or_else(PoisonError::into_inner).push(result);
                    bytes = 0;
                }
            }
        });
        Ok(Self { port, received })
    }

    /// What has arrived so far.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Reads a connection to its end, and closes it.
fn take(mut stream: TcpStream, expected: &Expected) -> Received {
    let (mut hash, mut bytes, mut block) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        match stream.read(&mut block) {
            Ok(0) => return expected.judge(bytes, hash.finalize().into()),
            Ok(len) => {
                hash.update(&block[..len]);
                bytes += len as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Received { bytes, right: false },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn the_whole_and_the_beginning_of_a_file_are_right_and_nothing_else_is() {
        let expected = Arc::new(Expected::new(b"abcdef".to_vec()));
        let sink = Sink::tcp("127.0.0.1".parse().unwrap(), &expected).unwrap();
        for (sent, right) in [("abcdef", true), ("abc", true), ("abd", false), ("abcdefg", false), ("", false)] {
            let before = sink.received().len();
            let mut stream = TcpStream::connect(("127.0.0.1", sink.port)).unwrap();
            stream.write_all(sent.as_bytes()).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            // The end of the stream comes before the result is there.
            stream.read_to_end(&mut Vec::new()).unwrap();
            while sink.received().len() == before {
                thread::yield_now();
            }
            assert_eq!(sink.received().last(), Some(&Received { bytes: sent.len() as u64, right }), "{sent}");
        }
    }
}
