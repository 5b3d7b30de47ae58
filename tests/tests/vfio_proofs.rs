//! Zero copy and isolation as facts, in a guest with an IOMMU: the device reads the file's own pages, which this process cannot read
//! meanwhile, and it can write neither to them nor anywhere else. One guest a kernel.

#[allow(dead_code, reason = "every test program uses a part of it")]
#[path = "../src/guest.rs"]
mod guest;

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use guest::{Guest, Kernel, Told};
use pagewire_tests::{PATIENCE, content};

/// The lengths of the files, neither of which is a multiple of the page.
const ON_EXT4: usize = 3_000_001;
const ON_TMPFS: usize = 2_000_003;
/// The longest frame of the example `send_file`: 14 bytes of header, 8 of offset, 1400 of the file.
const HEADER: usize = 22;

/// The kernel's log is read from a mark on, since it has the boot before it. The device has not read the pages of `trespass`'s file
/// before it is told to write there.
const SCRIPT: &str = r#"
    trespass=$1 probe=$2 send_file=$3 directory=$4
    try trespass "$trespass" 0000:00:02.0 "$directory"
    try log sh -c 'dmesg | grep -e trespass: -e DMAR'
    export PROBE_DIRS="$directory /run"
    try probe "$probe" open 0000:00:02.0
    stat -f -c "%T" "$directory" /run | tr '\n' ' ' >/run/types
    say types $(cat /run/types)
    cp "$directory/tmpfs.bin" /run/tmpfs.bin
    try sent_ext4 "$send_file" 0000:00:02.0 "$directory/ext4.bin"
    try sent_tmpfs "$send_file" 0000:00:02.0 /run/tmpfs.bin
"#;

/// The files that come in frames of the example `send_file`, until nothing more does.
fn receive(socket: &UnixDatagram, lengths: &[usize]) -> Vec<Vec<u8>> {
    let mut files: Vec<Vec<u8>> = Vec::new();
    let mut frame = [0; 2048];
    let deadline = Instant::now() + 4 * PATIENCE;
    while files.len() < lengths.len() || files.last().map(Vec::len) < lengths.last().copied() {
        let got = files.iter().map(Vec::len).collect::<Vec<_>>();
        assert!(Instant::now() < deadline, "{got:?} of {lengths:?} bytes have come");
        // QEMU's own time-out is far longer, and a guest that has failed is told by the test itself.
        let Ok(len) = socket.recv(&mut frame) else { return files };
        let frame = &frame[..len];
        assert_eq!((&frame[..6], &frame[12..14]), ([0xff; 6].as_slice(), [0x88, 0xb5].as_slice()), "a frame of the example");
        let offset = u64::from_be_bytes(frame[14..HEADER].try_into().expect("8 bytes")) as usize;
        if offset == 0 {
            files.push(Vec::new());
        }
        let number = files.len() - 1;
        let file = &mut files[number];
        assert_eq!(offset, file.len(), "no frame is missing, and none comes twice");
        // A short frame is padded to 60 bytes.
        let part = (len - HEADER).min(lengths[number] - offset);
        file.extend_from_slice(&frame[HEADER..HEADER + part]);
    }
    files
}

/// `nic` as `pagewire vm --nic` takes it, without its wire.
fn proofs(kernel: Kernel, nic: &str) {
    let directory = content::directory();
    let files = [("ext4.bin", ON_EXT4), ("tmpfs.bin", ON_TMPFS)].map(|(name, len)| {
        let bytes = content::bytes(len, len as u64);
        std::fs::write(directory.path().join(name), &bytes).expect("a file in the temporary directory");
        bytes
    });
    let sockets = content::directory();
    let (there, here) = (sockets.path().join("nic"), sockets.path().join("here"));
    let socket = UnixDatagram::bind(&here).expect("a socket");
    // On a busy machine a minute and more goes by before the first frame: the boot and the other examples come before.
    socket.set_read_timeout(Some(3 * PATIENCE)).expect("a time-out");

    let examples = ["trespass", "probe", "send_file"].map(guest::example);
    let mut arguments: Vec<&str> = examples.iter().map(|path| path.to_str().expect("UTF-8")).collect();
    arguments.push(directory.path().to_str().expect("UTF-8"));
    let guest = Guest::new(kernel).nic(&format!("{nic},wire=dgram:{}:{}", there.display(), here.display())).share(directory.path());
    let start = Instant::now();
    let running = guest.start(SCRIPT, &arguments);
    // The example `trespass` sends nothing out, so those of `send_file` are all that come.
    let receiver = std::thread::spawn(move || receive(&socket, &[ON_EXT4, ON_TMPFS]));
    let Some(told) = running.end() else { return };
    println!("{kernel:?}, {nic}: {:.1?} in all", start.elapsed());

    the_ends_are(&told, directory.path());
    isolation(&told);
    same_pages(&told);
    let received = receiver.join().expect("frames as they should be");
    for ((name, sent), received) in [("sent_ext4", &files[0]), ("sent_tmpfs", &files[1])].into_iter().zip(&received) {
        content::assert_same(received, sent);
        assert_eq!(content::sha256(received), content::sha256(sent), "{name}");
    }
    assert_eq!(received.len(), 2, "{:#?}", told.of("sent_tmpfs"));
}

