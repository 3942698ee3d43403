//! What mount(8) runs for a line of /etc/fstab with the type `skrin`: this program under the name `mount.skrin`.
//! docs/mounting.md lists the options.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use rustix::mount::{MountFlags, mount_remount};

use crate::args::{self, Command, MountArgs, Typed};
use crate::commands;
use crate::control::{Answer, Request, ask};
use crate::exit::{Exit, Failure, Outcome};
use crate::mount_point;
use crate::mount_table::{self, MountLine};
use crate::print;
use crate::store::StoreSpec;

/// The name by which mount(8) finds the helper of the type `skrin`.
const NAME: &str = "mount.skrin";
/// mount(8): incorrect invocation or permissions.
const EX_USAGE: u8 = 1;
/// mount(8): mount failure.
const EX_FAIL: u8 = 32;

/// Mounts a vault for mount(8), which reads the options from /etc/fstab or its command line.
#[derive(Parser)]
#[command(name = "mount.skrin", version, max_term_width = 100)]
struct Asked {
    /// The vault, as `skrin mount` takes it, or `skrin:` and that, as the mount table shows it
    vault: String,
    /// An empty directory
    dir: PathBuf,
    /// Ignore options that are not known
    #[arg(short = 's')]
    sloppy: bool,
    /// Check what was asked, and mount nothing
    #[arg(short = 'f')]
    fake: bool,
    /// Taken for mount(8); there is no /etc/mtab to be left alone
    #[arg(short = 'n')]
    _no_mtab: bool,
    /// Say what was mounted
    #[arg(short = 'v')]
    verbose: bool,
    /// Options, separated by commas
    #[arg(short = 'o', value_name = "OPTIONS")]
    options: Vec<String>,
    /// Taken for mount(8)
    #[arg(short = 't', value_name = "TYPE")]
    _kind: Option<String>,
}

/// Whether the program was called as a helper of mount(8).
pub(crate) fn is_meant(arguments: &[OsString]) -> bool {
    let path = arguments.first().map(Path::new);
    path.and_then(Path::file_name) == Some(NAME.as_ref())
}

/// Acts as that helper; the codes are those of mount(8).
pub(crate) fn main(arguments: &[OsString]) -> ExitCode {
    let outcome = match Asked::try_parse_from(arguments) {
        Ok(asked) => run(&asked),
        Err(error) => args::not_understood(&error),
    };
    let Err(failure) = outcome else {
        return ExitCode::SUCCESS;
    };
    print::failure(&failure);
    ExitCode::from(match failure.exit {
        Exit::Usage => EX_USAGE,
        _ => EX_FAIL,
    })
}

fn run(asked: &Asked) -> Outcome {
    let wanted = Wanted::read(&asked.options, asked.sloppy)?;
    if wanted.remount {
        return remount(&asked.dir, &wanted, asked.fake);
    }
    let mut mount = arguments(asked, &wanted.ours)?;
    mount.read_only = wanted.read_only;
    mount.no_exec = wanted.no_exec.unwrap_or(false);
    if is_mounted_already(&mount)? {
        print::note(format!(
            "{}: this vault is mounted there already",
            asked.dir.display()
        ));
        return Ok(());
    }
    tell_of_another_source(asked, &mount)?;
    if asked.fake {
        return commands::mount::check(&mount);
    }
    commands::mount::run(&mount)?;
    if asked.verbose {
        print::line(format!("mounted at {}", asked.dir.display()));
    }
    Ok(())
}

/// `mount -a` asks again for what is mounted where the mount table shows another source than /etc/fstab.
fn is_mounted_already(mount: &MountArgs) -> Outcome<bool> {
    let point = mount_table::canonical(&mount.dir)?;
    let Some(line) = mount_table::at(&point)?.filter(MountLine::is_ours) else {
        return Ok(false);
    };
    let address = StoreSpec::address_of(&mount.vault)?;
    Ok(line.is_of(&address) && !mount_point::is_dead(&point))
}

/// mount(8) notes `_netdev` under the source that was typed; libmount and systemd find it where the mount table has that very text.
fn tell_of_another_source(asked: &Asked, mount: &MountArgs) -> Outcome {
    let shown = mount_table::source_of(&StoreSpec::address_of(&mount.vault)?);
    // An address without `skrin:` never is that, and is taken all the same; who only asks is told what it costs.
    let is_source = asked.vault != mount.vault;
    if (is_source || asked.fake) && asked.vault != shown {
        print::note(format!(
            "{}: the mount table will show {shown}; write it so, or umount(8) and systemd do not know that this is a network mount",
            asked.dir.display()
        ));
    }
    Ok(())
}

