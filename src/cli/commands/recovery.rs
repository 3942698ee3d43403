//! `skrin recovery`: a key on paper.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use skrin_vault::RecoveryKey;
use zeroize::Zeroizing;

use super::init::{WordsFile, rows, tell_once, untold};
use super::member::{address_of, ask_at, qr_lines};
use crate::args::{RecoveryVerb, UnlockArgs};
use crate::exit::{Exit, Failure, Outcome};
use crate::machine::OsEntropy;
use crate::past::{find, rfc3339};
use crate::people::Request;
use crate::print;
use crate::reader::Target;

/// What `--json` says. These names are a stable interface: fields are added, never renamed.
#[derive(Serialize)]
struct Enabled<'a> {
    person: String,
    name: &'a str,
    /// How many shares are needed, and how many there are; 1 and 1 for an undivided key.
    needed: u8,
    shares: u8,
    /// The files that hold it.
    files: Vec<String>,
    /// The words of the key or of each share, where no file holds them.
    #[serde(skip_serializing_if = "Option::is_none")]
    words: Option<Vec<&'a str>>,
}

/// What `--json` says of a drill.
#[derive(Serialize)]
struct Drilled {
    person: String,
    epochs: usize,
    opened: usize,
    /// When something was last decided about people and keys.
    newest: String,
}

/// Makes one, or tries one.
///
/// # Errors
/// Those of opening a vault; `Busy` where the files exist; `Integrity` for a key that does not open everything.
pub(crate) fn run(verb: &RecoveryVerb) -> Outcome {
    match verb {
        RecoveryVerb::Enable {
            vault,
            unlock,
            name,
            shares,
            output,
            qr,
            json,
        } => enable(
            (vault, unlock),
            name,
            &Paper {
                division: *shares,
                output: output.as_deref(),
                qr: *qr,
                json: *json,
            },
        ),
        RecoveryVerb::Drill {
            vault,
            unlock,
            json,
        } => drill(vault, unlock, *json),
    }
}

/// How a key comes to paper.
struct Paper<'a> {
    division: Option<(u8, u8)>,
    output: Option<&'a Path>,
    qr: bool,
    json: bool,
}

fn enable((vault, unlock): (&str, &UnlockArgs), name: &str, paper: &Paper<'_>) -> Outcome {
    let mount = match vault.contains("://") {
        true => None,
        false => find(Path::new(vault)).ok().map(|found| found.mount),
    };
    let address = match &mount {
        Some(mount) => address_of(mount)?,
        None => vault.to_owned(),
    };
    let runtime = super::runtime()?;
    let target = runtime.block_on(Target::open(&address, unlock))?;
    let room = runtime.block_on(target.unlocked.load_room(&*target.store))?;
    let key = target.unlocked.make_recovery_key(&room, &OsEntropy)?;
    let texts = paper.texts(&key)?;
    // To safety first: what nobody has would be a member for nothing.
    let files = paper.keep(&texts)?;
    if files.is_empty() && !paper.json {
        paper
            .show(&texts)
            .map_err(|failure| failure.remedy("nothing was changed in the vault"))?;
    }
    let name = paper.name(name);
    runtime
        .block_on(
            target
                .unlocked
                .enable_recovery(&target.place(), &key, &name),
        )
        .map_err(|error| {
            Failure::from(error)
                .remedy("the words or shares open nothing: destroy them, and try again")
        })?;
    // Whatever comes now: these words count.
    let told = paper.tell(&key, &name, &texts, &files);
    let refreshed = mount.as_ref().map(|mount| ask_at(mount, Request::Refresh));
    told?;
    refreshed.transpose().map(drop)
}

