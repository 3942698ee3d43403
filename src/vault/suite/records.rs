//! Control records as the storage changes, loses and exchanges them.

use super::*;
use crate::Class;

fn control(w: &World) -> Vec<ObjectName> {
    w.names("rooms/")
}

#[tokio::test]
async fn a_changed_byte_in_each_region_of_each_record_is_named() {
    let w = world(1).await;
    for name in control(&w) {
        let bytes = w.bytes(&name);
        // Nonce, body, padding, tag.
        for at in [
            0,
            12,
            400,
            bytes.len() / 2,
            bytes.len() - 17,
            bytes.len() - 1,
        ] {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            w.replace(&name, changed);
            let error = w.room_error().await;
            assert_eq!(error.class(), Class::Integrity, "{error}");
            assert!(error.to_string().contains(name.as_str()), "{error}");
        }
        for len in [0, 27, bytes.len() - 1] {
            w.replace(&name, bytes[..len].to_vec());
            assert_eq!(
                w.room_error().await.class(),
                Class::Integrity,
                "length {len}"
            );
        }
        w.replace(&name, bytes);
    }
    w.room().await;
}

#[tokio::test]
async fn a_missing_record_is_named_together_with_what_names_it() {
    let w = world(1).await;
    let genesis = w.made.anchor.genesis.to_string();
    let heads = w.room().await.roster.control_heads;
    for name in control(&w) {
        let bytes = w.bytes(&name);
        w.store.tamper(&name, None);
        let error = w.room_error().await;
        assert_eq!(error.class(), Class::Integrity, "{error}");
        let is_head = name.file_name() == heads[0].to_string();
        if is_head {
            assert!(error.to_string().contains("no epoch"), "{error}");
        } else {
            assert!(matches!(error, VaultError::Missing { .. }), "{error}");
            assert!(error.to_string().starts_with(name.as_str()), "{error}");
        }
        w.replace(&name, bytes);
    }
    let all = control(&w);
    assert!(all.iter().any(|name| name.file_name() == genesis));
    for name in all {
        w.store.tamper(&name, None);
    }
    let error = w.room_error().await;
    assert!(matches!(error, VaultError::Missing { .. }), "{error}");
    assert!(error.to_string().contains(&genesis), "{error}");
}

#[tokio::test]
async fn exchanged_records_are_refused() {
    let (a, b) = (world(1).await, world(2).await);
    let names = control(&a);
    let (first, second) = (a.bytes(&names[0]), a.bytes(&names[1]));
    a.replace(&names[0], second);
    a.replace(&names[1], first.clone());
    assert_eq!(a.room_error().await.class(), Class::Integrity);
    let a = world(1).await;
    let genesis = objects::control_name(a.made.anchor.room, a.made.anchor.genesis);
    let genesis = ObjectName::new(genesis).unwrap();
    let other = objects::control_name(b.made.anchor.room, b.made.anchor.genesis);
    let other = b.bytes(&ObjectName::new(other).unwrap());
    a.replace(&genesis, other.clone());
    let error = a.room_error().await;
    assert!(error.to_string().contains(genesis.as_str()), "{error}");
    // Under its own name it is an object that does not open.
    let a = world(1).await;
    let unlocked = a.unlock().await;
    a.plant_object(&unlocked, hash(&other), other);
    assert_eq!(a.room_error().await.class(), Class::Integrity);
}

#[tokio::test]
async fn objects_with_names_that_are_not_ours_are_left_alone() {
    let w = world(1).await;
    let name = format!("rooms/{}/control/readme", w.made.anchor.room);
    w.replace(&ObjectName::new(name).unwrap(), b"hello".to_vec());
    w.room().await;
}