/// What `skrin mount` would have been asked, so that there is one reading of values.
fn arguments(asked: &Asked, ours: &[(String, Option<String>)]) -> Outcome<MountArgs> {
    let mut typed: Vec<OsString> = vec!["skrin".into(), "mount".into()];
    for (name, value) in ours {
        typed.push(match value {
            Some(value) => format!("--{name}={value}").into(),
            None => format!("--{name}").into(),
        });
    }
    typed.push("--".into());
    typed.push(mount_table::address_in(&asked.vault).into());
    typed.push((&asked.dir).into());
    match Typed::try_parse_from(&typed) {
        Ok(Typed {
            command: Command::Mount(mount),
        }) => Ok(mount),
        Ok(_) => Err(Failure::new(Exit::Usage, "the options make no sense")),
        Err(error) => Err(args::misunderstood(&error)),
    }
}

/// What the options ask for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    remount: bool,
    read_only: bool,
    /// `None` where nobody said.
    no_exec: Option<bool>,
    /// Options of `skrin mount`, the last one of each.
    ours: Vec<(String, Option<String>)>,
}

impl Wanted {
    fn read(options: &[String], sloppy: bool) -> Outcome<Self> {
        let mut wanted = Self::default();
        for option in options.iter().flat_map(|text| split(text)) {
            let (name, value) = match option.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (option.as_str(), None),
            };
            args::refuse_secret(&format!("--{}", name.replace('_', "-")))?;
            match wanted.take(name, value) {
                Err(_) if sloppy => {}
                taken => taken?,
            }
        }
        Ok(wanted)
    }

    fn take(&mut self, name: &str, value: Option<&str>) -> Outcome {
        match name {
            "ro" => self.read_only = true,
            "rw" => self.read_only = false,
            "remount" => self.remount = true,
            "exec" => self.no_exec = Some(false),
            // Whoever is let mount is not let bring programs, unless `exec` follows (mount(8)).
            "noexec" | "user" | "users" => self.no_exec = Some(true),
            // For those who read /etc/fstab, or what our mounts are anyway.
            "defaults" | "auto" | "noauto" | "nouser" | "nousers" | "owner" | "noowner"
            | "group" | "nogroup" | "_netdev" | "nofail" | "comment" | "uhelper" | "async"
            | "nosuid" | "nodev" | "noatime" | "nodiratime" | "relatime" | "nostrictatime"
            | "nolazytime" | "nomand" | "noiversion" | "silent" | "loud" | "" => {}
            _ if name.starts_with("x-") || name.starts_with("X-") => {}
            "suid" | "dev" | "sync" | "dirsync" | "atime" | "diratime" | "strictatime"
            | "lazytime" | "mand" | "iversion" => {
                return Err(Failure::new(
                    Exit::Usage,
                    format!("-o {name}: a vault cannot be mounted so"),
                )
                .remedy("leave it out; docs/mounting.md says what stands instead"));
            }
            _ => return self.take_ours(name, value),
        }
        Ok(())
    }

    /// Options of `skrin mount`, written with `-` or `_`.
    fn take_ours(&mut self, name: &str, value: Option<&str>) -> Outcome {
        let typed = name.replace('_', "-");
        let with_value = match typed.as_str() {
            "allow-other" | "mkdir" | "offline" => false,
            "passphrase-file" | "words-file" | "state-dir" | "cache-size" | "memory"
            | "durability" | "uid" | "gid" | "umask" | "unicode" | "mac-files" => true,
            _ => return Err(unknown(name)),
        };
        if with_value != value.is_some() {
            let what = match with_value {
                true => "its value is missing",
                false => "it takes no value",
            };
            return Err(Failure::new(Exit::Usage, format!("-o {typed}: {what}")));
        }
        self.ours.retain(|(known, _)| *known != typed);
        self.ours.push((typed, value.map(str::to_owned)));
        Ok(())
    }
}

