//! A PCI device through the kernel's VFIO.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, MutexGuard};

use hal::bus::capability;
use hal::registers::Width;
use hal::{BusDevice, BusError, DmaSpace, Interrupt, PciIdentity, RegisterError, Registers};
use vfio_bindings::bindings::vfio::VFIO_PCI_BAR0_REGION_INDEX;
use vfio_ioctls::{VfioContainer, VfioDevice};

use crate::address::PciAddress;
use crate::container::{Container, request};
use crate::error::VfioError;
use crate::group::{OpenGroup, OpenGroups};
use crate::handle::DeviceHandle;
use crate::interrupt::{InterruptKind, Interrupts};
use crate::listing::Group;
use crate::noiommu::BareDevice;
use crate::physical::PhysicalSpace;
use crate::region::{OpenDevice, Region, is_mappable, registers};
use crate::space::VfioSpace;
use crate::sysfs::Sysfs;
use crate::withdrawal::Withdrawal;
use hal::iova::AddressWidth;

const DEVICE_RESET: std::ffi::c_ulong = request(11);

/// Fields of configuration space (PCI Local Bus 3.0, 6.1 and 6.2).
mod field {
    pub const VENDOR: u16 = 0x00;
    pub const DEVICE: u16 = 0x02;
    pub const COMMAND: u16 = 0x04;
    pub const REVISION: u16 = 0x08;
    pub const COMMAND_MEMORY: u32 = 1 << 1;
    pub const COMMAND_BUS_MASTER: u32 = 1 << 2;
}

/// The kind of the capability of PCI Express.
const PCI_EXPRESS: u8 = 0x10;

/// The vendor of all virtio devices (VIRTIO 1.3, 4.1.2).
const VIRTIO: u16 = 0x1af4;

/// How a device is opened.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// The bus addresses that the device takes. Default: 64 bits for PCI Express and virtio, below 4 GiB for other conventional PCI (the
    /// 8254x).
    pub width: Option<AddressWidth>,
    /// Also a device that is only there in VFIO's mode without an IOMMU: it reaches all of this machine's memory, files cannot be mapped for
    /// it, and it takes root and huge pages. Where there is an IOMMU, it is used.
    pub no_iommu: bool,
}

/// What its addresses are.
enum Space {
    /// The IOMMU's.
    Isolated(Arc<VfioSpace>),
    /// The machine's.
    Physical(Arc<PhysicalSpace>),
}

/// A PCI device, opened through VFIO for this process alone.
///
/// Dropping it stops its access to memory and its interrupts. Registers that were taken from it keep the descriptor open until they are
/// dropped too.
pub struct PciDevice {
    address: PciAddress,
    text: String,
    identity: PciIdentity,
    config: Region,
    interrupts: Option<Interrupts>,
    withdrawal: Option<Withdrawal>,
    space: Space,
    device: Arc<OpenDevice>,
}

impl PciDevice {
    /// Opens the NIC at `address`, which vfio-pci drives ([`Sysfs::bind`]).
    ///
    /// # Errors
    /// [`VfioError`], with what to do about it.
    pub fn open(address: PciAddress) -> Result<Self, VfioError> {
        Self::open_with(address, &Sysfs::default(), &OpenOptions::default())
    }

