//! The directory that is served.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use percent_encoding::{percent_decode_str, percent_encode};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use super::listing::{Entry, NAME};
use crate::file::RegularFile;

/// Look-ups stay inside.
const INSIDE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);

/// A directory, or one file in it, opened once. The kernel itself keeps every look-up inside it (`openat2` with `RESOLVE_BENEATH`, Linux 5.6): no `..` and no symbolic
/// link leads out, whatever happens to the directory under way.
#[derive(Debug)]
pub struct Site {
    root: OwnedFd,
    /// The one name in it that is served; `None` for all.
    only: Option<OsString>,
}

/// What a target names.
#[derive(Debug)]
pub enum Found {
    /// A file.
    File(Arc<RegularFile>),
    /// A directory without `index.html`: what is in it. The path is decoded, with a slash at both ends.
    Directory {
        /// where it is
        path: String,
        /// its names, in order
        entries: Vec<Entry>,
    },
    /// A directory that was named without the slash at the end, which links inside it need: where it is, encoded.
    MissingSlash(String),
}

/// A target that names nothing that can be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// Not a path.
    #[error("the target is not a path")]
    BadTarget,
    /// There is no such file, or it is outside.
    #[error("there is no such file")]
    NotFound,
    /// There is one, and it must not be read, or is no file.
    #[error("the file cannot be read")]
    Forbidden,
    /// More files are open than this process may have.
    #[error("the server has too many files open; ask again")]
    Busy,
    /// The system failed; it is in the program's log.
    #[error("the server failed")]
    Failed,
}

impl Missing {
    /// The status code.
    pub fn status(self) -> u16 {
        match self {
            Self::BadTarget => 400,
            Self::NotFound => 404,
            Self::Forbidden => 403,
            Self::Failed => 500,
            Self::Busy => 503,
        }
    }
}

impl Site {
    /// Serves what is in the directory `path`; where that is a file, it alone, under its name.
    ///
    /// # Errors
    /// When it is no directory or file that can be opened.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        let is_file = std::fs::metadata(path)?.is_file();
        // A link is followed here, where the user names it, and nowhere later.
        let file = if is_file { Some(path.canonicalize()?) } else { None };
        let directory = file.as_deref().map_or(Some(path), Path::parent).unwrap_or(Path::new("/"));
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let root = rustix::fs::open(directory, flags, Mode::empty())?;
        let only = file.as_deref().and_then(Path::file_name).map(OsStr::to_owned);
        if let Some(only) = &only {
            openat2(&root, only, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty(), INSIDE)?;
        }
        Ok(Self { root, only })
    }

    /// Where the one file is that is served: its path in a URL. `None` for a directory.
    pub fn file_path(&self) -> Option<String> {
        self.only.as_ref().map(|name| format!("/{}", percent_encode(name.as_bytes(), NAME)))
    }

    /// What `target` of a request names: the path of it, percent-decoded; a query is ignored.
    ///
    /// # Errors
    /// [`Missing`].
    pub fn find(&self, target: &str) -> Result<Found, Missing> {
        let path = decode(target)?;
        let inside = relative(&path)?;
        let is_root = inside == Path::new(".");
        if self.only.as_ref().is_some_and(|only| !is_root && inside != Path::new(only)) {
            return Err(Missing::NotFound);
        }
        let file = self.open_inside(&inside)?;
        let is_directory = file.metadata().map_err(failed)?.is_dir();
        if !is_directory {
            return if path.ends_with(b"/") { Err(Missing::NotFound) } else { regular(file, &inside) };
        }
        if !path.ends_with(b"/") {
            // One slash in front: two would name another host.
            let names = inside.iter().map(|name| percent_encode(name.as_bytes(), NAME).to_string());
            return Ok(Found::MissingSlash(format!("/{}/", names.collect::<Vec<_>>().join("/"))));
        }
        let index = if self.only.is_none() { self.open_inside(&inside.join("index.html")) } else { Err(Missing::NotFound) };
        match index {
            Ok(index) if index.metadata().map_err(failed)?.is_file() => return regular(index, &inside.join("index.html")),
            Err(failure @ (Missing::Failed | Missing::Busy)) => return Err(failure),
            _ => {}
        }
        Ok(Found::Directory { entries: self.entries(&file)?, path: String::from_utf8_lossy(&path).into_owned() })
    }

    fn open_inside(&self, path: &Path) -> Result<File, Missing> {
        // A FIFO must not make us wait for its writer.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        match openat2(&self.root, path, flags, Mode::empty(), INSIDE) {
            Ok(file) => Ok(File::from(file)),
            // XDEV is what the kernel says of a way out.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::XDEV | Errno::LOOP | Errno::NAMETOOLONG) => Err(Missing::NotFound),
            Err(Errno::MFILE | Errno::NFILE) => Err(Missing::Busy),
            Err(Errno::ACCESS | Errno::PERM | Errno::NXIO | Errno::NODEV) => Err(Missing::Forbidden),
            Err(error) => Err(failed(error.into())),
        }
    }

    /// The names in a directory that could be asked for: regular files and directories, after links that stay inside.
    fn entries(&self, directory: &File) -> Result<Vec<Entry>, Missing> {
        let mut entries = Vec::new();
        for entry in rustix::fs::Dir::read_from(directory).map_err(|error| failed(error.into()))? {
            let entry = entry.map_err(|error| failed(error.into()))?;
            let name = entry.file_name();
            // A name that is not text cannot stand on the page; it can still be asked for.
            let Ok(text) = name.to_str() else { continue };
            if text == "." || text == ".." || self.only.as_ref().is_some_and(|only| only != text) {
                continue;
            }
            let Ok(opened) = openat2(directory, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), INSIDE) else { continue };
            let Ok(metadata) = File::from(opened).metadata() else { continue };
            if metadata.is_file() || metadata.is_dir() {
                entries.push(Entry { is_file: metadata.is_file(), name: text.to_owned(), size: metadata.len() });
            }
        }
        entries.sort();
        Ok(entries)
    }
}

