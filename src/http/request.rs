//! One request, parsed.

use std::time::SystemTime;

/// The most bytes of a request line and its header fields.
pub const MAX_HEAD: usize = 8 << 10;

/// The most header fields.
const MAX_FIELDS: usize = 64;

/// A request's line and those header fields that a file server looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `HEAD`, or what else was asked.
    pub method: String,
    /// The target as it was sent: `/a%20b?c`.
    pub target: String,
    /// The minor version: HTTP/1.0 or HTTP/1.1.
    pub minor: u8,
    /// Whether the connection stays open for more.
    pub keep_alive: bool,
    /// `Range`.
    pub range: Option<String>,
    /// `If-Range`.
    pub if_range: Option<String>,
    /// `If-Match`.
    pub if_match: Option<String>,
    /// `If-None-Match`.
    pub if_none_match: Option<String>,
    /// `If-Modified-Since`; a date that cannot be read counts as none (RFC 9110, 13.1.3).
    pub if_modified_since: Option<SystemTime>,
    /// `If-Unmodified-Since`.
    pub if_unmodified_since: Option<SystemTime>,
}

/// What the bytes at the start of a connection's input are.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A request of so many bytes.
    Request(Box<Request>, usize),
    /// The start of one.
    Partial,
}

/// Bytes that are no request, or one that this server cannot take. The connection ends with it, since nobody knows where the next request starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// Not HTTP.
    #[error("the request is malformed")]
    Malformed,
    /// The request line does not fit.
    #[error("the request line is longer than {MAX_HEAD} bytes")]
    TargetTooLong,
    /// The header does not fit.
    #[error("the header has more than {MAX_HEAD} bytes or {MAX_FIELDS} fields")]
    HeaderTooLong,
    /// Not 1.0 or 1.1.
    #[error("this server speaks HTTP/1.1")]
    Version,
}

impl BadRequest {
    /// The status code.
    pub fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::TargetTooLong => 414,
            Self::HeaderTooLong => 431,
            Self::Version => 505,
        }
    }
}

/// Parses the request at the start of `input`.
///
/// # Errors
/// [`BadRequest`].
pub fn parse(input: &[u8]) -> Result<Parsed, BadRequest> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    // What is too long is refused by its length, wherever the network happened to cut it.
    let window = &input[..input.len().min(MAX_HEAD)];
    match request.parse(window) {
        Ok(httparse::Status::Complete(len)) => Ok(Parsed::Request(Box::new(read(&request)?), len)),
        Ok(httparse::Status::Partial) if input.len() >= MAX_HEAD => {
            Err(if window.contains(&b'\n') { BadRequest::HeaderTooLong } else { BadRequest::TargetTooLong })
        }
        Ok(httparse::Status::Partial) => Ok(Parsed::Partial),
        Err(httparse::Error::TooManyHeaders) => Err(BadRequest::HeaderTooLong),
        Err(httparse::Error::Version) => Err(BadRequest::Version),
        Err(_) => Err(BadRequest::Malformed),
    }
}

fn read(parsed: &httparse::Request<'_, '_>) -> Result<Request, BadRequest> {
    let minor = parsed.version.ok_or(BadRequest::Malformed)?;
    let mut request = Request {
        method: parsed.method.ok_or(BadRequest::Malformed)?.to_owned(),
        target: parsed.path.ok_or(BadRequest::Malformed)?.to_owned(),
        minor,
        keep_alive: minor >= 1,
        range: None,
        if_range: None,
        if_match: None,
        if_none_match: None,
        if_modified_since: None,
        if_unmodified_since: None,
    };
    let (mut hosts, mut body) = (0, false);
    for field in parsed.headers.iter() {
        let name = field.name;
        let Ok(value) = std::str::from_utf8(field.value) else { continue };
        let value = value.trim();
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted);
        if is("host") {
            hosts += 1;
        } else if is("connection") {
            for option in value.split(',').map(str::trim) {
                if option.eq_ignore_ascii_case("close") {
                    request.keep_alive = false;
                } else if option.eq_ignore_ascii_case("keep-alive") && minor == 0 {
                    request.keep_alive = true;
                }
            }
        } else if is("transfer-encoding") || is("content-length") && value != "0" {
            body = true;
        } else if is("range") {
            request.range = Some(value.to_owned());
        } else if is("if-range") {
            request.if_range = Some(value.to_owned());
        } else if is("if-match") {
            join(&mut request.if_match, value);
        } else if is("if-none-match") {
            join(&mut request.if_none_match, value);
        } else if is("if-modified-since") {
            request.if_modified_since = httpdate::parse_http_date(value).ok();
        } else if is("if-unmodified-since") {
            request.if_unmodified_since = httpdate::parse_http_date(value).ok();
        }
    }
    if hosts != 1 && minor >= 1 || hosts > 1 {
        // RFC 9112, 3.2.
        return Err(BadRequest::Malformed);
    }
    if body {
        // No file is asked for with a body. It is not read, so it ends the connection.
        request.keep_alive = false;
    }
    Ok(request)
}

/// Fields of one name are one list (RFC 9110, 5.3).
fn join(list: &mut Option<String>, value: &str) {
    match list {
        Some(list) => {
            list.push(',');
            list.push_str(value);
        }
        None => *list = Some(value.to_owned()),
    }
}
