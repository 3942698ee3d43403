//! The metadata: rows of the cache, folding operations, looking names up.

use super::{Bench, Unit, wrong};
use crate::error::BenchError;
use skrin_base::{DeviceId, EntryId, Ino, Name, OpId, Timestamp};
use skrin_crypto::LocalKey;
use skrin_meta::cache::CachedRows;
use skrin_meta::{Kind, MemoryRows, NewNode, Op, OpKind, Place, Row, Rows, apply, state};
use std::hint::black_box;

const FILES: u64 = 20_000;
/// Bytes of memory for the cache's rows and pages.
const BUDGET: usize = 64 << 20;

pub(super) fn run(bench: &Bench) -> Result<(), BenchError> {
    let folder = bench.folder()?;
    let path = folder.path().join("meta.db");
    let key = LocalKey::from_bytes([1; 32]);
    let (mut cached, _) = CachedRows::open(&path, key, b"bench", BUDGET).map_err(wrong)?;
    let mut memory = MemoryRows::default();
    let in_memory = put_and_get(bench, "rows in memory", &mut memory, None)?;
    put_and_get(bench, "rows of the cache", &mut cached, in_memory)?;
    fold_and_look_up(bench, "in memory", &mut MemoryRows::default())?;
    fold_and_look_up(bench, "in the cache", &mut cached)
}

fn row_key(n: u64) -> [u8; 20] {
    let mut key = [b'z'; 20];
    let number = n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    key.iter_mut().skip(1).zip(number).for_each(|(k, b)| *k = b);
    key
}

fn put_and_get(
    bench: &Bench,
    what: &str,
    rows: &mut dyn Rows,
    ceiling: Option<f64>,
) -> Result<Option<f64>, BenchError> {
    let row: Row = vec![7; 100].into();
    let mut n = 0;
    bench.rate(&format!("{what}: put"), Unit::Op, None, || {
        n = (n + 1) % FILES;
        rows.put(&row_key(n), Row::clone(&row)).map_err(wrong)
    })?;
    bench.rate(&format!("{what}: get"), Unit::Op, ceiling, || {
        n = (n + 1) % FILES;
        black_box(rows.get(&row_key(n)).map_err(wrong)?);
        Ok(())
    })
}

fn name(n: u64) -> Result<Name, BenchError> {
    Name::new(format!("document {n:06}.txt").as_bytes()).map_err(wrong)
}

fn create(n: u64) -> Result<Op, BenchError> {
    let mut entry = [0; 16];
    entry
        .iter_mut()
        .zip(n.to_le_bytes())
        .for_each(|(e, b)| *e = b);
    Ok(Op {
        id: OpId {
            device: DeviceId([9; 16]),
            counter: n + 1,
        },
        time: Timestamp(1),
        kind: OpKind::Create {
            place: Place {
                dir: Ino::ROOT,
                name: name(n)?,
                entry: EntryId(entry),
            },
            ino: Ino(1000 + n),
            node: NewNode {
                kind: Kind::File,
                mode: 0o644,
                uid: 0,
                gid: 0,
                rdev: 0,
                target: Vec::new(),
            },
        },
    })
}

fn fold_and_look_up(bench: &Bench, what: &str, rows: &mut dyn Rows) -> Result<(), BenchError> {
    for n in 0..FILES {
        apply(rows, &create(n)?).map_err(wrong)?;
    }
    let mut n = FILES;
    bench.rate(&format!("fold a create {what}"), Unit::Op, None, || {
        n += 1;
        apply(rows, &create(n)?).map(drop).map_err(wrong)
    })?;
    bench.rate(&format!("look a name up {what}"), Unit::Op, None, || {
        n = (n + 1) % FILES;
        let entry = state::entry(rows, Ino::ROOT, &name(n)?).map_err(wrong)?;
        let entry = entry.ok_or_else(|| wrong("a name is not there"))?;
        black_box(state::inode(rows, entry.ino).map_err(wrong)?);
        Ok(())
    })?;
    Ok(())
}
