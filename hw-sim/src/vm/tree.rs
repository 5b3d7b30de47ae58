//! The guest's root directory, put together from files of this machine under their own paths.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

/// Where the guest has file systems of its own. A file of this machine can be below /tmp, /run and /dev/shm, but not here.
const GUESTS_OWN: [&str; 3] = ["/proc", "/sys", "/dev"];
const BUT: &str = "/dev/shm";

/// A file that cannot be put into the guest.
#[derive(Debug, thiserror::Error)]
#[error("{path} cannot be put into the guest: {source}")]
pub struct TreeError {
    /// the file
    pub path: PathBuf,
    /// what the system said
    pub source: io::Error,
}

/// A directory of this machine that becomes the guest's root.
pub(crate) struct Tree {
    root: PathBuf,
    /// What the files need, in bytes, each rounded up to [`BLOCK`].
    pub(crate) bytes: u64,
    /// How many files, directories and links there are.
    pub(crate) inodes: u64,
}

/// The disk's unit of allocation, in bytes.
pub(crate) const BLOCK: u64 = 4096;

impl Tree {
    /// An empty tree at `root`, a directory that exists.
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root, bytes: 0, inodes: 0 }
    }

    /// The directory.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Makes a directory.
    pub(crate) fn directory(&mut self, path: &Path) -> Result<(), TreeError> {
        // The last component is made as a parent of this one.
        self.place(&path.join("x")).map(drop).map_err(told(path))
    }

    /// Makes a file with this content.
    pub(crate) fn write(&mut self, path: &Path, content: &[u8]) -> Result<(), TreeError> {
        let Some(place) = self.place(path).map_err(told(path))? else { return Ok(()) };
        self.count(content.len() as u64);
        fs::write(place, content).map_err(told(path))
    }

    /// Puts a file of this machine under another path.
    pub(crate) fn copy(&mut self, from: &Path, path: &Path) -> Result<(), TreeError> {
        let Some(place) = self.place(path).map_err(told(path))? else { return Ok(()) };
        let real = from.canonicalize().map_err(told(from))?;
        self.file(&real, &place).map_err(told(from))
    }

    /// Makes a symbolic link.
    pub(crate) fn link(&mut self, path: &Path, target: &Path) -> Result<(), TreeError> {
        let Some(place) = self.place(path).map_err(told(path))? else { return Ok(()) };
        self.count(BLOCK);
        symlink(target, place).map_err(told(path))
    }

    /// Puts a file of this machine, or a directory with all that is in it, under its own absolute path.
    pub(crate) fn share(&mut self, path: &Path) -> Result<(), TreeError> {
        if self.reserved(path) {
            return Err(told(path)(io::Error::other("the guest has a file system of its own there")));
        }
        let Some(place) = self.place(path).map_err(told(path))? else {
            // It lies behind a link that is in the tree already: so where the link leads.
            let real = path.canonicalize().map_err(told(path))?;
            return if real == path { Ok(()) } else { self.share(&real) };
        };
        // Where the path itself is a link, the file is what was asked for.
        let real = path.canonicalize().map_err(told(path))?;
        if real.is_dir() {
            self.share_directory(path, &real)
        } else if real.is_file() {
            self.file(&real, &place).map_err(told(path))
        } else {
            Err(told(path)(io::Error::other("it is neither a file nor a directory")))
        }
    }

    fn share_directory(&mut self, path: &Path, real: &Path) -> Result<(), TreeError> {
        self.directory(path)?;
        for entry in fs::read_dir(real).map_err(told(real))? {
            let entry = entry.map_err(told(real))?;
            let (inside, kind) = (path.join(entry.file_name()), entry.file_type().map_err(told(&entry.path()))?);
            if kind.is_symlink() {
                let Some(place) = self.place(&inside).map_err(told(&inside))? else { continue };
                if place.symlink_metadata().is_err() {
                    self.link(&inside, &fs::read_link(entry.path()).map_err(told(&inside))?)?;
                }
            } else if kind.is_dir() {
                self.share_directory(&inside, &entry.path())?;
            } else if kind.is_file() {
                let Some(place) = self.place(&inside).map_err(told(&inside))? else { continue };
                self.file(&entry.path(), &place).map_err(told(&inside))?;
            }
            // Sockets, pipes and devices mean nothing in the guest.
        }
        Ok(())
    }

    /// Whether the guest has something of its own at `path`.
    pub(crate) fn reserved(&self, path: &Path) -> bool {
        path == Path::new("/") || (GUESTS_OWN.iter().any(|own| path.starts_with(own)) && !path.starts_with(BUT))
    }

    fn file(&mut self, real: &Path, place: &Path) -> io::Result<()> {
        match place.symlink_metadata() {
            // A name of busybox, for which this machine's program is wanted.
            Ok(there) if there.is_symlink() => fs::remove_file(place)?,
            Ok(_) => return Ok(()),
            Err(_) => {}
        }
        self.count(real.metadata()?.len());
        // A link costs nothing, but is not possible between file systems and, for an ordinary user, to everybody's files.
        fs::hard_link(real, place).or_else(|_| fs::copy(real, place).map(drop))
    }

    fn count(&mut self, len: u64) {
        self.bytes += len.next_multiple_of(BLOCK);
        self.inodes += 1;
    }

    /// Where `path` is in the tree; its parents are made, also those that only a `..` leaves again. `None` when it lies behind a symbolic
    /// link of the tree, which would lead out of the tree here.
    fn place(&mut self, path: &Path) -> io::Result<Option<PathBuf>> {
        let mut place = self.root.clone();
        for component in path.components() {
            match component {
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
                Component::ParentDir => {
                    if !self.make(&place)? {
                        return Ok(None);
                    }
                    if place != self.root {
                        place.pop();
                    }
                }
                Component::Normal(name) => {
                    if !self.make(&place)? {
                        return Ok(None);
                    }
                    place.push(name);
                }
            }
        }
        Ok(Some(place))
    }

    /// Makes a directory of the tree unless it is there; false for a symbolic link.
    fn make(&mut self, place: &Path) -> io::Result<bool> {
        match place.symlink_metadata() {
            Ok(there) => Ok(!there.is_symlink()),
            Err(_) => {
                self.count(BLOCK);
                fs::create_dir(place).map(|()| true)
            }
        }
    }
}

