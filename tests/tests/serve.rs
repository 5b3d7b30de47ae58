//! `pagewire serve` as curl, wget and sockets see it: what HTTP says of a server of files.

use std::fs;
use std::os::unix::fs::{FileExt, symlink};
use std::process::Command;

use pagewire_tests::command::{Run, pagewire, run, start};
use pagewire_tests::web::Server;
use pagewire_tests::{content, tool, wait_for};

/// The status code that curl prints with this.
const STATUS: &str = "-o /dev/null -w %{http_code}";

#[test]
fn files_of_all_sizes_are_got_whole_and_the_device_gathers_them() {
    let directory = content::directory();
    let files: Vec<_> = [1, 4095, 4096, 70_001, 3_000_001].map(|size| content::file(directory.path(), size)).into();
    fs::write(directory.path().join("empty"), "").expect("a file");
    let server = Server::start(directory.path(), "");
    let mut gathered = 0;
    for (path, sent) in &files {
        let name = path.file_name().and_then(|name| name.to_str()).expect("text");
        let output = directory.path().join("got");
        server.get(&format!("-f -o {}", output.display()), &format!("/{name}"));
        content::assert_same(&fs::read(&output).expect("the download"), sent);
        gathered += sent.len() as u64 / 4096 * 4096;
        let head = server.get("-f -I", &format!("/{name}"));
        assert!(head.contains(&format!("Content-Length: {}\r\n", sent.len())), "{head}");
    }
    assert_eq!(server.get("-f -w %{http_code}-%{size_download}", "/empty"), "200-0");

    server.wait_until_idle();
    let account = server.stop();
    let bytes: u64 = files.iter().map(|(_, sent)| sent.len() as u64).sum();
    assert_eq!(account.number("/http/body_bytes"), bytes);
    assert_eq!(account.number("/http/responses/200"), 11);
    assert_eq!((account.number("/tcp/bytes_gathered"), account.number("/tcp/bytes_copied")), (gathered, bytes - gathered));
    assert_eq!(account.figures["tcp"]["copy_reasons"], serde_json::json!({ "partial-last-page": bytes - gathered }));
    assert_eq!((account.number("/tcp/retransmitted"), account.number("/http/cut_off"), account.number("/connected")), (0, 0, 0));
    // curl closes first: nothing is left, not even in TIME-WAIT, but for a last acknowledgement.
    assert!(account.number("/tcp/connections") <= 1, "{}", account.figures);
    assert_eq!(account.log.len(), 11, "{:?}", account.log);
    let line = account.log.iter().find(|line| line.contains("GET /70001.bin")).expect("a line for each request");
    assert!(line.starts_with("10.0.2.2 - - [") && line.contains(" +0000] \"GET /70001.bin HTTP/1.1\" 200 70001 "), "{line}");
}

#[test]
fn curl_gets_ranges_and_what_has_not_changed_is_not_sent_again() {
    let directory = content::directory();
    let (_, sent) = content::file(directory.path(), 100_000);
    let server = Server::start(directory.path(), "");
    let digits = directory.path().join("digits.txt");
    fs::write(&digits, "0123456789").expect("a file");
    assert_eq!(server.get("-f -r 2-4", "/digits.txt"), "234");
    assert_eq!(server.get("-f -r -3", "/digits.txt"), "789");
    assert_eq!(server.get("-f -r 8-", "/digits.txt"), "89");
    let several = server.get("-f -r 0-1,5-6", "/digits.txt");
    assert!(several.contains("bytes 0-1/10\r\n\r\n01\r\n--") && several.contains("bytes 5-6/10\r\n\r\n56\r\n--"), "{several}");
    assert_eq!(server.get(&format!("-r 10- {STATUS}"), "/digits.txt"), "416");
    // Within the file, across its pages and its last one.
    let part = directory.path().join("part");
    server.get(&format!("-f -r 4090-99998 -o {}", part.display()), "/100000.bin");
    content::assert_same(&fs::read(&part).expect("the part"), &sent[4090..99_999]);

    let etag = directory.path().join("etag").display().to_string();
    server.get(&format!("-f --etag-save {etag} -o /dev/null"), "/digits.txt");
    assert_eq!(server.get(&format!("-f --etag-compare {etag} {STATUS}"), "/digits.txt"), "304");
    assert_eq!(server.get(&format!("-f -z {} {STATUS}", digits.display()), "/digits.txt"), "304");
    fs::write(&digits, "another").expect("nobody has it open");
    assert_eq!(server.get(&format!("-f --etag-compare {etag}"), "/digits.txt"), "another");
    server.stop();
}

