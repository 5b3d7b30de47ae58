//! The rig's DMA space: memory and files are plugged into the running machine as DIMMs.
//!
//! A DIMM's memory is a file that QEMU maps: a memfd of ours, or a file of the user, whose page-cache pages the device then sees
//! themselves. QEMU opens it as /proc/PID/fd/N of a descriptor that stays open here, so that a path may be renamed meanwhile.

use std::collections::BTreeMap;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use hal::progress::ProgressBoard;
use hal::registers::Width;
use hal::segment::Domain;
use hal::{Access, DmaError, DmaLimits, DmaSpace, Mapping, RegisterError, SharedMemory};
use rustix::fs::{FileType, fstat};
use serde_json::json;

use super::command_line::{DIMM_SLOTS, MAX_MEMORY_GIB, RAM_MIB};
use super::machine::Machine;
use super::qtest::Place;

/// Mappings are whole pages.
const GRANULE: u64 = 4096;
/// Where DIMMs begin: behind the hole below 4 GiB.
const START: u64 = 1 << 32;
/// What QEMU lets DIMMs have altogether, in bytes.
const CAPACITY: u64 = (MAX_MEMORY_GIB << 30) - (RAM_MIB << 20);
/// The addresses that it reserves for them: 1 GiB more for each slot, for alignment.
const ADDRESSES: u64 = CAPACITY + ((DIMM_SLOTS as u64) << 30);

/// The memory hot-plug registers (QEMU's docs/specs/acpi_mem_hotplug.rst): the slot that the others are about, and a slot's flags.
const SELECT_SLOT: Place = Place::Port(0xa00);
const SLOT_FLAGS: Place = Place::Port(0xa14);
/// Ejects the DIMM.
const EJECT: u64 = 1 << 3;

/// What is plugged, by slot.
#[derive(Default)]
pub(crate) struct Dimms {
    plugged: BTreeMap<u16, Dimm>,
    /// How many have ever been plugged. A DIMM's number is part of its names, so that no name comes twice.
    count: u64,
}

struct Dimm {
    number: u64,
    iova: u64,
    len: u64,
    /// What QEMU's own descriptor was opened by.
    _descriptor: OwnedFd,
}

/// QEMU's name for DIMM `number`.
fn dimm_name(number: u64) -> String {
    format!("dimm{number}")
}

/// QEMU's name for the memory in DIMM `number`.
fn memory_name(number: u64) -> String {
    format!("memory{number}")
}

impl Dimms {
    fn free_slot(&self) -> Option<u16> {
        (0..DIMM_SLOTS).find(|slot| !self.plugged.contains_key(slot))
    }

    fn used(&self) -> u64 {
        self.plugged.values().map(|dimm| dimm.len).sum()
    }

    /// The slot and number of the DIMM that is `len` bytes at `iova`.
    fn find(&self, iova: u64, len: u64) -> Option<(u16, u64)> {
        self.plugged.iter().find(|(_, dimm)| dimm.iova == iova && dimm.len == len).map(|(slot, dimm)| (*slot, dimm.number))
    }
}

