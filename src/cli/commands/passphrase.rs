//! `skrin passphrase`: another passphrase for the same keys.

use crate::args::PassphraseArgs;
use crate::exit::Outcome;
use crate::reader::Target;
use crate::{print, secret};
use skrin_vault::Argon2Params;
use zeroize::Zeroizing;

/// Changes it.
///
/// # Errors
/// `Usage` for a weak one; those of opening a vault.
pub(crate) fn run(args: &PassphraseArgs) -> Outcome {
    let runtime = super::runtime()?;
    let target = runtime.block_on(Target::open(&args.vault, &args.unlock))?;
    let new = secret::new_passphrase(args.new_passphrase_file.as_deref())?;
    let new = Zeroizing::new(new.expose().to_owned());
    let place = target.place();
    let change = target
        .unlocked
        .change_passphrase(&place, &new, Argon2Params::DEFAULT);
    runtime.block_on(change)?;
    print::line("the passphrase was changed");
    print::note(
        "whoever knows the old passphrase and has an old copy of the storage can still open what was there: the keys are the same",
    );
    Ok(())
}
