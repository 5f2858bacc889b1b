//! What becomes of answers that no healthy server gives, and of those that are easily misread.

mod support;

use netloom_core::store::{
    CommitError, Conflict, Liveness, Operation, Store, StoreError, StoreIdentity, Transaction,
};
use support::{Fake, Reply, answer, committed, create, key, row, says, version};

/// What Consul says to the losers of a single compare-and-swap: no error, and the body `false`.
#[tokio::test]
async fn a_compare_and_swap_answered_false_with_status_200_is_lost() {
    let theirs = "0123456789abcdef0123456789abcdef";
    let encoded = "\"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\"";
    let fake = Fake::start(move |seen, number| match number {
        0 => says(404, ""),
        1 => {
            assert_eq!(seen.line, "PUT /v1/kv/netloom.identity?cas=0");
            says(200, "false")
        }
        2 => says(
            200,
            &format!("[{}]", row("netloom.identity", encoded, 9, 0)),
        ),
        _ => Reply::Bytes(answer(404, 77, "")),
    })
    .await;
    let store = fake.store().await;
    let identity = store.identity().await.unwrap();
    assert_eq!(identity, StoreIdentity(format!("consul-{theirs}")));
    assert_eq!(store.mark(), 77);
}

#[tokio::test]
async fn a_success_that_does_not_tell_what_happened_is_unknown() {
    for odd in [
        "",
        "true",
        "false",
        "null",
        "{}",
        "[]",
        r#"{"Results":null,"Errors":null}"#,
        r#"{"Results":[{}],"Errors":null}"#,
        r#"{"Results":[{"KV":null}],"Errors":[]}"#,
        // Somebody else's write of the same key.
        r#"{"Results":[{"KV":{"Key":"a","Flags":0,"ModifyIndex":7}}],"Errors":null}"#,
        r#"{"Results":[],"Errors":[{"OpIndex":0,"What":"but no"}]}"#,
        &"[".repeat(100_000),
    ] {
        let body = odd.to_owned();
        let fake = Fake::start(move |_, _| says(200, &body)).await;
        let outcome = fake.store().await.commit(create("a")).await;
        assert!(
            matches!(outcome, Err(CommitError::Unknown(_))),
            "{odd:.60?} gave {outcome:?}"
        );
    }
}

/// Only what certainly came before any change may be called "it did not happen".
#[tokio::test]
async fn statuses_mean_what_they_prove() {
    use CommitError::{Denied, Invalid, TooLarge, Unavailable, Unknown};
    type Is = fn(&CommitError) -> bool;
    let cases: [(u16, &str, Is); 15] = [
        (500, "No cluster leader", |e| matches!(e, Unavailable(_))),
        (500, "rpc error making call: No cluster leader\n", |e| {
            matches!(e, Unavailable(_))
        }),
        // A leader deposed while it committed: the change may stand in the log of the next one.
        (500, "leadership lost while committing log", |e| {
            matches!(e, Unknown(_))
        }),
        (500, "rpc error making call: EOF", |e| {
            matches!(e, Unknown(_))
        }),
        (500, "", |e| matches!(e, Unknown(_))),
        (502, "", |e| matches!(e, Unknown(_))),
        (503, "", |e| matches!(e, Unknown(_))),
        (429, "too many connections", |e| matches!(e, Unavailable(_))),
        (403, "ACL not found", |e| matches!(e, Denied(_))),
        (413, "Transaction too large", |e| matches!(e, TooLarge)),
        (400, "Failed to parse body", |e| matches!(e, Invalid(_))),
        (404, "no such page", |e| matches!(e, Unavailable(_))),
        (307, "", |e| matches!(e, Unavailable(_))),
        (
            409,
            r#"{"Results":null,"Errors":[{"OpIndex":0,"What":"Permission denied"}]}"#,
            |e| matches!(e, Denied(_)),
        ),
        (409, "no JSON", |e| matches!(e, Unavailable(_))),
    ];
    for (status, body, is) in cases {
        let fake = Fake::start(move |_, _| says(status, body)).await;
        let error = fake.store().await.commit(create("a")).await.unwrap_err();
        assert!(is(&error), "{status} {body:?} gave {error:?}");
        assert_eq!(fake.seen().len(), 1, "{status} {body:?} was sent again");
    }
}

/// Consul's words are no promise: where they are others, the key is read.
#[tokio::test]
async fn a_refusal_in_unknown_words_is_told_by_reading_the_key() {
    let refused = r#"{"Results":null,"Errors":[{"OpIndex":0,"What":"in other words"}]}"#;
    let create = Operation::Create(key("a"), vec![]);
    let update = Operation::Update(key("a"), vec![], version(7, 0));
    for (operation, now, wanted) in [
        (&create, Some(8), Some(Conflict::Exists)),
        (&update, None, Some(Conflict::Absent)),
        (&update, Some(8), Some(Conflict::VersionDiffers)),
        // As demanded: the reason was none of the contract's.
        (&create, None, None),
        (&update, Some(7), None),
    ] {
        let fake = Fake::start(move |seen, _| match (seen.line.starts_with("PUT"), now) {
            (true, _) => says(409, refused),
            (false, None) => says(404, ""),
            (false, Some(index)) => says(200, &format!("[{}]", row("a", "null", index, 0))),
        })
        .await;
        let transaction = Transaction::new([operation.clone()]);
        let outcome = fake.store().await.commit(transaction).await.unwrap_err();
        match (&outcome, wanted) {
            (CommitError::Conflict { conflict, .. }, Some(wanted)) if *conflict == wanted => {}
            (CommitError::Unavailable(Some(_)), None) => {}
            _ => panic!("{operation:?} with {now:?} gave {outcome:?}"),
        }
    }
}

