//! Sends over VFIO that end before their time.
//!
//! - Somebody wants to change a file of 64 MiB whose pages are pinned. By a lease the send stops first, and he goes on; by trust the change is
//!   found out and told. Nobody dies of SIGBUS. In the same guests, a NIC is removed, stops answering, or its program panics. One guest a kernel.
//! - SIGKILL in mid-send, ten times, and SIGTERM: the device may not use the bus afterwards, and the next run starts at once. One guest.

#[allow(dead_code, reason = "every test program uses a part of it")]
#[path = "../src/guest.rs"]
mod guest;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use guest::{Guest, Kernel, NIC, Told};
use pagewire_tests::content;
use pagewire_tests::receiver::{socket, take_rest};

const CHANGED: u64 = 64 << 20;
/// Without a lease, the file is looked at every so many bytes.
const LOOK: u64 = 16 << 20;
/// In hundredths of a second: far less than the 45 s after which the kernel takes a lease away.
const WAITED: i64 = 1000;

/// Each send has a target of its own, where the host sees its first datagrams before its word comes. With a lease it would take 27 s, and by
/// trust 5 s.
const CHANGING: &str = r#"
    nic=$1 directory=$2 send_file=$7 nowhere="--to $8 --length 1MiB"
    file=$directory/file.bin
    fill() { dd if=/dev/zero of="$file" bs=1M count=64 2>/dev/null; }
    writer() { echo other bytes | dd of="$file" conv=notrunc bs=4096 seek=100 2>/dev/null; }
    truncation() { : >"$file"; }
    # change NAME HOW TARGET OPTION...
    change() {
        local name=$1 how=$2 target=$3; shift 3
        begin "$name" "$pagewire" send "$file" --nic "$nic" $slirp --to "$target" "$@"
        go
        before=$(now)
        $how
        changed=$?
        say "${name}_waited" $(($(now) - before))
        say "${name}_changed" $changed
        say "${name}_size" $(stat -c %s "$file")
        end "$name"
    }
    fill
    change lease_writer writer "$3" --rate 20Mbit --stability lease
    change lease_truncation truncation "$4" --rate 20Mbit
    fill
    change trust_writer writer "$5" --rate 100Mbit --stability trust
    change trust_truncation truncation "$6" --rate 100Mbit --stability trust
    fill
    try after "$pagewire" send "$file" --nic "$nic" $slirp $nowhere --stability lease

    address=0000:00:02.0
    device=/sys/bus/pci/devices/$address
    begin removed "$pagewire" send "$file" --nic "$nic" $slirp $nowhere --rate 1Mbit
    sending $pid "$file"
    before=$(now)
    echo 1 >$device/remove
    say removal $?
    say removal_took $(($(now) - before))
    end removed
    try gone "$pagewire" send "$file" --nic "$nic" $slirp $nowhere
    echo 1 >/sys/bus/pci/rescan
    try bind_again "$pagewire" bind $address
    try after_removal "$pagewire" send "$file" --nic "$nic" $slirp $nowhere

    # Memory decoding off, behind the back of VFIO.
    begin dead "$pagewire" send "$file" --nic "$nic" $slirp $nowhere --rate 1Mbit
    sending $pid "$file"
    before=$(now)
    printf '\000\000' | dd of=$device/config bs=1 seek=4 conv=notrunc 2>/dev/null
    end dead
    say dead_took $(($(now) - before))
    try after_dead "$pagewire" send "$file" --nic "$nic" $slirp $nowhere

    try panicked "$send_file" $address "$file" panic
    say master $(($(hexdump -s 4 -n 2 -e '1/2 "%d"' $device/config) & 4))
    say driver_after $(basename $(readlink $device/driver))
    try after_panic "$pagewire" send "$file" --nic "$nic" $slirp $nowhere
    try dmar sh -c 'dmesg | grep -c "DMAR.*fault"'
"#;

const CHANGES: [&str; 4] = ["lease_writer", "lease_truncation", "trust_writer", "trust_truncation"];

