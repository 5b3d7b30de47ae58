//! Looks at a NIC through VFIO, step by step, and prints what it finds.
//!
//! ```text
//! probe list             the NICs, and why they cannot be used
//! probe bind ADDRESS     hand one to vfio-pci        (--force: even when it carries traffic)
//! probe unbind ADDRESS   give it back to the kernel
//! probe open ADDRESS     open it; map memory and a file; prove that the file's own pages are mapped, read-only
//! probe fill ADDRESS     map until something is used up, and print what the error says
//! ```

use std::error::Error;
use std::io::Write;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use hal::registers::Width;
use hal::{Access, BusDevice, DmaError, DmaSpace, PciIdentity, SharedMemory};
use pagewire_vfio::{InterruptKind, PageFrame, PciAddress, PciDevice, Rebound, Sysfs, VfioSpace, page_cache_frames};

type Outcome = Result<(), Box<dyn Error>>;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments.as_slice() {
        ["list"] => list(),
        ["bind", address, force @ ..] => rebind(address, |address| Sysfs::default().bind(address, force == ["--force"])),
        ["unbind", address] => rebind(address, |address| Sysfs::default().unbind(address)),
        ["open", address] => open(address),
        ["fill", address] => fill(address),
        _ => Err("usage: probe list | bind ADDRESS [--force] | unbind ADDRESS | open ADDRESS | fill ADDRESS".into()),
    };
    if let Err(error) = outcome {
        eprintln!("probe: {error}");
        std::process::exit(1);
    }
}

fn list() -> Outcome {
    for nic in Sysfs::default().controllers() {
        let driver = nic.driver.as_deref().unwrap_or("no driver");
        println!("{} {} {} [{driver}] {}", nic.address, nic.identity, nic.name, nic.interfaces.join(" "));
        if let Some(group) = &nic.group {
            let members: Vec<String> = group.members.iter().map(|member| member.address.to_string()).collect();
            println!("    group {}: {}", group.number, members.join(" "));
        }
        println!("    {}", nic.obstacle.map_or_else(|| "usable".into(), |obstacle| obstacle.to_string()));
    }
    Ok(())
}

fn rebind(address: &str, work: impl Fn(PciAddress) -> Result<Rebound, pagewire_vfio::VfioError>) -> Outcome {
    let done = work(address.parse()?)?;
    let name = |driver: &Option<String>| driver.clone().unwrap_or_else(|| "no driver".into());
    println!("{address}: {} -> {}{}", name(&done.before), name(&done.now), if done.changed() { "" } else { " (nothing to do)" });
    Ok(())
}

fn open(address: &str) -> Outcome {
    let mut device = PciDevice::open(address.parse()?)?;
    println!(
        "opened {} = {} class {:06x} revision {:02x}",
        device.address(),
        device.identity(),
        device.identity().class,
        device.identity().revision
    );
    println!("a second time: {}", PciDevice::open(address.parse()?).err().ok_or("it opened twice")?);
    for index in 0..6 {
        if let Some((len, mapped)) = device.bar_layout(index) {
            println!("BAR {index}: {len:#x} bytes, {}", if mapped { "mapped" } else { "through the kernel" });
        }
    }
    let command = device.config_read(4, Width::Word)?;
    device.set_bus_master(true)?;
    println!("command register: {command:#06x}, with bus mastering {:#06x}", device.config_read(4, Width::Word)?);
    interrupts(&mut device)?;
    match device.reset() {
        Ok(()) => println!("reset: done, command register {:#06x}", device.config_read(4, Width::Word)?),
        Err(error) => println!("reset: {error}"),
    }

    let space = std::sync::Arc::clone(device.space().ok_or("it has no IOMMU")?);
    println!("IOMMU: {:x?}", space.iommu());
    println!("limits for {:?}: {:x?}", space.width(), space.limits());
    let memory = SharedMemory::new("probe", 3 << 20)?;
    let started = Instant::now();
    let mapping = space.map_memory(&memory, Access::ReadWrite)?;
    println!("3 MiB of memory at {:#x}, {} maps left, in {:?}", mapping.iova(), space.limits().maps, started.elapsed());
    space.unmap(mapping)?;
    for directory in std::env::var("PROBE_DIRS").unwrap_or_else(|_| "/tmp".into()).split(' ') {
        file(&space, directory)?;
    }

    // A window that is still mapped when the device is closed.
    let file = std::fs::File::open("/proc/self/exe")?;
    let left = space.map_file(file.as_fd(), 0..4096)?;
    drop(device);
    println!("after the device was closed: unmap {:?}, map {}", space.unmap(left), space.map_memory(&memory, Access::Read).unwrap_err());
    drop(PciDevice::open(address.parse()?)?);
    println!("and opened again");
    Ok(())
}

