//! What the kernel says about mounts and about who uses them.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::exit::{Failure, Outcome};

/// How the source of our mounts begins in the mount table; what follows is the address of the vault.
const SOURCE: &str = "skrin:";

/// One line of /proc/self/mountinfo.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MountLine {
    /// Number of the file system, which no other has: `major:minor`.
    device: String,
    /// Where.
    pub(crate) point: PathBuf,
    /// What, such as `fuse.skrin`, or `fuse` where root mounted it.
    pub(crate) kind: String,
    /// From where.
    source: String,
    /// Options of this mount, such as `rw,nosuid`.
    options: String,
}

impl MountLine {
    /// Whether it is a vault.
    pub(crate) fn is_ours(&self) -> bool {
        self.kind.starts_with("fuse") && self.source.starts_with(SOURCE)
    }

    /// Whether it waits for something to be mounted over it.
    pub(crate) fn is_automount(&self) -> bool {
        self.kind == "autofs"
    }

    /// Whether it is the vault with this address.
    pub(crate) fn is_of(&self, address: &str) -> bool {
        self.source == source_of(address)
    }

    /// Whether it has this option.
    pub(crate) fn has(&self, option: &str) -> bool {
        self.options.split(',').any(|known| known == option)
    }
}

/// What the mount table shows of a vault's address. A comma would end the option that it is passed in.
pub(crate) fn source_of(address: &str) -> String {
    format!("{SOURCE}{}", address.replace(',', "%2C"))
}

/// All mounts that this process sees, in the order they were made.
///
/// # Errors
/// Where /proc is not mounted.
pub(crate) fn mounts() -> Outcome<Vec<MountLine>> {
    let path = Path::new("/proc/self/mountinfo");
    let text =
        std::fs::read(path).map_err(|e| Failure::io(path, "cannot read the mount table", &e))?;
    Ok(parse(&text))
}

/// The topmost mount at exactly this path.
///
/// # Errors
/// As [`mounts`].
pub(crate) fn at(point: &Path) -> Outcome<Option<MountLine>> {
    Ok(mounts()?.into_iter().rev().find(|line| line.point == point))
}

fn parse(text: &[u8]) -> Vec<MountLine> {
    text.split(|byte| *byte == b'\n')
        .filter_map(parse_line)
        .collect()
}

/// proc_pid_mountinfo(5): the number of the file system is field 3, the mount point 5, its options 6, kind and source the first after a lone `-`.
fn parse_line(line: &[u8]) -> Option<MountLine> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = String::from_utf8_lossy(fields.nth(2)?).into_owned();
    let point = unescape(fields.nth(1)?);
    let options = String::from_utf8_lossy(fields.next()?).into_owned();
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    let kind = String::from_utf8_lossy(rest.next()?).into_owned();
    let source = String::from_utf8_lossy(&unescape(rest.next()?)).into_owned();
    Some(MountLine {
        device,
        point: PathBuf::from(OsString::from_vec(point)),
        kind,
        source,
        options,
    })
}

/// Space, tab, newline and backslash stand as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| byte == b'\\').and_then(|digits| {
            let text = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(text, 8).ok()
        });
        match octal {
            Some(value) => {
                out.push(value);
                rest = &after[3..];
            }
            None => {
                out.push(byte);
                rest = after;
            }
        }
    }
    out
}

/// The absolute path of a mount point without looking at the mount itself, which may be dead or slow.
///
/// # Errors
/// Where the parent directory is not there.
pub(crate) fn canonical(dir: &Path) -> Outcome<PathBuf> {
    let absolute = std::path::absolute(dir)
        .map_err(|e| Failure::io(dir, "cannot make the path absolute", &e))?;
    let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else {
        return Ok(absolute);
    };
    if name == ".." || absolute.is_symlink() {
        return absolute
            .canonicalize()
            .map_err(|e| Failure::io(dir, "cannot resolve it", &e));
    }
    let parent = parent
        .canonicalize()
        .map_err(|e| Failure::io(parent, "cannot resolve it", &e))?;
    Ok(parent.join(name))
}

/// Whoever keeps a mount busy: processes that we may look at, with an open file, a working directory or a
/// program below it, as `pid (name)`.
pub(crate) fn holders(point: &Path) -> Vec<String> {
    others(|process| uses(process, point))
}

/// Whoever has the same file system mounted, as `pid (name)`: when it is unmounted here, those in other mount namespaces.
pub(crate) fn owners(line: &MountLine) -> Vec<String> {
    others(|process| {
        let table = std::fs::read(process.join("mountinfo")).unwrap_or_default();
        parse(&table).iter().any(|l| l.device == line.device)
    })
}

/// Processes that we may look at, other than this one, of which something holds; it is given their directories in /proc.
fn others(holds: impl Fn(PathBuf) -> bool) -> Vec<String> {
    let own = std::process::id().to_string();
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    pids.filter(|pid| pid.bytes().all(|b| b.is_ascii_digit()) && *pid != own)
        .filter(|pid| holds(Path::new("/proc").join(pid)))
        .map(|pid| {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            format!("{pid} ({})", name.trim_end())
        })
        .collect()
}

/// Whether a line of proc_pid_maps(5), the path of which comes sixth, is of a file below `point`.
fn maps(line: &[u8], point: &Path) -> bool {
    let Some(at) = line.iter().position(|byte| *byte == b'/') else {
        return false;
    };
    Path::new(OsStr::from_bytes(&line[at..])).starts_with(point)
}

/// Reads links only: touching what they point at could hang on a dead mount.
fn uses(process: PathBuf, point: &Path) -> bool {
    let below =
        |link: PathBuf| std::fs::read_link(link).is_ok_and(|target| target.starts_with(point));
    if ["cwd", "root", "exe"]
        .iter()
        .any(|link| below(process.join(link)))
    {
        return true;
    }
    let descriptors = std::fs::read_dir(process.join("fd"));
    if descriptors.is_ok_and(|entries| entries.flatten().any(|entry| below(entry.path()))) {
        return true;
    }
    // A file that is mapped needs no descriptor.
    let mapped = std::fs::read(process.join("maps")).unwrap_or_default();
    mapped
        .split(|byte| *byte == b'\n')
        .any(|line| maps(line, point))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_is_read_with_its_escapes_and_optional_fields() {
        let text =
            b"36 35 98:0 / /mnt/a\\040b\\134c rw shared:1 master:2 - fuse.skrin skrin:/v rw\n\
            37 35 0:5 / /proc rw - proc proc rw\nnoise\n";
        let lines = parse(text);
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].point, Path::new("/mnt/a b\\c"));
        assert!(lines[0].is_ours() && lines[0].is_of("/v") && !lines[0].is_of("/"));
        assert!(lines[0].has("rw") && !lines[0].has("ro"));
        assert!(!lines[1].is_ours());
        assert_eq!(lines[1].kind, "proc");
    }

    #[test]
    fn the_real_table_has_proc() {
        assert_eq!(at(Path::new("/proc")).unwrap().unwrap().kind, "proc");
    }

    #[test]
    fn an_open_file_is_found_with_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .current_dir(dir.path())
            .spawn()
            .unwrap();
        let found = holders(&dir.path().canonicalize().unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found, [format!("{} (sleep)", child.id())]);
    }
}
