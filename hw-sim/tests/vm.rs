//! One command in a guest with an IOMMU: what it finds there, and what comes back.

use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, BufReader, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pagewire_hw_sim::rig::Model;
use pagewire_hw_sim::vm::{self, Kernel, PackageError, Streams, VmConfig, VmError, VmExit, VmNic};
use pagewire_hw_sim::wire::{self, HostWire, WireConfig};

/// Set for the copies of this program that run in a guest, are killed, or run as another user.
const GUEST: &str = "PAGEWIRE_TEST_GUEST";
const VICTIM: &str = "PAGEWIRE_TEST_VICTIM";
const ORDINARY: &str = "PAGEWIRE_TEST_ORDINARY";

/// What came back from a guest.
struct Answer {
    exit: VmExit,
    stdout: Vec<u8>,
    stderr: String,
}

impl Answer {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    /// The lines between `== NAME` and the next such line.
    fn section(&self, name: &str) -> Vec<&str> {
        let lines = self.text().lines().skip_while(|line| line.strip_prefix("== ") != Some(name)).skip(1);
        lines.take_while(|line| !line.starts_with("== ")).collect()
    }
}

fn try_run(config: VmConfig, stdin: Option<&fs::File>) -> Result<Answer, VmError> {
    let _ = tracing_subscriber::fmt().with_test_writer().try_init();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let mut streams = Streams { stdin: stdin.map(AsFd::as_fd), stdout: &mut stdout, stderr: &mut stderr };
    let start = Instant::now();
    let exit = vm::run(config, &mut streams, &AtomicBool::new(false))?;
    let stderr = String::from_utf8(stderr).unwrap();
    println!("{}: the command started after {:.1?}, and it took {:.1?} in all", exit.kernel, exit.boot, start.elapsed());
    Ok(Answer { exit, stdout, stderr })
}

fn run(config: VmConfig, stdin: Option<&fs::File>) -> Answer {
    try_run(config, stdin).unwrap_or_else(|error| panic!("{error}"))
}

/// What sha256sum says of `content` without a file's name.
fn sha256(content: &[u8]) -> String {
    let mut child = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(content).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap().trim_end().to_owned()
}

/// The processes of this machine that have `text` in their command line.
fn processes(text: &Path) -> usize {
    let named = |entry: fs::DirEntry| {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(text.to_str().unwrap())
    };
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok())
        .map(named)
        .filter(|&named| named)
        .count()
}

/// This test program, with only the test `name`.
fn this_program(name: &str) -> [OsString; 4] {
    [std::env::current_exe().unwrap().into(), "--exact".into(), name.into(), "--nocapture".into()]
}

