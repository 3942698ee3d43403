use super::*;
use skrin_base::clock::Entropy;
use skrin_base::clock::testutil::SeededEntropy;
use skrin_base::{Ino, KeyId, SegmentId};

/// Keeps sealed blocks, as the storage would.
#[derive(Default)]
struct Shelf(Vec<Vec<u8>>);

impl Sealer for Shelf {
    fn seal(&mut self, block: u64, plain: &[u8]) -> Result<Stored, FsError> {
        self.0.push(plain.to_vec());
        Ok(Stored {
            segment: SegmentId([1; 16]),
            first_slot: self.0.len() as u32 - 1,
            key: KeyId([2; 16]),
            origin_file: Ino(77),
            origin_block: block,
        })
    }
}

impl Shelf {
    fn fetch(&self, content: &mut Content, missing: Missing) {
        content.admit(missing, &self.0[missing.at.first_slot as usize]);
    }

    fn write(&mut self, content: &mut Content, offset: u64, data: &[u8]) {
        while let Some(m) = content.missing_for_write(77, offset, data.len()).unwrap() {
            self.fetch(content, m);
        }
        content.write(offset, data, self).unwrap();
    }

    fn resize(&mut self, content: &mut Content, size: u64) {
        if let Some(m) = content.missing_for_cut(size) {
            self.fetch(content, m);
        }
        content.resize(size);
    }

    fn zero(&mut self, content: &mut Content, offset: u64, len: u64) {
        while let Some(m) = content.missing_for_zero(77, offset, len).unwrap() {
            self.fetch(content, m);
        }
        content.zero(offset, len);
    }

    fn all(&self, content: &Content) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in content.read(77, 0, usize::MAX >> 1).unwrap() {
            match piece {
                Piece::Bytes(bytes) => out.extend(bytes),
                Piece::Zeros(n) => out.resize(out.len() + n, 0),
                Piece::Stored { at, from, len } => {
                    let plain = &self.0[at.first_slot as usize];
                    let part = &plain[from.min(plain.len())..(from + len).min(plain.len())];
                    out.extend(part);
                    out.resize(out.len() + len - part.len(), 0);
                }
            }
        }
        out
    }
}

/// What the tree would hold after the bodies.
#[derive(Default)]
struct Tree {
    inline: Option<Vec<u8>>,
    extents: Vec<Extent>,
}

impl Tree {
    fn apply(&mut self, size: u64, bodies: Vec<Body>) {
        for body in bodies {
            match body {
                Body::Inline(bytes) => {
                    assert_eq!(bytes.len() as u64, size);
                    (self.inline, self.extents) = (Some(bytes), Vec::new());
                }
                Body::Extents { full, list } => {
                    self.inline = None;
                    let mut map = ExtentMap::default();
                    if !full {
                        self.extents.iter().for_each(|e| map.put(*e));
                    }
                    list.iter().for_each(|e| map.put(*e));
                    self.extents = map.list(0, blocks(size));
                }
            }
        }
    }

    fn load(&self, size: u64) -> Content {
        match &self.inline {
            Some(bytes) => Content::inline(size, bytes.clone()),
            None => Content::stored(size, self.extents.clone()),
        }
    }
}

#[test]
fn random_edits_read_as_a_plain_array_does_and_survive_reloading() {
    for seed in 0..60 {
        let random = SeededEntropy::new(seed);
        let (mut shelf, mut tree) = (Shelf::default(), Tree::default());
        let mut content = Content::inline(0, Vec::new());
        let mut model: Vec<u8> = Vec::new();
        let scale = [4_096, 70_000, 700_000][seed as usize % 3];
        for step in 0..60 {
            let offset = random.u64() % scale;
            let len = random.u64() % (scale / 3) + 1;
            match random.u64() % 8 {
                0..=3 => {
                    let data: Vec<u8> = (0..len).map(|_| random.u64() as u8).collect();
                    shelf.write(&mut content, offset, &data);
                    let end = (offset + len) as usize;
                    model.resize(model.len().max(end), 0);
                    model[offset as usize..end].copy_from_slice(&data);
                }
                4 => {
                    shelf.resize(&mut content, offset);
                    model.resize(offset as usize, 0);
                }
                5 => {
                    shelf.zero(&mut content, offset, len);
                    let end = ((offset + len) as usize).min(model.len());
                    let from = (offset as usize).min(end);
                    model[from..end].fill(0);
                }
                6 => content.seal_dirty(&mut shelf).unwrap(),
                _ => {
                    let bodies = content.prepare(&mut shelf, Known::All).unwrap();
                    tree.apply(content.size(), bodies);
                    content.committed();
                    assert_eq!(content.dirty_bytes(), 0, "seed {seed} step {step}");
                    if random.u64().is_multiple_of(2) {
                        content = tree.load(content.size());
                    }
                }
            }
            assert!(shelf.all(&content) == model, "seed {seed} step {step}");
            let data = by_seeking(&content);
            assert_eq!(content.stored_bytes(), data, "seed {seed} step {step}");
        }
    }
}

