//! `pagewire send` over the kernel's VFIO, in a guest: whole files arrive and nothing is copied, on every way of waiting. One guest a kernel.

#[allow(dead_code, reason = "every test program uses a part of it")]
#[path = "../src/guest.rs"]
mod guest;

use std::time::Instant;

use guest::{Guest, Kernel, NIC};
use pagewire_tests::content;
use pagewire_tests::receiver::{Receiver, socket, take, take_rest};

/// Three windows of 4 MiB, and one; neither is a multiple of the page or of a datagram.
const LONG: usize = 9_000_001;
const SHORT: usize = 700_001;

/// The first one asks for the host by ARP, as a user does. `$9` is the target of the interrupted send, whose datagrams the host has seen before the word to interrupt comes.
const SCRIPT: &str = r#"
    long=$1 short=$2
    nic=$3
    cp "$short" /run/short.bin
    try nics "$pagewire" nics --json
    try ext4 "$pagewire" send "$long" --nic "$nic" --ip 10.0.2.15/24 --json --stability lease --to "$4"
    try tmpfs "$pagewire" send /run/short.bin --nic "$nic" $slirp --stability lease --to "$5"
    try irq "$pagewire" send "$short" --nic "$nic" $slirp --wait irq --to "$6"
    try poll "$pagewire" send "$short" --nic "$nic" $slirp --wait poll --to "$7"
    try budget "$pagewire" send "$long" --nic "$nic" $slirp --window-budget 8MiB --to "$8"
    begin interrupted "$pagewire" send "$long" --nic "$nic" $slirp --wait irq --rate 4Mbit --to "$9"
    go
    kill -INT $pid
    end interrupted
    shift 9
    try next "$pagewire" send "$short" --nic "$nic" $slirp --offset 4097 --to "$1"
    # Huge pages that the system has and a control group forbids, as that of a container may: to touch one would be a SIGBUS.
    echo 4 >/proc/sys/vm/nr_hugepages
    mkdir -p /run/groups && mount -t cgroup2 groups /run/groups && mkdir /run/groups/without &&
        echo +hugetlb >/run/groups/cgroup.subtree_control && echo 0 >/run/groups/without/hugetlb.2MB.max
    say forbids $?
    try forbidden sh -c 'echo $$ >/run/groups/without/cgroup.procs; exec "$@"' sh "$pagewire" send "$short" --nic "$nic" $slirp --to udp://10.0.2.2:9
    say refusals $(grep -c 'max [1-9]' /run/groups/without/hugetlb.2MB.events)
    try dmar sh -c 'dmesg | grep -c "DMAR.*fault"'
"#;

