//! The command as a script for the guest's shell, and the files of this machine that it names.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Where the guest looks for programs by name, unless the environment says otherwise. busybox answers in /bin.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A script that becomes `command`, with nothing but `environment` and the usual variables in its environment.
pub(crate) fn script(command: &[OsString], environment: &[(OsString, OsString)], directory: &Path) -> Vec<u8> {
    let mut script = b"cd ".to_vec();
    script.extend(quoted(directory.as_os_str()));
    // A shell that cannot enter a directory says so itself.
    script.extend_from_slice(b" || exit 126\nexec /bin/busybox env -i HOME=/root PATH=");
    script.extend_from_slice(PATH.as_bytes());
    for (name, value) in environment {
        script.push(b' ');
        let mut assignment = name.clone();
        assignment.push("=");
        assignment.push(value);
        script.extend(quoted(&assignment));
    }
    for word in command {
        script.push(b' ');
        script.extend(quoted(word));
    }
    script.push(b'\n');
    script
}

/// A word of the shell that means exactly `text`.
fn quoted(text: &OsStr) -> Vec<u8> {
    let mut word = vec![b'\''];
    for &byte in text.as_bytes() {
        match byte {
            b'\'' => word.extend_from_slice(b"'\\''"),
            _ => word.push(byte),
        }
    }
    word.push(b'\'');
    word
}

/// The paths that `arguments` may mean: each argument, and what follows `=` or the first `:` in it, as absolute paths.
pub(crate) fn paths(arguments: &[OsString], directory: &Path) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for argument in arguments {
        let bytes = argument.as_bytes();
        let after = |separator: u8| bytes.iter().position(|&byte| byte == separator).map(|at| &bytes[at + 1..]);
        for text in [Some(bytes), after(b'='), after(b':')].into_iter().flatten().filter(|text| !text.is_empty()) {
            paths.push(directory.join(OsString::from_vec(text.to_vec())));
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_keep_every_byte() {
        assert_eq!(quoted(OsStr::new("a'b $c\n")), b"'a'\\''b $c\n'");
        let command = [OsString::from("echo"), OsString::from_vec(vec![0xff, b'\''])];
        let script = script(&command, &[("A".into(), "x y".into())], Path::new("/w d"));
        let expected = b"cd '/w d' || exit 126\nexec /bin/busybox env -i HOME=/root PATH=";
        assert!(script.starts_with(expected));
        assert!(script.ends_with(b" 'A=x y' 'echo' '\xff'\\'''\n"));
    }

    #[test]
    fn paths_are_arguments_and_values_of_options() {
        let arguments = ["send", "--file=/a/b", "x.bin", "udp:c", "--", ""].map(OsString::from);
        let paths = paths(&arguments, Path::new("/w"));
        for path in ["/w/send", "/a/b", "/w/x.bin", "/w/c"] {
            assert!(paths.contains(&path.into()), "{paths:?}");
        }
    }
}
