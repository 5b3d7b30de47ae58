//! The page for a directory without an index.html.

use std::fmt::Write;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What a file name's characters are encoded as in a link, but for those that mean nothing else there (RFC 3986, unreserved).
pub(super) const NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// One name of a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Whether it is a file; directories come first.
    pub is_file: bool,
    /// Its name.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
}

/// The page for the directory at `path` (decoded, with a slash at both ends).
pub fn page(path: &str, entries: &[Entry]) -> String {
    let title = escape(path);
    let mut page =
        format!("<!DOCTYPE html>\n<html><head><meta charset=\"utf-8\"><title>{title}</title></head>\n<body><h1>{title}</h1>\n<table>\n");
    if path != "/" {
        page.push_str("<tr><td><a href=\"../\">../</a></td><td></td></tr>\n");
    }
    for Entry { is_file, name, size } in entries {
        let slash = if *is_file { "" } else { "/" };
        let size = if *is_file { size.to_string() } else { String::new() };
        let link = utf8_percent_encode(name, NAME);
        let _ = writeln!(page, "<tr><td><a href=\"./{link}{slash}\">{}{slash}</a></td><td align=\"right\">{size}</td></tr>", escape(name));
    }
    page.push_str("</table></body></html>\n");
    page
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}