fn file(space: &VfioSpace, directory: &str) -> Outcome {
    let path = std::path::Path::new(directory).join("probe.bin");
    let content: Vec<u8> = (0..600_123_u32).flat_map(u32::to_le_bytes).collect();
    let len = content.len() as u64;
    std::fs::File::create(&path)?.write_all(&content)?;
    let file = std::fs::File::open(&path)?;

    let before = page_cache_frames(file.as_fd(), 0..len)?;
    let window = space.map_file(file.as_fd(), 0..len)?;
    let after = space.page_frames(&window)?;
    let known = after.iter().filter(|frame| frame.number().is_some() && frame.is_file_page()).count();
    println!("{}: {} bytes at {:#x}; {} pages, {known} of them known file pages", path.display(), window.len(), window.iova(), after.len());
    println!("    page frames before the pin: {}", shown(&before));
    println!("    page frames after it:       {}  -> {}", shown(&after), if before == after { "EQUAL" } else { "DIFFERENT" });
    space.protect(&window)?;
    println!(
        "    PROT_NONE: {}; frames still {}",
        protection(len)?,
        if space.page_frames(&window)? == before { "EQUAL" } else { "DIFFERENT" }
    );
    println!("    the bytes past the end: {:?}", window.segment(len - 1, 2));
    space.unmap(window)?;
    println!("    for writing: {}", space.map_file_as(file.as_fd(), 0..len, Access::ReadWrite).unwrap_err());
    println!("    past the end: {}", space.map_file(file.as_fd(), 0..len + 4096).unwrap_err());
    println!("    empty: {}", space.map_file(file.as_fd(), 4096..4096).unwrap_err());
    let part = space.map_file(file.as_fd(), 4096..len)?;
    println!("    from the second page on: at {:#x}, {} maps left", part.iova(), space.limits().maps);
    space.unmap(part)?;
    std::fs::remove_file(path)?;
    Ok(())
}

fn shown(frames: &[PageFrame]) -> String {
    match frames {
        [first, second, .., last] => format!("{first:?} {second:?} ... {last:?}"),
        _ => format!("{frames:?}"),
    }
}

/// The line of the window in /proc/self/maps, which says what this process may do with it.
fn protection(len: u64) -> Result<String, Box<dyn Error>> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let line = maps.lines().find(|line| line.contains("probe.bin")).ok_or("the window is not in the maps")?;
    let (start, end) = line.split(' ').next().and_then(|range| range.split_once('-')).ok_or("no range")?;
    let mapped = u64::from_str_radix(end, 16)? - u64::from_str_radix(start, 16)?;
    Ok(format!("{} for {mapped} bytes (the file has {len})", line.split(' ').nth(1).unwrap_or_default()))
}

/// Interrupts by the kernel's loop-back, and by the device itself where it can be asked to (8254x, 82574: manual 13.4.17 to 13.4.20).
fn interrupts(device: &mut PciDevice) -> Outcome {
    const ICR: u64 = 0xc0;
    const ICS: u64 = 0xc8;
    const IMS: u64 = 0xd0;
    const EIAC: u64 = 0xdc;
    const IVAR: u64 = 0xe4;
    const RXT0: u32 = 1 << 7;
    const RXQ0: u32 = 1 << 20;
    let mut interrupt = match device.interrupt(0) {
        Ok(interrupt) => interrupt,
        Err(error) => {
            println!("interrupts: {error}");
            return Ok(());
        }
    };
    let (kind, vectors) = device.interrupts().ok_or("none is enabled")?;
    let second = Duration::from_secs(1);
    let quiet = Duration::from_millis(20);
    println!("interrupts: {kind:?}, {vectors} of them; quiet: {}", !interrupt.wait(quiet)?);
    if kind != InterruptKind::Intx {
        device.trigger_interrupt(0)?;
        device.trigger_interrupt(0)?;
        println!("    loop-back of two: {}, then quiet: {}", interrupt.wait(second)?, !interrupt.wait(quiet)?);
    }
    println!("    vector 999: {}", device.interrupt(999).err().ok_or("there is one")?);
    let PciIdentity { vendor: 0x8086, device: model @ (0x100e | 0x10d3), .. } = device.identity() else { return Ok(()) };
    let registers = device.bar(0)?;
    let cause = if model == 0x10d3 {
        // The 82574 has vectors: that of the first receive queue becomes 0, and its cause ends with the message.
        registers.write::<u32>(IVAR, 1 << 3)?;
        registers.write::<u32>(EIAC, RXQ0)?;
        RXQ0
    } else {
        RXT0
    };
    registers.write::<u32>(IMS, cause)?;
    let (mut came, mut spurious) = (0, 0);
    for _ in 0..100 {
        registers.write::<u32>(ICS, cause)?;
        came += u32::from(interrupt.wait(second)?);
        registers.read::<u32>(ICR)?;
        spurious += u32::from(interrupt.wait(Duration::ZERO)?);
        registers.write::<u32>(IMS, cause)?;
    }
    println!("    of 100 that the device raised, {came} came, and {spurious} for nothing");
    if kind == InterruptKind::Intx {
        registers.write::<u32>(ICS, cause)?;
        interrupt.wait(second)?;
        println!("    a level that stays comes again: {}", interrupt.wait(second)?);
        registers.read::<u32>(ICR)?;
    }
    Ok(())
}

fn fill(address: &str) -> Outcome {
    let device = PciDevice::open(address.parse()?)?;
    let space = device.space().ok_or("it has no IOMMU")?;
    println!("opened as user {}; {:?} bytes can be mapped", rustix::process::getuid().as_raw(), space.limits().bytes);
    let mut kept = Vec::new();
    for _ in 0..64 {
        let memory = SharedMemory::new("fill", 1 << 20)?;
        match space.map_memory(&memory, Access::ReadWrite) {
            Ok(mapping) => kept.push((memory, mapping)),
            Err(error @ DmaError::Full { .. }) => {
                println!("after {} MiB: {error}", kept.len());
                break;
            }
            Err(error) => return Err(error.into()),
        }
    }
    println!("left: {} bytes", space.limits().bytes);
    for (_, mapping) in kept {
        space.unmap(mapping)?;
    }
    println!("all given back: {} bytes", space.limits().bytes);
    Ok(())
}
