//! A network of the kernel's own, with nothing in it but a TAP interface: a real Linux host as the peer, apart from this machine's network.

use std::fs;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tun_rs::{DeviceBuilder, Layer};

use crate::cable::Plug;
use crate::command::{Run, start};
use crate::{need_root, process, tool, wait_for};

/// A network namespace with TAP interfaces. It goes with the process that holds it, and so with this.
#[derive(Debug)]
pub struct Namespace {
    holder: Run,
}

/// A TAP interface.
#[derive(Clone, Copy, Debug)]
pub struct Tap<'a> {
    /// Its name.
    pub name: &'a str,
    /// Whether a NIC uses several of its queues: then all that use it have to.
    pub multi_queue: bool,
    /// Addresses that the kernel has there, each with a prefix, as 10.9.0.1/24.
    pub addresses: &'a [&'a str],
}

impl Namespace {
    /// The interface of [`new`](Self::new).
    pub const TAP: &'static str = "pw0";

    /// Makes one with the interface [`TAP`](Self::TAP), on which the kernel has `addresses`.
    ///
    /// # Panics
    /// As [`of`](Self::of).
    pub fn new(addresses: &[&str]) -> Self {
        Self::of(&[Tap { name: Self::TAP, multi_queue: false, addresses }])
    }

    /// Makes one with these interfaces.
    ///
    /// # Panics
    /// When that is not possible; the message says what it needs.
    pub fn of(taps: &[Tap<'_>]) -> Self {
        need_root("a network namespace and a TAP interface");
        assert!(
            fs::exists("/dev/net/tun").unwrap_or(false),
            "this test needs /dev/net/tun: `modprobe tun`, or `--device /dev/net/tun` for a container"
        );
        let ip = tool("ip", "iproute2").display().to_string();
        let mut script = format!("set -e; {ip} link set lo up; ");
        for Tap { name, multi_queue, addresses } in taps {
            let queues = if *multi_queue { " multi_queue" } else { "" };
            script += &format!("{ip} tuntap add dev {name} mode tap{queues}; ");
            for address in *addresses {
                // An IPv6 address is usable at once only without the search for duplicates.
                let more = if address.contains(':') { " nodad" } else { "" };
                script += &format!("{ip} address add {address} dev {name}{more}; ");
            }
            script += &format!("{ip} link set {name} up; ");
        }
        script += "echo ready >&2; exec cat";
        let mut command = Command::new(tool("unshare", "util-linux"));
        // `cat` lives as long as its standard input, which this process holds.
        command.args(["--net", "sh", "-c", &script]).stdin(Stdio::piped());
        let mut holder = start(command);
        wait_for("the network namespace", || {
            let ready = holder.complaints().contains("ready").then_some(());
            assert!(ready.is_some() || !holder.has_ended(), "no network namespace (CAP_SYS_ADMIN is needed): {}", holder.complaints());
            ready
        });
        Self { holder }
    }

    /// Moves the calling thread, and the threads and processes that it starts from now on, into this network.
    ///
    /// # Panics
    /// When that is not allowed.
    pub fn enter(&self) {
        let network = fs::File::open(format!("/proc/{}/ns/net", self.holder.pid())).expect("the holder lives");
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).expect("root may enter");
    }

    /// Takes the place of a NIC at the TAP interface: what the kernel sends in this network comes out of it. Whole packets and whole checksums:
    /// the kernel leaves nothing to others.
    ///
    /// # Panics
    /// When somebody has it already.
    pub fn plug(&self) -> Plug {
        let opened = std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter();
                DeviceBuilder::new().name(Self::TAP).layer(Layer::L2).inherit_enable_state().build_sync()
            });
            inside.join().expect("it may enter")
        });
        let tap = opened.unwrap_or_else(|error| panic!("{}: {error}", Self::TAP));
        tap.set_nonblocking(true).expect("an option of every descriptor");
        Plug::Tap(tap)
    }

    /// A command as `command`, in this network. It keeps its process number: nsenter becomes it.
    ///
    /// # Panics
    /// When nsenter cannot be had.
    pub fn inside(&self, command: &Command) -> Command {
        assert!(!process::is_gone(self.holder.pid()));
        let mut inside = Command::new(tool("nsenter", "util-linux"));
        inside.arg(format!("--net=/proc/{}/ns/net", self.holder.pid())).arg("--").arg(command.get_program()).args(command.get_args());
        inside
    }
}