impl Paper<'_> {
    fn texts(&self, key: &RecoveryKey) -> Outcome<Vec<Zeroizing<String>>> {
        match self.division {
            None => Ok(vec![key.words()]),
            Some(division) => key
                .shares(division, &OsEntropy)
                .map_err(|error| Failure::new(Exit::Usage, error)),
        }
    }

    /// What all members see: a divided key says so.
    fn name(&self, name: &str) -> String {
        match self.division {
            None => name.to_owned(),
            Some((needed, count)) => format!("{name} ({needed} of {count} shares)"),
        }
    }

    /// Writes what was asked to be written; where to. All of it, or nothing is left.
    fn keep(&self, texts: &[Zeroizing<String>]) -> Outcome<Vec<PathBuf>> {
        let Some(output) = self.output else {
            return Ok(Vec::new());
        };
        let paths: Vec<PathBuf> = match self.division {
            None => vec![output.to_owned()],
            Some((_, count)) => {
                make_dir(output)?;
                let share = |number| output.join(format!("share-{number}-of-{count}"));
                (1..=count).map(share).collect()
            }
        };
        let written = write_all(&paths, texts);
        if written.is_err() && self.division.is_some() {
            paths
                .iter()
                .for_each(|path| drop(std::fs::remove_file(path)));
            drop(std::fs::remove_dir(output));
        }
        written.map(|()| paths)
    }

    fn show(&self, texts: &[Zeroizing<String>]) -> Outcome {
        let about = match self.division {
            None => "The recovery key. It is shown only now: write it down, and lock it away."
                .to_owned(),
            Some((needed, count)) => format!(
                "The {count} shares of the recovery key, any {needed} of which are needed. They are shown only now: give each to somebody else."
            ),
        };
        let mut lines = vec![String::new(), about];
        for (number, text) in (1..).zip(texts) {
            lines.push(String::new());
            if self.division.is_some() {
                lines.push(format!("Share {number}:"));
            }
            lines.extend(rows(text));
            if self.qr {
                lines.extend(qr_lines(text)?);
            }
        }
        lines.push(String::new());
        tell_once(lines)
    }

    /// # Errors
    /// `Other` where the words are to be told and cannot be.
    fn tell(
        &self,
        key: &RecoveryKey,
        name: &str,
        texts: &[Zeroizing<String>],
        files: &[PathBuf],
    ) -> Outcome {
        let (needed, shares) = self.division.unwrap_or((1, 1));
        if self.json {
            let words = files.is_empty();
            let words = words.then(|| texts.iter().map(|text| text.as_str()).collect());
            let said = print::json_or_error(&Enabled {
                person: key.person().to_string(),
                name,
                needed,
                shares,
                files: files.iter().map(|f| f.display().to_string()).collect(),
                words,
            });
            return match said {
                Err(error) if files.is_empty() => Err(untold(&error)
                    .remedy("nobody has the key: take it away again with `skrin member remove`")),
                _ => Ok(()),
            };
        }
        for file in files {
            print::line(format!(
                "{} holds {}",
                file.display(),
                match self.division {
                    None => "the recovery key",
                    Some(_) => "one share of the recovery key",
                }
            ));
        }
        print::line(format!(
            "\u{201c}{name}\u{201d} reads everything in the vault from now on, and all members see that it does; try it: skrin recovery drill"
        ));
        Ok(())
    }
}

/// A new private directory.
fn make_dir(path: &Path) -> Outcome {
    let made = DirBuilder::new().mode(0o700).create(path);
    made.map_err(|e| match e.kind() {
        std::io::ErrorKind::AlreadyExists => Failure::new(
            Exit::Busy,
            format!("{}: it is there already", path.display()),
        )
        .remedy("name what does not exist: shares of another key may be in there"),
        _ => Failure::io(path, "cannot make the directory for the shares", &e),
    })
}

fn write_all(paths: &[PathBuf], texts: &[Zeroizing<String>]) -> Outcome {
    for (path, text) in paths.iter().zip(texts) {
        if WordsFile::create(path)?.keep(text).is_none() {
            drop(std::fs::remove_file(path));
            let what = format!(
                "{}: the recovery key cannot be written there",
                path.display()
            );
            return Err(Failure::new(Exit::Other, what).remedy("nothing was changed in the vault"));
        }
    }
    Ok(())
}

fn drill(vault: &str, unlock: &UnlockArgs, json: bool) -> Outcome {
    let runtime = super::runtime()?;
    let target = runtime.block_on(Target::open(vault, unlock))?;
    let drilled = runtime.block_on(target.unlocked.drill_recovery(&target.place()))?;
    let said = Drilled {
        person: drilled.person.to_string(),
        epochs: drilled.epochs,
        opened: drilled.opened,
        newest: rfc3339(drilled.newest),
    };
    if json {
        print::json(&said);
    }
    if drilled.opened < drilled.epochs {
        return Err(Failure::new(
            Exit::Integrity,
            format!(
                "the recovery key opens {} of the {} sets of keys of this vault: what was written under the others cannot be read with it",
                drilled.opened, drilled.epochs
            ),
        )
        .remedy("make another one: skrin recovery enable; then remove this one: skrin member remove"));
    }
    if !json {
        print::line(format!(
            "the recovery key works: it opens all {} sets of keys that this vault has had, the newest from {}; all members see that this was tried",
            said.epochs,
            crate::past::local(&said.newest)
        ));
    }
    Ok(())
}