fn changes(kernel: Kernel) {
    let directory = content::directory();
    let sockets = CHANGES.map(|_| socket());
    let directory_name = directory.path().display().to_string();
    let mut arguments = vec![NIC, &directory_name];
    arguments.extend(sockets.iter().map(|(_, target)| target.as_str()));
    let example = guest::example("send_file");
    // Somebody listens there, so that nobody complains.
    let (_nowhere, nowhere_target) = socket();
    arguments.extend([example.to_str().expect("UTF-8"), &nowhere_target]);
    let start = Instant::now();
    let mut running = Guest::new(kernel).share(directory.path()).start(CHANGING, &arguments);
    let over = AtomicBool::new(false);
    let told = std::thread::scope(|scope| {
        let (sockets, over) = (&sockets, &over);
        // What the guest is told when comes from the host's own sight of the datagrams.
        let (words, word) = std::sync::mpsc::channel();
        scope.spawn(move || {
            for (socket, _) in sockets {
                socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a time-out");
                let mut datagram = [0; 2048];
                for _ in 0..5 {
                    while socket.recv(&mut datagram).is_err() {
                        if over.load(Ordering::Relaxed) {
                            return;
                        }
                    }
                }
                let _ = words.send(());
            }
        });
        while !running.has_ended() && start.elapsed() < 3 * pagewire_tests::PATIENCE {
            if word.recv_timeout(Duration::from_millis(5)).is_ok() {
                running.go();
            }
        }
        over.store(true, Ordering::Relaxed);
        running.end()
    });
    let Some(told) = told else { return };
    println!("{kernel:?}: {:.1?} in all", start.elapsed());

    for (name, (socket, _)) in CHANGES.into_iter().zip(&sockets) {
        // The code of a SIGBUS would be 135.
        let bytes = stopped(&told, name);
        // The socket may have dropped some; more than was reported never comes.
        let came = 5 * 1472 + take_rest(socket);
        assert!(came <= bytes, "{name}: {came} bytes came, and {bytes} were reported");
    }
    told.of("after").sent();
    lost(&told);
    assert_eq!((told.of("dmar").output.trim(), told.of("dmar").code), ("0", 1), "no access of the device was refused");
}

/// How many bytes were handed to the NIC before the change was noticed.
fn stopped(told: &Told, name: &str) -> u64 {
    let answer = told.of(name);
    let figures = answer.figures(1);
    println!(
        "{name}: {} after {} hundredths of a second for the other: {}",
        figures.text("stopped"),
        told.number(&format!("{name}_waited")),
        figures.0
    );
    assert!(figures.text("stopped").starts_with("file changed"), "{answer:#?}");
    assert_eq!(told.number(&format!("{name}_changed")), 0, "the other goes on, and succeeds");
    assert_eq!(told.number(&format!("{name}_size")), if name.ends_with("truncation") { 0 } else { CHANGED as i64 });
    let waited = told.number(&format!("{name}_waited"));
    assert!(waited < WAITED, "{name}: the other waited {waited} hundredths of a second");
    answer.refused(&["file.bin: ", "bytes were handed to the NIC"]);
    let bytes = figures.number("bytes");
    assert!((5 * 1472..CHANGED).contains(&bytes), "{answer:#?}");
    assert_eq!(figures.number("bytes_copied"), 0, "{answer:#?}");
    if name.starts_with("lease") {
        assert_eq!(figures.text("stability"), "lease");
        answer.refused(&["another process wants to change it"]);
        // Stopped by the signal, not by a look at the file.
        assert!(bytes < LOOK, "{answer:#?}");
    } else {
        assert_eq!(figures.text("stability"), "trust: as asked for");
    }
    bytes
}

/// A NIC that is taken away, one that does not answer any more, and a program that panics: each ends, and the next run works.
fn lost(told: &Told) {
    for name in ["removed", "dead"] {
        println!("{}", told.of(name).errors.trim_end());
        told.of(name).refused(&["bytes were handed to the NIC"]);
    }
    // The kernel waits for the process that has it.
    println!("the removal took {} hundredths of a second", told.number("removal_took"));
    assert!(told.number("removal") == 0 && told.number("removal_took") < WAITED, "{told:#?}");
    told.of("removed").refused(&["the system takes the device away"]);
    told.of("gone").refused(&["there is no PCI device 0000:00:02.0"]);
    assert_eq!(told.of("bind_again").with_code(0).output.lines().next(), Some("0000:00:02.0 has vfio-pci now"));

    println!("the NIC that did not answer was given up after {} hundredths of a second", told.number("dead_took"));
    assert!(told.number("dead_took") < 2 * WAITED, "{told:#?}");

    let panicked = told.of("panicked").with_code(101);
    assert!(panicked.errors.contains("as asked for, with "), "{panicked:#?}");
    assert_eq!(told.number("master"), 0, "the device may not use the bus any more");
    assert_eq!(told.of("driver_after").output.trim(), "vfio-pci");
    for name in ["after_removal", "after_dead", "after_panic"] {
        assert_eq!(told.of(name).sent().number("bytes_copied"), 0, "{name}");
    }
}