#[test]
fn a_command_finds_its_nic_its_files_and_its_streams() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().canonicalize().unwrap();
    let shared = place.join("it's shared");
    fs::create_dir(&shared).unwrap();
    let content: Vec<u8> = (0..3_000_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    fs::write(shared.join("file"), &content).unwrap();
    let named = place.join("named file");
    fs::write(&named, "named\n").unwrap();
    let every_byte = place.join("every byte");
    fs::write(&every_byte, (0..=255).collect::<Vec<u8>>()).unwrap();
    let mut input = tempfile::tempfile().unwrap();
    input.write_all(&content[..1_000_000]).unwrap();
    input.rewind().unwrap();

    let script = r#"
        echo == driver; ls /sys/bus/pci/drivers/vfio-pci | grep :
        echo == device; cat /sys/bus/pci/devices/0000:00:02.0/device
        group=$(basename $(readlink /sys/bus/pci/devices/0000:00:02.0/iommu_group))
        echo == group; ls /sys/kernel/iommu_groups/$group/devices; [ -c /dev/vfio/$group ] && echo there
        echo == log; [ -r /dev/kmsg ] && dmesg | grep -c 'DMAR: Intel(R) Virtualization Technology for Directed I/O'
        echo == hash; sha256sum <"$1/file"
        echo == type; stat -f -c %T "$1/file" /tmp /run /dev/shm
        echo == directory; pwd
        echo == variable; echo "$ONE"
        echo == named; cat "$2"
        echo == input; sha256sum
        echo == writable; echo more >>"$2" && wc -c <"$2"
        echo == user; id -u
        echo a word >&2
        echo == bytes
        cat "${3#--bytes=}"
        exit 200"#;
    let mut bytes = OsString::from("--bytes=");
    bytes.push(&every_byte);
    let command = ["sh".into(), "-c".into(), script.into(), "name".into(), shared.clone().into(), named.clone().into(), bytes];
    let mut answer = run(
        VmConfig {
            nics: vec![VmNic::new(Model::E1000)],
            shares: vec!["it's shared".into()],
            environment: vec![("ONE".into(), "a 'quoted' $value".into())],
            directory: Some(place.clone()),
            ..VmConfig::new(command)
        },
        Some(&input),
    );
    let bytes = answer.stdout.split_off(answer.stdout.len().saturating_sub(256));
    assert_eq!(bytes, fs::read(&every_byte).unwrap());
    println!("{}", answer.text());
    assert_eq!(answer.exit.code, 200);
    assert_eq!(answer.stderr, "a word\n");
    assert_eq!(answer.section("driver"), ["0000:00:02.0"]);
    assert_eq!(answer.section("device"), ["0x100e"]);
    assert_eq!(answer.section("group"), ["0000:00:02.0", "there"]);
    assert_eq!(answer.section("log"), ["1"]);
    assert_eq!(answer.section("hash"), [sha256(&content)]);
    // The name that ext4 has in statfs, too.
    assert_eq!(answer.section("type"), ["ext2/ext3", "tmpfs", "tmpfs", "tmpfs"]);
    assert_eq!(answer.section("directory"), [place.to_str().unwrap()]);
    assert_eq!(answer.section("variable"), ["a 'quoted' $value"]);
    assert_eq!(answer.section("named"), ["named"]);
    assert_eq!(answer.section("input"), [sha256(&content[..1_000_000])]);
    assert_eq!(answer.section("writable"), ["11"]);
    assert_eq!(answer.section("user"), ["0"]);
    assert_eq!(fs::read_to_string(named).unwrap(), "named\n");
}

#[test]
fn a_program_of_this_machine_runs_on_two_nics_with_a_clock_that_counts_instructions() {
    let sockets = tempfile::tempdir().unwrap();
    let (end, wire) = wire::local();
    let remote = UnixDatagram::bind(sockets.path().join("remote")).unwrap();
    let dgram = HostWire::Dgram { local: sockets.path().join("local"), remote: sockets.path().join("remote") }.into();
    let answer = run(
        VmConfig {
            nics: vec![
                VmNic { wire: WireConfig::Local(end), ..VmNic::new(Model::E1000e) },
                VmNic { wire: dgram, mac: Some("52:54:00:00:00:07".parse().unwrap()), ..VmNic::new(Model::VirtioNet) },
            ],
            icount: true,
            environment: vec![(GUEST.into(), "1".into())],
            ..VmConfig::new(this_program("the_guest_looks_around"))
        },
        None,
    );
    println!("{}", answer.text());
    assert_eq!((answer.exit.code, answer.stderr.as_str()), (0, ""));
    assert_eq!(answer.section("nics"), ["0000:00:02.0 0x8086 0x10d3", "0000:00:03.0 0x1af4 0x1041"]);
    let times: Vec<f64> = answer.section("times").iter().map(|line| line.parse().unwrap()).collect();
    assert!(times[0] > 100_000.0 && (times[1] / times[0] - 2.0).abs() < 0.02, "{times:?}");
    assert!(wire.rig_is_gone());
    drop(remote);
    assert_eq!(fs::read_dir(sockets.path()).unwrap().count(), 1);
}

/// No test of its own: what the test above runs in the guest.
#[test]
fn the_guest_looks_around() {
    if std::env::var_os(GUEST).is_none() {
        return;
    }
    println!("\n== nics");
    for address in ["0000:00:02.0", "0000:00:03.0"] {
        let device = Path::new("/sys/bus/pci/drivers/vfio-pci").join(address);
        let read = |name: &str| fs::read_to_string(device.join(name)).unwrap();
        println!("{address} {} {}", read("vendor").trim(), read("device").trim());
    }
    println!("== times");
    for turns in [100_000u64, 200_000] {
        let times = (0..5).map(|_| {
            let start = Instant::now();
            assert_eq!((0..turns).map(std::hint::black_box).filter(|turn| *turn > turns).count(), 0);
            start.elapsed().as_nanos()
        });
        println!("{}", times.min().unwrap());
    }
    println!("== end");
}