impl Machine {
    fn plug(&self, descriptor: BorrowedFd<'_>, len: u64, access: Access) -> Result<Mapping, DmaError> {
        let full = |reason: String| DmaError::Full { len, reason };
        let failed = |error: RegisterError| DmaError::Map { len, reason: error.to_string() };
        let descriptor = descriptor
            .try_clone_to_owned()
            .map_err(|error| DmaError::Map { len, reason: format!("duplicating its descriptor: {error}") })?;
        let mut dimms = self.dimms();
        let slot =
            dimms.free_slot().ok_or_else(|| full(format!("all {DIMM_SLOTS} memory slots of the rig are in use: unmap something first")))?;
        let left = CAPACITY - dimms.used();
        if len > left {
            return Err(full(format!("{left} of {CAPACITY} bytes are left in the rig: unmap something first")));
        }
        dimms.count += 1;
        let number = dimms.count;
        let (name, memory) = (dimm_name(number), memory_name(number));
        let iova = self
            .with_qmp(|qmp| {
                qmp.execute(
                    "object-add",
                    json!({
                        "qom-type": "memory-backend-file",
                        "id": memory,
                        "mem-path": format!("/proc/{}/fd/{}", std::process::id(), descriptor.as_raw_fd()),
                        "size": len,
                        "share": true,
                        "readonly": access == Access::Read,
                    }),
                )?;
                let plugged = qmp.execute("device_add", json!({ "driver": "pc-dimm", "id": name, "memdev": memory, "slot": slot }));
                if let Err(error) = plugged {
                    // The first error is the one to tell.
                    let _ = qmp.execute("object-del", json!({ "id": memory }));
                    return Err(error);
                }
                qmp.execute("qom-get", json!({ "path": format!("/machine/peripheral/{name}"), "property": "addr" }))
            })
            .map_err(failed)?;
        let iova = iova.as_u64().filter(|iova| *iova >= START && iova - START <= ADDRESSES - len);
        let iova = iova.ok_or_else(|| DmaError::Map { len, reason: "QEMU placed the memory where no device reaches it".to_owned() })?;
        dimms.plugged.insert(slot, Dimm { number, iova, len, _descriptor: descriptor });
        Ok(Mapping::new(self.domain, iova, len))
    }

    fn unplug(&self, slot: u16, number: u64) -> Result<(), RegisterError> {
        let name = dimm_name(number);
        self.with_qmp(|qmp| qmp.execute("device_del", json!({ "id": name })))?;
        // What a guest's ACPI code does when it is told.
        self.with_qtest(|qtest| {
            qtest.write(SELECT_SLOT, Width::Double, u64::from(slot))?;
            qtest.write(SLOT_FLAGS, Width::Byte, EJECT)
        })?;
        self.with_qmp(|qmp| {
            qmp.wait_device_deleted(&name)?;
            qmp.execute("object-del", json!({ "id": memory_name(number) }))
        })?;
        Ok(())
    }
}

impl DmaSpace for Machine {
    fn domain(&self) -> Domain {
        self.domain
    }

    fn limits(&self) -> DmaLimits {
        DmaLimits {
            ranges: vec![START..=START + (ADDRESSES - 1)],
            granule: GRANULE,
            maps: u32::from(DIMM_SLOTS) - self.dimms().plugged.len() as u32,
            bytes: CAPACITY,
            whole_files: true,
            partial_page: false,
            writable_descriptor: false,
        }
    }

    fn map_memory(&self, memory: &SharedMemory, access: Access) -> Result<Mapping, DmaError> {
        self.plug(memory.as_fd(), memory.len() as u64, access)
    }

    fn map_file(&self, file: BorrowedFd<'_>, range: Range<u64>) -> Result<Mapping, DmaError> {
        let unsupported = |reason: String| Err(DmaError::Unsupported(reason));
        let status = fstat(file).map_err(|error| DmaError::Map { len: range.end, reason: error.to_string() })?;
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
            return unsupported("only regular files have pages that the rig can plug".to_owned());
        }
        if range.start != 0 {
            return unsupported(format!("QEMU 7.2 maps files from their beginning only, and byte {} was asked for", range.start));
        }
        let len = range.end.min(u64::try_from(status.st_size).unwrap_or(0)) / GRANULE * GRANULE;
        if len == 0 {
            return unsupported(format!("a file of {} bytes has no whole page of {GRANULE} bytes in the range asked for", status.st_size));
        }
        self.plug(file, len, Access::Read)
    }

    fn unmap(&self, mapping: Mapping) -> Result<(), DmaError> {
        let (iova, len) = (mapping.iova(), mapping.len());
        let failed = |reason: String| DmaError::Unmap { iova, len, reason };
        let mut dimms = self.dimms();
        let found = dimms.find(iova, len).filter(|_| mapping.domain() == self.domain);
        let (slot, number) = found.ok_or_else(|| failed("it was not mapped in this space".to_owned()))?;
        self.unplug(slot, number).map_err(|error| failed(error.to_string()))?;
        dimms.plugged.remove(&slot);
        Ok(())
    }

    fn queues(&self) -> &ProgressBoard {
        &self.queues
    }
}