/// Bytes of data, from where `seek` finds data and holes.
fn by_seeking(content: &Content) -> u64 {
    let (mut at, mut sum) = (0, 0);
    while let Some(data) = content.seek(at, true) {
        at = content.seek(data, false).unwrap();
        sum += at - data;
    }
    sum
}

#[test]
fn a_block_that_was_cut_reads_as_zeros_when_the_file_grows_again() {
    let (mut shelf, mut content) = (Shelf::default(), Content::default());
    shelf.write(&mut content, 0, &[7; 70_000]);
    content.prepare(&mut shelf, Known::All).unwrap();
    content.committed();
    shelf.resize(&mut content, 66_000);
    shelf.resize(&mut content, 70_000);
    let all = shelf.all(&content);
    assert!(all[..66_000].iter().all(|b| *b == 7));
    assert!(all[66_000..].iter().all(|b| *b == 0));
}

#[test]
fn whole_blocks_of_a_sequential_writer_do_not_stay_in_memory() {
    let (mut shelf, mut content) = (Shelf::default(), Content::default());
    for n in 0..40u64 {
        shelf.write(&mut content, n * 10_000, &[n as u8; 10_000]);
        assert!(content.dirty_bytes() <= BLOCK_LEN);
    }
    assert_eq!(shelf.0.len(), 6);
}

#[test]
fn a_tiny_file_is_told_whole_and_a_larger_one_by_its_extents() {
    let (mut shelf, mut content) = (Shelf::default(), Content::default());
    shelf.write(&mut content, 0, b"hello");
    assert_eq!(
        content.prepare(&mut shelf, Known::All).unwrap(),
        vec![Body::Inline(b"hello".to_vec())]
    );
    content.committed();
    assert_eq!(content.prepare(&mut shelf, Known::All).unwrap(), vec![]);
    shelf.write(&mut content, 5, &[1; 3000]);
    let bodies = content.prepare(&mut shelf, Known::All).unwrap();
    assert!(matches!(&bodies[..], [Body::Extents { full: true, list }] if list.len() == 1));
    assert_eq!(shelf.0[0].len(), 3005);
}

#[test]
fn seeking_finds_data_and_holes() {
    let (mut shelf, mut content) = (Shelf::default(), Content::default());
    shelf.write(&mut content, 4 * BLOCK, &[1; BLOCK_LEN]);
    shelf.resize(&mut content, 10 * BLOCK);
    assert_eq!(content.seek(0, true), Some(4 * BLOCK));
    assert_eq!(content.seek(4 * BLOCK + 5, true), Some(4 * BLOCK + 5));
    assert_eq!(content.seek(4 * BLOCK + 5, false), Some(5 * BLOCK));
    assert_eq!(content.seek(5 * BLOCK, true), None);
    assert_eq!(content.seek(10 * BLOCK, false), None);
}

#[test]
fn a_very_fragmented_file_is_told_by_its_changes_only() {
    let (mut shelf, mut content) = (Shelf::default(), Content::default());
    for n in (0..200u64).rev() {
        shelf.write(&mut content, n * BLOCK, &[1; BLOCK_LEN]);
    }
    content.prepare(&mut shelf, Known::All).unwrap();
    content.committed();
    shelf.write(&mut content, 50 * BLOCK, &[2; BLOCK_LEN]);
    let bodies = content.prepare(&mut shelf, Known::All).unwrap();
    assert!(matches!(&bodies[..], [Body::Extents { full: false, list }] if list.len() == 1));
}

/// A checkpoint by somebody who lies may say anything.
#[test]
fn a_size_that_no_file_can_have_is_no_reason_to_panic() {
    let lost = Extent {
        first_block: 5,
        count: u32::MAX,
        content: Held::Lost,
    };
    for size in [u64::MAX, u64::MAX - BLOCK + 1, 1 << 63] {
        assert!(stored_bytes(&[lost, lost], size) <= size);
        let stored = Content::stored(size, Vec::new()).stored_bytes();
        assert!(stored > 0);
    }
}
