//! `skrin accept-rollback`: a storage went back, and somebody decides what follows. First everything is put again that this
//! device still has. Where the rest is gone, the device that has seen it steps back, its state kept whole, and a new one
//! begins with what the storage shows.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use serde::Serialize;
use skrin_base::Clock;
use skrin_meta::replica::{Replica, ReplicaError, Rollback};
use skrin_storage::Store;
use skrin_vault::{Device, Room, Unlocked};

use crate::args::AcceptRollbackArgs;
use crate::events::{self, EventLog};
use crate::exit::{Exit, Failure, Outcome};
use crate::finding::Kind;
use crate::machine::{SystemClock, date, host_name};
use crate::rollbacks::{self, Accepted};
use crate::session::replica_config;
use crate::state_dir::{self, StateDir};
use crate::store::StoreSpec;
use crate::{mirror, print, secret, unlock};

/// How long a single request is tried again.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);
/// Memory for rows.
const CACHE: usize = 32 << 20;

/// What `--json` says. These names are a stable interface: fields are added, never renamed.
#[derive(Serialize)]
struct Done {
    vault: String,
    vault_id: String,
    /// Objects that this device had and the storage had lost.
    put_again: usize,
    /// Whether something was lost all the same, and that was accepted.
    accepted: bool,
    /// What the storage showed, and what had been seen.
    what: Option<String>,
    /// Where the state of the device lies that had seen more.
    kept: Option<String>,
}

/// Accepts.
///
/// # Errors
/// `Integrity` where something is lost and nobody said that this is accepted; `Busy` while the vault is mounted.
pub(crate) fn run(args: &AcceptRollbackArgs) -> Outcome {
    let done = super::runtime()?.block_on(accept(args))?;
    if args.json {
        print::json(&done);
        return Ok(());
    }
    if done.put_again > 0 {
        print::line(format!(
            "{} objects that this device still had were put again",
            done.put_again
        ));
    }
    match (&done.kept, done.put_again) {
        (Some(kept), _) => {
            print::line(
                "the decision is recorded, and the next mount is a new device of the vault",
            );
            print::line(format!("what this device knew is kept in {kept}"));
            print::line(format!(
                "look at it with: skrin mount --offline --read-only --state-dir {kept} {} DIR",
                args.vault
            ));
        }
        (None, 0) => print::line(
            "the storage shows everything that this device has seen: there is nothing to accept",
        ),
        (None, _) => print::line(
            "the storage shows everything again that this device has seen; skrin verify --data tells whether contents are missing",
        ),
    }
    Ok(())
}

/// An open vault whose storage went back, with the device that noticed.
struct Opened {
    store: Arc<dyn Store>,
    unlocked: Unlocked,
    room: Room,
    device: Device,
    state: StateDir,
    base: PathBuf,
}

async fn accept(args: &AcceptRollbackArgs) -> Outcome<Done> {
    let base = state_dir::base(args.state_dir.as_deref())?;
    let store = StoreSpec::new(&args.vault)?.open(false, PATIENCE)?;
    let header = skrin_vault::open_header(&*store).await?;
    if !unlock::has_device(&base.join(header.vault.to_string())) {
        return Err(Failure::new(
            Exit::Absent,
            format!("{}: this machine has no device in this vault, so it has seen nothing that could be missing", args.vault),
        )
        .remedy("mount it; a new device is told what it cannot know"));
    }
    let state = StateDir::open(&base, header.vault)?;
    let unlocked = unlock::unlock(&*store, &secret::credential(&args.unlock)?).await?;
    let Some(device) = unlock::known_device(&unlocked, state.path())? else {
        return Err(Failure::new(Exit::Absent, "the device file is gone"));
    };
    let mut put_again = mirror::put_control_again(&*store, state.path(), &unlocked).await?;
    let room = unlocked.load_room(&*store).await?;
    let opened = Opened {
        store,
        unlocked,
        room,
        device,
        state,
        base,
    };
    let (put, lost) = opened.put_again_and_look().await?;
    put_again += put;
    opened.note(put_again, lost.as_ref());
    let mut done = Done {
        vault: opened.store.place(),
        vault_id: header.vault.to_string(),
        put_again,
        accepted: lost.is_some(),
        what: lost.as_ref().map(Rollback::summary),
        kept: None,
    };
    if let Some(lost) = lost {
        confirm(args, &lost)?;
        done.kept = Some(opened.begin_anew(&lost).await?.display().to_string());
    }
    Ok(done)
}