fn the_ends_are(told: &Told, directory: &Path) {
    assert_eq!(told.of("types").output.trim(), "ext2/ext3 tmpfs", "{} and /run", directory.display());
    for name in ["trespass", "probe", "sent_ext4", "sent_tmpfs"] {
        let answer = told.of(name).with_code(0);
        println!("--- {name}\n{}", answer.output);
    }
}

/// The device was told to write: where it may, into a file window, and where nothing is mapped.
fn isolation(told: &Told) {
    let output = &told.of("trespass").output;
    for line in [
        "into writable memory: it wrote",
        "into a file window: the file is unchanged",
        "where nothing is mapped: the machine is still there",
    ] {
        assert!(output.contains(line), "{line:?} is not in\n{output}");
    }
    let log = &told.of("log").with_code(0).output;
    println!("--- log\n{log}");
    let (_, after) = log.split_once("trespass: into the file window at 0x").unwrap_or_else(|| panic!("no mark in\n{log}"));
    let (window, nowhere) = after.split_once("trespass: to 0x").unwrap_or_else(|| panic!("no second mark in\n{log}"));
    let (iova, faults) = window.split_once('\n').expect("a line");
    fault_at(u64::from_str_radix(iova.trim(), 16).expect("an address"), faults);
    let (iova, faults) = nowhere.split_once('\n').expect("a line");
    let iova = iova.split(',').next().unwrap_or_default();
    fault_at(u64::from_str_radix(iova, 16).expect("an address"), faults);
}

/// That the IOMMU has told of a write of this device in the page of `iova`.
fn fault_at(iova: u64, log: &str) {
    let found = log.lines().any(|line| {
        let address = line.split_once("fault addr 0x").and_then(|(_, rest)| rest.split_whitespace().next());
        let page = address.and_then(|address| u64::from_str_radix(address, 16).ok()).map(|address| address & !0xfff);
        line.contains("DMAR: [DMA Write") && line.contains("[00:02.0]") && page == Some(iova & !0xfff)
    });
    assert!(found, "no fault of a write to {iova:#x} in\n{log}");
}

/// Where the pages are does not change by the pin, nor can this process read them while they are protected.
fn same_pages(told: &Told) {
    let probe = told.of("probe");
    let pages = probe.lines("of them known file pages");
    assert_eq!(pages.len(), 2, "{probe:#?}");
    for line in pages {
        // FILE: N bytes at ADDRESS; PAGES pages, PAGES of them known file pages
        let (_, counts) = line.split_once("; ").expect("counts");
        let counts: Vec<u64> = counts.split([' ', ',']).filter_map(|word| word.parse().ok()).collect();
        assert_eq!(counts, [587, 587], "every page of 2,400,492 bytes is in the page cache: {line}");
    }
    assert_eq!(probe.lines("page frames after it").iter().filter(|line| line.ends_with("-> EQUAL")).count(), 2, "{probe:#?}");
    let protected = probe.lines("PROT_NONE: ---");
    assert_eq!(protected.iter().filter(|line| line.ends_with("frames still EQUAL")).count(), 2, "{probe:#?}");
    assert_eq!(probe.lines("for writing: ").len(), 2, "a file is never mapped for writing: {probe:#?}");
}

#[test]
fn the_device_reads_the_files_own_pages_and_writes_nowhere() {
    proofs(Kernel::Debian, "e1000");
}

#[test]
fn the_same_for_a_virtio_card_on_split_rings() {
    proofs(Kernel::Debian, "virtio-net");
}

#[test]
fn the_same_for_a_virtio_card_on_packed_rings() {
    proofs(Kernel::Debian, "virtio-net,packed=on");
}

#[test]
fn the_same_on_the_kernel_of_the_backports_where_it_can_be_reached() {
    proofs(Kernel::Backports, "e1000");
    proofs(Kernel::Backports, "virtio-net,packed=on");
}

/// The receiver gives up when nothing comes: a sanity check of the test itself.
#[test]
fn a_receiver_without_frames_has_no_files() {
    let directory = content::directory();
    let socket = UnixDatagram::bind(directory.path().join("here")).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_millis(10))).expect("a time-out");
    assert!(receive(&socket, &[1]).is_empty());
}
