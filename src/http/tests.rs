//! Sessions on a real directory; answers are read by httparse, not by code of ours.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proptest::prelude::*;
use tempfile::TempDir;

use super::{Piece, Response, Session, Site};

const NOW: Duration = Duration::from_secs(4_000_000_000);

fn now() -> SystemTime {
    UNIX_EPOCH + NOW
}

/// A directory with files, and something outside it that must not be had.
fn site() -> (TempDir, Site) {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("root");
    fs::create_dir_all(root.join("deep/er")).unwrap();
    fs::create_dir(root.join("with index")).unwrap();
    fs::write(directory.path().join("secret"), "secret").unwrap();
    fs::write(root.join("digits.txt"), "0123456789").unwrap();
    fs::write(root.join("empty"), "").unwrap();
    fs::write(root.join("deep/a&b <c>.html"), "x").unwrap();
    fs::write(root.join("with index/index.html"), "<p>index").unwrap();
    symlink("../secret", root.join("out")).unwrap();
    symlink(directory.path().join("secret"), root.join("absolute")).unwrap();
    symlink("deep", root.join("in")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, root.join("fifo"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let site = Site::open(&root).unwrap();
    (directory, site)
}

struct Answer {
    status: u16,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
    close: bool,
}

impl Answer {
    fn of(response: &Response) -> Self {
        let mut bytes = Vec::new();
        for piece in &response.pieces {
            match piece {
                Piece::Bytes(own) => bytes.extend_from_slice(own),
                Piece::File { file, range } => {
                    let mut read = vec![0; (range.end - range.start) as usize];
                    file.read_at(&mut read, range.start).unwrap();
                    bytes.extend_from_slice(&read);
                }
            }
        }
        let mut fields = [httparse::EMPTY_HEADER; 32];
        let mut parsed = httparse::Response::new(&mut fields);
        let httparse::Status::Complete(head) = parsed.parse(&bytes).unwrap() else { panic!("half a header") };
        let fields = parsed.headers.iter().map(|field| (field.name.to_lowercase(), String::from_utf8(field.value.to_vec()).unwrap()));
        let answer = Self { status: parsed.code.unwrap(), fields: fields.collect(), body: bytes[head..].to_vec(), close: response.close };
        assert_eq!(answer.status, response.status);
        assert_eq!(answer.body.len() as u64, response.log.bytes);
        assert_eq!(answer.field("connection"), Some(if response.close { "close" } else { "keep-alive" }));
        answer
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

fn ask(site: &Site, request: &str) -> Answer {
    let mut session = Session::new();
    session.receive(request.as_bytes());
    let answer = Answer::of(&session.respond(site, now()).expect("an answer"));
    assert!(session.respond(site, now()).is_none());
    answer
}

fn get(site: &Site, target: &str, fields: &str) -> Answer {
    ask(site, &format!("GET {target} HTTP/1.1\r\nHost: test\r\n{fields}\r\n"))
}

#[test]
fn a_file_is_given_whole_with_its_description() {
    let (_directory, site) = site();
    let answer = get(&site, "/digits.txt?query", "");
    assert_eq!((answer.status, answer.text(), answer.close), (200, "0123456789", false));
    assert_eq!(answer.field("content-type"), Some("text/plain"));
    assert_eq!(answer.field("content-length"), Some("10"));
    assert_eq!(answer.field("accept-ranges"), Some("bytes"));
    assert_eq!(answer.field("date"), Some(httpdate::fmt_http_date(now()).as_str()));
    assert!(answer.field("last-modified").is_some() && answer.field("etag").is_some_and(|tag| tag.starts_with('"')));
    let empty = get(&site, "/empty", "");
    assert_eq!((empty.status, empty.field("content-length"), empty.body.len()), (200, Some("0"), 0));
    assert_eq!(get(&site, "http://test/digits.txt", "").text(), "0123456789");
    assert_eq!(get(&site, "/%64igits.txt", "").text(), "0123456789");
}

#[test]
fn head_has_the_header_of_get_and_no_body() {
    let (_directory, site) = site();
    let head = ask(&site, "HEAD /digits.txt HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1\r\n\r\n");
    assert_eq!((head.status, head.field("content-length"), head.body.len()), (200, Some("10"), 0));
    assert_eq!(ask(&site, "HEAD /none HTTP/1.1\r\nHost: a\r\n\r\n").body, b"");
}

#[test]
fn ranges_are_given_single_and_multiple() {
    let (_directory, site) = site();
    let single = get(&site, "/digits.txt", "Range: bytes=2-4\r\n");
    assert_eq!((single.status, single.text(), single.field("content-range")), (206, "234", Some("bytes 2-4/10")));
    let none = get(&site, "/digits.txt", "Range: bytes=10-\r\n");
    assert_eq!((none.status, none.field("content-range")), (416, Some("bytes */10")));
    let two = get(&site, "/digits.txt", "Range: bytes=0-1,-2\r\n");
    assert_eq!(two.status, 206);
    assert_eq!(two.field("content-length").unwrap(), two.body.len().to_string());
    let boundary = two.field("content-type").unwrap().split_once("boundary=").unwrap().1;
    let parts: Vec<&str> = two.text().split(&format!("--{boundary}")).collect();
    assert_eq!(parts.len(), 4, "{:?}", two.text());
    assert!(parts[1].contains("bytes 0-1/10\r\n\r\n01\r\n") && parts[2].contains("bytes 8-9/10\r\n\r\n89\r\n"), "{parts:?}");
    assert_eq!(parts[3], "--\r\n");
}

#[test]
fn what_the_client_has_is_not_given_again() {
    let (_directory, site) = site();
    let first = get(&site, "/digits.txt", "");
    let (tag, date) = (first.field("etag").unwrap(), first.field("last-modified").unwrap());
    for (fields, expected) in [
        (format!("If-None-Match: {tag}\r\n"), 304),
        (format!("If-None-Match: \"x\"\r\nIf-None-Match: W/{tag}\r\n"), 304),
        ("If-None-Match: *\r\n".into(), 304),
        ("If-None-Match: \"x\"\r\n".into(), 200),
        (format!("If-Modified-Since: {date}\r\n"), 304),
        ("If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT\r\n".into(), 200),
        ("If-Modified-Since: yesterday\r\n".into(), 200),
        (format!("If-None-Match: \"x\"\r\nIf-Modified-Since: {date}\r\n"), 200),
        (format!("If-Match: {tag}\r\n"), 200),
        ("If-Match: \"x\"\r\n".into(), 412),
        ("If-Unmodified-Since: Thu, 01 Jan 1970 00:00:00 GMT\r\n".into(), 412),
        (format!("Range: bytes=0-1\r\nIf-Range: {tag}\r\n"), 206),
        (format!("Range: bytes=0-1\r\nIf-Range: {date}\r\n"), 206),
        ("Range: bytes=0-1\r\nIf-Range: \"x\"\r\n".into(), 200),
    ] {
        assert_eq!(get(&site, "/digits.txt", &fields).status, expected, "{fields}");
    }
    let unchanged = get(&site, "/digits.txt", &format!("If-None-Match: {tag}\r\n"));
    assert_eq!((unchanged.body.len(), unchanged.field("etag")), (0, Some(tag)));
}

#[test]
fn a_file_that_changed_has_another_tag() {
    let (directory, site) = site();
    let tag = |site| get(site, "/digits.txt", "").field("etag").unwrap().to_owned();
    let before = tag(&site);
    fs::write(directory.path().join("root/digits.txt"), "01234567890").unwrap();
    assert_ne!(tag(&site), before);
}

#[test]
fn nothing_outside_can_be_had() {
    let (_directory, site) = site();
    for target in [
        "/../secret",
        "/%2e%2e/secret",
        "/deep/../../secret",
        "/out",
        "/absolute",
        "/in/../../secret",
        "/..%2fsecret",
        "/loop",
        "/none",
        "/digits.txt/",
        "/digits.txt/x",
        &format!("/{}", "x".repeat(300)),
    ] {
        assert_eq!(get(&site, target, "").status, 404, "{target}");
    }
    assert_eq!(get(&site, "/fifo", "").status, 403);
    for target in ["*", "digits.txt", "/%zz", "/%0", "/a%00b"] {
        assert_eq!(get(&site, target, "").status, 400, "{target}");
    }
    assert_eq!(get(&site, "/in/a%26b%20%3Cc%3E.html", "").text(), "x");
}

#[test]
fn a_directory_is_an_index_or_a_list() {
    let (_directory, site) = site();
    let moved = get(&site, "//with%20index?x", "");
    assert_eq!((moved.status, moved.field("location")), (301, Some("/with%20index/")));
    assert_eq!(get(&site, "/with%20index/", "").text(), "<p>index");
    let list = get(&site, "/", "");
    assert!(list.text().contains("href=\"./digits.txt\"") && list.text().contains("href=\"./deep/\"") && list.text().contains("./in/"));
    assert!(!list.text().contains("../") && !list.text().contains("out") && !list.text().contains("fifo"), "{}", list.text());
    let deep = get(&site, "/deep/", "");
    assert!(deep.text().contains("href=\"./a%26b%20%3Cc%3E.html\"") && deep.text().contains("a&amp;b &lt;c&gt;.html"));
}

#[test]
fn requests_are_answered_in_order_and_may_come_in_any_pieces() {
    let (_directory, site) = site();
    let requests = b"\r\nGET /digits.txt HTTP/1.1\r\nHost: a\r\nRange: bytes=0-0\r\n\r\nGET /digits.txt HTTP/1.1\r\nHost: a\r\nRange: bytes=1-1\r\n\r\n\
        GET /digits.txt HTTP/1.1\r\nHost: a\r\nRange: bytes=2-2\r\nConnection: close\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for step in [1, 7, requests.len()] {
        let (mut session, mut got) = (Session::new(), Vec::new());
        for bytes in requests.chunks(step) {
            session.receive(bytes);
            while let Some(response) = session.respond(&site, now()) {
                let answer = Answer::of(&response);
                got.push((answer.text().to_owned(), answer.close));
            }
        }
        assert_eq!(got, [("0".into(), false), ("1".into(), false), ("2".into(), true)], "in steps of {step}");
        assert_eq!(session.wants(), 0);
    }
}

#[test]
fn what_is_no_request_is_told_and_ends_the_connection() {
    let (_directory, site) = site();
    let long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(9000));
    let wide = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n", "x".repeat(9000));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(70));
    for (request, expected) in [
        ("nonsense\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("GET / HTTP/2.0\r\n\r\n", 505),
        (long.as_str(), 414),
        (wide.as_str(), 431),
        (many.as_str(), 431),
    ] {
        let answer = ask(&site, request);
        assert_eq!((answer.status, answer.close), (expected, true), "{request:.40}");
    }
    let post = ask(&site, "POST /digits.txt HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!((post.status, post.field("allow"), post.close), (405, Some("GET, HEAD"), true));
}

#[test]
fn old_clients_close_unless_they_ask_to_keep() {
    let (_directory, site) = site();
    assert!(ask(&site, "GET /empty HTTP/1.0\r\n\r\n").close);
    assert!(!ask(&site, "GET /empty HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").close);
}

#[test]
fn half_a_request_can_time_out() {
    let (_directory, site) = site();
    let mut session = Session::new();
    assert!(!session.in_request());
    session.receive(b"GET / HT");
    assert!(session.respond(&site, now()).is_none() && session.in_request());
    let answer = Answer::of(&session.time_out(now()));
    assert_eq!((answer.status, answer.close, session.wants()), (408, true, 0));
}

proptest! {
    #[test]
    fn no_bytes_confuse_it(bytes in proptest::collection::vec(any::<u8>(), 0..200), step in 1..50usize) {
        let (_directory, site) = site();
        let mut session = Session::new();
        for bytes in bytes.chunks(step) {
            session.receive(bytes);
            while let Some(response) = session.respond(&site, now()) {
                Answer::of(&response);
            }
        }
    }

    #[test]
    fn no_target_leads_out(target in "(/|[.]|%2e|%2f|in|out|deep|absolute|secret|\\PC){0,12}") {
        let (_directory, site) = site();
        if let Ok(super::site::Found::File(file)) = site.find(&format!("/{target}")) {
            let mut bytes = vec![0; file.size() as usize];
            file.read_at(&mut bytes, 0).unwrap();
            prop_assert_ne!(bytes, b"secret");
        }
    }
}
