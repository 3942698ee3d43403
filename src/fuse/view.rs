//! Whose everything appears to be on this mount. What the vault keeps is another thing: it changes only where somebody asks.

use skrin_base::Errno;
use skrin_fs::{Attr, Kind, SetAttr};

/// What this mount shows in place of what the vault keeps. The kernel decides by what is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The owner of everything.
    pub uid: Option<u32>,
    /// The group of everything.
    pub gid: Option<u32>,
    /// Permissions that nothing shows.
    pub umask: Option<u16>,
}

impl View {
    /// Whether anything differs from what is kept. Access control lists name users and grant more than modes show: such a mount
    /// neither shows nor enforces them.
    pub(crate) fn is_other(&self) -> bool {
        *self != Self::default()
    }

    fn mask(&self) -> u16 {
        self.umask.unwrap_or(0)
    }

    /// What is shown.
    pub(crate) fn show(&self, attr: &mut Attr) {
        attr.uid = self.uid.unwrap_or(attr.uid);
        attr.gid = self.gid.unwrap_or(attr.gid);
        // Nobody asks for the permissions of a link; all systems show all of them.
        if attr.kind != Kind::Symlink {
            attr.mode &= !self.mask();
        }
    }

    /// What a change of shown attributes means for those that are kept: bits that are not shown stay as they are (`kept` tells the
    /// mode), and an owner that is not shown cannot be changed.
    ///
    /// # Errors
    /// `EPERM` for any other owner or group than the one that everything has.
    pub(crate) fn keep(
        &self,
        set: &mut SetAttr,
        kept: impl FnOnce() -> Option<u16>,
    ) -> Result<(), Errno> {
        for (shown, asked) in [(self.uid, &mut set.uid), (self.gid, &mut set.gid)] {
            match (shown, *asked) {
                (Some(all), Some(one)) if all != one => return Err(Errno::EPERM),
                (Some(_), _) => *asked = None,
                (None, _) => {}
            }
        }
        if let Some(mode) = set.mode
            && self.mask() != 0
            && let Some(kept) = kept()
        {
            set.mode = Some(mode & !self.mask() | kept & self.mask());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_permissions_stay_and_hidden_owners_cannot_change() {
        let view = View {
            uid: Some(1000),
            gid: None,
            umask: Some(0o027),
        };
        let mut set = SetAttr {
            mode: Some(0o755),
            uid: Some(1000),
            gid: Some(7),
            ..SetAttr::default()
        };
        view.keep(&mut set, || Some(0o666)).unwrap();
        assert_eq!(set.mode, Some(0o756 & !0o027 | 0o666 & 0o027));
        assert_eq!((set.uid, set.gid), (None, Some(7)));
        set.uid = Some(1001);
        assert_eq!(view.keep(&mut set, || None), Err(Errno::EPERM));
    }
}
