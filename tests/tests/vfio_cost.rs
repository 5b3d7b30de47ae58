//! What sends cost in a guest, over the kernel's VFIO: system calls that do not grow with the file once it is mapped, and windows against copies.

#[allow(dead_code, reason = "every test program uses a part of it")]
#[path = "../src/guest.rs"]
mod guest;

use guest::{Answer, Guest, Kernel, NIC};
use pagewire::send::COPY_BELOW;
use pagewire_tests::receiver::socket;
use pagewire_tests::tool;

/// The most system calls of a pass over a file that is mapped: opening it, its lease, looking at its size, the report. Not one is for a datagram
/// or a window, so a file of a GiB has no more of them either.
const MOST_CALLS: i64 = 40;

/// Counts the calls of 2 and of 6 passes over a file of so many MiB; strace's summary has them in its last line.
const CALLS: &str = r#"
    nic=$1 target=$2 strace=$3
    for size in 4 32; do
        truncate -s ${size}M /dev/shm/$size
        for passes in 2 6; do
            name=${size}_$passes
            try send_$name "$strace" -f -c -o /run/$name.calls "$pagewire" send /dev/shm/$size --nic "$nic" $slirp --to "$target" --repeat $passes
            say calls_$name $(tail -n 1 /run/$name.calls)
        done
    done
"#;

/// The calls that strace has counted in all: of `100.00 SECONDS USECS CALLS ERRORS total` the fourth word.
fn calls(answer: &Answer) -> i64 {
    let words: Vec<&str> = answer.output.split_whitespace().collect();
    assert_eq!(words.last(), Some(&"total"), "{answer:?}");
    words[3].parse().expect("a number of calls")
}

#[test]
fn a_pass_over_a_mapped_file_makes_few_system_calls_however_large_it_is() {
    let (_socket, target) = socket();
    let strace = tool("strace", "strace");
    let strace_name = strace.display().to_string();
    let guest = Guest::new(Kernel::Debian).memory("768MiB").share(&strace);
    let told = guest.run(CALLS, &[NIC, &target, &strace_name]).expect("the running system's kernel");
    for size in [4_u64, 32] {
        for passes in [2_u64, 6] {
            let answer = told.of(&format!("send_{size}_{passes}"));
            let value: serde_json::Value = serde_json::from_str(&answer.with_code(0).output).expect("figures");
            assert_eq!((&value["total"]["stopped"], &value["total"]["bytes_copied"]), (&"complete".into(), &0.into()), "{value}");
            assert_eq!(value["total"]["bytes"], passes * (size << 20), "{value}");
            assert_eq!(value["total"]["windows"]["mapped"], size / 4, "mapped in the first pass, and then no more: {value}");
        }
        let [few, many] = [2, 6].map(|passes| calls(told.of(&format!("calls_{size}_{passes}"))));
        println!("{size} MiB: {few} calls in 2 passes, {many} in 6");
        assert!(many > few, "each pass opens the file");
        assert!((many - few) / 4 <= MOST_CALLS, "{} calls a pass of {size} MiB", (many - few) / 4);
    }
}

#[test]
fn the_threshold_for_copying_is_near_where_mapping_pays() {
    let script = r#"try map "$pagewire" bench map --nic "$1" --rounds 3 --json"#;
    let told = Guest::new(Kernel::Debian).icount().run(script, &[NIC]).expect("the running system's kernel");
    let text = &told.of("map").with_code(0).output;
    let figures: serde_json::Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    println!("{figures}");
    let rows = figures["rows"].as_array().expect("rows");
    let sizes: Vec<u64> = rows.iter().filter_map(|row| row["bytes"].as_u64()).collect();
    assert_eq!(sizes, (12..=26).map(|log| 1 << log).collect::<Vec<u64>>(), "4 KiB to 64 MiB");
    let time = |row: &serde_json::Value, name: &str| row[name].as_u64().unwrap_or_else(|| panic!("no {name} in {row}"));
    let once = |row| time(row, "map_ns") + time(row, "unmap_ns");
    let (first, last) = (&rows[0], &rows[rows.len() - 1]);
    assert!(once(first) > time(first, "copy_ns"), "a page is copied sooner than it is mapped: {first}");
    assert!(once(last) < time(last, "copy_ns"), "64 MiB are mapped sooner than they are copied: {last}");
    // Other kernels and builds differ a little, and the threshold is one figure for all.
    let pays = figures["pays_from_bytes"].as_u64().expect("somewhere it does");
    assert!((COPY_BELOW / 4..=COPY_BELOW * 2).contains(&pays), "it pays from {pays} on, and the threshold is {COPY_BELOW}");
}