#[test]
fn curl_and_wget_resume_a_download() {
    let directory = content::directory();
    let (_, sent) = content::file(directory.path(), 1_500_000);
    let server = Server::start(directory.path(), "");
    for (program, options) in [("curl", "-sS --noproxy * -f -C - -o"), ("wget", "--no-proxy -q -c -O")] {
        let partial = directory.path().join(format!("{program}.part"));
        fs::write(&partial, &sent[..600_001]).expect("a file");
        let mut command = Command::new(tool(program, program));
        command.args(options.split_whitespace()).arg(&partial).arg(server.url("/1500000.bin"));
        let _ = run(command).with_code(0);
        content::assert_same(&fs::read(&partial).expect("the download"), &sent);
    }
    server.wait_until_idle();
    let account = server.stop();
    assert_eq!((account.number("/http/responses/206"), account.number("/http/body_bytes")), (2, 2 * 899_999));
}

#[test]
fn a_range_beyond_4_gib_of_a_sparse_file_is_got() {
    let directory = content::directory();
    let size = (5u64 << 30) + 1;
    let file = fs::File::create(directory.path().join("sparse")).expect("a file");
    file.set_len(size).expect("a sparse file");
    file.write_all_at(b"here", (4 << 30) + 4094).expect("room");
    drop(file);
    let server = Server::start(directory.path(), "");
    assert_eq!(server.get(&format!("-f -r {}-{}", (4u64 << 30) + 4094, (4u64 << 30) + 4097), "/sparse"), "here");
    let head = server.get("-f -I", "/sparse");
    assert!(head.contains(&format!("Content-Length: {size}\r\n")), "{head}");
    let account = server.stop();
    assert_eq!(account.number("/tcp/bytes_gathered"), 4);
}

#[test]
fn nothing_outside_the_directory_is_got() {
    let outside = content::directory();
    let directory = outside.path().join("site");
    fs::create_dir(&directory).expect("a directory");
    fs::write(outside.path().join("secret"), "secret").expect("a file");
    fs::write(directory.join("a b%&.txt"), "odd name").expect("a file");
    symlink("../secret", directory.join("relative")).expect("a link");
    symlink(outside.path().join("secret"), directory.join("absolute")).expect("a link");
    symlink("/", directory.join("root")).expect("a link");
    symlink("a b%&.txt", directory.join("inside")).expect("a link");
    let server = Server::start(&directory, "");
    for path in ["/../secret", "/%2e%2e/secret", "/..%2fsecret", "/./../secret", "/relative", "/absolute", "/root/etc/passwd", "/secret"] {
        assert_eq!(server.get(&format!("--path-as-is {STATUS}"), path), "404", "{path}");
    }
    assert_eq!(server.get("-f", "/a%20b%25%26.txt"), "odd name");
    assert_eq!(server.get("-f", "/inside"), "odd name");
    assert_eq!(server.get(STATUS, "/a%2"), "400");
    let account = server.stop();
    assert_eq!(account.number("/http/responses/404"), 8);
}

#[test]
fn a_directory_is_listed_or_has_an_index_and_one_file_can_be_served_alone() {
    let directory = content::directory();
    fs::create_dir(directory.path().join("deep")).expect("a directory");
    fs::write(directory.path().join("deep/index.html"), "<p>index").expect("a file");
    fs::write(directory.path().join("page.html"), "<p>page").expect("a file");
    let server = Server::start(directory.path(), "");
    let list = server.get("-f", "/");
    assert!(list.contains("href=\"./deep/\"") && list.contains("href=\"./page.html\""), "{list}");
    assert_eq!(server.get("-f -L -w -%{content_type}", "/deep"), "<p>index-text/html");
    assert_eq!(server.get("-w %{http_code}-%{redirect_url} -o /dev/null", "/deep"), format!("301-{}", server.url("/deep/")));
    server.stop();

    let server = Server::start(&directory.path().join("page.html"), "");
    assert_eq!(server.get("-f", "/page.html"), "<p>page");
    assert!(!server.get("-f", "/").contains("deep"));
    for path in ["/deep/", "/deep/index.html", "/deep"] {
        assert_eq!(server.get(STATUS, path), "404", "{path}");
    }
    server.stop();
}

