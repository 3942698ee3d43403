//! What the kernel says about mounts and about who uses them.

#[cfg(target_os = "linux")]
use std::ffi::{OsStr, OsString};
#[cfg(target_os = "linux")]
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::exit::{Failure, Outcome};

/// How the source of our mounts begins in the mount table; what follows is the address of the vault.
const SOURCE: &str = "skrin:";

/// One line of the mount table.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MountLine {
    /// Number of the file system, which no other has: `major:minor`; its source where there are no numbers.
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
    #[cfg(target_os = "linux")]
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

/// The address in what was typed as the mount table shows it, [`source_of`]; anything else is an address already. A path that holds `%2C`
/// itself cannot be typed that way.
#[cfg(target_os = "linux")]
pub(crate) fn address_in(typed: &str) -> String {
    match typed.strip_prefix(SOURCE) {
        Some(shown) => shown.replace("%2C", ","),
        None => typed.to_owned(),
    }
}

/// All mounts that this process sees, in the order they were made.
///
/// # Errors
/// Where /proc is not mounted.
#[cfg(target_os = "linux")]
pub(crate) fn mounts() -> Outcome<Vec<MountLine>> {
    let path = Path::new("/proc/self/mountinfo");
    let text =
        std::fs::read(path).map_err(|e| Failure::io(path, "cannot read the mount table", &e))?;
    Ok(parse(&text))
}

/// All mounts, as mount(8) lists them.
///
/// # Errors
/// Where it cannot be run.
#[cfg(not(target_os = "linux"))]
pub(crate) fn mounts() -> Outcome<Vec<MountLine>> {
    let path = Path::new("/sbin/mount");
    let output = std::process::Command::new(path).output();
    let output = output.map_err(|e| Failure::io(path, "cannot read the mount table", &e))?;
    Ok(parse_listing(&output.stdout))
}

/// The topmost mount at exactly this path.
///
/// # Errors
/// As [`mounts`].
pub(crate) fn at(point: &Path) -> Outcome<Option<MountLine>> {
    Ok(mounts()?.into_iter().rev().find(|line| line.point == point))
}

/// What mount(8) of a Mac prints: `SOURCE on PATH (KIND, OPTION, OPTION)`, nothing escaped. Vaults on paths with ` on /` in
/// their name or address are not recognised.
#[cfg(any(not(target_os = "linux"), test))]
fn parse_listing(text: &[u8]) -> Vec<MountLine> {
    let text = String::from_utf8_lossy(text);
    let lines = text.lines().filter_map(|line| {
        let (place, options) = line.strip_suffix(')')?.rsplit_once(" (")?;
        let (source, point) = place.split_once(" on /")?;
        let (kind, options) = options.split_once(", ").unwrap_or((options, ""));
        Some(MountLine {
            device: source.to_owned(),
            point: PathBuf::from(format!("/{point}")),
            kind: match kind {
                "macfuse" | "osxfuse" | "nfs" | "fuse-t" if source.starts_with(SOURCE) => "fuse",
                other => other,
            }
            .to_owned(),
            source: source.to_owned(),
            options: options.replace(", ", ","),
        })
    });
    lines.collect()
}

#[cfg(target_os = "linux")]
fn parse(text: &[u8]) -> Vec<MountLine> {
    text.split(|byte| *byte == b'\n')
        .filter_map(parse_line)
        .collect()
}

/// proc_pid_mountinfo(5): the number of the file system is field 3, the mount point 5, its options 6, kind and source the first after a lone `-`.
#[cfg(target_os = "linux")]
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

#[cfg(target_os = "linux")]
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
    let path = parent
        .canonicalize()
        .map_err(|e| Failure::io(parent, "cannot resolve it", &e))?
        .join(name);
    // Of what is mounted there only the process behind it could say whether it is a link.
    let is_ours = name != ".." && at(&path)?.is_some_and(|line| line.is_ours());
    if !is_ours && (name == ".." || absolute.is_symlink()) {
        return absolute
            .canonicalize()
            .map_err(|e| Failure::io(dir, "cannot resolve it", &e));
    }
    Ok(path)
}

