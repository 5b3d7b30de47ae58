//! The articles' program: sends a file over TCP with one `sendfile` call.
//!
//! - `cargo run --example sfl -- data.bin` is the server: it sends the file to the first client that connects to port 1033 of this host, as
//!   `nc 127.0.0.1 1033` does.
//! - `cargo run --example sfl -- data.bin 10.0.2.2:1033` is the client: it sends the file to an ordinary server of this host, as `nc -l 1033` is.

use std::{ops::ControlFlow, sync::atomic::AtomicBool, time::Duration};

use pagewire::device;
use pagewire::net::Interface;
use pagewire::send::{Port, Wait};
use pagewire::tcp::{SharedFile, Stack, run};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = SharedFile::open(std::env::args().nth(1).unwrap_or("data.bin".into()))?;
    let nic = device::open(&"sim:e1000,wire=user,hostfwd=tcp:127.0.0.1:1033-:1033".parse()?, Default::default())?.nic;
    let interface = Interface::new(nic.mac(), "10.0.2.15/24".parse()?, None, 1500, None)?;
    let mut stack = Stack::new(Port::new(nic, interface, Default::default())?, Default::default())?;
    let listener = stack.listen(1033, 1)?;
    let (mut socket, mut queued) = (None, false);
    if let Some(server) = std::env::args().nth(2) {
        socket = Some(stack.connect(server.parse()?, Duration::ZERO)?);
    }
    let end = run(&mut stack, Wait::default(), &AtomicBool::new(false), |stack, _| {
        socket = socket.or_else(|| listener.accept(stack));
        let Some(socket) = socket else { return ControlFlow::Continue(()) };
        if !std::mem::replace(&mut queued, true) {
            let sent = socket.sendfile(stack, &file, 0..file.size()).and_then(|_| socket.shutdown(stack));
            if let Err(error) = sent {
                return ControlFlow::Break(Err(error));
            }
        }
        match socket.delivered(stack) {
            Ok(false) => ControlFlow::Continue(()),
            other => ControlFlow::Break(other),
        }
    })?;
    end.transpose()?;
    let report = stack.report();
    println!("{} bytes arrived, of which the NIC gathered {}", report.acknowledged, report.bytes_gathered);
    Ok(())
}