#[test]
fn what_is_no_request_for_a_file_is_refused() {
    let directory = content::directory();
    content::file(directory.path(), 10);
    let server = Server::start(directory.path(), "");
    for (options, path, expected) in [
        ("", "/none", "404"),
        ("-d x=y", "/10.bin", "405"),
        ("-X DELETE", "/10.bin", "405"),
        ("-H Host:", "/10.bin", "400"),
        (format!("-H X:{}", "x".repeat(9000)).as_str(), "/10.bin", "431"),
        ("", format!("/{}", "x".repeat(9000)).as_str(), "414"),
    ] {
        assert_eq!(server.get(&format!("{options} {STATUS}"), path), expected, "{options:.20} {path:.20}");
    }
    for (request, expected) in [("HELLO\r\n\r\n", 400), ("GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505), ("\0\0\0\0", 400)] {
        let mut client = server.connect();
        client.send(request);
        assert_eq!(client.answer().status, expected, "{request:?}");
        assert!(client.is_ended(), "{request:?}");
    }
    let account = server.stop();
    // Bytes of a request that could hurt a terminal are not in the log as they are.
    assert!(account.log.iter().all(|line| line.bytes().all(|byte| (b' '..0x7f).contains(&byte))), "{:?}", account.log);
}

#[test]
fn requests_on_one_connection_are_answered_in_order() {
    let directory = content::directory();
    let files: Vec<_> = [1, 5000, 200_000].map(|size| content::file(directory.path(), size)).into();
    let server = Server::start(directory.path(), "");
    let mut client = server.connect();
    // Fifty at once, more than are answered at once; the client asks no more then, and still gets all.
    let order: Vec<usize> = (0..50).map(|number| number % files.len()).collect();
    let requests: String = order.iter().map(|which| format!("GET /{}.bin HTTP/1.1\r\nHost: a\r\n\r\n", files[*which].1.len())).collect();
    client.send(requests);
    client.socket.shutdown(std::net::Shutdown::Write).expect("a connection");
    for which in &order {
        let answer = client.answer();
        assert_eq!(answer.status, 200);
        content::assert_same(&answer.body, &files[*which].1);
    }
    assert!(client.is_ended());

    // In pieces, with an answer between them.
    let mut client = server.connect();
    client.send("GET /1.bin HTTP/1.1\r\nHost: a\r\n\r\nGET /50");
    assert_eq!(client.answer().body, files[0].1);
    client.send("00.bin HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /1.bin HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().body, files[1].1);
    assert!(client.is_ended(), "nothing is answered after a request that closes");

    // curl keeps its connection.
    let two = format!("-f -o /dev/null -o /dev/null -w %{{num_connects}}; {}", server.url("/1.bin"));
    assert_eq!(server.get(&two, "/5000.bin"), "1;0;");
    let account = server.stop();
    assert_eq!((account.number("/http/clients"), account.number("/http/responses/200")), (3, 54));
}

#[test]
fn ctrl_c_resets_who_is_connected_and_prints_what_was_done() {
    let directory = content::directory();
    content::file(directory.path(), 30_000_000);
    let server = Server::start(directory.path(), "");
    let download = start(server.curl("--limit-rate 1M -o /dev/null", "/30000000.bin"));
    let mut idle = server.connect();
    idle.ask("/none");
    assert_eq!(idle.answer().status, 404);
    wait_for("the download", || (server.log().len() == 1).then_some(()));
    let account = server.stop();
    assert_eq!((account.number("/connected"), account.number("/http/cut_off")), (2, 1), "{}", account.figures);
    let line = account.log.iter().find(|line| line.contains("30000000.bin")).expect("a line");
    assert!(line.ends_with("cut off: the server was stopped"), "{line}");
    assert!(idle.is_ended());
    let download = download.wait();
    assert!([18, 56].contains(&download.status.code().expect("an exit")), "{}", download.all());
}

#[test]
fn people_get_lines_and_a_table() {
    let directory = content::directory();
    content::file(directory.path(), 5000);
    let quiet = Server::start(directory.path(), "--quiet");
    quiet.get("-f -o /dev/null", "/5000.bin");
    assert_eq!(quiet.stop().log, [""; 0]);

    let mut server: Run = start(pagewire([
        "serve".as_ref(),
        directory.path().as_os_str(),
        "--nic".as_ref(),
        "sim:e1000".as_ref(),
        "--ip".as_ref(),
        "10.0.2.15/24".as_ref(),
    ]));
    wait_for("the server", || server.complaints().contains("http://10.0.2.15/").then_some(()));
    server.signal(pagewire_tests::process::Signal::INT);
    let ended = server.wait().with_code(0);
    for text in ["clients", "responses", "gathered by the NIC", "windows"] {
        assert!(ended.stdout.contains(text), "{text:?} in {}", ended.all());
    }
}

#[test]
fn what_cannot_be_served_is_said_before_a_nic_is_started() {
    let directory = content::directory();
    let missing = directory.path().join("nothing here");
    let arguments = |path: &std::path::Path, more: &[&str]| {
        let mut command = pagewire(["serve".as_ref(), path.as_os_str()]);
        command.args(["--nic", "sim:e1000", "--ip", "10.0.2.15/24"]).args(more);
        command
    };
    run(arguments(&missing, &[])).with_code(1).complains_of(&["nothing here", "No such file"]);
    for wrong in [["--request-timeout", "0"], ["--keep-alive", "soon"], ["--stall-timeout", "NaN"], ["--port", "0"], ["--clients", "0"]] {
        run(arguments(directory.path(), &wrong)).with_code(2).complains_of(&[wrong[0]]);
    }
}