    /// As [`open`](Self::open), with options.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(address: PciAddress, sysfs: &Sysfs, options: &OpenOptions) -> Result<Self, VfioError> {
        let controller = sysfs.controller(address)?;
        let Some(group) = controller.group else { return Err(VfioError::NoIommu { address, remedy: sysfs.iommu_remedy() }) };
        let groups = OpenGroups::lock();
        let known = groups.find(group.number).filter(|_| !group.without_iommu);
        match controller.obstacle {
            None => {}
            Some(VfioError::NoIommuMode(_)) if options.no_iommu => return Self::open_bare(address, sysfs, options, &group),
            // Another device of the group is in the hands of this process itself.
            Some(VfioError::Busy { holders, .. }) if known.is_some() && holders.are_this_process() => {}
            Some(obstacle) => return Err(obstacle),
        }
        Self::open_isolated(address, sysfs, options, &group, known, groups)
    }

    fn open_isolated(
        address: PciAddress,
        sysfs: &Sysfs,
        options: &OpenOptions,
        group: &Group,
        known: Option<Arc<OpenGroup>>,
        mut groups: MutexGuard<'_, OpenGroups>,
    ) -> Result<Self, VfioError> {
        let failed = |error| explain(error, address, group, sysfs);
        let open = match known {
            Some(open) => open,
            None => OpenGroup::new(group.number, Arc::new(VfioContainer::new(None).map_err(failed)?)),
        };
        let claim = open.claim(address).ok_or_else(|| VfioError::Busy { address, holders: sysfs.holders(group) })?;
        let vfio = VfioDevice::new(&sysfs.device(address), Arc::clone(&open.container) as _, true).map_err(failed)?;
        let device = OpenDevice::new(Some(claim), DeviceHandle::Isolated(vfio));
        let known = groups.space(&open);
        let (identity, config, mut width) = look_at(address, &device, options)?;
        // The devices of a group share their addresses, and any of the others may be a conventional one.
        if options.width.is_none() && group.members.len() > 1 {
            width = AddressWidth::Bits32;
        }
        let space = match known {
            Some(space) if space.width() == AddressWidth::Bits64 && width == AddressWidth::Bits32 => {
                let reason =
                    "another device of its group was opened with addresses above 4 GiB, which this one cannot take; open this one first";
                return Err(VfioError::system(format!("opening {address}"), io::Error::other(reason)));
            }
            Some(space) => space,
            None => {
                let space = VfioSpace::new(Container(Arc::downgrade(&open.container)), width, Arc::downgrade(&open))
                    .map_err(|error| VfioError::system(format!("asking what the IOMMU of {address} can do"), error))?;
                let space = Arc::new(space);
                groups.remember(&open, &space);
                space
            }
        };
        Self::new(address, identity, config, Space::Isolated(space), device)
    }

    /// The mode without an IOMMU.
    fn open_bare(address: PciAddress, sysfs: &Sysfs, options: &OpenOptions, group: &Group) -> Result<Self, VfioError> {
        let path = sysfs.group_file(group);
        let bare = BareDevice::open(&sysfs.container(), &path, address).map_err(|error| match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => {
                VfioError::NoPermission { path, remedy: "a device without an IOMMU is given to root alone (CAP_SYS_RAWIO)".into() }
            }
            Some(libc::EBUSY) => VfioError::Busy { address, holders: sysfs.holders(group) },
            _ => VfioError::system(format!("opening {address} without an IOMMU"), error),
        })?;
        let device = OpenDevice::new(None, DeviceHandle::Bare(bare));
        let (identity, config, width) = look_at(address, &device, options)?;
        Self::new(address, identity, config, Space::Physical(Arc::new(PhysicalSpace::new(width))), device)
    }

    fn new(address: PciAddress, identity: PciIdentity, config: Region, space: Space, device: Arc<OpenDevice>) -> Result<Self, VfioError> {
        let withdrawal = Withdrawal::watch(&device);
        let mut device = Self { address, text: format!("pci:{address}"), identity, config, interrupts: None, withdrawal, space, device };
        // Whoever had it before may have left it on.
        device.set_bus_master(false).map_err(|error| unanswered(address, error))?;
        Ok(device)
    }

    /// Where it is.
    pub fn pci_address(&self) -> PciAddress {
        self.address
    }

    /// The space that its addresses are in, with what is particular to VFIO; shared with the other devices of its group that this process has
    /// open. [`BusDevice::dma`] gives the same one. `None` without an IOMMU.
    pub fn space(&self) -> Option<&Arc<VfioSpace>> {
        match &self.space {
            Space::Isolated(space) => Some(space),
            Space::Physical(_) => None,
        }
    }

    /// How it interrupts, once [`BusDevice::interrupt`] was called, and how many vectors there are.
    pub fn interrupts(&self) -> Option<(InterruptKind, usize)> {
        self.interrupts.as_ref().map(|interrupts| (interrupts.kind, interrupts.count()))
    }

    /// The length of a BAR in bytes, and whether all of it is mapped (else it is reached through the kernel); `None` when there is none.
    pub fn bar_layout(&self, index: u8) -> Option<(u64, bool)> {
        let region = self.bar_region(index)?;
        Some((region.len, is_mappable(&region)))
    }

    /// Has the kernel signal vector `vector` as if the device had: a loop-back test of the way from the kernel to [`Interrupt::wait`].
    ///
    /// # Errors
    /// [`BusError::NoInterrupt`] when the vector is not enabled or the kernel refuses.
    pub fn trigger_interrupt(&self, vector: u16) -> Result<(), BusError> {
        let refused = |reason: String| BusError::NoInterrupt { vector, reason };
        let interrupts = self.interrupts.as_ref().ok_or_else(|| refused("no interrupt is enabled".into()))?;
        interrupts.trigger(vector).map_err(|error| refused(error.to_string()))
    }

    fn bar_region(&self, index: u8) -> Option<Region> {
        (index < 6).then(|| self.device.region(VFIO_PCI_BAR0_REGION_INDEX + u32::from(index))).flatten()
    }
}

