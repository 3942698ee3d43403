//! What the process behind a mount does about people: it answers commands, lets in those who were invited, and follows what
//! others decide.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use skrin_base::ids::{DeviceId, Hash32, LaneId, PersonId, parse_hex};
use skrin_base::{Clock, Timestamp};
use skrin_fs::Fs;
use skrin_meta::replica::Replica;
use skrin_storage::Store;
use skrin_vault::record::{CutTip, CutTips, EndReason, History, Label, Role};
use skrin_vault::{Invitation, Offer, Officer, Place, Room, RoomReader, VaultError, find_request};
use tokio::runtime::Handle;

use crate::commands::sync::senseless;
use crate::exit::{Exit, Failure, Outcome};
use crate::invitations::{Invitations, Open};
use crate::machine::{OsEntropy, SystemClock};
use crate::past::rfc3339;
use crate::people::{
    self, Answer, Ended, Ends, Invited, Member, Owners, REMOVED, Request, role_name,
};

/// How often requests of those who were invited are looked for: seldom once an invitation is old.
const LOOK: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
/// How long to wait before a membership that could not be ended is looked at again.
const OVER: Duration = Duration::from_secs(60);

/// Acts for the person whose device is mounted.
pub(crate) struct People {
    parts: PeopleParts,
    replica: Arc<Replica>,
    fs: Weak<Fs>,
    runtime: Handle,
    /// One change at a time.
    turn: tokio::sync::Mutex<()>,
    known: Mutex<Known>,
}

/// What is kept of the room that was read last.
pub(crate) struct Known {
    /// When the next membership ends that is this person's to end.
    next_end: Option<Timestamp>,
    owners: Owners,
}

impl Known {
    /// Of a room, for who may do what this officer may.
    pub(crate) fn of(room: &Room, officer: &Officer) -> Self {
        Self {
            next_end: next_end(room, officer),
            owners: people::owners(&room.state),
        }
    }
}

/// What it is made of.
pub(crate) struct PeopleParts {
    pub(crate) officer: Officer,
    pub(crate) own: DeviceId,
    pub(crate) store: Arc<dyn Store>,
    /// Where the vault lies, as an invitation says it.
    pub(crate) address: String,
    pub(crate) read_only: bool,
    pub(crate) invitations: Invitations,
}

impl People {
    /// Begins to act, with the room as it was opened.
    pub(crate) fn new(
        parts: PeopleParts,
        known: Known,
        (fs, replica): (&Arc<Fs>, Arc<Replica>),
    ) -> Self {
        Self {
            parts,
            replica,
            fs: Arc::downgrade(fs),
            runtime: Handle::current(),
            turn: tokio::sync::Mutex::new(()),
            known: Mutex::new(known),
        }
    }

    /// Whose devices there are, as far as is known.
    pub(crate) fn owners(&self) -> Owners {
        self.known.lock().owners.clone()
    }

