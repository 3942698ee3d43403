//! Twelve words in shares: any `needed` of `count` people have the words together, and fewer know nothing of them (Shamir, "How to
//! Share a Secret", CACM 22, 1979, over GF(2^8), byte by byte). A share is fifteen words of BIP-39.

use crate::keys::WordsEntropy;
use crate::random::Random;
use crate::words::{WordsError, decode, encode};
use blahaj::{Share, Sharks};
use skrin_base::Entropy;
use thiserror::Error;
use zeroize::Zeroizing;

#[cfg(test)]
mod tests;

/// How many words a share has.
pub const SHARE_WORDS: usize = 15;
/// So many shares of one secret there may be.
pub const SHARES_MAX: u8 = 15;
/// `set (3 random bytes, the same in all shares) | needed, 4 bits | number, 4 bits | y, 16 bytes`.
const SHARE_LEN: usize = 20;
const SET_LEN: usize = 3;

/// Why shares are not the words. Of the shares themselves nothing is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SharesError {
    /// No such division.
    #[error("{needed} of {count} shares cannot be made: from 2 of 2 up to 15 of 15")]
    Division {
        /// How many are needed.
        needed: u8,
        /// Of how many.
        count: u8,
    },
    /// One of them is none, by its place from 1.
    #[error("share {0}: {1}")]
    Words(usize, WordsError),
    /// One of them, by its place from 1, says something that none says.
    #[error("share {0} is no share of a recovery key")]
    Strange(usize),
    /// One of them, by its place from 1, belongs to other shares than the first.
    #[error("share {0} does not belong to the same recovery key as the first")]
    Foreign(usize),
    /// Too few of them, counting each once.
    #[error("{found} different shares were given, {needed} are needed")]
    TooFew {
        /// How many there are.
        found: usize,
        /// How many there must be.
        needed: u8,
    },
}

/// Divides the words among `count` people.
///
/// # Errors
/// `Division`.
pub fn divide(
    words: &WordsEntropy,
    (needed, count): (u8, u8),
    entropy: &dyn Entropy,
) -> Result<Vec<Zeroizing<String>>, SharesError> {
    if needed < 2 || count < needed || count > SHARES_MAX {
        return Err(SharesError::Division { needed, count });
    }
    let mut set = [0; SET_LEN];
    entropy.fill(&mut set);
    let mut random = Random(entropy);
    let dealer = Sharks(needed).dealer_rng(words.raw(), &mut random);
    let shares = dealer.take(count.into()).map(|share| {
        let point = Zeroizing::new(Vec::from(&share));
        let mut bytes = Zeroizing::new([0; SHARE_LEN]);
        bytes[..SET_LEN].copy_from_slice(&set);
        bytes[SET_LEN..].copy_from_slice(&point);
        bytes[SET_LEN] |= needed << 4;
        encode(&*bytes)
    });
    Ok(shares.collect())
}

/// The words that shares are of, read as words are read. Shares of which one was changed give other words, which open nothing.
///
/// # Errors
/// Says which share is wrong, by its place from 1.
pub fn join(texts: &[&str]) -> Result<WordsEntropy, SharesError> {
    let mut first: Option<([u8; SET_LEN], u8)> = None;
    let mut points: Vec<(u8, Share)> = Vec::new();
    for (at, text) in (1..).zip(texts) {
        let mut bytes =
            decode::<SHARE_LEN>(text, SHARE_WORDS).map_err(|e| SharesError::Words(at, e))?;
        let (needed, number) = (bytes[SET_LEN] >> 4, bytes[SET_LEN] & 15);
        let mut set = [0; SET_LEN];
        set.copy_from_slice(&bytes[..SET_LEN]);
        if needed < 2 || number == 0 {
            return Err(SharesError::Strange(at));
        }
        if *first.get_or_insert((set, needed)) != (set, needed) {
            return Err(SharesError::Foreign(at));
        }
        bytes[SET_LEN] = number;
        let point = Share::try_from(&bytes[SET_LEN..]).map_err(|_| SharesError::Strange(at))?;
        if points.iter().all(|(known, _)| *known != number) {
            points.push((number, point));
        }
    }
    let needed = first.map_or(2, |(_, needed)| needed);
    let found = points.len();
    // More than needed would hide that one of them is wrong.
    let points = points.iter().take(needed.into()).map(|(_, point)| point);
    let sharks = Sharks(needed);
    let joined = sharks.recover(points);
    let joined = joined.map_err(|_| SharesError::TooFew { found, needed })?;
    let joined = Zeroizing::new(joined);
    let mut entropy = Zeroizing::new([0; 16]);
    match joined.len() == entropy.len() {
        true => entropy.copy_from_slice(&joined),
        false => return Err(SharesError::Strange(1)),
    }
    Ok(entropy.into())
}