fn regular(file: File, path: &Path) -> Result<Found, Missing> {
    match RegularFile::new(file, path.display().to_string()).map_err(failed)? {
        Ok(file) => Ok(Found::File(Arc::new(file))),
        Err(_) => Err(Missing::Forbidden),
    }
}

fn failed(error: io::Error) -> Missing {
    tracing::warn!("a file could not be opened: {error}");
    Missing::Failed
}

/// The path of a target, as bytes: file names need not be text.
fn decode(target: &str) -> Result<Vec<u8>, Missing> {
    // The absolute form names a host that we are (RFC 9112, 3.2.2).
    let path = match target.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest.find('/').map_or("/", |slash| &rest[slash..]),
        _ => target,
    };
    let path = path.split(['?', '#']).next().unwrap_or_default();
    if !path.starts_with('/') {
        return Err(Missing::BadTarget);
    }
    let bytes = path.as_bytes();
    let is_escape = |at: usize| bytes.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
    if bytes.iter().enumerate().any(|(at, byte)| *byte == b'%' && !is_escape(at)) {
        return Err(Missing::BadTarget);
    }
    let decoded: Vec<u8> = percent_decode_str(path).collect();
    if decoded.contains(&0) { Err(Missing::BadTarget) } else { Ok(decoded) }
}

/// A decoded path as one relative to the root. A client has resolved `..` before it asks; one that sends it is up to something.
fn relative(path: &[u8]) -> Result<PathBuf, Missing> {
    let mut inside = PathBuf::new();
    for component in path.split(|byte| *byte == b'/').filter(|component| !component.is_empty() && *component != b".") {
        if component == b".." {
            return Err(Missing::NotFound);
        }
        inside.push(OsStr::from_bytes(component));
    }
    if inside.as_os_str().is_empty() {
        inside.push(".");
    }
    Ok(inside)
}