impl BusDevice for PciDevice {
    fn address(&self) -> &str {
        &self.text
    }

    fn identity(&self) -> PciIdentity {
        self.identity
    }

    fn config_read(&self, offset: u16, width: Width) -> Result<u32, BusError> {
        check_width(offset, width, self.config.len)?;
        Ok(self.device.read(&self.config, offset.into(), width)? as u32)
    }

    /// Memory decoding stays on whatever is written: with it off, an access to a mapped BAR would be a SIGBUS.
    fn config_write(&self, offset: u16, width: Width, value: u32) -> Result<(), BusError> {
        check_width(offset, width, self.config.len)?;
        let value = if offset == field::COMMAND { value | field::COMMAND_MEMORY } else { value };
        Ok(self.device.write(&self.config, offset.into(), width, value.into())?)
    }

    fn bar(&mut self, index: u8) -> Result<Registers, BusError> {
        let region = self.bar_region(index).ok_or(BusError::NoBar(index))?;
        Ok(registers(&self.device, region))
    }

    fn set_bus_master(&mut self, on: bool) -> Result<(), BusError> {
        let command = self.config_read(field::COMMAND, Width::Word)?;
        let wanted = if on { command | field::COMMAND_BUS_MASTER } else { command & !field::COMMAND_BUS_MASTER };
        self.config_write(field::COMMAND, Width::Word, wanted)
    }

    fn dma(&self) -> Arc<dyn DmaSpace> {
        match &self.space {
            Space::Isolated(space) => Arc::clone(space) as _,
            Space::Physical(space) => Arc::clone(space) as _,
        }
    }

    fn interrupt(&mut self, vector: u16) -> Result<Box<dyn Interrupt>, BusError> {
        let none = |reason: String| BusError::NoInterrupt { vector, reason };
        let interrupts = match &mut self.interrupts {
            Some(interrupts) => interrupts,
            empty => empty.insert(Interrupts::enable(&self.device).map_err(|error| none(error.to_string()))?),
        };
        let count = interrupts.count();
        let found = interrupts.vector(vector).ok_or_else(|| none(format!("the device has {count}, from 0 on ({:?})", interrupts.kind)))?;
        Ok(Box::new(found))
    }

    fn withdrawal(&self) -> Option<Arc<AtomicBool>> {
        self.withdrawal.as_ref().map(|withdrawal| Arc::clone(&withdrawal.wanted))
    }

    fn reset(&mut self) -> Result<(), BusError> {
        // SAFETY: the request has no argument; the descriptor is open.
        if unsafe { libc::ioctl(self.device.fd().as_raw_fd(), DEVICE_RESET) } != 0 {
            let error = io::Error::last_os_error();
            return Err(BusError::Reset(match error.raw_os_error() {
                Some(libc::EINVAL | libc::ENOTTY) => {
                    "it has no function-level reset, and shares its bus with others that a bus reset would hit: use the reset bit \
                     among the device's own registers"
                        .into()
                }
                Some(libc::EAGAIN | libc::EBUSY) => format!(
                    "another device of its slot is in use ({error}); try again when that is \
                 closed"
                ),
                _ => error.to_string(),
            }));
        }
        match identify(&self.device, &self.config)? {
            Some(identity) if identity == self.identity => Ok(()),
            Some(identity) => Err(BusError::Reset(format!("it came back as {identity}, it was {}", self.identity))),
            None => Err(BusError::Reset("it did not come back: its configuration space reads all ones".into())),
        }
    }
}

impl Drop for PciDevice {
    fn drop(&mut self) {
        // When it fails the device is gone, and with it all access to memory. Interrupts go off with `interrupts`.
        let _ = self.set_bus_master(false);
    }
}

