//! From a queue to its interrupt: an MSI-X vector of its own, one that it shares, or INTx, whose cause is in a register (VIRTIO 1.3, 4.1.5.1 and 4.1.4.5).

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bitflags::bitflags;
use hal::registers::Width;
use hal::{BusDevice, BusError, Interrupt, RegisterError};

use super::registers::{Common, NO_VECTOR};
use super::structure::Region;

/// The MSI-X capability's Message Control (PCI Local Bus 3.0, 6.8.2.3).
mod msix {
    pub const CONTROL: u16 = 2;
    /// The vectors of the table, less one.
    pub const TABLE_SIZE: u32 = 0x7ff;
    pub const ENABLE: u32 = 1 << 15;
}

/// Configuration changes have the first vector, queues those behind it.
const CONFIG_VECTOR: u16 = 0;

bitflags! {
    /// The ISR status register (4.1.4.5). Reading it clears it, and lowers INTx.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Causes: u8 {
        const QUEUE = 1;
        const CONFIGURATION = 2;
        const _ = !0;
    }
}

/// How the device interrupts here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Msix {
        /// How many vectors are used: one for each queue and one more, or as many as there are.
        vectors: u16,
        /// How many queues the device has.
        queues: u16,
    },
    Intx,
}

impl Mode {
    /// The vector of a queue: when there are too few, the last one is for all the rest.
    fn vector(self, queue: Option<u16>) -> u16 {
        match (self, queue) {
            (Self::Msix { vectors, .. }, Some(queue)) => queue.saturating_add(1).min(vectors - 1),
            _ => CONFIG_VECTOR,
        }
    }

    fn is_shared(self, vector: u16) -> bool {
        match self {
            Self::Msix { vectors, queues } => vector == vectors - 1 && u32::from(queues) + 1 > u32::from(vectors),
            Self::Intx => true,
        }
    }
}

/// The interrupts of a device.
pub(super) struct Interrupts {
    /// Where the MSI-X capability is.
    msix: Option<u16>,
    /// Found out with the first queue; the reason, where the bus delivers none.
    mode: Option<Result<Mode, BusError>>,
    config_is_connected: bool,
    /// Vectors with several users.
    lines: HashMap<u16, Arc<Line>>,
}

impl Interrupts {
    pub(super) fn new(msix: Option<u16>) -> Self {
        Self { msix, mode: None, config_is_connected: false, lines: HashMap::new() }
    }

    /// A reset takes the device's vectors away.
    pub(super) fn forget(&mut self) {
        self.config_is_connected = false;
    }

    /// Gives queue `queue`, which is selected, its vector. Without MSI-X there is nothing to do.
    pub(super) fn connect(&mut self, device: &mut dyn BusDevice, common: &Common, queue: u16) -> Result<(), BusError> {
        let Ok(mode @ Mode::Msix { .. }) = self.mode(device, common)? else { return Ok(()) };
        let no_room = |what: String| BusError::Refused(format!("the device does not take an interrupt vector for {what}"));
        if !self.config_is_connected {
            if !common.set_config_vector(CONFIG_VECTOR)? {
                return Err(no_room("its configuration".into()));
            }
            self.config_is_connected = true;
        }
        let vector = mode.vector(Some(queue));
        debug_assert_ne!(vector, NO_VECTOR, "tables have at most 2048");
        if common.set_queue_vector(vector)? { Ok(()) } else { Err(no_room(format!("queue {queue}"))) }
    }

    /// The interrupt of a queue, or of configuration changes.
    pub(super) fn take(
        &mut self,
        device: &mut dyn BusDevice,
        common: &Common,
        isr: Option<&Region>,
        queue: Option<u16>,
    ) -> Result<Box<dyn Interrupt>, BusError> {
        let mode = self.mode(device, common)??;
        let vector = mode.vector(queue);
        if !mode.is_shared(vector) {
            return device.interrupt(vector);
        }
        let line = match self.lines.get(&vector) {
            Some(line) => Arc::clone(line),
            None => {
                let isr = match (mode, isr) {
                    (Mode::Msix { .. }, _) => None,
                    (Mode::Intx, Some(isr)) => Some(isr.clone()),
                    (Mode::Intx, None) => {
                        let reason = "the device has neither MSI-X nor a cause register for INTx; poll its rings".into();
                        return Err(BusError::NoInterrupt { vector, reason });
                    }
                };
                let line = Arc::new(Line::new(device.interrupt(vector)?, isr));
                self.lines.insert(vector, Arc::clone(&line));
                line
            }
        };
        let cause = if queue.is_some() { Causes::QUEUE } else { Causes::CONFIGURATION };
        let seen = line.lock().count(cause);
        Ok(Box::new(Shared { line, cause, seen }))
    }

