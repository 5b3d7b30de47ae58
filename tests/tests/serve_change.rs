//! A file is changed while `pagewire serve` sends it: nobody gets a part that looks like the whole, and whoever changes it does not wait long.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use pagewire_tests::command::{Run, start};
use pagewire_tests::web::Server;
use pagewire_tests::{content, wait_for};

/// More than fits into the buffers between the server and a client that reads slowly.
const SIZE: usize = 60_000_000;
/// Far less than the 45 s after which the kernel takes a lease away.
const SOON: Duration = Duration::from_secs(15);

struct UnderWay {
    directory: tempfile::TempDir,
    path: PathBuf,
    sent: Vec<u8>,
    server: Server,
    download: Run,
}

/// A download of which something has arrived.
fn under_way(options: &str) -> UnderWay {
    let directory = content::directory();
    fs::create_dir(directory.path().join("site")).expect("a directory");
    let (path, sent) = content::file(&directory.path().join("site"), SIZE);
    let server = Server::start(&directory.path().join("site"), options);
    let output = directory.path().join("got");
    let download = start(server.curl(&format!("-f --limit-rate 4M -o {}", output.display()), &format!("/{SIZE}.bin")));
    wait_for("the download to begin", || fs::metadata(&output).is_ok_and(|got| got.len() > 0).then_some(()));
    UnderWay { directory, path, sent, server, download }
}

impl UnderWay {
    /// The download has ended before its time, what there is of it is the file as it was, and the log has `why`. The server goes on.
    fn ends(self, why: &str) {
        let line = self.server.wait_for_log(&["cut off: ", why]);
        let ended = self.download.wait();
        // A transfer that was closed or reset before its end.
        assert!([18, 56].contains(&ended.status.code().expect("an exit")), "{}", ended.all());
        let got = fs::read(self.directory.path().join("got")).expect("a part");
        assert!(got.len() < SIZE);
        content::assert_same(&got, &self.sent[..got.len()]);
        let delivered: usize = line.split_once(" 200 ").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok()).expect("a number");
        assert!(delivered >= got.len() && delivered < SIZE, "{line}");

        fs::write(self.directory.path().join("site/next"), "next").expect("room");
        assert_eq!(self.server.get("-f", "/next"), "next");
        self.server.wait_until_idle();
        let account = self.server.stop();
        assert_eq!((account.number("/http/cut_off"), account.number("/connected")), (1, 0), "{}", account.figures);
    }
}

#[test]
fn a_writer_ends_the_download_and_goes_on() {
    let under_way = under_way("");
    let begin = Instant::now();
    OpenOptions::new().append(true).open(&under_way.path).and_then(|mut file| file.write_all(b"more")).expect("it may write");
    assert!(begin.elapsed() < SOON, "the writer waited {:?}", begin.elapsed());
    under_way.ends("another process wants to change it");
}

#[test]
fn a_truncation_ends_the_download_and_goes_on() {
    let under_way = under_way("--stability lease");
    let begin = Instant::now();
    nix::unistd::truncate(&under_way.path, 1000).expect("it may be truncated");
    assert!(begin.elapsed() < SOON, "it waited {:?}", begin.elapsed());
    under_way.ends("another process wants to change it");
}

#[test]
fn a_change_of_a_file_that_is_trusted_is_found_out_before_its_last_byte() {
    let under_way = under_way("--stability trust");
    let begin = Instant::now();
    OpenOptions::new().append(true).open(&under_way.path).and_then(|mut file| file.write_all(b"more")).expect("nothing keeps it");
    assert!(begin.elapsed() < Duration::from_secs(5), "nobody waits for trust: {:?}", begin.elapsed());
    under_way.ends("its size or times changed");
}

#[test]
fn a_file_that_is_replaced_goes_on_as_it_was() {
    let UnderWay { directory, path, sent, server, mut download } = under_way("");
    let new = directory.path().join("new");
    fs::write(&new, "another file").expect("room");
    fs::rename(&new, &path).expect("the old one is still open");
    assert_eq!(server.get("-f", &format!("/{SIZE}.bin")), "another file");
    assert!(!download.has_ended());
    let _ = download.wait().with_code(0);
    content::assert_same(&fs::read(directory.path().join("got")).expect("the download"), &sent);
    server.stop();
}

#[test]
fn where_a_lease_is_asked_for_a_file_that_is_open_for_writing_is_not_to_be_had_now() {
    let directory = content::directory();
    let (path, _) = content::file(directory.path(), 5000);
    let server = Server::start(directory.path(), "--stability lease");
    let writer = OpenOptions::new().write(true).open(&path).expect("the file");
    assert_eq!(server.get("-o /dev/null -w %{http_code}-%header{retry-after}", "/5000.bin"), "503-1");
    drop(writer);
    assert_eq!(server.get("-f -o /dev/null -w %{http_code}", "/5000.bin"), "200");
    let account = server.stop();
    assert_eq!((account.number("/http/responses/503"), account.number("/http/cut_off")), (1, 0));
}
