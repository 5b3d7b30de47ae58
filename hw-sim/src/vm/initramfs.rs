//! The guest's first root directory: busybox, the modules, and the script that makes the rest.

use std::io::{self, Cursor, Write};
use std::path::Path;

use cpio::newc::{Builder, ModeFileType};

use super::modules::Module;

/// The guest's first process.
const INIT: &str = include_str!("init.sh");

/// The mount points that the script uses.
const DIRECTORIES: [&str; 7] = ["bin", "dev", "disk", "modules", "proc", "root", "sys"];

/// What the script finds there.
pub(crate) struct Contents<'c> {
    /// A static busybox.
    pub(crate) busybox: &'c Path,
    /// In the order of loading, before the NICs are bound.
    pub(crate) vfio: &'c [Module],
    /// Likewise, after that.
    pub(crate) virtio: &'c [Module],
    /// The NICs' addresses.
    pub(crate) nics: &'c [String],
    /// Whether the command gets a standard input.
    pub(crate) stdin: bool,
}

impl Contents<'_> {
    /// Writes the archive (cpio's newc format).
    pub(crate) fn write(&self, to: impl Write) -> io::Result<()> {
        let mut inputs: Vec<(Builder, Cursor<Vec<u8>>)> = Vec::new();
        for name in DIRECTORIES {
            inputs.push((Builder::new(name).mode(0o755).set_mode_file_type(ModeFileType::Directory), Cursor::default()));
        }
        let mut file = |name: &str, content: Vec<u8>| {
            inputs.push((Builder::new(name).mode(0o755).set_mode_file_type(ModeFileType::Regular), Cursor::new(content)));
        };
        file("init", INIT.into());
        file("parameters", self.parameters().into());
        file("bin/busybox", std::fs::read(self.busybox)?);
        for module in self.vfio.iter().chain(self.virtio) {
            file(&format!("modules/{}.ko", module.name), module.bytes.clone());
        }
        cpio::write_cpio(inputs.into_iter(), to).map(drop)
    }

    fn parameters(&self) -> String {
        let names = |modules: &[Module]| modules.iter().map(|module| module.name).collect::<Vec<_>>().join(" ");
        let (vfio, virtio, nics, stdin) =
            (names(self.vfio), names(self.virtio), self.nics.join(" "), if self.stdin { "yes" } else { "no" });
        format!("VFIO_MODULES='{vfio}'\nVIRTIO_MODULES='{virtio}'\nNICS='{nics}'\nSTDIN='{stdin}'\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_finds_what_to_load_and_what_to_bind() {
        let module = |name| Module { name, bytes: vec![1, 2, 3] };
        let directory = tempfile::tempdir().unwrap();
        let busybox = directory.path().join("busybox");
        std::fs::write(&busybox, "b").unwrap();
        let (vfio, virtio, nics) = ([module("vfio"), module("vfio-pci")], [module("virtio")], ["0000:00:02.0".to_owned()]);
        let contents = Contents { busybox: &busybox, vfio: &vfio, virtio: &virtio, nics: &nics, stdin: false };
        let expected = "VFIO_MODULES='vfio vfio-pci'\nVIRTIO_MODULES='virtio'\nNICS='0000:00:02.0'\nSTDIN='no'\n";
        assert_eq!(contents.parameters(), expected);
        let mut archive = Vec::new();
        contents.write(&mut archive).unwrap();
        let mut reader = cpio::newc::Reader::new(archive.as_slice()).unwrap();
        let mut names = Vec::new();
        while !reader.entry().is_trailer() {
            names.push(reader.entry().name().to_owned());
            reader = cpio::newc::Reader::new(reader.finish().unwrap()).unwrap();
        }
        assert_eq!(
            &names[DIRECTORIES.len()..],
            ["init", "parameters", "bin/busybox", "modules/vfio.ko", "modules/vfio-pci.ko", "modules/virtio.ko"]
        );
    }
}
