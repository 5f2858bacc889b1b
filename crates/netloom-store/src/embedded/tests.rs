use super::*;
use netloom_core::store::Operation;

#[tokio::test]
async fn what_was_committed_is_there_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let key = Key::new("a/b").unwrap();
    let store = EmbeddedStore::open(&path).unwrap();
    let identity = store.identity().await.unwrap();
    let create = Operation::Create(key.clone(), b"x".to_vec());
    let made = store.commit(Transaction::new([create])).await.unwrap();
    let before = store.sighting().unwrap();
    drop(store);
    let store = EmbeddedStore::open(&path).unwrap();
    assert_eq!(store.identity().await.unwrap(), identity);
    let read = store.get(&key).await.unwrap().unwrap();
    assert_eq!((key, read.version), made.versions[0]);
    before.precedes(&store.sighting().unwrap()).unwrap();
}
