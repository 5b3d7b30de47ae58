//! A guest without an IOMMU: a NIC is refused with what to do. Where the kernel has VFIO's mode without one, a file goes out by copying,
//! with a warning that says why.
//!
//! Debian's kernels are built without that mode (CONFIG_VFIO_NOIOMMU). One that has it is tested when it is named: PAGEWIRE_NOIOMMU_KERNEL is
//! the kernel, PAGEWIRE_NOIOMMU_MODULES the directory of its modules.

#[allow(dead_code, reason = "every test program uses a part of it")]
#[path = "../src/guest.rs"]
mod guest;

use guest::{Guest, Kernel, NIC, Told};
use pagewire_tests::content;
use pagewire_tests::receiver::{Receiver, socket};

const SIZE: usize = 700_001;

const SCRIPT: &str = r#"
    nic=$1 file=$2 nowhere=$3 target=$4
    address=0000:00:02.0
    switch=/sys/module/vfio/parameters/enable_unsafe_noiommu_mode
    say groups $(ls /sys/kernel/iommu_groups | wc -l)
    say mode $(cat $switch 2>/dev/null || echo missing)
    try refused "$pagewire" send "$file" --nic "$nic" $slirp --to "$nowhere"
    try refused_bind "$pagewire" bind $address
    try refused_option "$pagewire" send "$file" --nic "$nic,noiommu=on" $slirp --to "$nowhere"
    [ -e $switch ] || exit 0

    echo 1 >$switch
    try switched "$pagewire" send "$file" --nic "$nic,noiommu=on" $slirp --to "$nowhere"
    try bind "$pagewire" bind $address
    try nics "$pagewire" nics --json
    try not_chosen "$pagewire" send "$file" --nic "$nic" $slirp --to "$nowhere"
    try no_huge_pages "$pagewire" send "$file" --nic "$nic,noiommu=on" $slirp --to "$nowhere"
    echo 8 >/proc/sys/vm/nr_hugepages
    try copied "$pagewire" send "$file" --nic "$nic,noiommu=on" $slirp --to "$target"
    try by_interrupt "$pagewire" send "$file" --nic "$nic,noiommu=on" $slirp --to "$nowhere" --wait irq
    begin killed "$pagewire" send "$file" --nic "$nic,noiommu=on" $slirp --to "$nowhere" --rate 1Mbit
    for turn in $(seq 300); do
        [ $(($(hexdump -s 4 -n 2 -e '1/2 "%d"' /sys/bus/pci/devices/$address/config) & 4)) = 4 ] && break
        usleep 30000
    done
    usleep 200000
    try in_use "$pagewire" send "$file" --nic "$nic,noiommu=on" $slirp --to "$nowhere"
    kill -KILL $pid_killed
    end killed
    say master $(($(hexdump -s 4 -n 2 -e '1/2 "%d"' /sys/bus/pci/devices/$address/config) & 4))
    try after "$pagewire" send "$file" --nic "$nic,noiommu=on" $slirp --to "$nowhere"
"#;

fn without_an_iommu(guest: Guest, has_mode: bool) {
    let directory = content::directory();
    let (path, sent) = content::file(directory.path(), SIZE);
    let (_nowhere, nowhere) = socket();
    let receiver = has_mode.then(|| Receiver::start(directory.path(), &format!("--size {SIZE} --idle 60")));
    let target = receiver.as_ref().map_or_else(|| nowhere.clone(), Receiver::target);
    let arguments = [NIC, path.to_str().expect("UTF-8"), &nowhere, &target];
    let Some(told) = guest.option("--no-iommu").run(SCRIPT, &arguments) else { return };

    assert_eq!(told.number("groups"), 0);
    assert_eq!(told.of("mode").output.trim(), if has_mode { "N" } else { "missing" });
    let second_best = if has_mode { "enable_unsafe_noiommu_mode=1" } else { "no mode without an IOMMU either (CONFIG_VFIO_NOIOMMU)" };
    for name in ["refused", "refused_bind", "refused_option"] {
        println!("{}", told.of(name).errors.trim_end());
        told.of(name).refused(&["0000:00:02.0 is behind no IOMMU", "-device intel-iommu", second_best]);
    }
    let Some(receiver) = receiver else { return };

    told.of("switched").refused(&["`pagewire bind` takes the device then"]);
    assert!(told.of("bind").with_code(0).output.contains("noiommu=on, as root"), "{:?}", told.of("bind"));
    let nics = &told.of("nics").with_code(0).output;
    let nics: serde_json::Value = serde_json::from_str(nics).unwrap_or_else(|error| panic!("{error}: {nics}"));
    let nic = nics.as_array().and_then(|rows| rows.iter().find(|row| row["address"] == NIC)).expect("the NIC");
    assert_eq!(nic["usable"], true, "{nic}");
    assert!(nic["why"].as_str().is_some_and(|why| why.starts_with("copying only, no IOMMU")), "{nic}");
    told.of("not_chosen").refused(&["no-IOMMU mode", "switch an IOMMU on", "pci:0000:00:02.0,noiommu=on"]);
    let pages = &told.of("no_huge_pages").with_code(1).errors;
    assert!(pages.contains("huge pages") && pages.contains("/proc/sys/vm/nr_hugepages"), "{pages}");
    copied(&told, "copied");
    content::assert_same(&receiver.whole().1, &sent);
    for name in ["by_interrupt", "after"] {
        copied(&told, name);
    }
    assert_eq!(told.of("killed").code, 137, "{:?}", told.of("killed"));
    told.of("in_use").refused(&["0000:00:02.0 is in use by pagewire (process "]);
    assert_eq!(told.number("master"), 0, "the device may not use the bus any more");
}

/// All of the file was sent, by copying, and two lines say why.
fn copied(told: &Told, name: &str) {
    let answer = told.of(name);
    let figures = answer.sent();
    assert_eq!(figures.copied_because(), [("not-mappable".to_owned(), SIZE as u64)], "{answer:#?}");
    println!("{}", answer.errors.trim_end());
    let lines: Vec<&str> = answer.errors.lines().collect();
    assert_eq!(lines.len(), 2, "{answer:#?}");
    assert!(lines[0].contains("without an IOMMU") && lines[0].contains("all of this machine's memory"), "{answer:#?}");
    assert!(lines[1].contains("is copied") && lines[1].contains("nothing pins the file's pages"), "{answer:#?}");
}

#[test]
fn without_an_iommu_a_nic_is_refused_with_the_remedy() {
    without_an_iommu(Guest::new(Kernel::Debian), false);
}

#[test]
fn in_the_mode_without_an_iommu_a_file_is_copied_and_the_reason_told() {
    let named = ["PAGEWIRE_NOIOMMU_KERNEL", "PAGEWIRE_NOIOMMU_MODULES"].map(std::env::var);
    let [Ok(kernel), Ok(modules)] = named else {
        return println!(
            "NOT TESTED: Debian's kernels lack CONFIG_VFIO_NOIOMMU; PAGEWIRE_NOIOMMU_KERNEL and _MODULES name one that has it"
        );
    };
    let guest = Guest::new(Kernel::Debian).option("--kernel").option(&kernel).option("--modules").option(&modules);
    without_an_iommu(guest, true);
}
