//! Ordinary sockets on a NIC of ours, by smoltcp: an echo server. `cargo run --example echo`, then `nc 127.0.0.1 7007`.

use std::time::{Duration, Instant as Clock};

use pagewire::{device, phy::Phy};
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer};
use smoltcp::time::Instant;
use smoltcp::wire::EthernetAddress;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or("sim:e1000,wire=user,hostfwd=tcp:127.0.0.1:7007-:7".into());
    // `device` holds the simulator too, which ends with it.
    let device = device::open(&address.parse()?, Default::default())?;
    let mac = EthernetAddress(device.nic.mac().0);
    let mut phy = Phy::new(device.nic)?;
    let start = Clock::now();
    let now = || Instant::from_micros(start.elapsed().as_micros() as i64);
    let mut interface = Interface::new(Config::new(mac.into()), &mut phy, now());
    interface.update_ip_addrs(|addresses| addresses.push("10.0.2.15/24".parse().expect("an address")).expect("room for one address"));
    let mut sockets = SocketSet::new(Vec::new());
    let handle = sockets.add(Socket::new(SocketBuffer::new(vec![0; 65536]), SocketBuffer::new(vec![0; 65536])));
    println!("echo on 10.0.2.15 port 7");
    loop {
        interface.poll(now(), &mut phy, &mut sockets);
        if let Some(error) = phy.take_error() {
            return Err(error.into());
        }
        let socket = sockets.get_mut::<Socket<'_>>(handle);
        if !socket.is_open() {
            socket.listen(7).expect("a port that is not 0");
        }
        if socket.can_recv() && socket.can_send() {
            let room = socket.send_capacity() - socket.send_queue();
            let bytes = socket.recv(|bytes| (bytes.len().min(room), bytes[..bytes.len().min(room)].to_vec()))?;
            socket.send_slice(&bytes)?;
        } else if socket.may_send() && !socket.may_recv() {
            socket.close();
        }
        let idle = interface.poll_delay(now(), &sockets).map_or(Duration::from_secs(1), Duration::from);
        phy.wait(idle.min(Duration::from_secs(1)))?;
    }
}