fn check_width(offset: u16, width: Width, len: u64) -> Result<(), RegisterError> {
    // The kernel splits wider accesses; drivers that ask for one expect it whole.
    let bytes = width as u64;
    if bytes <= 4 { Ok(()) } else { Err(RegisterError::OutOfRange { offset: offset.into(), bytes, len }) }
}

/// Who the device is; `None` when it does not answer, which on PCI reads as ones.
fn identify(device: &OpenDevice, config: &Region) -> Result<Option<PciIdentity>, RegisterError> {
    let read = |offset: u16, width| device.read(config, offset.into(), width);
    let (vendor, product) = (read(field::VENDOR, Width::Word)? as u16, read(field::DEVICE, Width::Word)? as u16);
    let class = read(field::REVISION, Width::Double)? as u32;
    // The kernel answers for a virtual function's ids, never for its class.
    let answers = vendor != u16::MAX && class != u32::MAX;
    Ok(answers.then_some(PciIdentity { vendor, device: product, class: class >> 8, revision: class as u8 }))
}

/// Who an open device is, its configuration space, and the addresses that it takes.
fn look_at(address: PciAddress, device: &OpenDevice, options: &OpenOptions) -> Result<(PciIdentity, Region, AddressWidth), VfioError> {
    let config = device.config().ok_or(VfioError::Vanished(address))?;
    let identity = identify(device, &config).map_err(|error| unanswered(address, error))?.ok_or(VfioError::Vanished(address))?;
    let width = match options.width {
        Some(width) => width,
        // Queues of virtio have 64-bit addresses on any bus (VIRTIO 1.3, 4.1.4.3).
        None if identity.vendor == VIRTIO => AddressWidth::Bits64,
        None if is_express(device, &config).map_err(|error| unanswered(address, error))? => AddressWidth::Bits64,
        None => AddressWidth::Bits32,
    };
    Ok((identity, config, width))
}

/// Whether the device has the capability of PCI Express.
fn is_express(device: &OpenDevice, config: &Region) -> Result<bool, RegisterError> {
    let read = |offset: u16, width| device.read(config, offset.into(), width).map(|value| value as u32);
    Ok(capability(read, PCI_EXPRESS)?.is_some())
}

fn unanswered(address: PciAddress, error: impl std::error::Error) -> VfioError {
    VfioError::system(format!("{address} was opened"), io::Error::other(error.to_string()))
}

/// What vfio-ioctls reports, in terms of what to do.
fn explain(error: vfio_ioctls::VfioError, address: PciAddress, group: &Group, sysfs: &Sysfs) -> VfioError {
    use vfio_ioctls::VfioError as Ioctl;
    let busy = || VfioError::Busy { address, holders: sysfs.holders(group) };
    let by_errno = |path: std::path::PathBuf, error: io::Error| match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => sysfs.no_permission(path, group.number),
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => sysfs.no_vfio(path),
        Some(libc::EBUSY) => busy(),
        _ => VfioError::system(format!("opening {}", path.display()), error),
    };
    match error {
        Ioctl::OpenContainer(error) => by_errno(sysfs.container(), error),
        Ioctl::OpenGroup(error, _) => by_errno(sysfs.group_file(group), error),
        Ioctl::VfioExtension | Ioctl::VfioType1V2 => VfioError::NoVfio {
            missing: "the container has no type1 IOMMU".into(),
            remedy: "`sudo modprobe vfio_iommu_type1` loads it".into(),
        },
        // The kernel counts by its own rules; the members that are with no VFIO driver are the likely ones.
        Ioctl::GroupViable => VfioError::NotViable {
            address,
            group: group.number,
            members: sysfs.group(address).map_or_else(Vec::new, |group| {
                let others = group.members.into_iter().filter(|member| member.address != address);
                others.filter_map(|member| Some((member.address, member.driver?))).collect()
            }),
        },
        Ioctl::GroupGetDeviceFD(error) if error.errno() == libc::EBUSY => busy(),
        Ioctl::ContainerSetIOMMU(error) if error.errno() == libc::EPERM => VfioError::system(
            format!(
                "{address}: the IOMMU does not remap interrupts, so a device could forge them; switch that on (firmware; QEMU: \
                 intremap=on, kernel-irqchip=split), \
                 or accept the risk with vfio_iommu_type1's parameter allow_unsafe_interrupts=1"
            ),
            io::Error::from_raw_os_error(libc::EPERM),
        ),
        other => VfioError::system(format!("opening {address}"), io::Error::other(other.to_string())),
    }
}