#[test]
fn a_command_that_fails_hands_its_code_out_and_qemu_is_gone_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let pcap = directory.path().join("a,b.pcap");
    let nic = VmNic { pcap: Some(pcap.clone()), ..VmNic::new(Model::VirtioNet) };
    let answer = run(VmConfig { nics: vec![nic], ..VmConfig::new(["false"]) }, None);
    assert_eq!((answer.exit.code, answer.stdout.len(), answer.stderr.as_str()), (1, 0, ""));
    assert_eq!(fs::metadata(&pcap).unwrap().len(), 24);
    assert_eq!(processes(directory.path()), 0);
}

#[test]
fn a_guest_ends_when_its_time_is_over() {
    let directory = tempfile::tempdir().unwrap();
    let nic = VmNic { pcap: Some(directory.path().join("pcap")), ..VmNic::new(Model::E1000) };
    let config = VmConfig { nics: vec![nic], timeout: Duration::from_millis(1500), ..VmConfig::new(["sleep", "1000"]) };
    let error = try_run(config, None).map(|answer| answer.exit).unwrap_err();
    assert!(matches!(error, VmError::Timeout { .. }) && error.to_string().contains("after 1.5 s"), "{error}");
    assert_eq!(processes(directory.path()), 0);
}

/// Sets the flag when there is output.
struct Stopper<'s>(&'s AtomicBool);

impl Write for Stopper<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.store(true, Ordering::Relaxed);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn output_comes_while_the_command_runs_and_a_guest_can_be_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let nic = VmNic { pcap: Some(directory.path().join("pcap")), ..VmNic::new(Model::E1000) };
    let stop = AtomicBool::new(false);
    let mut streams = Streams { stdin: None, stdout: &mut Stopper(&stop), stderr: &mut io::sink() };
    let config = VmConfig { nics: vec![nic], ..VmConfig::new(["sh", "-c", "echo started; sleep 1000"]) };
    let error = vm::run(config, &mut streams, &stop).unwrap_err();
    assert!(matches!(error, VmError::Stopped), "{error}");
    assert_eq!(processes(directory.path()), 0);
}

#[test]
fn qemu_ends_when_its_owner_is_killed_and_nothing_is_left_behind() {
    let directory = tempfile::tempdir().unwrap();
    let temporary = directory.path().join("tmp");
    fs::create_dir(&temporary).unwrap();
    let [program, arguments @ ..] = this_program("the_victim_runs_a_guest");
    let mut victim = Command::new(program)
        .args(arguments)
        .env(VICTIM, directory.path())
        .env("TMPDIR", &temporary)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.contains("it runs")));
    let pcap = directory.path().join("pcap");
    assert_eq!(processes(&pcap), 1);
    victim.kill().unwrap();
    victim.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while processes(&pcap) != 0 {
        assert!(Instant::now() < deadline, "QEMU outlives its owner");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0);
}

/// No test of its own: what the test above starts and kills.
#[test]
fn the_victim_runs_a_guest() {
    if let Some(directory) = std::env::var_os(VICTIM) {
        let nic = VmNic { pcap: Some(Path::new(&directory).join("pcap")), ..VmNic::new(Model::E1000) };
        let config = VmConfig { nics: vec![nic], ..VmConfig::new(["sh", "-c", "echo it runs; sleep 1000"]) };
        let mut streams = Streams { stdin: None, stdout: &mut io::stdout(), stderr: &mut io::stderr() };
        vm::run(config, &mut streams, &AtomicBool::new(false)).unwrap();
    }
}