    fn place(&self) -> Place<'_> {
        Place {
            store: &*self.parts.store,
            clock: &SystemClock,
            entropy: &OsEntropy,
        }
    }

    /// Makes the mount judge and seal by what was just read.
    async fn adopt(&self, room: Room) -> Outcome {
        *self.known.lock() = Known::of(&room, &self.parts.officer);
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
        let room = self.parts.officer.load(&self.place()).await?;
        if !room.needs_epoch() || !self.may_write(&room) {
            return self.adopt(room).await;
        }
        match self.parts.officer.make_epoch(&self.place()).await {
            Ok(room) => self.adopt(room).await,
            // Nothing gets out meanwhile.
            Err(VaultError::Storage(error)) if error.is_transient() => Err(error.into()),
            // What was decided holds all the same.
            Err(error) => self.adopt(room).await.and(Err(error.into())),
        }
    }

    fn may_write(&self, room: &Room) -> bool {
        !self.parts.read_only && room.state.now().may_write(&self.parts.own)
    }

    /// Answers a command.
    ///
    /// # Errors
    /// Who is not there, who may not, and a storage that cannot be reached.
    pub(crate) fn answer(&self, fs: &Fs, request: &Request) -> Outcome<Answer> {
        if !matches!(request, Request::Members | Request::Audit) && self.parts.read_only {
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
                let room = self.parts.officer.load(&self.place()).await?;
                let own = self.parts.officer.person();
                people::read(request, &room, own, Some(self.parts.own))
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
        // Before anybody comes who cannot be called so.
        Label::new(name).map_err(|_| VaultError::Label(name.to_owned()))?;
        let room = self.parts.officer.load(&self.place()).await?;
        let lasts = seconds.saturating_mul(1_000_000_000);
        let offer = Offer {
            role,
            history: History::All,
            until: until.map(Timestamp),
            lasts: i64::try_from(lasts).unwrap_or(i64::MAX),
            place: Some(self.parts.address.clone()),
        };
        let invitation =
            Invitation::make(&self.parts.officer, &room, &offer, &SystemClock, &OsEntropy)?;
        let answer = Invited {
            name: name.to_owned(),
            role: role_name(role).to_owned(),
            expires: rfc3339(invitation.expires),
            invitation: invitation.to_text().to_string(),
        };
        self.parts.invitations.add(name, invitation)?;
        Ok(Answer::Invited(answer))
    }

    /// Removes somebody, or changes what he may do.
    async fn end(&self, wanted: &str, role: Option<Role>) -> Outcome<Answer> {
        let _turn = self.turn.lock().await;
        let room = self.parts.officer.load(&self.place()).await?;
        let members = self.members(&room);
        let member = people::find(&members, wanted)?.clone();
        let person = parse_hex(&member.person).map(PersonId);
        let person = person.ok_or_else(senseless)?;
        let cut = self.cut_of(&room, person);
        let place = self.place();
        let room = match role {
            None => {
                let reason = EndReason::Unsaid;
                self.parts
                    .officer
                    .remove_member(&place, person, cut, reason)
                    .await?
            }
            Some(role) => {
                self.parts
                    .officer
                    .set_role(&place, person, role, cut)
                    .await?
            }
        };
        let now = room.state.now();
        let ended = Ended {
            person: member.person,
            name: member.name,
            role: match now.role(&person) {
                Some(role) => role_name(role).to_owned(),
                None => REMOVED.to_owned(),
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

    fn members(&self, room: &Room) -> Vec<Member> {
        people::members(room, self.parts.officer.person(), Some(self.parts.own))
    }

    async fn ends(&self, wanted: &str) -> Outcome<Answer> {
        let room = self.parts.officer.load(&self.place()).await?;
        let members = self.members(&room);
        let mine = members.iter().filter(|member| member.own);
        let mine: Vec<_> = mine.flat_map(|member| &member.devices).collect();
        let device = people::find_device(&mine, wanted)?;
        if device.own {
            return Err(Failure::new(
                Exit::Usage,
                "this is the device that this mount runs on; revoke it from another one",
            ));
        }
        let id = parse_hex(&device.device).map(DeviceId);
        let ends = self.replica.cut_of(&[id.ok_or_else(senseless)?]);
        Ok(Answer::Ends(Ends {
            device: device.device.clone(),
            name: device.name.clone(),
            tips: tips(&ends)
                .into_iter()
                .map(|tip| (tip.lane.to_string(), tip.seq, tip.commit.to_string()))
                .collect(),
        }))
    }

    /// What reads the room without the root, and where it lies.
    pub(crate) fn reader(&self) -> (&RoomReader, &dyn Store) {
        (self.parts.officer.reader(), &*self.parts.store)
    }

    /// Follows what others decide whenever a look for changes finds that they have.
    pub(crate) fn follow_from(self: &Arc<Self>, fs: &Fs) {
        let people = Arc::downgrade(self);
        let follow = move || {
            let people = people.upgrade();
            let follow = async move {
                let Some(people) = people else { return };
                if let Err(error) = people.follow().await {
                    tracing::warn!(%error, "the control records cannot be read again");
                }
            };
            Box::pin(follow) as Pin<Box<dyn Future<Output = ()> + Send>>
        };
        fs.set_control_source(Some(Arc::new(follow)));
    }

    /// Reads the copies of the records on this machine, so that of the storage only new ones are asked for.
    pub(crate) async fn read_copies(self: Arc<Self>, copies: Arc<dyn Store>) {
        let place = Place {
            store: &*copies,
            ..self.place()
        };
        if let Err(error) = self.parts.officer.load(&place).await {
            tracing::debug!(%error, "the copies of the control records are of no use");
        }
    }

    /// Lets in those who were invited and have asked, and puts out those whose time is over. Asks the storage for nothing where there is
    /// no invitation and no end. Runs until the runtime ends.
    pub(crate) async fn watch(self: Arc<Self>) {
        let mut looked = Instant::now();
        let mut ended: Option<Instant> = None;
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let open = self.parts.invitations.all();
            if looked.elapsed() >= pause(&open) {
                looked = Instant::now();
                self.let_in(&open).await;
            }
            let next = self.known.lock().next_end;
            if next.is_some_and(|end| end <= SystemClock.now())
                && ended.is_none_or(|ended| ended.elapsed() >= OVER)
            {
                ended = Some(Instant::now());
                if let Err(error) = self.put_out().await {
                    tracing::warn!(%error, "cannot end a membership whose time is over");
                }
            }
        }
    }

    async fn let_in(&self, open: &[Arc<Open>]) {
        for one in open {
            let done = match self.let_one_in(one).await {
                Ok(done) => done || one.is_over(),
                Err(failure) => {
                    tracing::warn!(error = %failure, name = one.name, "who was invited cannot be let in");
                    one.is_over() && failure.exit != Exit::Unreachable
                }
            };
            if done && let Err(error) = self.parts.invitations.forget(one) {
                tracing::warn!(%error, "an invitation that is used up cannot be forgotten");
            }
        }
    }

    /// Whether somebody has asked with it and is in.
    async fn let_one_in(&self, one: &Open) -> Outcome<bool> {
        let Some(request) = find_request(&*self.parts.store, &one.invitation).await? else {
            return Ok(false);
        };
        let request = request.called(&one.name)?;
        let _turn = self.turn.lock().await;
        let (officer, place) = (&self.parts.officer, self.place());
        let room = match officer.accept(&place, &one.invitation, &request).await {
            Err(VaultError::Invitation(why)) => {
                tracing::warn!(name = one.name, why, "an invitation serves no more");
                return Ok(true);
            }
            accepted => accepted?,
        };
        tracing::info!(name = one.name, person = %request.person(), "let in");
        self.adopt(room).await?;
        Ok(true)
    }

    async fn put_out(&self) -> Outcome {
        // What of them counts is what was seen: all that there is.
        if let Some(fs) = self.fs.upgrade() {
            let polled = self.runtime.spawn_blocking(move || fs.poll());
            polled.await.map_err(|e| Failure::new(Exit::Other, e))??;
        }
        let _turn = self.turn.lock().await;
        let mut room = self.parts.officer.load(&self.place()).await?;
        while let Some(person) = over(&room, &self.parts.officer) {
            let cut = self.cut_of(&room, person);
            let place = self.place();
            let reason = EndReason::Finished;
            let officer = &self.parts.officer;
            room = officer.remove_member(&place, person, cut, reason).await?;
        }
        self.adopt(room).await
    }
}

/// How long to wait between two looks: a twentieth of the age of the newest invitation; without any, for a while.
fn pause(open: &[Arc<Open>]) -> Duration {
    let now = SystemClock.now().0;
    let newest = open.iter().map(|one| one.made.0).max();
    let age =
        newest.map(|made| Duration::from_nanos(now.saturating_sub(made).max(0).unsigned_abs()));
    age.map_or(LOOK.0, |age| (age / 20).clamp(LOOK.0, LOOK.1))
}

/// The memberships that end some day and that this person may end.
fn ends<'a>(room: &'a Room, officer: &Officer) -> impl Iterator<Item = (PersonId, Timestamp)> + 'a {
    let now = room.state.now();
    let mine = now.role(&officer.person());
    let may = mine.is_some_and(|role| role <= Role::Manager);
    let members = now.members.iter().filter(move |_| may);
    members.filter_map(|(person, member)| Some((*person, member.until?)))
}

/// When the next of them ends.
fn next_end(room: &Room, officer: &Officer) -> Option<Timestamp> {
    ends(room, officer).map(|(_, until)| until).min()
}

/// One that has ended.
fn over(room: &Room, officer: &Officer) -> Option<PersonId> {
    let now = SystemClock.now();
    let mut over = ends(room, officer).filter(|(_, until)| *until <= now);
    over.next().map(|(person, _)| person)
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
            lane: LaneId(parse_hex(lane)?),
            seq: *seq,
            commit: Hash32::from_hex(commit)?,
        })
    };
    let tips: Option<CutTips> = ends.tips.iter().map(tip).collect();
    tips.ok_or_else(senseless)
}
