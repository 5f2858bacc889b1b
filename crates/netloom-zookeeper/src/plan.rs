//! A transaction as one multi request.

use crate::node::{self, End, Life, Node, Token};
use netloom_core::store::{Key, Operation, Version};
use std::collections::BTreeMap;

/// One operation of a multi request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Check {
        path: String,
        version: i32,
    },
    Create {
        path: String,
    },
    Set {
        path: String,
        data: Vec<u8>,
        version: i32,
    },
    Delete {
        path: String,
        version: i32,
    },
}

/// What is known of the keys; nothing at first, so that the usual transaction needs no read.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// What stood at keys that should be absent. One that is not here is taken to be missing, in
    /// a directory that exists.
    pub(crate) nodes: BTreeMap<Key, Node>,
    /// For missing keys whose directory is missing too: the highest directory that is.
    pub(crate) gaps: BTreeMap<Key, String>,
    /// Keys to be deleted that others lie below.
    pub(crate) crowded: Vec<Key>,
}

/// The multi request of a transaction.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Its steps, each with the place of its operation in the transaction.
    pub(crate) steps: Vec<(usize, Step)>,
    /// The versions after it, in the order of the operations.
    pub(crate) versions: Vec<(Key, Version)>,
}

/// Why there is no plan.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoPlan {
    /// The operation at this place names a version that no key can have.
    NoSuchVersion(usize),
    /// The operation at this place demands absence of a key that is there.
    Taken(usize),
    /// ZooKeeper's version of this operation's key is at its end.
    WornOut(usize),
}

impl Plan {
    /// Works out the steps.
    pub(crate) fn new(operations: &[Operation], survey: &Survey) -> Result<Self, NoPlan> {
        let mut versions = Vec::new();
        let mut planned = Vec::new();
        for (place, operation) in operations.iter().enumerate() {
            let (steps, token) = plan(operation, place, survey)?;
            if let Some(token) = token {
                versions.push((operation.key().clone(), token.encode()));
            }
            planned.push((place, operation, steps));
        }
        // Checks of absence come first: one may make and remove a directory for a moment. Deletes
        // come last, the deepest first: a directory goes after what lies in it.
        planned.sort_by(|(_, a, _), (_, b, _)| {
            let by_kind = rank(a).cmp(&rank(b));
            by_kind.then_with(|| match rank(a) {
                DELETES => b.key().cmp(a.key()),
                _ => core::cmp::Ordering::Equal,
            })
        });
        let steps = planned
            .into_iter()
            .flat_map(|(place, _, steps)| steps.into_iter().map(move |step| (place, step)))
            .collect();
        Ok(Self { steps, versions })
    }
}

const DELETES: u8 = 2;

fn rank(operation: &Operation) -> u8 {
    match operation {
        Operation::CheckAbsent(_) => 0,
        Operation::CheckVersion(..) | Operation::Create(..) | Operation::Update(..) => 1,
        Operation::Delete(..) => DELETES,
    }
}

type Steps = (Vec<Step>, Option<Token>);

fn plan(operation: &Operation, place: usize, survey: &Survey) -> Result<Steps, NoPlan> {
    let key = operation.key();
    let path = node::path(key);
    let node = survey.nodes.get(key).unwrap_or(&Node::Missing);
    match operation {
        Operation::CheckAbsent(_) => match node {
            Node::Missing => {
                let gap = survey.gaps.get(key).cloned().unwrap_or(path);
                let delete = Step::Delete {
                    path: gap.clone(),
                    version: 0,
                };
                Ok((vec![Step::Create { path: gap }, delete], None))
            }
            Node::Empty(version) => Ok((
                vec![Step::Check {
                    path,
                    version: *version,
                }],
                None,
            )),
            Node::Holds(..) | Node::Foreign => Err(NoPlan::Taken(place)),
        },
        Operation::Create(_, value) => match node {
            Node::Missing => Ok(create(&path, value)),
            Node::Empty(version) => fill(&path, value, *version).ok_or(NoPlan::WornOut(place)),
            Node::Holds(..) | Node::Foreign => Err(NoPlan::Taken(place)),
        },
        Operation::CheckVersion(_, version) => {
            let token = Token::decode(version).ok_or(NoPlan::NoSuchVersion(place))?;
            let check = Step::Check {
                path: path.clone(),
                version: token.version,
            };
            Ok((vec![lives(&path, token.life), check], None))
        }
        Operation::Update(_, value, version) => {
            let token = Token::decode(version).ok_or(NoPlan::NoSuchVersion(place))?;
            let next = token.version.checked_add(1).ok_or(NoPlan::WornOut(place))?;
            let set = Step::Set {
                path: path.clone(),
                data: token.life.frame(value),
                version: token.version,
            };
            let token_after = Token {
                life: token.life,
                version: next,
            };
            Ok((vec![lives(&path, token.life), set], Some(token_after)))
        }
        Operation::Delete(_, version) => {
            let token = Token::decode(version).ok_or(NoPlan::NoSuchVersion(place))?;
            let is_crowded = survey.crowded.contains(key);
            Ok((delete(path, token, is_crowded), None))
        }
    }
}