/// The value is not repeated, and the name only if it looks like one: it may be a secret in the wrong place.
fn unknown(name: &str) -> Failure {
    let plain = |b: u8| b.is_ascii_lowercase() || b == b'-' || b == b'_';
    let said = match name.len() <= 20 && name.bytes().all(plain) {
        true => format!("-o {name}: there is no such option"),
        false => "-o: there is an option of an unusual form".into(),
    };
    Failure::new(Exit::Usage, said).remedy("docs/mounting.md lists them; -s ignores unknown ones")
}

/// Options between commas. A value with a comma stands in double quotes, as mount(8) has it.
fn split(text: &str) -> Vec<String> {
    let (mut found, mut current, mut quoted) = (Vec::new(), String::new(), false);
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => found.push(std::mem::take(&mut current)),
            c => current.push(c),
        }
    }
    found.push(current);
    found
}

/// Lets the kernel change what it enforces. The process behind the mount goes on as it is.
fn remount(dir: &Path, wanted: &Wanted, fake: bool) -> Outcome {
    let point = mount_table::canonical(dir)?;
    let line = mount_table::at(&point)?.filter(MountLine::is_ours);
    let line = line.ok_or_else(|| {
        Failure::new(
            Exit::Absent,
            format!("{}: no vault is mounted there", point.display()),
        )
    })?;
    if !wanted.read_only && is_a_reader(&point)? {
        return Err(Failure::new(
            Exit::Usage,
            format!("{}: this mount was begun read-only", point.display()),
        )
        .remedy("unmount it and mount it again"));
    }
    if fake {
        return Ok(());
    }
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
    flags.set(MountFlags::RDONLY, wanted.read_only);
    let no_exec = wanted.no_exec.unwrap_or_else(|| line.has("noexec"));
    flags.set(MountFlags::NOEXEC, no_exec);
    match mount_remount(&point, flags, "") {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::BUSY) => Err(mount_point::busy(&point)),
        Err(rustix::io::Errno::PERM) => Err(Failure::new(
            Exit::Usage,
            format!("{}: only root may remount", point.display()),
        )),
        Err(e) => Err(Failure::io(&point, "cannot remount", &e.into())),
    }
}

/// Whether the process behind the mount was told never to write.
fn is_a_reader(point: &Path) -> Outcome<bool> {
    let answer = ask(point, &Request::Status, &mut |_| {})?;
    Ok(matches!(answer, Some(Answer::Status(status)) if status.reader))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(options: &str) -> Outcome<Wanted> {
        Wanted::read(&[options.to_owned()], false)
    }

    #[test]
    fn what_belongs_to_mount_8_is_taken_and_the_last_word_counts() {
        let wanted = read(
            "rw,ro,nosuid,nodev,user=anna,exec,noauto,_netdev,nofail,comment=x,x-systemd.automount,\
            X-mount.mkdir,allow_other,state_dir=/a,state-dir=/b,passphrase-file=\"/c,d\",unicode=any,mac_files=shared",
        );
        let wanted = wanted.unwrap();
        assert!(wanted.read_only && wanted.no_exec == Some(false) && !wanted.remount);
        let ours = [
            ("allow-other", None),
            ("state-dir", Some("/b")),
            ("passphrase-file", Some("/c,d")),
            ("unicode", Some("any")),
            ("mac-files", Some("shared")),
        ];
        let ours = ours.map(|(name, value)| (name.to_owned(), value.map(str::to_owned)));
        assert_eq!(wanted.ours, ours);
    }

    #[test]
    fn what_is_unknown_impossible_or_secret_is_refused_and_never_repeated() {
        for (typed, says) in [
            ("nonsense=hunter2", "-o nonsense: there is no such option"),
            ("Hunter2!", "an option of an unusual form"),
            ("passphrase=hunter2", "a secret on the command line"),
            ("password=hunter2", "a secret on the command line"),
            ("suid", "-o suid: a vault cannot be mounted so"),
            ("uid", "-o uid: its value is missing"),
            ("allow_other=hunter2", "-o allow-other: it takes no value"),
        ] {
            let failure = read(typed).unwrap_err();
            let said = failure.to_string();
            assert_eq!(failure.exit, Exit::Usage);
            assert!(said.contains(says), "{said}");
            assert!(!said.to_lowercase().contains("hunter2"), "{said}");
        }
        let sloppy = |typed: &str| Wanted::read(&[typed.to_owned()], true);
        assert_eq!(sloppy("nonsense,suid,ro").unwrap().ours, []);
        assert!(sloppy("passphrase=hunter2").is_err());
    }
}