#[tokio::test]
async fn a_body_without_end_is_cut_off() {
    let fake = Fake::start(|_, _| Reply::Endless).await;
    let store = fake.store().await;
    let read = store.get(&key("a")).await;
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    let outcome = store.commit(create("a")).await;
    assert!(
        matches!(outcome, Err(CommitError::Unknown(_))),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn rows_that_were_not_asked_for_are_not_believed() {
    let fake = Fake::start(|_, _| says(200, &format!("[{}]", row("b/c", "null", 7, 0)))).await;
    let store = fake.store().await;
    let read = store.get(&key("a")).await;
    assert!(matches!(read, Err(StoreError::Corrupt(_))), "{read:?}");
    let listed = store.list(&key("a")).await;
    assert!(matches!(listed, Err(StoreError::Corrupt(_))), "{listed:?}");
}

/// Lists leave out what the token may not read: no rights look like no keys.
#[tokio::test]
async fn an_empty_list_is_believed_only_when_the_token_may_read() {
    let fake = Fake::start(|seen, _| match seen.line.contains("recurse") {
        true => says(404, ""),
        false => says(403, "Permission denied"),
    })
    .await;
    let listed = fake.store().await.list(&key("a")).await;
    assert!(matches!(listed, Err(StoreError::Denied(_))), "{listed:?}");
}

/// Newer servers say it when they leave something out.
#[tokio::test]
async fn a_list_with_rows_left_out_is_refused() {
    let body = format!("[{}]", row("a/b", "null", 7, 0));
    let fake = Fake::start(move |_, _| {
        let whole = answer(200, 7, &body);
        let (head, rest) = whole.split_once("\r\n").unwrap();
        Reply::Bytes(format!(
            "{head}\r\nX-Consul-Results-Filtered-By-ACLs: true\r\n{rest}"
        ))
    })
    .await;
    let listed = fake.store().await.list(&key("a")).await;
    assert!(matches!(listed, Err(StoreError::Denied(_))), "{listed:?}");
}

#[tokio::test]
async fn a_change_numbered_below_what_was_seen_is_another_epoch() {
    let fake = Fake::start(|seen, _| match seen.line.starts_with("PUT") {
        true => committed(seen, 50),
        false => says(200, &format!("[{}]", row("a", "null", 100, 0))),
    })
    .await;
    let store = fake.store().await;
    store.get(&key("a")).await.unwrap();
    // It did happen, so that "it did not" would be a lie.
    let outcome = store.commit(create("b")).await;
    assert!(
        matches!(outcome, Err(CommitError::Unknown(_))),
        "{outcome:?}"
    );
    let asked = fake.seen().len();
    let outcome = store.commit(create("b")).await;
    assert!(
        matches!(outcome, Err(CommitError::WrongEpoch(_))),
        "{outcome:?}"
    );
    let read = store.get(&key("a")).await;
    assert!(matches!(read, Err(StoreError::WrongEpoch(_))), "{read:?}");
    assert_eq!(fake.seen().len(), asked, "the wrong store was asked again");
}

#[tokio::test]
async fn a_server_seen_further_than_it_is_now_was_put_back() {
    let fake = Fake::start(|_, number| {
        let index = if number == 0 { 100 } else { 99 };
        Reply::Bytes(answer(404, index, ""))
    })
    .await;
    let store = fake.store().await;
    assert_eq!(store.latest().await.unwrap(), 100);
    let latest = store.latest().await;
    assert!(
        matches!(latest, Err(StoreError::WrongEpoch(_))),
        "{latest:?}"
    );
}

/// Sessions end before their time when the servers say so.
#[tokio::test]
async fn a_dead_session_is_replaced_by_a_new_one() {
    let fake = Fake::start(|seen, number| {
        let line = seen.line.as_str();
        match line.split('?').next().unwrap() {
            "PUT /v1/session/create" => says(200, &format!(r#"{{"ID":"session-{number}"}}"#)),
            "PUT /v1/session/renew/session-0" => says(404, "Session id 'session-0' not found"),
            "GET /v1/kv/netloom.alive/h1" => says(404, ""),
            "PUT /v1/kv/netloom.alive/h1" => says(200, "true"),
            other => panic!("{other} was asked for"),
        }
    })
    .await;
    let store = fake.store().await;
    let host = "h1".parse().unwrap();
    store.announce(&host).await.unwrap();
    store.announce(&host).await.unwrap();
    let lines = fake.lines();
    let acquired: Vec<_> = lines
        .iter()
        .filter(|line| line.contains("acquire"))
        .collect();
    assert_eq!(
        acquired,
        [
            "PUT /v1/kv/netloom.alive/h1?acquire=session-0",
            "PUT /v1/kv/netloom.alive/h1?acquire=session-4"
        ]
    );
}
