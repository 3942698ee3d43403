//! What the process behind a mount does about people: it answers commands, lets in those who were invited, and follows what
//! others decide.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use skrin_base::Clock;
use skrin_base::ids::{DeviceId, Hash32, LaneId, PersonId, VaultId};
use skrin_base::wire::{Decode, Encode, Reader, Writer};
use skrin_crypto::{LocalAad, LocalKey, open, seal};
use skrin_fs::Fs;
use skrin_meta::replica::Replica;
use skrin_storage::Store;
use skrin_vault::record::{CutTip, CutTips, EndReason, History, Role};
use skrin_vault::{Invitation, Offer, Officer, Place, Room, find_request};
use tokio::runtime::Handle;
use zeroize::Zeroizing;

use crate::exit::{Exit, Failure, Outcome};
use crate::machine::{OsEntropy, SystemClock};
use crate::past::rfc3339;
use crate::people::{self, Answer, Ended, Ends, Invited, Request};
use crate::unlock::write_durably;

/// How often requests of those who were invited are looked for: seldom once an invitation is old.
const LOOK: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
/// How often it is looked whether a membership is over.
const OVER: Duration = Duration::from_secs(60);
/// More invitations than anybody has open.
const INVITATIONS_MAX: usize = 1024;

/// An invitation that nobody has used yet.
struct Open {
    name: String,
    /// When it was made, in nanoseconds since 1970.
    made: i64,
    invitation: Invitation,
}

/// Acts for the person whose device is mounted.
pub(crate) struct People {
    officer: Officer,
    own: DeviceId,
    store: Arc<dyn Store>,
    replica: Arc<Replica>,
    runtime: Handle,
    /// Where the vault lies, as an invitation says it.
    address: String,
    read_only: bool,
    file: PathBuf,
    key: LocalKey,
    /// One change at a time.
    turn: tokio::sync::Mutex<()>,
    open: Mutex<Vec<Open>>,
}

/// What it is made of.
pub(crate) struct PeopleParts<'a> {
    pub(crate) officer: Officer,
    pub(crate) vault: VaultId,
    pub(crate) own: DeviceId,
    /// Seals the file of open invitations.
    pub(crate) key: LocalKey,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) address: String,
    pub(crate) read_only: bool,
    pub(crate) state_dir: &'a Path,
}

fn aad(vault: VaultId) -> LocalAad {
    LocalAad {
        purpose: "invitations",
        vault,
        context: Vec::new(),
    }
}

impl People {
    /// Begins to act.
    ///
    /// # Errors
    /// A file of open invitations that cannot be read.
    pub(crate) fn new(parts: PeopleParts<'_>) -> Outcome<Self> {
        let vault = parts.vault;
        let mut this = Self {
            officer: parts.officer,
            own: parts.own,
            store: parts.store,
            replica: parts.replica,
            runtime: Handle::current(),
            address: parts.address,
            read_only: parts.read_only,
            file: parts.state_dir.join("invitations"),
            key: parts.key,
            turn: tokio::sync::Mutex::new(()),
            open: Mutex::new(Vec::new()),
        };
        this.open = Mutex::new(this.load(vault)?);
        Ok(this)
    }

