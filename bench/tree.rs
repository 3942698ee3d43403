//! What is written: the same bytes in every run.

use crate::error::{BenchError, Context};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

/// SplitMix64 (Steele, Lea, Flood 2014).
pub struct Random(u64);

impl Random {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform enough below `bound`, which is not zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.u64() % bound
    }

    /// Bytes that no compressor makes smaller.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let words = (0..len.div_ceil(8)).flat_map(|_| self.u64().to_le_bytes());
        words.take(len).collect()
    }

    /// Text from a vocabulary of 512 words, about as compressible as source code.
    pub fn text(&mut self, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len + 16);
        while out.len() < len {
            let mut word = Random::new(self.below(512));
            let letters = 2 + word.below(9);
            out.extend((0..letters).map(|_| b'a' + word.below(26) as u8));
            out.push(if self.below(10) == 0 { b'\n' } else { b' ' });
        }
        out.truncate(len);
        out
    }
}

/// A tree of small files, as a folder to copy from.
#[derive(Clone, Copy, Debug)]
pub struct TreeSpec {
    /// How many files.
    pub files: usize,
    /// Files in one directory.
    pub per_dir: usize,
    /// Shortest and longest, in bytes.
    pub sizes: (u64, u64),
}

/// Writes the tree below `dir`, which is made, and gives its bytes.
///
/// # Errors
/// Of the file system.
pub fn write_tree(dir: &Path, spec: &TreeSpec) -> Result<u64, BenchError> {
    let mut random = Random::new(1);
    let mut total = 0;
    for n in 0..spec.files {
        let folder = dir.join(format!("folder {:04}", n / spec.per_dir));
        if n % spec.per_dir == 0 {
            fs::create_dir_all(&folder).at("create", &folder)?;
        }
        let (least, most) = spec.sizes;
        let len = least + random.below(most - least + 1);
        let path = folder.join(format!("document {n:06}.txt"));
        let mut file = File::create(&path).at("create", &path)?;
        file.write_all(&random.text(len as usize))
            .at("write", &path)?;
        total += len;
    }
    Ok(total)
}

/// What lies below a folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// Regular files.
    pub files: u64,
    /// Their lengths together.
    pub bytes: u64,
}

/// Walks the folder; a folder that is not there is empty.
///
/// # Errors
/// Of the file system.
pub fn volume(dir: &Path) -> Result<Volume, BenchError> {
    let mut sum = Volume::default();
    visit(dir, &mut |path| {
        let meta = fs::symlink_metadata(path).at("stat", path)?;
        sum.files += 1;
        sum.bytes += meta.len();
        Ok(())
    })?;
    Ok(sum)
}

/// Reads every file below the folder from beginning to end.
///
/// # Errors
/// Of the file system.
pub fn read_all(dir: &Path) -> Result<Volume, BenchError> {
    let mut sum = Volume::default();
    visit(dir, &mut |path| {
        sum.bytes += fs::read(path).at("read", path)?.len() as u64;
        sum.files += 1;
        Ok(())
    })?;
    Ok(sum)
}

fn visit(
    dir: &Path,
    file: &mut dyn FnMut(&Path) -> Result<(), BenchError>,
) -> Result<(), BenchError> {
    crate::process::check()?;
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.at("list", dir)?,
    };
    let entries = entries.collect::<Result<Vec<_>, _>>().at("list", dir)?;
    for entry in entries {
        let path = entry.path();
        let kind = entry.file_type().at("stat", &path)?;
        if kind.is_dir() {
            visit(&path, file)?;
        } else if kind.is_file() {
            file(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_has_the_files_and_bytes_that_were_asked_for_and_the_same_ones_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let spec = TreeSpec {
            files: 25,
            per_dir: 10,
            sizes: (100, 200),
        };
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        let bytes = write_tree(&a, &spec).unwrap();
        assert_eq!(write_tree(&b, &spec).unwrap(), bytes);
        let expected = Volume { files: 25, bytes };
        assert_eq!(volume(&a).unwrap(), expected);
        assert_eq!(read_all(&b).unwrap(), expected);
        assert!((2500..=5000).contains(&bytes));
        assert_eq!(fs::read_dir(&a).unwrap().count(), 3);
    }

    #[test]
    fn a_folder_that_is_not_there_is_empty() {
        let none = volume(Path::new("/nowhere/at/all")).unwrap();
        assert_eq!(none, Volume::default());
    }
}
