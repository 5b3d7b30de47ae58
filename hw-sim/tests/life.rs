//! QEMU lives as long as something of the rig, and never longer than this process.

mod raw_e1000;

use std::io::{BufRead, BufReader};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};

use hal::{DmaMemory, RegisterError};
use pagewire_hw_sim::rig::{Rig, RigConfig};
use raw_e1000::{RawE1000, eventually, local_rig};
use rustix::process::{Pid, Signal, kill_process};

/// Set for the copy of this program that is killed.
const VICTIM: &str = "PAGEWIRE_TEST_VICTIM";

/// Whether a process runs; one that has ended and was not waited for does not.
fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

#[test]
fn qemu_ends_with_the_last_thing_that_was_had_from_the_rig() {
    let (rig, _wire) = local_rig();
    let pid = rig.pid();
    let mut device = rig.device().unwrap();
    let (registers, space) = (device.bar(0).unwrap(), device.dma());
    drop((rig, device));
    let memory = DmaMemory::new(&space, "rings", 4096).unwrap();
    drop(space);
    assert!(runs(pid));
    drop(memory);
    registers.read::<u32>(8).unwrap();
    drop(registers);
    assert!(!runs(pid));
}

#[test]
fn qemu_ends_with_a_panic() {
    let mut pid = 0;
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let rig = Rig::start(RigConfig::default()).unwrap();
        pid = rig.pid();
        let _device = rig.device().unwrap();
        assert!(!runs(pid), "this panic is a part of the test");
    }));
    assert!(panicked.is_err() && pid != 0 && !runs(pid));
}

#[test]
fn a_rig_outlives_the_thread_that_started_it() {
    let rig = std::thread::spawn(|| Rig::start(RigConfig::default()).unwrap()).join().unwrap();
    rig.device().unwrap().bar(0).unwrap().read::<u32>(8).unwrap();
}

#[test]
fn qemu_ends_when_its_owner_is_killed_and_nothing_is_left_behind() {
    let directory = tempfile::tempdir().unwrap();
    let temporary = directory.path().join("a, b");
    std::fs::create_dir(&temporary).unwrap();
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_victim_holds_a_rig", "--nocapture"])
        .env(VICTIM, "1")
        .env("TMPDIR", &temporary)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    // The test harness writes the test's name in front, on the same line.
    let pid = lines.map_while(Result::ok).find_map(|line| line.rsplit_once("QEMU is ")?.1.parse().ok());
    let pid: u32 = pid.expect("the victim's QEMU");
    assert!(runs(pid));
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0);
    victim.kill().unwrap();
    victim.wait().unwrap();
    eventually("the end of QEMU", || !runs(pid));
}

/// No test of its own: what the test above starts and kills.
#[test]
fn the_victim_holds_a_rig() {
    if std::env::var_os(VICTIM).is_some() {
        let rig = Rig::start(RigConfig::default()).unwrap();
        println!("QEMU is {}", rig.pid());
        loop {
            std::thread::park();
        }
    }
}

#[test]
fn a_qemu_that_is_killed_is_told_by_every_later_access() {
    let (rig, wire) = local_rig();
    let mut card = RawE1000::open(&rig);
    let mut interrupt = card.device.interrupt(0).unwrap();
    kill_process(Pid::from_raw(rig.pid() as i32).unwrap(), Signal::KILL).unwrap();

    let told = |error: RegisterError| {
        let text = error.to_string();
        assert!(matches!(error, RegisterError::Unreachable(_)) && text.contains("QEMU ended (signal: 9"), "{text}");
    };
    told(card.registers.read::<u32>(8).unwrap_err());
    told(interrupt.wait(std::time::Duration::from_secs(10)).unwrap_err());
    card.post_bytes(&[1; 60]);
    told(card.ring().unwrap_err());
    told(rig.drain().unwrap_err());
    let error = DmaMemory::new(&card.space, "more", 4096).map(drop).unwrap_err().to_string();
    assert!(error.contains("QEMU ended (signal: 9"), "{error}");
    eventually("the end of the wire", || wire.rig_is_gone());
}
