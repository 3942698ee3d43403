//! Which names stay on this machine.

/// What Finder and the kernel of a Mac leave in any directory.
const ANYWHERE: [&[u8]; 2] = [b".DS_Store", b".localized"];
/// What macOS makes at the root of a volume.
const AT_ROOT: [&[u8]; 7] = [
    b".Spotlight-V100",
    b".Trashes",
    b".fseventsd",
    b".TemporaryItems",
    b".DocumentRevisions-V100",
    b".apdisk",
    b".VolumeIcon.icns",
];
/// Of AppleDouble files: what does not fit into a file itself.
const DOUBLE: &[u8] = b"._";
/// rsync writes `NAME.XXXXXX` and renames it.
const RSYNC_SUFFIX: usize = 6;

/// Whether a name is of those that mean something to the Mac alone that makes them; `at_root` of the vault.
pub(crate) fn is_local_name(name: &[u8], at_root: bool) -> bool {
    let is = |name: &[u8]| ANYWHERE.contains(&name) || at_root && AT_ROOT.contains(&name);
    name.starts_with(DOUBLE) || is(name) || finished(name).is_some_and(is)
}

/// The name that a temporary file of rsync is to get.
fn finished(name: &[u8]) -> Option<&[u8]> {
    let at = name.len().checked_sub(RSYNC_SUFFIX + 1)?;
    let (base, suffix) = name.split_at_checked(at)?;
    let drawn = suffix.strip_prefix(b".")?;
    drawn.iter().all(u8::is_ascii_alphanumeric).then_some(base)
}

#[cfg(test)]
mod tests {
    use super::is_local_name;

    #[test]
    fn names_that_macs_leave_stay_here_and_no_others() {
        let anywhere = [
            "._x",
            "._",
            "._x.AbC123",
            ".DS_Store",
            ".DS_Store.AbC123",
            ".localized",
        ];
        for name in anywhere {
            assert!(is_local_name(name.as_bytes(), false), "{name}");
            assert!(is_local_name(name.as_bytes(), true), "{name}");
        }
        for name in [
            ".Trashes",
            ".fseventsd",
            ".VolumeIcon.icns",
            ".apdisk.0aB9zZ",
        ] {
            assert!(is_local_name(name.as_bytes(), true), "{name}");
            assert!(!is_local_name(name.as_bytes(), false), "{name}");
        }
        let others = [
            ".x",
            "_.x",
            ".DS_Store2",
            "DS_Store",
            ".ds_store",
            ".",
            ".DS_Store.bak",
            ".DS_Store.abc-12",
            "x.DS_Store",
            "Thumbs.db",
            "desktop.ini",
            ".directory",
            ".Trash-1000",
            "",
        ];
        for name in others {
            assert!(!is_local_name(name.as_bytes(), true), "{name}");
        }
    }
}
