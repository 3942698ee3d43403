//! `skrin member`, `skrin device list`, `skrin identity` and `skrin audit`: who is in a vault, and who decided it.

use std::path::{Path, PathBuf};

use crate::args::{AuditArgs, DeviceVerb, IdentityVerb, MemberVerb, PlaceArgs};
use crate::commands::sync::{senseless, silent};
use crate::exit::{Exit, Failure, Outcome};
use crate::past::{Found, find, local};
use crate::people::{self, Answer, Ended, Entry, Member, REMOVED, Request};
use crate::reader::Target;
use crate::{control, print};

/// Lists members, changes or removes one.
///
/// # Errors
/// `Absent` for who is no member; `Other` where one may not.
pub(crate) fn run(verb: &MemberVerb) -> Outcome {
    match verb {
        MemberVerb::List { at } => {
            let members = members(at)?;
            members.iter().for_each(|member| match at.json {
                true => print::json(member),
                false => lines(member).iter().for_each(print::line),
            });
            Ok(())
        }
        MemberVerb::Role {
            dir,
            person,
            role,
            json,
        } => changed(
            dir,
            Request::Role {
                person: person.clone(),
                role: *role,
            },
            *json,
        ),
        MemberVerb::Remove { dir, person, json } => {
            let person = person.clone();
            changed(dir, Request::Remove { person }, *json)
        }
    }
}

fn changed(dir: &Path, request: Request, json: bool) -> Outcome {
    let Answer::Ended(ended) = ask_at(dir, request)? else {
        return Err(senseless());
    };
    match json {
        true => print::json(&ended),
        false => told(&ended).iter().for_each(print::line),
    }
    Ok(())
}

fn told(ended: &Ended) -> Vec<String> {
    let Ended { name, role, .. } = ended;
    let mut lines = vec![match role.as_str() {
        "removed" => format!(
            "{name} was removed: nothing that is written from now on can be read with the keys that {name} ever had"
        ),
        role => format!("{name} is {role} now"),
    }];
    if role == REMOVED {
        lines.push(format!("what {name} could read until now, {name} may have kept; to take the storage away, change its password or keys there"));
    }
    lines
}

fn lines(member: &Member) -> Vec<String> {
    let own = if member.own { " (you)" } else { "" };
    let added = match &member.added_by {
        Some(by) => format!("added {} by {by}", local(&member.since)),
        None if member.since.is_empty() => "was a member".to_owned(),
        None => format!("since {}", local(&member.since)),
    };
    let until = member.until.as_deref();
    let until = until.map(|until| format!(", until {}", local(until)));
    let mut lines = vec![format!(
        "{}{own}  {}  {}, {added}{}",
        member.name,
        short(&member.person),
        member.role,
        until.unwrap_or_default()
    )];
    let devices = member.devices.iter().map(|device| {
        let ended = if device.ended { "  (ended)" } else { "" };
        format!(
            "    {}  {}  since {}{ended}",
            device.name,
            short(&device.device),
            local(&device.since)
        )
    });
    lines.extend(devices);
    lines
}

fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

/// Lists the devices of all members.
///
/// # Errors
/// Those of opening a vault.
pub(crate) fn devices(verb: &DeviceVerb) -> Outcome {
    let at = match verb {
        DeviceVerb::List { at } => at,
        DeviceVerb::Revoke {
            dir,
            device,
            unlock,
            json,
        } => return super::device::revoke(dir, device, unlock, *json),
    };
    for member in members(at)? {
        for device in &member.devices {
            if at.json {
                print::json(device);
                continue;
            }
            let own = if device.own { " (this one)" } else { "" };
            let ended = if device.ended { ", ended" } else { "" };
            print::line(format!(
                "{}{own}  {}  of {}, since {}{ended}",
                device.name,
                short(&device.device),
                member.name,
                local(&device.since)
            ));
        }
    }
    Ok(())
}