/// The NIC as `pagewire vm --nic` takes it. QEMU's user network has no checksum offload for a virtio card, so that what such a card sends is copied.
fn sends(kernel: Kernel, nic: &str) {
    let gathers = nic == "e1000";
    let directory = content::directory();
    let (long_path, long) = content::file(directory.path(), LONG);
    let (short_path, short) = content::file(directory.path(), SHORT);
    let receiver = |size: usize| Receiver::start(directory.path(), &format!("--size {size} --idle 60"));
    let (interrupted, interrupted_target) = socket();
    let wanted = [("ext4", &long[..]), ("tmpfs", &short), ("irq", &short), ("poll", &short), ("budget", &long), ("next", &short[4097..])];
    let receivers = wanted.map(|(name, sent)| (name, sent, receiver(sent.len())));
    let mut targets: Vec<String> = receivers.iter().map(|(.., receiver)| receiver.target()).collect();
    targets.insert(5, interrupted_target);

    let (long_name, short_name) = (long_path.display().to_string(), short_path.display().to_string());
    let mut arguments = vec![long_name.as_str(), &short_name, NIC];
    arguments.extend(targets.iter().map(String::as_str));
    let start = Instant::now();
    let mut running = Guest::new(kernel).nic(nic).start(SCRIPT, &arguments);
    // Where the kernel cannot be reached nothing comes, so somebody else waits for it.
    let under_way = std::thread::spawn(move || {
        take(&interrupted, 5);
        interrupted
    });
    while !under_way.is_finished() && !running.has_ended() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    if under_way.is_finished() {
        running.go();
    }
    let Some(told) = running.end() else { return };
    println!("{kernel:?}, {nic}: {:.1?} in all", start.elapsed());

    let nics = &told.of("nics").with_code(0).output;
    let nics: serde_json::Value = serde_json::from_str(nics).unwrap_or_else(|error| panic!("{error}: {nics}"));
    let row = nics.as_array().and_then(|rows| rows.iter().find(|row| row["address"] == NIC));
    let row = row.unwrap_or_else(|| panic!("no {NIC} in {nics}"));
    assert_eq!((&row["driver"], &row["usable"]), (&"vfio-pci".into(), &true.into()), "{row}");
    assert!(row["iommu_group"].is_u64(), "{row}");

    for (name, sent, receiver) in receivers {
        let figures = told.of(name).sent();
        println!("{name}: {}", figures.0);
        assert_eq!(figures.number("bytes"), sent.len() as u64);
        let way = if gathers { "bytes_gathered" } else { "bytes_copied" };
        assert_eq!(figures.number(way), sent.len() as u64, "{name}: {}", figures.0);
        assert_eq!(figures.text("stability"), "lease", "{name}");
        let (received, bytes) = receiver.whole();
        assert_eq!(received.text("sha256"), content::sha256(sent), "{name}");
        content::assert_same(&bytes, sent);
    }
    let figures = told.of("budget").sent();
    assert_eq!(figures.0["windows"]["evicted"], u64::from(gathers), "a file above the budget streams through: {}", figures.0);

    let figures = told.of("interrupted").figures(130);
    assert_eq!(figures.text("stopped"), "interrupted");
    let bytes = figures.number("bytes");
    assert!(bytes >= 5 * 1472 && bytes < LONG as u64, "{}", figures.0);
    let interrupted = under_way.join().expect("datagrams");
    assert!(5 * 1472 + take_rest(&interrupted) <= bytes);
    assert_eq!((told.number("forbids"), told.number("refusals")), (0, 1), "huge pages were there, and refused");
    assert_eq!(told.of("forbidden").sent().number("bytes"), SHORT as u64);
    // grep's count, and its code for none.
    assert_eq!((told.of("dmar").output.trim(), told.of("dmar").code), ("0", 1), "no access of the device was refused");
}

#[test]
fn files_are_sent_whole_without_a_copy_however_the_nic_is_waited_for_and_ctrl_c_ends_a_send() {
    sends(Kernel::Debian, "e1000");
}

#[test]
fn a_virtio_card_sends_them_whole_too_on_both_kinds_of_ring() {
    sends(Kernel::Debian, "virtio-net");
    sends(Kernel::Debian, "virtio-net,packed=on");
}

/// What it needs of a device is told where it is missing.
#[test]
fn a_virtio_card_that_bypasses_the_iommu_or_is_a_legacy_one_is_refused_with_what_is_needed() {
    let script = r#"
        try bypass "$pagewire" nics -v "$1"
        try legacy "$pagewire" nics -v "$2"
        try good "$pagewire" nics -v --json "$3"
    "#;
    let guest = Guest::new(Kernel::Debian)
        .nic("virtio-net,iommu_platform=off")
        .nic("virtio-net,iommu_platform=off,disable-modern=on,disable-legacy=off")
        .nic("virtio-net,packed=on");
    let told = guest.run(script, &[NIC, "pci:0000:00:03.0", "pci:0000:00:04.0"]).expect("the kernel of this Debian is always tested");
    told.of("bypass").refused(&["VIRTIO_F_ACCESS_PLATFORM", "iommu_platform=on"]);
    told.of("legacy").refused(&["legacy", "VIRTIO 1.0", "disable-legacy=on"]);
    let good: serde_json::Value = serde_json::from_str(&told.of("good").with_code(0).output).expect("a line of JSON");
    let features = good[0]["features"].as_array().unwrap_or_else(|| panic!("no features in {good}"));
    for (name, accepted) in [("VIRTIO_F_ACCESS_PLATFORM", true), ("VIRTIO_F_RING_PACKED", true), ("VIRTIO_NET_F_CSUM", false)] {
        let feature = features.iter().find(|feature| feature["name"] == name).unwrap_or_else(|| panic!("no {name} in {good}"));
        assert_eq!((&feature["offered"], &feature["accepted"]), (&accepted.into(), &accepted.into()), "{feature}");
    }
}

#[test]
fn the_same_on_the_kernel_of_the_backports_where_it_can_be_reached() {
    sends(Kernel::Backports, "e1000");
    sends(Kernel::Backports, "virtio-net,packed=on");
}
