//! One command in a guest with an IOMMU: what it finds there, and what comes back.

use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pagewire_hw_sim::rig::Model;
use pagewire_hw_sim::vm::{self, Kernel, PackageError, Streams, VmConfig, VmError, VmExit, VmNic};
use pagewire_hw_sim::wire::{self, WireConfig};

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
    let _ = tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).with_test_writer().try_init();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let mut streams = Streams { stdin: stdin.map(AsFd::as_fd), stdout: &mut stdout, stderr: &mut stderr };
    let start = Instant::now();
    let exit = vm::run(config, &mut streams, &AtomicBool::new(false))?;
    let stderr = String::from_utf8(stderr).unwrap();
    println!("{}: boot {:.1?}, in all {:.1?}; stderr: {stderr}", exit.kernel, exit.boot, start.elapsed());
    Ok(Answer { exit, stdout, stderr })
}

fn run(config: VmConfig, stdin: Option<&fs::File>) -> Answer {
    try_run(config, stdin).unwrap_or_else(|error| panic!("{error}"))
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
    fs::write(&named, "named").unwrap();
    let every_byte = place.join("every byte");
    fs::write(&every_byte, (0..=255).collect::<Vec<u8>>()).unwrap();
    let input = tempfile::tempfile().unwrap();
    (&input).write_all(&content[..1_000_000]).unwrap();
    rustix::fs::seek(&input, rustix::fs::SeekFrom::Start(0)).unwrap();

    let script = r#"
        echo == driver; ls /sys/bus/pci/drivers/vfio-pci | grep :
        echo == device; cat /sys/bus/pci/devices/0000:00:02.0/device
        echo == groups; ls /dev/vfio; ls /sys/kernel/iommu_groups | wc -l
        echo == dmar; dmesg | grep -c DMAR
        echo == hash; sha256sum <"$1/file"
        echo == type; stat -f -c %T "$1/file" /tmp /dev/shm
        echo == directory; pwd
        echo == variables; echo $ONE; env | grep -c =
        echo == named; cat "$2"
        echo == input; sha256sum
        echo == writable; echo more >>"$2" && wc -c <"$2"
        echo a word >&2
        echo == bytes
        cat "${3#--bytes=}"
        exit 200"#;
    let mut bytes = std::ffi::OsString::from("--bytes=");
    bytes.push(&every_byte);
    let command = ["sh".into(), "-c".into(), script.into(), "name".into(), shared.clone().into(), named.into(), bytes];
    let answer = run(
        VmConfig {
            nics: vec![VmNic::new(Model::E1000)],
            shares: vec!["it's shared".into()],
            environment: vec![("ONE".into(), "a 'quoted' $value".into())],
            directory: Some(place.clone()),
            ..VmConfig::new(command)
        },
        Some(&input),
    );
    let bytes = answer.stdout.len() - 256;
    assert_eq!(answer.stdout[bytes..], fs::read(&every_byte).unwrap());
    let answer = Answer { stdout: answer.stdout[..bytes].to_vec(), ..answer };
    println!("{}", answer.text());
    assert_eq!(answer.exit.code, 200);
    assert_eq!(answer.stderr, "a word\n");
    assert_eq!(answer.section("driver"), ["0000:00:02.0"]);
    assert_eq!(answer.section("device"), ["0x100e"]);
    assert_eq!(answer.section("type"), ["ext2/ext3", "tmpfs", "tmpfs"]);
    assert_eq!(answer.section("directory"), [place.to_str().unwrap()]);
    assert_eq!(answer.section("named"), ["named"]);
    let _ = (PathBuf::new(), Ordering::Relaxed, Duration::ZERO, Stdio::null(), Command::new("x").status().map(|s| s.signal()), wire::local(), WireConfig::default());
    let _ = |e: PackageError| (Kernel::Backports, fs::Permissions::from_mode(0), Path::new("/"), e);
}