    fn load(&self, vault: VaultId) -> Outcome<Vec<Open>> {
        let bytes = match std::fs::read(&self.file) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => {
                return Err(Failure::io(
                    &self.file,
                    "cannot read the open invitations",
                    &e,
                ));
            }
        };
        let damaged = |_| {
            Failure::new(
                Exit::Integrity,
                format!(
                    "{}: the file of open invitations is damaged",
                    self.file.display()
                ),
            )
            .remedy("delete it, and invite again whoever has not joined yet")
        };
        let plain = open(&self.key, &aad(vault), &bytes).map_err(|_| damaged(()))?;
        let mut r = Reader::new(&plain);
        let mut read = || {
            let n = r.u32()? as usize;
            let mut all = Vec::new();
            for _ in 0..n.min(INVITATIONS_MAX) {
                let name = String::from_utf8_lossy(r.bytes("name", 256)?).into_owned();
                let made = r.u64()? as i64;
                let invitation = Invitation::decode(&mut r)?;
                all.push(Open {
                    name,
                    made,
                    invitation,
                });
            }
            Ok::<_, skrin_base::wire::WireError>(all)
        };
        read().map_err(|_| damaged(()))
    }

    fn store_open(&self, open: &[Open]) -> Outcome {
        let mut w = Writer::default();
        w.count(open.len());
        for one in open {
            w.bytes(one.name.as_bytes());
            w.u64(one.made as u64);
            one.invitation.encode(&mut w);
        }
        let plain = Zeroizing::new(w.into_bytes());
        let Some(vault) = open.first().map(|one| one.invitation.anchor.vault) else {
            return match std::fs::remove_file(&self.file) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    Err(Failure::io(&self.file, "cannot remove it", &e))
                }
                _ => Ok(()),
            };
        };
        write_durably(
            &self.file,
            &seal(&self.key, &aad(vault), &plain, &OsEntropy),
        )
    }

    fn place(&self) -> Place<'_> {
        Place {
            store: &*self.store,
            clock: &SystemClock,
            entropy: &OsEntropy,
        }
    }

    /// Makes the mount judge and seal by what was just read.
    async fn adopt(&self, room: Room) -> Outcome {
        let keys = Arc::new(room.keys);
        Ok(self.replica.set_control(room.roster, keys).await?)
    }

    /// Reads the control records again, makes new keys where that is this device's to do, and goes on with both: nothing is
    /// sealed under old keys once a removal is known.
    ///
    /// # Errors
    /// As the vault has them, and what was seen and is not shown any more.
    pub(crate) async fn follow(&self) -> Outcome {
        let _turn = self.turn.lock().await;
        let mut room = self.officer.load(&self.place()).await?;
        if room.needs_epoch() && self.may_write(&room) {
            room = self.officer.make_epoch(&self.place()).await?;
        }
        self.adopt(room).await
    }

    fn may_write(&self, room: &Room) -> bool {
        !self.read_only && room.state.now().may_write(&self.own)
    }

    /// Answers a command.
    ///
    /// # Errors
    /// Who is not there, who may not, and a storage that cannot be reached.
    pub(crate) fn answer(&self, fs: &Fs, request: &Request) -> Outcome<Answer> {
        if !matches!(request, Request::Members | Request::Audit) && self.read_only {
            return Err(Failure::new(Exit::Usage, "this mount is read-only"));
        }
        // What of a device counts is what was seen of it: all that there is.
        if matches!(
            request,
            Request::Remove { .. } | Request::Role { .. } | Request::Ends { .. }
        ) {
            fs.poll()?;
        }
        self.runtime.block_on(self.act(request))
    }

    async fn act(&self, request: &Request) -> Outcome<Answer> {
        match request {
            Request::Members | Request::Audit => {
                let room = self.officer.load(&self.place()).await?;
                let own = self.officer.person();
                people::read(request, &room, own, Some(self.own))
            }
            Request::Invite {
                name,
                role,
                expires,
                until,
            } => self.invite(name, (*role).into(), *expires, *until).await,
            Request::Remove { person } => self.end(person, None).await,
            Request::Role { person, role } => self.end(person, Some((*role).into())).await,
            Request::Ends { device } => self.ends(device).await,
            Request::Refresh => {
                self.follow().await?;
                Ok(Answer::Done)
            }
        }
    }

    async fn invite(
        &self,
        name: &str,
        role: Role,
        seconds: u64,
        until: Option<i64>,
    ) -> Outcome<Answer> {
        let room = self.officer.load(&self.place()).await?;
        let lasts = seconds.saturating_mul(1_000_000_000);
        let offer = Offer {
            role,
            history: History::All,
            until: until.map(skrin_base::Timestamp),
            lasts: i64::try_from(lasts).unwrap_or(i64::MAX),
            place: Some(self.address.clone()),
        };
        let invitation = Invitation::make(&self.officer, &room, &offer, &SystemClock, &OsEntropy)?;
        let answer = Invited {
            name: name.to_owned(),
            role: format!("{role:?}").to_ascii_lowercase(),
            expires: rfc3339(invitation.expires),
            invitation: invitation.to_text().to_string(),
        };
        let mut open = self.open.lock();
        let now = SystemClock.now().0;
        open.retain(|one| one.invitation.expires.0 > now);
        if open.len() == INVITATIONS_MAX {
            return Err(Failure::new(
                Exit::Usage,
                "too many invitations are open: wait until some were used or have expired",
            ));
        }
        open.push(Open {
            name: name.to_owned(),
            made: now,
            invitation,
        });
        self.store_open(&open)?;
        Ok(Answer::Invited(answer))
    }

    /// Removes somebody, or changes what he may do.
    async fn end(&self, wanted: &str, role: Option<Role>) -> Outcome<Answer> {
        let _turn = self.turn.lock().await;
        let room = self.officer.load(&self.place()).await?;
        let own = self.officer.person();
        let Answer::Members(members) = people::read(&Request::Members, &room, own, None)? else {
            return Err(crate::commands::sync::senseless());
        };
        let member = people::find(&members, wanted)?.clone();
        let person = person_of(&room, &member.person)?;
        let cut = self.cut_of(&room, person);
        let place = self.place();
        let room = match role {
            None => {
                let reason = EndReason::Unsaid;
                self.officer
                    .remove_member(&place, person, cut, reason)
                    .await?
            }
            Some(role) => self.officer.set_role(&place, person, role, cut).await?,
        };
        let now = room.state.now();
        let ended = Ended {
            person: member.person,
            name: member.name,
            role: match now.role(&person) {
                Some(role) => format!("{role:?}").to_ascii_lowercase(),
                None => "removed".to_owned(),
            },
            devices: member.devices.into_iter().map(|d| d.device).collect(),
        };
        self.adopt(room).await?;
        Ok(Answer::Ended(ended))
    }

    /// What counts of the lanes of all devices that a person ever had.
    fn cut_of(&self, room: &Room, person: PersonId) -> CutTips {
        let devices = room.state.devices.iter();
        let devices = devices.filter(|(_, device)| device.person == person);
        let devices: Vec<DeviceId> = devices.map(|(id, _)| *id).collect();
        tips(&self.replica.cut_of(&devices))
    }

    async fn ends(&self, wanted: &str) -> Outcome<Answer> {
        let room = self.officer.load(&self.place()).await?;
        let own = self.officer.person();
        let Answer::Members(members) = people::read(&Request::Members, &room, own, None)? else {
            return Err(crate::commands::sync::senseless());
        };
        let mine = members.iter().filter(|member| member.own);
        let mine: Vec<_> = mine.flat_map(|member| &member.devices).collect();
        let device = people::find_device(&mine, wanted)?;
        let ids = room.state.devices.keys();
        let mut ids = ids.filter(|id| id.to_string() == device.device);
        let Some(id) = ids.next() else {
            return Err(crate::commands::sync::senseless());
        };
        if *id == self.own {
            return Err(Failure::new(
                Exit::Usage,
                "this is the device that this mount runs on; revoke it from another one",
            ));
        }
        let tips = tips(&self.replica.cut_of(&[*id])).into_iter();
        Ok(Answer::Ends(Ends {
            device: device.device.clone(),
            name: device.name.clone(),
            tips: tips
                .map(|tip| (tip.lane.to_string(), tip.seq, tip.commit.to_string()))
                .collect(),
        }))
    }

    /// Follows what others decide: control records are read again where a commit waits for them or a tip shows new ones. Runs until
    /// the runtime ends.
    pub(crate) async fn watch_records(self: Arc<Self>) {
        const EVERY: Duration = Duration::from_secs(1);
        loop {
            tokio::time::sleep(EVERY).await;
            if !self.replica.needs_control().await {
                continue;
            }
            if let Err(error) = self.follow().await {
                tracing::warn!(%error, "the control records cannot be read again");
            }
            // A record that the storage withholds must not make us ask for ever.
            tokio::time::sleep(4 * EVERY).await;
        }
    }

    /// Lets in those who were invited and have asked, and puts out those whose time is over. Runs until the runtime ends.
    pub(crate) async fn watch(self: Arc<Self>) {
        let mut looked = Instant::now();
        let mut over = Instant::now();
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if looked.elapsed() >= self.pause() {
                looked = Instant::now();
                if let Err(error) = self.let_in().await {
                    tracing::warn!(%error, "cannot look for those who were invited");
                }
            }
            if over.elapsed() >= OVER && !self.read_only {
                over = Instant::now();
                if let Err(error) = self.put_out().await {
                    tracing::warn!(%error, "cannot end a membership whose time is over");
                }
            }
        }
    }

    /// How long to wait between two looks: a twentieth of the age of the newest invitation.
    fn pause(&self) -> Duration {
        let now = SystemClock.now().0;
        let open = self.open.lock();
        let newest = open.iter().map(|one| one.made).max();
        let age = newest.map(|made| Duration::from_nanos((now - made).max(0) as u64));
        age.map_or(LOOK.1, |age| (age / 20).clamp(LOOK.0, LOOK.1))
    }

    async fn let_in(&self) -> Outcome {
        let texts: Vec<(String, Invitation)> = {
            let open = self.open.lock();
            let copy = |one: &Open| {
                let text = one.invitation.to_text();
                Invitation::from_text(&text).map(|invitation| (one.name.clone(), invitation))
            };
            open.iter().map(copy).collect::<Result<_, _>>()?
        };
        for (name, invitation) in texts {
            let tag = invitation.tag();
            match find_request(&*self.store, &invitation).await {
                Ok(None) if invitation.require_valid(&SystemClock).is_err() => self.forget(&tag)?,
                Ok(None) => {}
                Ok(Some(request)) => {
                    let request = request.called(&name)?;
                    let _turn = self.turn.lock().await;
                    let place = self.place();
                    let room = self.officer.accept(&place, &invitation, &request).await?;
                    tracing::info!(name, person = %request.person(), "let in");
                    self.adopt(room).await?;
                    self.forget(&tag)?;
                }
                Err(error) => tracing::warn!(%error, name, "an invitation was answered badly"),
            }
        }
        Ok(())
    }

    fn forget(&self, tag: &[u8; 32]) -> Outcome {
        let mut open = self.open.lock();
        open.retain(|one| one.invitation.tag() != *tag);
        self.store_open(&open)
    }

    async fn put_out(&self) -> Outcome {
        let room = self.officer.load(&self.place()).await?;
        let now = room.state.now();
        let mine = now.role(&self.officer.person());
        if mine.is_none_or(|role| role > Role::Manager) {
            return Ok(());
        }
        let time = SystemClock.now();
        let over = now.members.iter();
        let over = over.filter(|(_, m)| m.until.is_some_and(|until| until <= time));
        let over: Vec<PersonId> = over.map(|(person, _)| *person).collect();
        for person in over {
            let _turn = self.turn.lock().await;
            let cut = self.cut_of(&room, person);
            let place = self.place();
            let reason = EndReason::Finished;
            let room = self
                .officer
                .remove_member(&place, person, cut, reason)
                .await?;
            self.adopt(room).await?;
        }
        Ok(())
    }
}

fn person_of(room: &Room, hex: &str) -> Outcome<PersonId> {
    let mut persons = room.state.persons.keys();
    let found = persons.find(|person| person.to_string() == hex);
    found.copied().ok_or_else(crate::commands::sync::senseless)
}

fn tips(cut: &skrin_crypto::Cut) -> CutTips {
    let all = cut.iter().flat_map(|(lane, ends)| {
        ends.iter().map(|(seq, commit)| CutTip {
            lane: *lane,
            seq: *seq,
            commit: *commit,
        })
    });
    all.collect()
}

/// The ends that a mount told, for the record that revokes a device.
///
/// # Errors
/// What is no answer.
pub(crate) fn tips_of(ends: &Ends) -> Outcome<CutTips> {
    let tip = |(lane, seq, commit): &(String, u64, String)| {
        Some(CutTip {
            lane: LaneId(skrin_base::ids::parse_hex(lane)?),
            seq: *seq,
            commit: Hash32::from_hex(commit)?,
        })
    };
    let tips: Option<CutTips> = ends.tips.iter().map(tip).collect();
    tips.ok_or_else(crate::commands::sync::senseless)
}