    /// The outer error is a device that cannot be reached, the inner one a bus without interrupts.
    fn mode(&mut self, device: &mut dyn BusDevice, common: &Common) -> Result<Result<Mode, BusError>, BusError> {
        if let Some(known) = &self.mode {
            return Ok(known.clone());
        }
        let queues = common.queues()?;
        // Buses enable what they deliver with the first one that is asked for: MSI-X, or INTx.
        let found = match device.interrupt(0) {
            Ok(_) => Ok(self.delivered(device, queues)?),
            Err(error) => Err(error),
        };
        self.mode = Some(found.clone());
        Ok(found)
    }

    fn delivered(&self, device: &mut dyn BusDevice, queues: u16) -> Result<Mode, BusError> {
        let Some(capability) = self.msix else { return Ok(Mode::Intx) };
        let control = device.config_read(capability + msix::CONTROL, Width::Word)?;
        if control & msix::ENABLE == 0 {
            return Ok(Mode::Intx);
        }
        let wanted = ((control & msix::TABLE_SIZE) as u16 + 1).min(queues.saturating_add(1));
        let further = (1..wanted).take_while(|vector| device.interrupt(*vector).is_ok()).count();
        Ok(Mode::Msix { vectors: 1 + further as u16, queues })
    }
}

/// An interrupt of the bus with several users, which may wait at once.
struct Line {
    state: Mutex<State>,
    /// The state has changed.
    changed: Condvar,
    /// INTx says nothing but that there is something: the causes are here.
    isr: Option<Region>,
}

struct State {
    /// Absent while one of the users waits for it, on behalf of all.
    interrupt: Option<Box<dyn Interrupt>>,
    /// How often each cause has come.
    queue: u64,
    configuration: u64,
}

impl State {
    fn count(&self, cause: Causes) -> u64 {
        if cause == Causes::QUEUE { self.queue } else { self.configuration }
    }
}

impl Line {
    fn new(interrupt: Box<dyn Interrupt>, isr: Option<Region>) -> Self {
        let state = State { interrupt: Some(interrupt), queue: 0, configuration: 0 };
        Self { state: Mutex::new(state), changed: Condvar::new(), isr }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the bus's interrupt. What caused it.
    fn next(&self, interrupt: &mut dyn Interrupt, timeout: Duration) -> Result<Causes, RegisterError> {
        Ok(match (interrupt.wait(timeout)?, &self.isr) {
            (false, _) => Causes::empty(),
            (true, Some(isr)) => Causes::from_bits_retain(isr.read(0)?),
            (true, None) => Causes::all(),
        })
    }
}

/// One user of a [`Line`].
struct Shared {
    line: Arc<Line>,
    cause: Causes,
    /// The count of the cause that this user knows of.
    seen: u64,
}

impl Interrupt for Shared {
    fn wait(&mut self, timeout: Duration) -> Result<bool, RegisterError> {
        let start = Instant::now();
        let line = &*self.line;
        let mut state = line.lock();
        // Even without time the bus is asked once.
        let mut asked = false;
        loop {
            let count = state.count(self.cause);
            if count != self.seen {
                self.seen = count;
                return Ok(true);
            }
            let left = timeout.saturating_sub(start.elapsed());
            if left.is_zero() && asked {
                return Ok(false);
            }
            asked = true;
            if let Some(mut interrupt) = state.interrupt.take() {
                drop(state);
                let causes = line.next(&mut *interrupt, left);
                state = line.lock();
                state.interrupt = Some(interrupt);
                if let Ok(causes) = causes {
                    state.queue += u64::from(causes.contains(Causes::QUEUE));
                    state.configuration += u64::from(causes.contains(Causes::CONFIGURATION));
                }
                // Somebody else waits from now on.
                line.changed.notify_all();
                causes?;
            } else {
                state = line.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        // Another user may take the event, and the cause has to be read.
        None
    }
}
