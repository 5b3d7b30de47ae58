//! The files that are on their way: opened once and kept from changing once, to however many clients they go.

use std::collections::HashMap;
use std::sync::Arc;

use crate::file::{Identity, RegularFile};
use crate::send::{SendError, Stability};
use crate::tcp::{SharedFile, WeakFile};

/// How many are known at least before those that are gone are looked for.
const FEW: usize = 32;

/// Files that some client gets at the moment.
#[derive(Debug, Default)]
pub(super) struct Files {
    known: HashMap<Identity, WeakFile>,
    swept: usize,
}

impl Files {
    /// The file as it was opened for a request, or the one that other clients get already, if that is the same version of it: a descriptor and a
    /// lease for each client would be too many.
    ///
    /// # Errors
    /// As [`SharedFile::new`].
    pub fn share(&mut self, file: &Arc<RegularFile>, stability: Stability) -> Result<SharedFile, SendError> {
        let known = self.known.get(file.identity()).and_then(WeakFile::upgrade);
        if let Some(known) = known.filter(|known| known.disturbed().is_none()) {
            return Ok(known);
        }
        let shared = SharedFile::new(Arc::clone(file), stability)?;
        self.known.insert(*file.identity(), shared.remember().1);
        if self.known.len() >= 2 * self.swept.max(FEW) {
            self.known.retain(|_, file| !file.is_gone());
            self.swept = self.known.len();
        }
        Ok(shared)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn clients_of_one_version_share_it_and_another_version_is_another_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let open = || Arc::new(RegularFile::new(File::open(&path).unwrap(), "file".into()).unwrap().unwrap());
        std::fs::write(&path, "one").unwrap();
        let mut files = Files::default();
        let first = files.share(&open(), Stability::Trust).unwrap();
        let second = files.share(&open(), Stability::Trust).unwrap();
        assert!(std::ptr::eq(first.file(), second.file()));
        std::fs::write(&path, "three").unwrap();
        let third = files.share(&open(), Stability::Trust).unwrap();
        assert_eq!((first.size(), third.size()), (3, 5));
    }

    #[test]
    fn what_no_client_gets_any_more_is_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let mut files = Files::default();
        for number in 0..10 * FEW {
            let path = directory.path().join(number.to_string());
            std::fs::write(&path, "x").unwrap();
            let file = Arc::new(RegularFile::new(File::open(&path).unwrap(), "file".into()).unwrap().unwrap());
            files.share(&file, Stability::Trust).unwrap();
        }
        assert!(files.known.len() <= 2 * FEW, "{}", files.known.len());
    }
}