/// Without the value, the node goes, unless it must stay.
#[allow(
    clippy::fn_params_excessive_bools,
    reason = "one fact about the node, named where it is passed"
)]
fn delete(path: String, token: Token, is_crowded: bool) -> Vec<Step> {
    let version = token.version;
    let witness = Step::Delete {
        path: node::witness(&path, token.life),
        version: 0,
    };
    let end = if token.life.end() == End::Kept || is_crowded {
        let data = Vec::new();
        Step::Set {
            path,
            data,
            version,
        }
    } else {
        Step::Delete { path, version }
    };
    vec![witness, end]
}

fn lives(path: &str, life: Life) -> Step {
    Step::Check {
        path: node::witness(path, life),
        version: 0,
    }
}

/// A value where no node was. It is written once more than needed, so that its version is never 0:
/// that is the version of nodes that have always been directories.
fn create(path: &str, value: &[u8]) -> Steps {
    let life = Life::new(End::Removed);
    let steps = vec![
        Step::Create {
            path: path.to_owned(),
        },
        Step::Set {
            path: path.to_owned(),
            data: life.frame(value),
            version: 0,
        },
        Step::Create {
            path: node::witness(path, life),
        },
    ];
    (steps, Some(Token { life, version: 1 }))
}

/// A value where an empty node is.
fn fill(path: &str, value: &[u8], version: i32) -> Option<Steps> {
    let end = if version == 0 {
        End::Removed
    } else {
        End::Kept
    };
    let life = Life::new(end);
    let next = version.checked_add(1)?;
    let steps = vec![
        Step::Set {
            path: path.to_owned(),
            data: life.frame(value),
            version,
        },
        Step::Create {
            path: node::witness(path, life),
        },
    ];
    Some((
        steps,
        Some(Token {
            life,
            version: next,
        }),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::new(text).unwrap()
    }

    fn version(version: i32) -> Version {
        Token {
            life: Life::new(End::Removed),
            version,
        }
        .encode()
    }

    #[test]
    fn no_step_ever_carries_minus_one() {
        let worn_out = Operation::Update(key("a"), vec![], version(i32::MAX));
        let plan = Plan::new(&[worn_out], &Survey::default());
        assert_eq!(plan.unwrap_err(), NoPlan::WornOut(0));
        for wrong in [Version::from_bytes([0xff; 13]), version(-1)] {
            for operation in [
                Operation::Update(key("a"), vec![], wrong.clone()),
                Operation::Delete(key("a"), wrong.clone()),
                Operation::CheckVersion(key("a"), wrong),
            ] {
                let plan = Plan::new(&[operation], &Survey::default());
                assert_eq!(plan.unwrap_err(), NoPlan::NoSuchVersion(0));
            }
        }
    }

    #[test]
    fn a_directory_is_deleted_after_what_lies_in_it() {
        let operations = [
            Operation::Delete(key("a"), version(1)),
            Operation::Delete(key("a/b"), version(1)),
            Operation::CheckAbsent(key("c")),
        ];
        let plan = Plan::new(&operations, &Survey::default()).unwrap();
        let places: Vec<_> = plan.steps.iter().map(|(place, _)| *place).collect();
        assert_eq!(places, [2, 2, 1, 1, 0, 0]);
    }

    #[test]
    fn a_value_over_the_rest_of_another_is_kept_for_ever() {
        for (found, end) in [(0, End::Removed), (4, End::Kept)] {
            let mut survey = Survey::default();
            survey.nodes.insert(key("a"), Node::Empty(found));
            let plan = Plan::new(&[Operation::Create(key("a"), vec![])], &survey).unwrap();
            let (_, version) = plan.versions.first().unwrap();
            let token = Token::decode(version).unwrap();
            assert_eq!((token.version, token.life.end()), (found + 1, end));
        }
    }
}