#[test]
fn the_backports_kernel_boots_where_it_can_be_reached() {
    let config = VmConfig {
        kernel: Kernel::Backports,
        nics: vec![VmNic::new(Model::E1000)],
        ..VmConfig::new(["sh", "-c", "echo == kernel; uname -r; echo == driver; ls /sys/bus/pci/drivers/vfio-pci | grep :"])
    };
    match try_run(config, None) {
        Err(VmError::Package(error @ (PackageError::Failed { .. } | PackageError::Unknown { .. }))) => {
            println!("NOT TESTED: the kernel of the backports could not be reached from here: {error}");
        }
        Err(error) => panic!("{error}"),
        Ok(answer) => {
            assert_eq!(answer.section("kernel"), [answer.exit.kernel.as_str()]);
            assert_eq!(answer.section("driver"), ["0000:00:02.0"]);
            assert_eq!(answer.exit.code, 0);
        }
    }
}

/// Only root can become somebody else; anybody else has shown it by the tests above.
#[test]
fn an_ordinary_user_needs_no_privileges() {
    if !rustix::process::geteuid().is_root() {
        return println!("NOT TESTED here: every test of this run is an ordinary user's");
    }
    // Makes sure that the kernel is in the cache.
    let home = tempfile::tempdir().unwrap();
    let [program, arguments @ ..] = this_program("the_ordinary_user_runs_a_guest");
    let copy = home.path().join("test");
    fs::copy(program, &copy).unwrap();
    let cached =
        std::env::var_os("XDG_CACHE_HOME").map_or_else(|| Path::new(&std::env::var_os("HOME").unwrap()).join(".cache"), Into::into);
    let kernel = cached.join("pagewire/kernels/debian");
    let (kernels, temporary) = (home.path().join(".cache/pagewire/kernels"), home.path().join("tmp"));
    fs::create_dir_all(&kernels).unwrap();
    fs::create_dir(&temporary).unwrap();
    if kernel.exists() {
        // Otherwise that user downloads it, which takes longer but needs no privileges either.
        assert!(Command::new("cp").arg("-rL").args([kernel, kernels.join("debian")]).status().unwrap().success());
    }
    assert!(Command::new("chown").args(["-R", "65534:65534"]).arg(home.path()).status().unwrap().success());
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--"])
        .arg(&copy)
        .args(arguments)
        .env_remove("XDG_CACHE_HOME")
        .envs([("HOME", home.path()), ("TMPDIR", &temporary), (ORDINARY, Path::new("1"))])
        .current_dir(home.path())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    println!("{told}");
    assert!(output.status.success() && told.contains("user 65534 got code 7"), "{told}");
}

/// No test of its own: what the test above runs as another user.
#[test]
fn the_ordinary_user_runs_a_guest() {
    if std::env::var_os(ORDINARY).is_some() {
        let command = ["sh", "-c", "[ -c /dev/vfio/vfio ] && [ -e /sys/bus/pci/drivers/vfio-pci/0000:00:02.0 ] && exit 7"];
        let answer = run(VmConfig { nics: vec![VmNic::new(Model::VirtioNet)], ..VmConfig::new(command) }, None);
        println!("user {} got code {}", rustix::process::geteuid().as_raw(), answer.exit.code);
    }
}

#[test]
fn what_cannot_be_run_is_told_before_anything_boots() {
    let told = |config: VmConfig| try_run(config, None).map(|answer| answer.exit).unwrap_err().to_string();
    assert!(told(VmConfig::new(["no-such-program"])).contains("no-such-program"));
    assert!(told(VmConfig::new(Vec::<OsString>::new())).contains("no command"));
    let missing = VmConfig { shares: vec!["/no/such/file".into()], ..VmConfig::new(["true"]) };
    assert!(told(missing).contains("/no/such/file"));
    let kernel = Kernel::Files { kernel: "/no/kernel".into(), modules: "/no/modules".into() };
    assert!(told(VmConfig { kernel, ..VmConfig::new(["true"]) }).contains("/no/modules"));
    let nic = VmNic { wire: HostWire::Tap { name: "a/b".into() }.into(), ..VmNic::new(Model::E1000) };
    assert!(told(VmConfig { nics: vec![nic], ..VmConfig::new(["true"]) }).contains("not the name of a network interface"));
    let modules = tempfile::tempdir().unwrap();
    let kernel = Kernel::Files { kernel: "/no/kernel".into(), modules: modules.path().into() };
    let error = told(VmConfig { kernel, ..VmConfig::new(["true"]) });
    assert!(error.contains("the guest did not start: QEMU ended") && error.contains("/no/kernel"), "{error}");
}
