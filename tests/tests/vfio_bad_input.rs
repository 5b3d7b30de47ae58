//! NICs behind VFIO that cannot be had: each is told in one sentence with the remedy, and nothing is broken by it. One guest for all, and this host for
//! what it lacks.

#[allow(dead_code, reason = "every test program uses a part of it")]
#[path = "../src/guest.rs"]
mod guest;

use std::fs;
use std::time::Instant;

use guest::{Guest, Kernel, NIC, Told};
use pagewire_tests::command::{run, send};
use pagewire_tests::receiver::{Receiver, socket};
use pagewire_tests::{content, tool};

const SIZE: usize = 700_001;

/// The host's `setpriv` makes an ordinary user.
const SCRIPT: &str = r#"
    nic=$1 file=$2 nowhere=$3 target=$4 setpriv=$5
    address=0000:00:02.0
    device=/sys/bus/pci/devices/$address
    chmod 755 "${file%/*}"
    chmod 644 "$file"
    user="$setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all --"
    driver() { basename "$(readlink $device/driver || echo none)"; }
    to_nowhere="--to $nowhere"

    say group $(basename $(readlink $device/iommu_group))
    group=$(basename $(readlink $device/iommu_group))
    for other in bridge=0000:00:00.0 disk=0000:00:1d.0 nothing=0000:00:1c.0; do
        try ${other%=*} "$pagewire" send "$file" --nic pci:${other#*=} $slirp $to_nowhere
        try ${other%=*}_bind "$pagewire" bind ${other#*=}
        try ${other%=*}_unbind "$pagewire" unbind ${other#*=}
    done

    begin first "$pagewire" send "$file" --nic "$nic" $slirp $to_nowhere --rate 100kbit
    say first_process $pid
    sending $pid "$file"
    try second "$pagewire" send "$file" --nic "$nic" $slirp $to_nowhere
    try second_bench "$pagewire" bench tx --nic "$nic"
    try unbind_in_use timeout 10 "$pagewire" unbind $address
    try nics_in_use "$pagewire" nics
    kill -INT $pid_first
    end first
    say driver_after $(driver)

    try user_refused $user "$pagewire" send "$file" --nic "$nic" $slirp $to_nowhere
    try user_unbind $user "$pagewire" unbind $address
    say driver_kept $(driver)
    chown 65534 /dev/vfio/$group
    try memlock sh -c 'ulimit -l 64; exec "$@"' limited $user "$pagewire" send "$file" --nic "$nic" $slirp $to_nowhere
    needed() { sed -n 's/.*a limit of \([0-9]*\) KiB.*/\1/p' "/run/$1.errors"; }
    limited() { sh -c 'ulimit -l $1; shift; exec "$@"' limited "$@"; }
    try memlock_as_told limited $(needed memlock) $user "$pagewire" send "$file" --nic "$nic" $slirp --to "$target"
    # Not even one ring, and rings and buffers but no window.
    try memlock_least limited 4 $user "$pagewire" send "$file" --nic "$nic" $slirp $to_nowhere
    say least_needs $(needed memlock_least)
    try memlock_copied limited 1600 $user "$pagewire" send "$file" --nic "$nic" $slirp $to_nowhere
    try copied_as_told limited $(needed memlock_copied) $user "$pagewire" send "$file" --nic "$nic" $slirp $to_nowhere
    try memlock_enough limited 8192 $user "$pagewire" send "$file" --nic "$nic" $slirp $to_nowhere

    try unbind "$pagewire" unbind $address
    say driver_unbound $(driver)
    say override "[$(cat $device/driver_override)]"
    try unbound "$pagewire" send "$file" --nic "$nic" $slirp $to_nowhere
    try unbind_again "$pagewire" unbind $address
    try user_bind $user "$pagewire" bind $address
    say driver_still $(driver)
    try bind "$pagewire" bind $address
    try bind_again "$pagewire" bind $address
    say driver_bound $(driver)
    try after "$pagewire" send "$file" --nic "$nic" $slirp $to_nowhere
"#;

#[test]
fn a_nic_that_cannot_be_had_is_told_in_one_sentence_with_the_remedy() {
    let directory = content::directory();
    let (path, sent) = content::file(directory.path(), SIZE);
    let (_nowhere, nowhere_target) = socket();
    let receiver = Receiver::start(directory.path(), &format!("--size {SIZE} --idle 60"));
    let setpriv = tool("setpriv", "util-linux");
    let start = Instant::now();
    let arguments = [NIC, path.to_str().expect("UTF-8"), &nowhere_target, &receiver.target(), setpriv.to_str().expect("UTF-8")];
    let told = Guest::new(Kernel::Debian).run(SCRIPT, &arguments).expect("the kernel of this Debian is always tested");
    println!("{:.1?} in all", start.elapsed());

    wrong_addresses(&told);
    in_use(&told);
    ordinary_user(&told);
    // Whoever does what the first error says gets through, and nothing is copied.
    println!("{}", told.of("memlock").errors.trim_end());
    let figures = told.of("memlock_as_told").sent();
    assert_eq!(figures.number("bytes_copied"), 0, "{}", figures.0);
    assert!(figures.text("stability").contains("belongs to another user"), "{}", figures.0);
    told.of("memlock_least").refused(&["at most 4 KiB may be locked", "ulimit -l 16384"]);
    assert_eq!(told.number("least_needs"), 16384);
    // Without room for a window the send copies, and says so; the limit that it names is enough, too.
    let little = told.of("memlock_copied");
    println!("{}", little.errors.trim_end());
    assert_eq!(little.sent().copied_because(), [("not-mappable".to_owned(), SIZE as u64)], "{little:#?}");
    assert!(little.errors.contains("is copied") && little.errors.contains("ulimit -l"), "{little:#?}");
    for name in ["copied_as_told", "memlock_enough"] {
        assert_eq!(told.of(name).sent().number("bytes_copied"), 0, "{name}: {:#?}", told.of(name));
    }
    content::assert_same(&receiver.whole().1, &sent);
    rebound(&told);
}

fn wrong_addresses(told: &Told) {
    for (name, texts) in [
        ("bridge", ["0000:00:00.0 is not a NIC, its class is 060000 (Host bridge);", "pagewire nics"]),
        ("disk", ["0000:00:1d.0 is not a NIC, its class is 010000 (SCSI storage controller);", "pagewire nics"]),
        ("nothing", ["there is no PCI device 0000:00:1c.0", "pagewire nics"]),
    ] {
        for what in ["", "_bind", "_unbind"] {
            let answer = told.of(&format!("{name}{what}"));
            println!("{}", answer.errors.trim_end());
            answer.refused(&texts);
            assert_eq!(answer.output, "");
        }
    }
}

fn in_use(told: &Told) {
    let holder = format!("pagewire (process {})", told.number("first_process"));
    for name in ["second", "second_bench", "unbind_in_use"] {
        println!("{}", told.of(name).errors.trim_end());
        told.of(name).refused(&["0000:00:02.0 is in use by", &holder, "one process at a time"]);
    }
    let listed = told.of("nics_in_use").with_code(0).lines(NIC);
    assert!(listed.len() == 1 && listed[0].contains(&holder), "{listed:?}");
    // The first is not disturbed.
    let figures = told.of("first").figures(130);
    assert!(figures.text("stopped") == "interrupted" && figures.number("bytes") > 0, "{}", figures.0);
    assert_eq!(told.of("driver_after").output.trim(), "vfio-pci");
}

fn ordinary_user(told: &Told) {
    let group = told.number("group");
    for name in ["user_refused", "user_unbind", "memlock", "user_bind"] {
        println!("{}", told.of(name).errors.trim_end());
    }
    told.of("user_refused").refused(&[&format!("no permission for /dev/vfio/{group}"), "chown"]);
    told.of("user_unbind").refused(&["no permission for", "root"]);
    assert_eq!(told.of("driver_kept").output.trim(), "vfio-pci");
    // The limit, what is needed, and how to have it.
    told.of("memlock").refused(&["at most 64 KiB may be locked", "a limit of ", "ulimit -l", "LimitMEMLOCK", "/etc/security/limits.d"]);
    told.of("user_bind").refused(&["no permission for", "root"]);
    assert_eq!(told.of("driver_still").output.trim(), "none");
}

fn rebound(told: &Told) {
    assert_eq!(told.of("unbind").with_code(0).output, "0000:00:02.0 went from vfio-pci to no driver\n");
    assert_eq!(told.of("driver_unbound").output.trim(), "none");
    assert!(["[]", "[(null)]"].contains(&told.of("override").output.trim()), "{:?}", told.of("override"));
    told.of("unbound").refused(&["0000:00:02.0 is driven by nothing", "`pagewire bind 0000:00:02.0`"]);
    assert_eq!(told.of("unbind_again").with_code(0).output, "0000:00:02.0 has no driver already\n");
    let bound = &told.of("bind").with_code(0).output;
    assert!(bound.starts_with("0000:00:02.0 has vfio-pci now\n"), "{bound}");
    assert!(bound.contains(&format!("/dev/vfio/{}", told.number("group"))), "{bound}");
    assert!(told.of("bind_again").with_code(0).output.starts_with("0000:00:02.0 has vfio-pci already\n"));
    assert_eq!(told.of("driver_bound").output.trim(), "vfio-pci");
    assert_eq!(told.of("after").sent().number("bytes_copied"), 0);
}

/// On a host with an IOMMU for every NIC there is nothing to refuse, and the line says so.
#[test]
fn a_nic_of_this_host_behind_no_iommu_is_refused_with_the_remedy() {
    let devices = fs::read_dir("/sys/bus/pci/devices").into_iter().flatten().flatten();
    let class = |path: &std::path::Path| fs::read_to_string(path.join("class")).unwrap_or_default();
    let nic = devices.map(|device| device.path()).find(|path| class(path).starts_with("0x02") && !path.join("iommu_group").exists());
    let Some(nic) = nic else { return println!("NOT TESTED: this host has no NIC without an IOMMU") };
    let address = nic.file_name().and_then(|name| name.to_str()).expect("an address").to_owned();
    let directory = content::directory();
    let (path, _) = content::file(directory.path(), 100);
    let ended = run(send(&path, &format!("pci:{address}"), "udp://192.0.2.2:9", "--ip 192.0.2.15/24")).with_code(1);
    ended.complains_of(&[&format!("{address} is behind no IOMMU"), "switch the IOMMU on", "intel-iommu"]);
    assert_eq!((ended.stdout.as_str(), ended.stderr.trim_end().lines().count()), ("", 1), "{}", ended.all());
}