fn told(path: &Path) -> impl Fn(io::Error) -> TreeError {
    move |source| TreeError { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Place {
        directory: tempfile::TempDir,
        tree: Tree,
    }

    impl Place {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            for name in ["tree", "host"] {
                fs::create_dir(directory.path().join(name)).unwrap();
            }
            let tree = Tree::new(directory.path().join("tree"));
            Self { directory, tree }
        }

        fn host(&self) -> PathBuf {
            self.directory.path().join("host")
        }

        fn in_tree(&self, path: &Path) -> PathBuf {
            self.tree.root().join(path.strip_prefix("/").unwrap())
        }
    }

    #[test]
    fn a_directory_is_shared_with_its_links_and_without_its_sockets() {
        let mut place = Place::new();
        let host = place.host();
        fs::create_dir(host.join("deep")).unwrap();
        fs::write(host.join("deep/file"), "x").unwrap();
        symlink("/no/where", host.join("link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(host.join("socket")).unwrap();
        place.tree.share(&host).unwrap();
        place.tree.share(&host.join("deep")).unwrap();
        let shared = place.in_tree(&host);
        assert_eq!(fs::read_to_string(shared.join("deep/file")).unwrap(), "x");
        assert_eq!(fs::read_link(shared.join("link")).unwrap(), Path::new("/no/where"));
        assert!(!shared.join("socket").exists());
    }

    #[test]
    fn a_file_behind_a_link_of_the_tree_is_put_where_the_link_leads_and_never_outside_the_tree() {
        let mut place = Place::new();
        let host = place.host();
        fs::create_dir(host.join("real")).unwrap();
        fs::create_dir(host.join("shared")).unwrap();
        fs::write(host.join("real/file"), "x").unwrap();
        symlink(host.join("real"), host.join("shared/link")).unwrap();
        place.tree.share(&host.join("shared")).unwrap();
        place.tree.share(&host.join("shared/link/file")).unwrap();
        assert_eq!(fs::read_to_string(place.in_tree(&host.join("real/file"))).unwrap(), "x");
        assert!(place.in_tree(&host.join("shared/link")).is_symlink());
    }

    #[test]
    fn a_path_with_dots_leads_to_the_same_file_in_the_tree() {
        let mut place = Place::new();
        let host = place.host();
        fs::create_dir(host.join("a")).unwrap();
        fs::write(host.join("b"), "x").unwrap();
        place.tree.share(&host.join("a/../b")).unwrap();
        let shared = place.in_tree(&host);
        assert_eq!(fs::read_to_string(shared.join("a/../b")).unwrap(), "x");
    }

    #[test]
    fn the_guests_own_file_systems_are_not_replaced() {
        let mut place = Place::new();
        for path in ["/", "/proc/self/status", "/dev/null"] {
            assert!(place.tree.share(Path::new(path)).is_err(), "{path}");
        }
        let error = place.tree.share(Path::new("/no/such/file")).unwrap_err().to_string();
        assert!(error.contains("/no/such/file cannot be put into the guest"), "{error}");
    }

    #[test]
    fn a_program_of_this_machine_replaces_a_name_of_busybox() {
        let mut place = Place::new();
        let file = place.host().join("ls");
        fs::write(&file, "mine").unwrap();
        place.tree.link(&file, Path::new("/bin/busybox")).unwrap();
        place.tree.share(&file).unwrap();
        assert_eq!(fs::read_to_string(place.in_tree(&file)).unwrap(), "mine");
    }
}
