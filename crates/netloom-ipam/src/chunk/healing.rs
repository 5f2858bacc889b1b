//! What an assertion takes, and to whom it gives way.

use super::*;

fn host(name: &str) -> Arc<str> {
    name.into()
}

const SPAN: Span = Span { first: 0, last: 7 };

/// A store went back to before `old` gave the run to `new`, whose journal has a later generation.
#[test]
fn a_run_of_the_time_before_gives_way() {
    let (old, new) = (host("old"), host("new"));
    let mut chunk = Chunk::new(0);
    let claimed = chunk.claim(SPAN, &old).unwrap();
    let mut later = chunk.clone();
    later.offer(SPAN, &old, &new, 0).unwrap();
    let adopted = later.adopt(SPAN, &new).unwrap();
    assert!(adopted > claimed);
    assert_eq!(chunk.assert(SPAN, &new, adopted), []);
    assert!(chunk.of(&old).next().is_none());
    let run = chunk.at(0).unwrap();
    assert_eq!(run.holder, Holder::Owned(new));
    assert!(run.generation > adopted);
}

/// The same for an offer that was not adopted yet in the past that is left.
#[test]
fn an_offer_of_the_time_before_gives_way() {
    let (giver, asked, owner) = (host("giver"), host("asked"), host("owner"));
    let mut chunk = Chunk::new(0);
    chunk.claim(SPAN, &giver).unwrap();
    let offered = chunk.offer(SPAN, &giver, &asked, 0).unwrap();
    assert_eq!(chunk.assert(SPAN, &owner, offered + 3), []);
    assert_eq!(chunk.at(7).unwrap().holder, Holder::Owned(owner));
}

/// Both own it: the later one stays, and the other is told.
#[test]
fn a_run_of_a_later_generation_stays() {
    let (first, second) = (host("first"), host("second"));
    let mut chunk = Chunk::new(0);
    chunk.assert(SPAN, &first, 9);
    let told = chunk.assert(SPAN, &second, 4);
    assert_eq!(told.len(), 1);
    assert_eq!(chunk.at(3).unwrap().holder, Holder::Owned(first));
}

/// A gateway that came after what the journal says is the pool's.
#[test]
fn a_later_address_of_the_pool_stays() {
    let owner = host("owner");
    let mut chunk = Chunk::new(0);
    let claimed = chunk.claim(SPAN, &owner).unwrap();
    let held = chunk.hold(2, &owner).unwrap();
    assert!(held > claimed);
    let told = chunk.assert(SPAN, &owner, claimed);
    assert_eq!(told.len(), 1);
    assert_eq!(chunk.at(2).unwrap().holder, Holder::Pool);
}

/// A store went back to when an address was the gateway, that was a container's later: whoever takes
/// the gateway's place frees the address, so the host must have it by then.
#[test]
fn an_address_of_the_pool_of_the_time_before_gives_way() {
    let owner = host("owner");
    let mut chunk = Chunk::new(0);
    chunk.hold(2, &owner).unwrap();
    let mut later = chunk.clone();
    later.unhold(2, 0).unwrap();
    let claimed = later.claim(Span::one(2), &owner).unwrap();
    assert_eq!(chunk.assert(Span::one(2), &owner, claimed), []);
    assert!(chunk.at(2).unwrap().holder.is_owned_by("owner"));
    assert!(chunk.unhold(2, 0).is_err());
}
