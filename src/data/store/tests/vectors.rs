//! The frozen segment of docs/format/vectors/segment.txt: written once (with `SKRIN_WRITE_VECTORS=1`), read for ever. Only reading is
//! tested, as another version of zstd may compress otherwise.

use super::*;
use crate::segment::{self, Table, header};
use skrin_base::Hash32;
use skrin_base::wire::Encode;
use std::path::Path;

const NAME: &str = "../../docs/format/vectors/segment.txt";

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(NAME)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The three blocks: short, compressed, and of incompressible bytes.
fn plains() -> [Vec<u8>; 3] {
    let random = (0..40u32).flat_map(|n| skrin_crypto::hash(&n.to_le_bytes()).0);
    [
        b"a short block".to_vec(),
        b"said the fish; ".repeat(400),
        random.collect(),
    ]
}

async fn write_vectors() {
    let mut world = World::new();
    world.config.compression = Some(3);
    let store = world.open();
    let blocks = plains().into_iter().zip(0..).map(|(plain, n)| {
        store
            .write_block(
                KEY,
                &key(),
                (FILE, n),
                &plain,
                Room::Wait,
                &mut Gain::default(),
            )
            .unwrap()
    });
    let blocks: Vec<_> = blocks.collect();
    let infos = publish(&store).await;
    let info = &infos[&blocks[0].segment];
    let object = world.storage.peek(&object_name(info.id).unwrap()).unwrap();
    let table = Table::open(
        world.config.vault,
        world.config.room,
        info,
        &object[info.table_offset as usize..],
    )
    .unwrap();
    let mut text = String::from(
        "# Vectors of docs/format/segments.md: name = hex. The object is header, blocks, zeros up to table_offset, and table.\n\n",
    );
    let mut line = |name: &str, bytes: &[u8]| text.push_str(&format!("{name} = {}\n", hex(bytes)));
    line("vault", &world.config.vault.0);
    line("room", &world.config.room.0);
    line("info", &info.to_bytes());
    line("key_id", &KEY.0);
    line("file_key", key().expose());
    line("origin_file", &FILE.0.to_le_bytes());
    line("header", &object[..16]);
    for (plain, slot) in plains().iter().zip(0..) {
        let range = table.range(slot..slot + 1).unwrap();
        line("plain", plain);
        line("block", &object[range.start as usize..range.end as usize]);
    }
    line("table", &object[info.table_offset as usize..]);
    line("object_hash", &skrin_crypto::hash(&object).0);
    std::fs::write(path(), text).unwrap();
}

struct Vectors(Vec<(String, Vec<u8>)>);

impl Vectors {
    fn read() -> Self {
        let text = std::fs::read_to_string(path()).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let lines = lines.filter_map(|line| line.split_once(" = "));
        let unhex = |text: &str| {
            let pairs = (0..text.len())
                .step_by(2)
                .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap());
            pairs.collect::<Vec<_>>()
        };
        Self(
            lines
                .map(|(name, value)| (name.to_owned(), unhex(value)))
                .collect(),
        )
    }

    fn all(&self, name: &str) -> Vec<&[u8]> {
        self.0
            .iter()
            .filter(|(n, _)| n == name)
            .map(|(_, v)| &v[..])
            .collect()
    }

    fn one<const N: usize>(&self, name: &str) -> [u8; N] {
        self.all(name)[0].try_into().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_frozen_segment_is_read() {
    use skrin_base::wire::Decode;
    if std::env::var_os("SKRIN_WRITE_VECTORS").is_some() {
        write_vectors().await;
    }
    let vectors = Vectors::read();
    let info = SegmentInfo::from_bytes(vectors.all("info")[0]).unwrap();
    let mut object = [&vectors.all("header")[..], &vectors.all("block")[..]]
        .concat()
        .concat();
    object.resize(info.table_offset as usize, 0);
    object.extend_from_slice(vectors.all("table")[0]);
    assert_eq!(object[..16], header());
    assert_eq!(object.len() as u64, info.object_len);
    assert_eq!(
        skrin_crypto::hash(&object),
        Hash32(vectors.one("object_hash"))
    );
    let flags = segment::Table::open(
        VaultId(vectors.one("vault")),
        RoomId(vectors.one("room")),
        &info,
        vectors.all("table")[0],
    );
    let flags: Vec<_> = flags.unwrap().entries().iter().map(|e| e.flags).collect();
    assert_eq!(flags, [0, 1, 0]);

    let mut world = World::new();
    world.config.vault = VaultId(vectors.one("vault"));
    world.config.room = RoomId(vectors.one("room"));
    world
        .storage
        .tamper(&object_name(info.id).unwrap(), Some(object.into()));
    let reads = (0..3).map(|n| BlockRead {
        key_id: KeyId(vectors.one("key_id")),
        key: Arc::new(FileKey::from_bytes(vectors.one("file_key"))),
        origin_file: Ino(u64::from_le_bytes(vectors.one("origin_file"))),
        ..request(
            BlockRef {
                segment: info.id,
                slot: n,
            },
            Some(&info),
            n.into(),
        )
    });
    let got = world.open().read(reads.collect()).await;
    for (plain, got) in vectors.all("plain").into_iter().zip(got) {
        assert_eq!(&*got.unwrap(), plain);
    }
    assert_eq!(vectors.all("plain"), plains());
}
