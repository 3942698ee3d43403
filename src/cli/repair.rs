//! What `verify --repair` does before it looks: everything of the vault is put again that this machine's state directory, or
//! the storage itself, still has. Nothing is removed, and nothing is put but the bytes that must stand there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use skrin_meta::replica::{Replica, ReplicaError};
use skrin_storage::Store;
use skrin_vault::{HEADER_NAME, Unlocked, VaultError};
use tempfile::TempDir;

use crate::args::VerifyArgs;
use crate::events;
use crate::exit::{Exit, Failure, Outcome};
use crate::finding::{Finding, Kind};
use crate::left_out;
use crate::reader::Target;
use crate::session::{Layers, replica_config};
use crate::state_dir::{self, CACHE, SPARE, StateDir};
use crate::store::{SHORT_PATIENCE, StoreSpec};
use crate::{mirror, secret, unlock};

/// Memory for rows.
const ROWS: usize = 32 << 20;

/// A vault of which everything was put again that could be, but for segments.
pub(crate) struct Repair {
    pub(crate) target: Target,
    /// What was put again.
    pub(crate) done: Vec<Finding>,
    state: StateDir,
}

impl Repair {
    /// Locks the state directory, opens the vault and mends header, slots and control records.
    ///
    /// # Errors
    /// `Busy` where the vault is mounted with this state directory; otherwise as for who opens the vault.
    pub(crate) async fn begin(args: &VerifyArgs) -> Outcome<Self> {
        let base = state_dir::base(args.state_dir.as_deref())?;
        let spec = StoreSpec::new(&args.vault)?;
        let store = spec.open(false, SHORT_PATIENCE)?;
        let state = StateDir::open(&base, which(&*store, &base, &spec.address).await?)?;
        let credential = secret::credential(&args.unlock)?;
        let (unlocked, copied) = match from_copies(state.path(), &credential).await? {
            Some(unlocked) => (unlocked, true),
            None => (unlock::unlock(&*store, &credential).await?, false),
        };
        let target = Target::opened(&spec, unlocked)?;
        let mut done = Vec::new();
        if copied {
            let put = mirror::put_again(&*target.store, state.path(), &target.unlocked).await?;
            done.extend(
                put.iter()
                    .map(|p| Finding::repaired(&p.object, p.was_missing)),
            );
        }
        Ok(Self {
            target,
            done,
            state,
        })
    }

    /// Writes down what was found and put again, where this machine has a device that remembers it.
    pub(crate) fn note(&self, findings: &[Finding]) {
        let known = events::of_known(self.state.path(), &self.target.unlocked);
        if let (Some(events), false) = (known, findings.is_empty()) {
            for found in findings {
                events.note(
                    found.kind.name(),
                    &found.object,
                    &found.what,
                    found.repaired,
                );
            }
            events.store();
        }
    }

    /// Where objects are kept while they are put again.
    pub(crate) fn spare(&self) -> PathBuf {
        self.state.path().join(SPARE)
    }

    /// Mends commits and tips; returns the layers over what there is then.
    ///
    /// # Errors
    /// As the layers have them.
    pub(crate) async fn layers(&mut self) -> Outcome<(Layers, TempDir)> {
        let cache = Some(self.state.path().join(CACHE)).filter(|cache| cache.is_dir());
        let mut open = self.target.layers_with(cache.clone()).await?;
        let put = open.0.replica.put_kept_again(self.state.path()).await?;
        if !put.is_empty() {
            drop(open);
            open = self.target.layers_with(cache.clone()).await?;
        }
        let hidden = left_out::problems(&open.0.replica).await?;
        let tips = open.0.replica.put_tips_again(&hidden).await?;
        if !tips.is_empty() {
            drop(open);
            open = self.target.layers_with(cache).await?;
        }
        let put = put.iter().chain(&tips);
        let put = put.map(|p| Finding::repaired(&p.object, p.was_missing));
        self.done.extend(put);
        Ok(open)
    }

    /// What the device of this state directory has seen and the storage does not show all the same.
    ///
    /// # Errors
    /// As the layers have them.
    pub(crate) async fn rolled_back(&self) -> Outcome<Vec<Finding>> {
        let Some(device) = unlock::known_device(&self.target.unlocked, self.state.path())? else {
            return Ok(Vec::new());
        };
        let store = &self.target.store;
        let room = self.target.unlocked.load_room(&**store).await?;
        let known = (Arc::new(room.keys), Arc::new(RwLock::new(room.roster)));
        let config = replica_config(
            store,
            (&known.0, &known.1),
            &device,
            false,
            self.state.path(),
            true,
            ROWS,
        );
        let lost = match Replica::open(config).await {
            Ok(_) => return Ok(Vec::new()),
            Err(ReplicaError::RolledBack(lost)) => lost,
            Err(error) => return Err(error.into()),
        };
        let seen = lost.lost.iter().map(ToString::to_string);
        let control = lost.control.iter();
        let control = control.map(|object| format!("{object} was seen"));
        let what = |what: String| Finding::new(Kind::RolledBack, "vault", what);
        Ok(seen.chain(control).map(what).collect())
    }
}

/// Which vault it is: by its header, which may be gone or damaged; then by what was mounted from this address.
///
/// # Errors
/// `Other` where the storage has another vault that is not known here: repairing the old one would destroy it.
async fn which(store: &dyn Store, base: &Path, address: &str) -> Outcome<skrin_base::VaultId> {
    let known = mirror::find(base, address);
    let dir_of = |vault: skrin_base::VaultId| base.join(vault.to_string());
    match (skrin_vault::open_header(store).await, known) {
        (Ok(header), None) => Ok(header.vault),
        (Ok(header), Some(known)) if header.vault == known => Ok(known),
        // The header alone proves nothing: it could be that of any other vault of this person.
        (Ok(header), Some(_))
            if dir_of(header.vault).is_dir()
                && mirror::has_slots(store, &dir_of(header.vault)).await? =>
        {
            Ok(header.vault)
        }
        // A header in which bytes were changed may name any vault; the slots are still those of this one.
        (Ok(header), Some(known)) => match mirror::has_slots(store, &dir_of(known)).await? {
            true => Ok(known),
            false => Err(Failure::new(
                Exit::Other,
                format!(
                    "{address}: another vault lies there ({}) than the one that was mounted from here ({known})",
                    header.vault
                ),
            )
            .remedy("mount it once; or, if its header is a forgery, move skrin.vault away on the storage and repair again")),
        },
        // A storage that cannot be reached is told before anything is locked.
        (Err(VaultError::Storage(error)), _) if error.is_transient() => Err(error.into()),
        (Err(_), Some(known)) => Ok(known),
        (Err(error), None) => Err(error.into()),
    }
}

/// Opens the vault from the copies of an earlier mount, which say what header it must have.
async fn from_copies(
    state_dir: &Path,
    credential: &secret::Credential,
) -> Outcome<Option<Unlocked>> {
    let copies = mirror::open(state_dir)?;
    let name = skrin_storage::ObjectName::new(HEADER_NAME);
    let name = name.map_err(|bad| Failure::from(skrin_storage::StoreError::from(bad)))?;
    match copies.get(&name, skrin_base::limits::CONTROL_MAX).await {
        Ok(_) => Ok(unlock::unlock(&*copies, credential).await.ok()),
        Err(_) => Ok(None),
    }
}
