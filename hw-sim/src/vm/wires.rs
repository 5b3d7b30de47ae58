//! The NICs' cables: as on the rig, but without its gate at every doorbell.

use std::sync::Mutex;
use std::time::Duration;

use hal::RegisterError;
use serde_json::json;

use super::command_line::Nic;
use super::sockets::Sockets;
use super::{VmError, VmNic};
use crate::rig::command_line::Netdev;
use crate::rig::nic::queue_pairs;
use crate::rig::process::Process;
use crate::rig::qmp::Qmp;
use crate::wire::{Bridge, End, Gate, HostWire, Relay, WireConfig, WireError, is_interface_name};

/// How long frames that are on their way when the command has ended may take to the other end.
const PATIENCE: Duration = Duration::from_secs(10);

/// The cables that end in this process, before QEMU runs.
pub(crate) struct Plugs(Vec<Plug>);

struct Plug {
    /// The socket that QEMU connects to.
    socket: String,
    end: End,
    bridge: Option<Bridge>,
}

/// The cables that end in this process, plugged into a running machine.
pub(crate) struct Wires(Vec<Wired>);

struct Wired {
    gate: Gate,
    _relay: Relay,
    _bridge: Option<Bridge>,
}

impl Plugs {
    /// What QEMU is told of `nics`, and the other ends.
    pub(crate) fn new(nics: Vec<VmNic>, sockets: &mut Sockets) -> Result<(Self, Vec<Nic>), VmError> {
        let (mut plugs, mut options) = (Vec::new(), Vec::new());
        for (index, VmNic { model, virtio, wire, pcap, mac }) in nics.into_iter().enumerate() {
            let queues = queue_pairs(model, &virtio, &wire).map_err(VmError::Queues)?;
            if let Some(path) = &pcap {
                std::fs::File::create(path).map_err(|source| VmError::Pcap { path: path.clone(), source })?;
            }
            let mut plug = |end, bridge| {
                let socket = format!("wire{index}");
                let path = sockets.listen(&socket)?;
                plugs.push(Plug { socket, end, bridge });
                Ok::<_, VmError>(Netdev::Stream(path))
            };
            let netdev = match wire {
                WireConfig::Host(HostWire::User { forwards }) => Netdev::User(forwards),
                WireConfig::Host(HostWire::Tap { name }) if !is_interface_name(&name) => return Err(WireError::TapName(name).into()),
                WireConfig::Host(HostWire::Tap { name }) => Netdev::Tap(name, queues),
                WireConfig::Host(HostWire::Dgram { local, remote }) => {
                    let (bridge, end) = Bridge::start(&local, &remote)?;
                    plug(end, Some(bridge))?
                }
                WireConfig::Local(end) => plug(end, None)?,
            };
            options.push(Nic { model, virtio, netdev, mac, pcap });
        }
        Ok((Self(plugs), options))
    }

    /// Plugs the cables into a QEMU that starts.
    pub(crate) fn connect(self, sockets: &Sockets, process: &Process) -> Result<Wires, VmError> {
        let mut wires = Vec::new();
        for Plug { socket, end, bridge } in self.0 {
            let stream = sockets.accept(&socket, process)?;
            let relay = Relay::start(stream, end).map_err(VmError::setup("start a wire"))?;
            let gate = Gate::new(&relay, bridge.as_ref().map(Bridge::delivery), PATIENCE).map_err(VmError::setup("start a wire"))?;
            wires.push(Wired { gate, _relay: relay, _bridge: bridge });
        }
        Ok(Wires(wires))
    }
}

impl Wires {
    /// Waits until the other ends have what the NICs have sent: a program that has seen its last completion ends, and what it sent is
    /// still on its way through QEMU.
    pub(crate) fn drain(&self, qmp: Qmp) {
        let qmp = Mutex::new(qmp);
        // Any command gives QEMU's main loop a turn.
        let turn = || {
            let mut qmp = qmp.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            qmp.execute("query-status", json!({})).map(drop).map_err(|error| RegisterError::Unreachable(error.to_string()))
        };
        for wire in &self.0 {
            if let Err(error) = wire.gate.drain(turn) {
                tracing::warn!("frames were lost at the end of the guest: {error}");
            }
        }
    }
}