/// Whoever keeps a mount busy: processes that we may look at, with an open file, a working directory or a
/// program below it, as `pid (name)`.
#[cfg(target_os = "linux")]
pub(crate) fn holders(point: &Path) -> Vec<String> {
    others(|process| uses(process, point))
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn owners(_line: &MountLine) -> Vec<String> {
    Vec::new()
}

#[cfg(target_os = "linux")]
/// Whoever has the same file system mounted, as `pid (name)`: when it is unmounted here, those in other mount namespaces.
pub(crate) fn owners(line: &MountLine) -> Vec<String> {
    others(|process| {
        let table = std::fs::read(process.join("mountinfo")).unwrap_or_default();
        parse(&table).iter().any(|l| l.device == line.device)
    })
}

#[cfg(target_os = "linux")]
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

#[cfg(target_os = "linux")]
/// Whether a line of proc_pid_maps(5), the path of which comes sixth, is of a file below `point`.
fn maps(line: &[u8], point: &Path) -> bool {
    let Some(at) = line.iter().position(|byte| *byte == b'/') else {
        return false;
    };
    Path::new(OsStr::from_bytes(&line[at..])).starts_with(point)
}

#[cfg(target_os = "linux")]
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

/// The same, as lsof(8) knows it.
#[cfg(not(target_os = "linux"))]
pub(crate) fn holders(point: &Path) -> Vec<String> {
    let mut command = std::process::Command::new("/usr/sbin/lsof");
    let output = command
        .args(["-w", "-F", "pc", "+f", "--"])
        .arg(point)
        .output();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    parse_holders(&text, std::process::id())
}

/// Lines `pPID` and `cCOMMAND` of each process.
#[cfg(any(not(target_os = "linux"), test))]
fn parse_holders(text: &[u8], own: u32) -> Vec<String> {
    let text = String::from_utf8_lossy(text);
    let (mut pid, mut found) = ("", Vec::new());
    for line in text.lines() {
        if let Some(next) = line.strip_prefix('p') {
            pid = next;
        } else if let Some(command) = line.strip_prefix('c')
            && pid != own.to_string()
        {
            found.push(format!("{pid} ({command})"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listings_of_macs_are_read() {
        let text = b"/dev/disk3s1s1 on / (apfs, sealed, local, read-only, journaled)\n\
            skrin:webdavs://a@h/v on /Users/anna/My Vault (x) (macfuse, local, nodev, nosuid, mounted by anna)\n\
            map auto_home on /System/Volumes/Data/home (autofs, automounted, nobrowse)\nnoise\n";
        let lines = parse_listing(text);
        assert_eq!(lines.len(), 3);
        assert!(!lines[0].is_ours() && lines[0].has("sealed"));
        assert_eq!(lines[1].point, Path::new("/Users/anna/My Vault (x)"));
        assert!(lines[1].is_ours() && lines[1].is_of("webdavs://a@h/v"));
        assert!(lines[1].has("nodev") && !lines[1].has("ro"));
        assert!(lines[2].is_automount());
    }

    #[test]
    fn processes_that_lsof_lists_are_named() {
        let text = b"p12\ncbash\nfcwd\np13\ncskrin\nf5\np14\ncFinder\n";
        assert_eq!(parse_holders(text, 13), ["12 (bash)", "14 (Finder)"]);
    }

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
    fn an_address_is_read_back_from_what_the_table_shows_of_it() {
        for address in [
            "/v/a,b",
            "webdavs://a@h/v/",
            "s3://b/v/?endpoint=h&region=r",
        ] {
            assert_eq!(address_in(&source_of(address)), address);
            assert_eq!(address_in(address), address);
        }
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
