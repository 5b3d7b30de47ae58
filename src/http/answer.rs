//! What a request is answered with.

use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use super::condition::{Verdict, judge};
use super::listing;
use super::range::{self, Wanted};
use super::request::{BadRequest, Request};
use super::response::{Head, Piece, Response, reason};
use super::site::{Found, Site};
use crate::file::RegularFile;

/// The type of short messages.
const TEXT: &str = "text/plain; charset=utf-8";

/// The answer to `request`.
pub fn answer(request: &Request, site: &Site, now: SystemTime) -> Response {
    if !matches!(request.method.as_str(), "GET" | "HEAD") {
        return page(Some(request), 405, "This server gives files: GET and HEAD.", now, |head| head.field("Allow", "GET, HEAD"));
    }
    match site.find(&request.target) {
        Ok(Found::File(file)) => whole_or_part(request, &file, now),
        Ok(Found::Directory { path, entries }) => {
            let body = listing::page(&path, &entries).into_bytes();
            let head = Head::new(200, now).field("Content-Type", "text/html; charset=utf-8").field("Content-Length", body.len());
            finish(head, request, vec![Piece::Bytes(body)])
        }
        Ok(Found::MissingSlash(path)) => page(Some(request), 301, "It is a directory.", now, |head| head.field("Location", path)),
        Err(missing) => page(Some(request), missing.status(), &format!("{missing}."), now, |head| head),
    }
}

/// The answer to what is no request.
pub fn refuse(bad: BadRequest, now: SystemTime) -> Response {
    page(None, bad.status(), &format!("{bad}."), now, |head| head)
}

/// The answer to half a request that did not go on.
pub fn time_out(now: SystemTime) -> Response {
    page(None, 408, "The request took too long.", now, |head| head)
}

/// The answer instead of one that cannot be given just now, though it could a moment ago.
pub fn not_now(instead: &Response, now: SystemTime) -> Response {
    let body = format!("503 {}: the file is being changed; ask again.\n", reason(503)).into_bytes();
    let head = Head::new(503, now).field("Content-Type", TEXT).field("Content-Length", body.len()).field("Retry-After", 1);
    head.finish(instead.log.request.clone(), instead.close, vec![Piece::Bytes(body)], true)
}

fn finish(head: Head, request: &Request, body: Vec<Piece>) -> Response {
    head.finish(request_line(request), !request.keep_alive, body, request.method != "HEAD")
}

fn request_line(request: &Request) -> String {
    format!("{} {} HTTP/1.{}", request.method, request.target, request.minor)
}

/// A short page of text; without a request the connection ends with it.
fn page(request: Option<&Request>, status: u16, text: &str, now: SystemTime, extra: impl FnOnce(Head) -> Head) -> Response {
    let body = format!("{status} {}: {text}\n", reason(status)).into_bytes();
    let head = Head::new(status, now).field("Content-Type", TEXT).field("Content-Length", body.len());
    let body = vec![Piece::Bytes(body)];
    match request {
        Some(request) => finish(extra(head), request, body),
        None => extra(head).finish("-".into(), true, body, true),
    }
}

fn whole_or_part(request: &Request, file: &Arc<RegularFile>, now: SystemTime) -> Response {
    let (etag, modified) = (format!("\"{}\"", file.identity().tag()), file.identity().modified());
    // A time to come is told as now (RFC 9110, 8.8.2.1).
    let last_modified = httpdate::fmt_http_date(modified.min(now));
    let describe = |head: Head| head.field("ETag", &etag).field("Last-Modified", &last_modified).field("Accept-Ranges", "bytes");
    let ranges = match judge(request, &etag, modified) {
        Verdict::Go { ranges } => ranges,
        Verdict::NotModified => return finish(describe(Head::new(304, now)), request, Vec::new()),
        Verdict::Failed => return page(Some(request), 412, "The file is another one.", now, |head| head),
    };
    let size = file.size();
    // Range is for GET alone (RFC 9110, 14.2).
    let wanted = match request.range.as_deref().filter(|_| ranges && request.method == "GET") {
        Some(field) => range::parse(field, size),
        None => Wanted::All,
    };
    let content_type = content_type(file.name());
    let piece = |range: Range<u64>| Piece::File { file: Arc::clone(file), range };
    match wanted {
        Wanted::All => {
            let head = describe(Head::new(200, now)).field("Content-Type", content_type).field("Content-Length", size);
            finish(head, request, vec![piece(0..size)])
        }
        Wanted::Unsatisfiable => {
            page(Some(request), 416, "The file has no such bytes.", now, |head| head.field("Content-Range", format_args!("bytes */{size}")))
        }
        Wanted::Ranges(ranges) => match <[Range<u64>; 1]>::try_from(ranges) {
            Ok([range]) => {
                let head = describe(Head::new(206, now))
                    .field("Content-Type", content_type)
                    .field("Content-Range", ContentRange(&range, size))
                    .field("Content-Length", range.end - range.start);
                finish(head, request, vec![piece(range)])
            }
            Err(ranges) => {
                let (boundary, body) = multipart(&etag, &content_type, &ranges, size, piece);
                let len: u64 = body.iter().map(Piece::len).sum();
                let head = describe(Head::new(206, now))
                    .field("Content-Type", format_args!("multipart/byteranges; boundary={boundary}"))
                    .field("Content-Length", len);
                finish(head, request, body)
            }
        },
    }
}

/// `Content-Range` (RFC 9110, 14.4), for a range that is not empty.
struct ContentRange<'r>(&'r Range<u64>, u64);

impl std::fmt::Display for ContentRange<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "bytes {}-{}/{}", self.0.start, self.0.end - 1, self.1)
    }
}

/// Several ranges in one body (RFC 9110, 14.6). The boundary is made of the version of the file and may, as everybody's, occur in it: a client goes by
/// the lengths.
fn multipart(
    etag: &str,
    content_type: &str,
    ranges: &[Range<u64>],
    size: u64,
    piece: impl Fn(Range<u64>) -> Piece,
) -> (String, Vec<Piece>) {
    let boundary: String = std::iter::once("pagewire-").chain(etag.split(['"', '.'])).collect();
    let boundary = boundary.chars().take(70).collect::<String>();
    let mut body = Vec::with_capacity(2 * ranges.len() + 1);
    for (index, range) in ranges.iter().enumerate() {
        let line = if index == 0 { "" } else { "\r\n" };
        let part = ContentRange(range, size);
        body.push(Piece::Bytes(
            format!("{line}--{boundary}\r\nContent-Type: {content_type}\r\nContent-Range: {part}\r\n\r\n").into_bytes(),
        ));
        body.push(piece(range.clone()));
    }
    body.push(Piece::Bytes(format!("\r\n--{boundary}--\r\n").into_bytes()));
    (boundary, body)
}

fn content_type(name: &str) -> String {
    mime_guess::from_path(name).first_raw().unwrap_or("application/octet-stream").to_owned()
}
