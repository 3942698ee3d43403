//! The conformance suite on the storages that need no server.
#![allow(clippy::unwrap_used)] // Helpers of tests; the lint only excuses the test functions themselves.

use skrin_base::clock::testutil::SeededEntropy;
use skrin_storage::{LocalStore, MemoryStore, conformance};

#[tokio::test]
async fn memory_conforms() {
    let store = MemoryStore::new();
    conformance::all(&store, "area").await;
    conformance::other_bytes_under_a_taken_name_are_refused(&store, "area").await;
}

#[tokio::test]
async fn a_local_folder_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::open(dir.path(), false, &SeededEntropy::new(1)).unwrap();
    conformance::all(&store, "area").await;
    conformance::other_bytes_under_a_taken_name_are_refused(&store, "area").await;
}
