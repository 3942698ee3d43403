//! A vault with very many files: how long until something can be seen in it?

use crate::error::{BenchError, Context};
use crate::metric::{MANY_LIST, MANY_MOUNT, MANY_NEW};
use crate::session::Session;
use std::fs;
use std::path::Path;

pub(super) fn run(session: &mut Session<'_>) -> Result<(), BenchError> {
    let source = session.setting.many_tree.clone();
    session.populate(&source)?;
    // The state as a machine has it that has worked with this vault before, contents apart.
    session.cold()?;
    session.unmount()?;
    let ((), mount) = session.timed(Session::mount)?;
    session.record(&MANY_MOUNT, mount.wall, &mount);
    let ((), listed) = session.timed(|s| list(&s.path("tree")))?;
    session.record(&MANY_LIST, listed.wall, &listed);
    if !session.forget()? {
        return Ok(());
    }
    let ((), new) = session.timed(|s| {
        s.mount()?;
        list(&s.path("tree"))
    })?;
    session.record(&MANY_NEW, new.wall, &new);
    Ok(())
}

/// The first directory of the tree, with attributes.
fn list(tree: &Path) -> Result<(), BenchError> {
    let mut dirs = fs::read_dir(tree).at("list", tree)?;
    let first = match dirs.next() {
        Some(first) => first.at("list", tree)?.path(),
        None => return Err(BenchError::Wrong("the tree is not there".into())),
    };
    for entry in fs::read_dir(&first).at("list", &first)? {
        let entry = entry.at("list", &first)?;
        entry.metadata().at("stat", &entry.path())?;
    }
    Ok(())
}
