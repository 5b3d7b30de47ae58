//! Two NICs behind one PCI bridge, which the IOMMU cannot tell apart: one group. What hinders is named and put right, and one process drives
//! both. One guest a kernel.

#[allow(dead_code, reason = "every test program uses a part of it")]
#[path = "../src/guest.rs"]
mod guest;

use std::path::{Path, PathBuf};
use std::time::Instant;

use guest::{Guest, Kernel, Told};
use pagewire_tests::command::{pagewire, run};
use pagewire_tests::{capture, content};

const FIRST: usize = 900_001;
const SECOND: usize = 700_003;

/// `$modules` has a driver that takes any PCI device, as the kernel's own driver would take its NIC.
const SCRIPT: &str = r#"
    first=$1 second=$2 send_file=$3 modules=$4
    a=0000:01:02.0 b=0000:01:03.0
    bus=/sys/bus/pci/devices
    to="--to udp://10.0.2.2:9"
    driver() { basename "$(readlink $bus/$1/driver || echo none)"; }

    say group $(basename $(readlink $bus/$a/iommu_group))
    try together "$send_file" $a "$first" $b "$second"

    # One with another driver.
    for module in uio uio_pci_generic; do
        for file in "$modules/$module.ko"*; do
            case "$file" in
                *.xz) xz -dc "$file" >/run/$module.ko ;;
                *) cp "$file" /run/$module.ko ;;
            esac
        done
        insmod /run/$module.ko
    done
    try unbind "$pagewire" unbind $b
    try without_driver "$pagewire" send "$second" --nic pci:$a $slirp $to
    echo uio_pci_generic >$bus/$b/driver_override
    echo $b >/sys/bus/pci/drivers_probe
    say driver_b $(driver $b)
    try not_viable "$pagewire" send "$second" --nic pci:$a $slirp $to
    try nics_not_viable "$pagewire" nics
    try bind "$pagewire" bind $b

    # The other one of the group is in use with the first.
    begin first "$pagewire" send "$first" --nic pci:$a $slirp $to --rate 1Mbit
    say first_process $pid
    sending $pid "$first"
    try other "$pagewire" send "$second" --nic pci:$b $slirp $to
    kill -INT $pid_first
    end first
    try after "$pagewire" send "$second" --nic pci:$b $slirp $to
    try dmar sh -c 'dmesg | grep -c "DMAR.*fault"'
"#;

fn groups(kernel: Kernel) {
    let Some(modules) = modules(kernel) else { return };
    let directory = content::directory();
    let (first, first_bytes) = content::file(directory.path(), FIRST);
    let (second, second_bytes) = content::file(directory.path(), SECOND);
    let captures = ["a.pcap", "b.pcap"].map(|name| directory.path().join(name));
    let mut guest = Guest::new(kernel).option("--bridge").share(&modules);
    for capture in &captures {
        guest = guest.nic(&format!("e1000,pcap={}", capture.display()));
    }
    let example = guest::example("send_file");
    let paths = [&first, &second, &example, &modules].map(|path| path.to_str().expect("UTF-8"));
    let start = Instant::now();
    let Some(told) = guest.run(SCRIPT, &paths) else { return };
    println!("{kernel:?}: {:.1?} in all", start.elapsed());

    told.of("together").with_code(0);
    for (capture, sent) in captures.iter().zip([&first_bytes, &second_bytes]) {
        content::assert_same(&file_of(capture, sent.len()), sent);
    }
    hindered(&told);
    let holder = format!("pagewire (process {})", told.number("first_process"));
    told.of("other").refused(&["0000:01:03.0 is in use by", &holder]);
    assert!(told.of("first").figures(130).number("bytes") > 0);
    assert_eq!(told.of("after").sent().number("bytes_copied"), 0);
    assert_eq!((told.of("dmar").output.trim(), told.of("dmar").code), ("0", 1), "no access of a device was refused");
}

/// The guest's modules for user-space drivers, which every kernel of Debian has; the kernel is fetched if it is not there.
fn modules(kernel: Kernel) -> Option<PathBuf> {
    let (name, arguments) = match kernel {
        Kernel::Debian => ("debian", ["vm", "--", "true"].as_slice()),
        Kernel::Backports => ("backports", ["vm", "--kernel", "backports", "--", "true"].as_slice()),
    };
    let absolute = |variable: &str| std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache"))).expect("a cache");
    let link = cache.join("pagewire/kernels").join(name);
    if !link.exists() {
        let ended = run(pagewire(arguments));
        if !ended.status.success() && kernel == Kernel::Backports {
            println!("NOT TESTED on the backports' kernel, which cannot be reached from here: {}", ended.stderr);
            return None;
        }
        let _ = ended.with_code(0);
    }
    let root = ["lib/modules", "usr/lib/modules"].map(|place| link.join(place)).into_iter().find(|path| path.exists());
    let mut versions = std::fs::read_dir(root.expect("modules")).expect("a directory").flatten();
    let directory = versions.next().expect("a version").path().join("kernel/drivers/uio");
    Some(std::fs::canonicalize(directory).expect("user-space drivers"))
}

/// The file in the example's frames, the first of their kind, in a capture.
fn file_of(capture: &Path, len: usize) -> Vec<u8> {
    let mut file = Vec::new();
    for frame in capture::frames(capture).iter().filter(|frame| frame[12..14] == [0x88, 0xb5]) {
        if file.len() == len {
            break;
        }
        let offset = u64::from_be_bytes(frame[14..22].try_into().expect("8 bytes"));
        assert_eq!(offset, file.len() as u64, "no frame is missing, and none comes twice");
        let part = (frame.len() - 22).min(len - file.len());
        file.extend_from_slice(&frame[22..22 + part]);
    }
    file
}

/// Another driver in the group: named, with what to do, and doing it helps.
fn hindered(told: &Told) {
    let group = format!("shares IOMMU group {}", told.number("group"));
    told.of("unbind").with_code(0);
    assert_eq!(told.of("without_driver").sent().number("bytes_copied"), 0, "a device without a driver does not hinder");
    assert_eq!(told.of("driver_b").output.trim(), "uio_pci_generic");
    println!("{}", told.of("not_viable").errors.trim_end());
    told.of("not_viable").refused(&[&group, "0000:01:03.0 (uio_pci_generic)", "pagewire bind 0000:01:03.0"]);
    let listed = told.of("nics_not_viable").with_code(0).lines("pci:0000:01:02.0");
    assert!(listed.len() == 1 && listed[0].contains("(with 2 more)") && listed[0].contains("no, "), "{listed:?}");
    assert_eq!(told.of("bind").with_code(0).output.lines().next(), Some("0000:01:03.0 went from uio_pci_generic to vfio-pci"));
}

#[test]
fn what_hinders_a_group_is_named_and_its_nics_work_together() {
    groups(Kernel::Debian);
}

#[test]
fn the_same_on_the_kernel_of_the_backports_where_it_can_be_reached() {
    groups(Kernel::Backports);
}
