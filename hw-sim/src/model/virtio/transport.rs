//! The device as a driver holds it.

use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hal::registers::{RegisterIo, Width};
use hal::virtio::{DeviceStatus, QueueLayout, VirtioTransport};
use hal::{BusError, DmaSpace, Doorbell, Interrupt, RegisterError, Registers};

use super::config::ModelConfig;
use super::fault::Fault;
use super::features::{self, Features};
use super::state::{Counters, FEATURES_OK, State};
use crate::model::space::Space;

/// Distance of the queues' doorbells.
const DOORBELL: u64 = 4;

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts an access, and says whether it reaches the device; `None` when nothing is there.
fn reach(state: &Mutex<State>) -> Result<Option<MutexGuard<'_, State>>, RegisterError> {
    let mut state = lock(state);
    match &mut state.fault {
        Fault::VanishedAfter(0) => state.fault = Fault::Vanished,
        Fault::UnreachableAfter(0, reason) => state.fault = Fault::Unreachable(std::mem::take(reason)),
        Fault::VanishedAfter(left) | Fault::UnreachableAfter(left, _) => *left -= 1,
        _ => {}
    }
    match &state.fault {
        Fault::Unreachable(reason) => Err(RegisterError::Unreachable(reason.clone())),
        Fault::Vanished => Ok(None),
        _ => Ok(Some(state)),
    }
}

fn failed(reason: &str) -> BusError {
    RegisterError::Unreachable(reason.to_owned()).into()
}

/// A transport; dropping it resets the device.
pub(super) struct Transport {
    state: Arc<Mutex<State>>,
    space: Arc<Space>,
}

impl Transport {
    pub(super) fn new(state: Arc<Mutex<State>>, space: Arc<Space>) -> Self {
        Self { state, space }
    }

    fn reach(&self) -> Result<Option<MutexGuard<'_, State>>, BusError> {
        Ok(reach(&self.state)?)
    }
}

impl VirtioTransport for Transport {
    fn device_type(&self) -> u32 {
        1
    }

    fn device_features(&mut self) -> Result<u64, BusError> {
        Ok(self.reach()?.map_or(u64::MAX, |state| state.config.features.bits()))
    }

    fn set_driver_features(&mut self, features: u64) -> Result<(), BusError> {
        if let Some(mut state) = self.reach()? {
            state.accept(Features::from_bits_retain(features));
        }
        Ok(())
    }

    fn status(&mut self) -> Result<DeviceStatus, BusError> {
        let Some(mut state) = self.reach()? else { return Ok(DeviceStatus::from_bits_retain(0xff)) };
        state.confirmed |= state.status & FEATURES_OK != 0;
        Ok(DeviceStatus::from_bits_retain(state.status))
    }

    fn set_status(&mut self, status: DeviceStatus) -> Result<(), BusError> {
        let Some(mut state) = self.reach()? else {
            return if status.is_empty() { Err(BusError::Reset("nothing answers".to_owned())) } else { Ok(()) };
        };
        if status.is_empty() && state.fault == Fault::ResetNeverEnds {
            return Err(BusError::Reset("the device status does not become 0".to_owned()));
        }
        state.write_status(status.bits());
        Ok(())
    }

    fn queues(&mut self) -> Result<u16, BusError> {
        Ok(self.reach()?.map_or(u16::MAX, |state| state.queues.len() as u16))
    }

    fn max_queue_size(&mut self, index: u16) -> Result<u16, BusError> {
        let size = |state: MutexGuard<'_, State>| if usize::from(index) < state.queues.len() { state.config.queue_size } else { 0 };
        Ok(self.reach()?.map_or(u16::MAX, size))
    }

    fn enable_queue(&mut self, index: u16, layout: QueueLayout) -> Result<Doorbell, BusError> {
        let queues = match self.reach()? {
            Some(mut state) => {
                state.enable_queue(index, layout).map_err(|reason| failed(&format!("queue {index} cannot be enabled: {reason}")))?;
                state.queues.len()
            }
            None => usize::from(index) + 1,
        };
        let registers = Registers::remote(Arc::new(Doorbells(Arc::clone(&self.state))), queues as u64 * DOORBELL);
        Ok(Doorbell::register(&registers, u64::from(index) * DOORBELL, Width::Double)?)
    }

    fn reset_queue(&mut self, index: u16) -> Result<(), BusError> {
        let Some(mut state) = self.reach()? else { return Err(BusError::Reset("nothing answers".to_owned())) };
        if state.fault == Fault::QueueResetNeverEnds {
            return Err(BusError::Reset(format!("the reset of queue {index} does not end")));
        }
        state.reset_queue(index);
        Ok(())
    }

    fn interrupt(&mut self, index: Option<u16>) -> Result<Box<dyn Interrupt>, BusError> {
        if let Some(queue) = index
            && usize::from(queue) >= lock(&self.state).queues.len()
        {
            return Err(BusError::NoInterrupt { vector: queue, reason: "there is no such queue".to_owned() });
        }
        Ok(Box::new(Line { state: Arc::clone(&self.state), index }))
    }

    fn read_config(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), BusError> {
        let Some(mut state) = self.reach()? else {
            bytes.fill(0xff);
            return Ok(());
        };
        if state.fault == Fault::ConfigNeverStable {
            return Err(failed("the configuration changes all the time"));
        }
        let space = state.config.space(state.mac, state.link);
        let start = offset as usize;
        let source = space.get(start..start.saturating_add(bytes.len())).ok_or_else(|| failed("the configuration is shorter"))?;
        bytes.copy_from_slice(source);
        let needed = ModelConfig::field_features(offset);
        if !state.config.features.intersects(needed) {
            state.violation(format!("byte {offset} of the configuration was read, which needs {} [5.1.4]", features::name(needed)));
        }
        Ok(())
    }

    fn write_config(&mut self, offset: u32, bytes: &[u8]) -> Result<(), BusError> {
        if let Some(mut state) = self.reach()? {
            state.violation(format!(
                "{} bytes of the configuration were written at {offset}, all of which can only be read [5.1.4]",
                bytes.len()
            ));
        }
        Ok(())
    }

    fn dma(&self) -> Arc<dyn DmaSpace> {
        self.space.clone()
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        lock(&self.state).reset();
    }
}

/// The doorbells of all queues.
struct Doorbells(Arc<Mutex<State>>);

impl RegisterIo for Doorbells {
    fn read(&self, _offset: u64, _width: Width) -> Result<u64, RegisterError> {
        Ok(0)
    }

    fn write(&self, offset: u64, _width: Width, value: u64) -> Result<(), RegisterError> {
        if let Some(mut state) = reach(&self.0)? {
            state.doorbell((offset / DOORBELL) as u16, value as u32);
        }
        Ok(())
    }
}

/// The interrupt of a queue, or of the configuration.
struct Line {
    state: Arc<Mutex<State>>,
    index: Option<u16>,
}

impl Interrupt for Line {
    /// Returns at once: nothing in this process would make the device go on during a wait.
    fn wait(&mut self, _timeout: Duration) -> Result<bool, RegisterError> {
        let mut state = lock(&self.state);
        match &state.fault {
            Fault::Unreachable(reason) => return Err(RegisterError::Unreachable(reason.clone())),
            Fault::Vanished => return Ok(false),
            Fault::InterruptStorm => return Ok(true),
            _ => {}
        }
        let counters: Option<&mut Counters> = match self.index {
            Some(index) => state.counters.get_mut(usize::from(index)),
            None => Some(&mut state.changes),
        };
        Ok(counters.is_some_and(|counters| std::mem::take(&mut counters.pending)))
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}