impl Opened {
    /// Puts again what this device wrote, and returns what is missing all the same.
    async fn put_again_and_look(&self) -> Outcome<(usize, Option<Rollback>)> {
        // Opened twice: what is opened is used up.
        let room = || async {
            let room = self.unlocked.load_room(&*self.store).await?;
            Outcome::Ok((Arc::new(room.keys), Arc::new(RwLock::new(room.roster))))
        };
        let config = |(keys, roster): &(_, _), read_only| {
            let path = self.state.path();
            replica_config(
                &self.store,
                (keys, roster),
                &self.device,
                false,
                path,
                read_only,
                CACHE,
            )
        };
        let known = room().await?;
        let put = Replica::put_own_again(config(&known, false)).await?;
        match Replica::open(config(&known, true)).await {
            Ok(_) => Ok((put, None)),
            Err(ReplicaError::RolledBack(lost)) => Ok((put, Some(lost))),
            Err(error) => Err(error.into()),
        }
    }

    fn events(&self) -> Arc<EventLog> {
        EventLog::open(self.state.path(), &self.device, self.unlocked.vault())
    }

    /// Writes down what was lost and what was put again.
    fn note(&self, put_again: usize, lost: Option<&Rollback>) {
        let (list, kind) = (self.events(), Kind::RolledBack.name());
        if put_again > 0 {
            let what = format!("the storage had lost {put_again} objects");
            list.note(kind, events::VAULT, what, true);
        }
        if let Some(lost) = lost {
            list.note(kind, events::VAULT, lost.summary(), false);
        }
        list.store();
    }

    /// Moves the state away, whole, and begins a new device. Its certificate says to all others what was decided: it is signed with
    /// the root. Whoever is stopped in between finds the old state, or begins as a new device without a record.
    async fn begin_anew(mut self, lost: &Rollback) -> Outcome<PathBuf> {
        let (vault, now) = (self.unlocked.vault(), SystemClock.now());
        let seconds = now.0.div_euclid(1_000_000_000);
        let kept = self.base.join(format!("rolled-back-{seconds}"));
        let next = kept.join("next");
        state_dir::make_private(&kept)?;
        state_dir::make_private(&next)?;
        let device = unlock::new_device(
            &*self.store,
            &self.unlocked,
            &mut self.room,
            &next,
            &label(&host_name(), &date(now)),
        )
        .await?;
        let mut all = rollbacks::load(self.state.path(), vault, &self.device)?;
        all.push(Accepted {
            date: date(now),
            what: lost.summary(),
            kept: kept.display().to_string(),
        });
        rollbacks::store(&next, vault, &device, &all)?;
        let list = self.events();
        list.note(
            events::ROLLBACK_ACCEPTED,
            events::VAULT,
            lost.summary(),
            false,
        );
        list.pass_on(&next, &device, vault);
        let here = self.state.path();
        let there = kept.join(vault.to_string());
        for (from, to) in [(here, there.as_path()), (next.as_path(), here)] {
            std::fs::rename(from, to)
                .and_then(|()| sync_parents(from, to))
                .map_err(|e| Failure::io(from, "cannot move it", &e))?;
        }
        Ok(kept)
    }
}

fn sync_parents(from: &Path, to: &Path) -> std::io::Result<()> {
    for dir in [from, to].into_iter().filter_map(Path::parent) {
        std::fs::File::open(dir)?.sync_all()?;
    }
    Ok(())
}

/// What the new device is called: the old name, and that it accepted a rollback on this day.
fn label(host: &str, date: &str) -> String {
    let day = date.split(' ').next().unwrap_or_default();
    let told = format!(", rollback accepted {day}");
    let mut name = host.to_owned();
    while name.len() + told.len() > skrin_base::limits::LABEL_MAX {
        name.pop();
    }
    name + &told
}

/// Says what is lost, and asks.
fn confirm(args: &AcceptRollbackArgs, lost: &Rollback) -> Outcome {
    let say = |text: String| print::note(text);
    say(lost.summary());
    for one in &lost.lost {
        say(format!("  {one}"));
    }
    for object in &lost.control {
        say(format!("  {object} was seen, the storage does not show it"));
    }
    say("Going on means to do without these, until another device that has them puts them again. Changes of this device that follow them, or were not uploaded, stay in its old state, which is kept and can be read.".into());
    if args.yes {
        return Ok(());
    }
    let refused = || {
        Failure::new(
            Exit::Integrity,
            "the rollback was not accepted; nothing was lost or changed here",
        )
        .remedy(
            "restore the storage from a newer copy, mount on the devices named above, or say --yes",
        )
    };
    if !std::io::stdin().is_terminal() {
        return Err(refused());
    }
    let mut err = std::io::stderr().lock();
    let _ = write!(err, "Type accept to go on with what the storage shows: ")
        .and_then(|()| err.flush());
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    match read.is_ok() && answer.trim() == "accept" {
        true => Ok(()),
        false => Err(refused()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_new_device_says_what_was_decided_in_a_name_that_fits() {
        let date = "2026-11-26 10:00:00 UTC";
        assert_eq!(label("anna", date), "anna, rollback accepted 2026-11-26");
        let long = label(&"\u{e9}".repeat(32), date);
        assert!(long.len() <= skrin_base::limits::LABEL_MAX);
        assert!(long.ends_with("\u{e9}, rollback accepted 2026-11-26"));
    }
}