#[test]
fn a_writer_and_a_truncation_stop_the_send_and_go_on_and_trust_finds_them_out() {
    changes(Kernel::Debian);
}

#[test]
fn the_same_on_the_kernel_of_the_backports_where_it_can_be_reached() {
    changes(Kernel::Backports);
}

const LONG: usize = 2_000_000;
/// Three datagrams.
const SHORT: usize = 4000;
const TURNS: usize = 10;
/// From the death of the one to the end of the next, in hundredths of a second: far longer than it takes, on a busy machine.
const SOON: i64 = 2000;

/// A send of the long file takes 8 s; it is killed when it has mapped it, a moment after.
const LEAVING: &str = r#"
    nic=$1 long=$2 short=$3 nowhere=$4 target=$5
    # The bit for bus mastering in the command register.
    master() { echo $(($(hexdump -s 4 -n 2 -e '1/2 "%d"' /sys/bus/pci/devices/0000:00:02.0/config) & 4)); }
    # leave NAME SIGNAL
    leave() {
        begin "$1" "$pagewire" send "$long" --nic "$nic" $slirp --rate 2Mbit --to "$nowhere"
        sending $pid "$long"
        usleep 50000
        say "$1_master_before" $(master)
        kill -$2 $pid
        say "$1_signalled" $?
        before=$(now)
        end "$1"
        say "$1_master" $(master)
        try "$1_next" "$pagewire" send "$short" --nic "$nic" $slirp --copy-below 0 --to "$target"
        say "$1_took" $(($(now) - before))
    }
    for turn in $(seq 10); do
        leave killed$turn KILL
    done
    leave terminated TERM
    try dmar sh -c 'dmesg | grep -c "DMAR.*fault"'
"#;

#[test]
fn after_sigkill_in_mid_send_the_next_run_starts_at_once_ten_times() {
    let directory = content::directory();
    let (long, _) = content::file(directory.path(), LONG);
    let (short, sent) = content::file(directory.path(), SHORT);
    let ((nowhere, nowhere_target), (here, target)) = (socket(), socket());
    let start = Instant::now();
    let guest = Guest::new(Kernel::Debian);
    let told = guest.run(LEAVING, &[NIC, long.to_str().expect("UTF-8"), short.to_str().expect("UTF-8"), &nowhere_target, &target]);
    let told = told.expect("the kernel of this Debian is always tested");
    println!("{:.1?} in all", start.elapsed());

    let names: Vec<String> = (1..=TURNS).map(|turn| format!("killed{turn}")).chain(["terminated".into()]).collect();
    let mut took = Vec::new();
    for name in &names {
        let killed = name != "terminated";
        let left = told.of(name).with_code(if killed { 137 } else { 130 });
        assert_eq!(told.number(&format!("{name}_signalled")), 0, "it was still sending");
        assert_eq!(told.number(&format!("{name}_master_before")), 4, "{name}: the device uses the bus while it sends");
        assert_eq!(told.number(&format!("{name}_master")), 0, "{name}: the device may not use the bus any more");
        if killed {
            assert_eq!(left.output, "");
        } else {
            let figures = left.figures(130);
            assert_eq!(figures.text("stopped"), "interrupted");
            assert!(figures.number("bytes") > 0 && figures.number("bytes") < LONG as u64, "{}", figures.0);
        }
        let next = told.of(&format!("{name}_next")).sent();
        assert_eq!((next.number("bytes"), next.number("bytes_copied")), (SHORT as u64, 0), "{}", next.0);
        took.push(told.number(&format!("{name}_took")));
    }
    println!("from the signal to the end of the next run, in hundredths of a second: {took:?}");
    assert!(took.iter().all(|&took| took < SOON), "{took:?}");
    assert_eq!((told.of("dmar").output.trim(), told.of("dmar").code), ("0", 1), "no access of the device was refused");

    // All the killed ones sent something, and what came of the others is right.
    let bytes = take_rest(&nowhere);
    assert!(bytes >= names.len() as u64 * 1472, "{bytes} bytes came from those that were ended");
    here.set_read_timeout(Some(Duration::from_millis(200))).expect("a time-out");
    let (mut received, mut datagram) = (Vec::new(), [0; 2048]);
    while let Ok(len) = here.recv(&mut datagram) {
        received.extend_from_slice(&datagram[..len]);
    }
    content::assert_same(&received, &sent.repeat(names.len()));
}