/// Shows who one is.
///
/// # Errors
/// `Absent` for who is no member.
pub(crate) fn identity(verb: &IdentityVerb) -> Outcome {
    let IdentityVerb::Show { at, qr, of } = verb;
    let members = members(at)?;
    let member = match of {
        Some(wanted) => people::find(&members, wanted)?,
        None => members.iter().find(|member| member.own).ok_or_else(|| {
            Failure::new(
                Exit::Integrity,
                "the control records do not know who you are",
            )
        })?,
    };
    if at.json {
        print::json(member);
        return Ok(());
    }
    print::line(format!("{}  {}", member.name, member.person));
    print::line("safety number, to compare by voice or on paper with what others see for you:");
    for half in member
        .safety_number
        .split(' ')
        .collect::<Vec<_>>()
        .chunks(6)
    {
        print::line(format!("    {}", half.join(" ")));
    }
    if *qr {
        let lines = qr_lines(&member.safety_number.replace(' ', ""))?;
        lines.into_iter().for_each(print::line);
    }
    Ok(())
}

/// A text as a QR code for terminals.
///
/// # Errors
/// `Other` for one that is too long.
pub(super) fn qr_lines(text: &str) -> Outcome<Vec<String>> {
    let code = qrcode::QrCode::new(text);
    let code = code.map_err(|e| Failure::new(Exit::Other, format!("no QR code: {e}")))?;
    let image = code.render::<qrcode::render::unicode::Dense1x2>().build();
    Ok(image.lines().map(str::to_owned).collect())
}

/// Shows what was decided, in an order in which nothing comes before what its author had seen.
///
/// # Errors
/// Those of opening a vault.
pub(crate) fn audit(args: &AuditArgs) -> Outcome {
    let entries = match look(&args.at, Request::Audit)? {
        Answer::Audit(entries) => entries,
        _ => return Err(senseless()),
    };
    let since = args
        .since
        .and_then(|n| jiff::Timestamp::from_nanosecond(i128::from(n)).ok());
    let is_new = |entry: &&Entry| {
        let time = entry.time.parse::<jiff::Timestamp>().ok();
        since.is_none_or(|since| time.is_none_or(|time| time >= since))
    };
    for entry in entries.iter().filter(is_new) {
        if args.at.json {
            print::json(entry);
            continue;
        }
        let counts = if entry.counts {
            ""
        } else {
            "  (does not count)"
        };
        print::line(format!(
            "{}  {} ({}): {}{counts}",
            local(&entry.time),
            entry.author,
            entry.signed_with,
            entry.what
        ));
    }
    Ok(())
}

fn members(at: &PlaceArgs) -> Outcome<Vec<Member>> {
    match look(at, Request::Members)? {
        Answer::Members(members) => Ok(members),
        _ => Err(senseless()),
    }
}

/// Asks a mount, or reads a vault that is not mounted.
fn look(at: &PlaceArgs, request: Request) -> Outcome<Answer> {
    match mounted(&at.place) {
        Ok(found) => ask(&found.mount, request),
        Err(failure) if failure.exit == Exit::Absent => {
            let runtime = super::runtime()?;
            runtime.block_on(async {
                let target = Target::open(&at.place, &at.unlock).await?;
                let room = target.unlocked.load_room(&*target.store).await?;
                people::read(&request, &room, target.unlocked.person(), None)
            })
        }
        Err(failure) => Err(failure),
    }
}

/// What was typed, as a place in a mount.
fn mounted(place: &str) -> Outcome<Found> {
    match place.contains("://") {
        true => Err(Failure::new(Exit::Absent, "an address is no path")),
        false => find(&PathBuf::from(place)),
    }
}

/// Asks the mount in which a path lies.
///
/// # Errors
/// `Absent` where nothing is mounted; what the mount says.
pub(super) fn ask_at(dir: &Path, request: Request) -> Outcome<Answer> {
    ask(&find(dir)?.mount, request)
}

/// The address of the vault that is mounted there.
///
/// # Errors
/// As [`ask_at`].
pub(super) fn address_of(mount: &Path) -> Outcome<String> {
    match control::ask(mount, &control::Request::Status, &mut |_| {})? {
        Some(control::Answer::Status(status)) => Ok(status.vault),
        Some(_) => Err(senseless()),
        None => Err(silent(mount)),
    }
}

fn ask(mount: &Path, request: Request) -> Outcome<Answer> {
    match control::ask(mount, &control::Request::People(request), &mut |_| {})? {
        Some(control::Answer::People(answer)) => Ok(answer),
        Some(_) => Err(senseless()),
        None => Err(silent(mount)),
    }
}
