//! Sending a transaction, and understanding the answer.

use crate::ZooKeeperStore;
use crate::error::{self, Trouble};
use crate::greeting::make_directories;
use crate::node::{self, Node};
use crate::plan::{NoPlan, Plan, Step, Survey};
use crate::session::Session;
use crate::store::ReadError;
use netloom_core::store::{CommitError, Committed, Conflict, Key, Operation, Transaction};
use tokio::time::{Instant, timeout_at};
use zookeeper_client::{CreateMode, Error, MultiWriteError, MultiWriteResult};

/// How often a transaction that certainly failed is planned anew: each time somebody made or
/// removed a directory, or a key that should be absent, at the same moment.
const TRIES: u32 = 16;

/// Why a multi request was not carried out.
enum Failed {
    /// The operation at this place in the transaction could not be.
    At(usize, Error),
    /// The store's name is gone.
    Elsewhere,
    /// For this reason.
    Other(CommitError),
}

impl ZooKeeperStore {
    pub(crate) async fn carry_out(&self, tx: Transaction) -> Result<Committed, CommitError> {
        tx.validate()?;
        let deadline = self.sessions().deadline();
        let operations = &tx.operations;
        let mut survey = Survey::default();
        for _ in 0..TRIES {
            let session = self.sessions().ready(deadline).await?;
            let plan = match Plan::new(operations, &survey) {
                Ok(plan) => plan,
                Err(no_plan) => {
                    return Err(self.no_plan(&session, deadline, operations, no_plan).await);
                }
            };
            let (place, error) = match self.send(&session, deadline, &plan).await {
                Ok(()) => {
                    self.tidy_up(&session, operations);
                    let versions = plan.versions;
                    return Ok(Committed { versions });
                }
                Err(Failed::At(place, error)) => (place, error),
                Err(Failed::Elsewhere) => return Err(wiped().into()),
                Err(Failed::Other(other)) => return Err(other),
            };
            let Some(operation) = operations.get(place) else {
                return Err(too_busy());
            };
            // Nothing happened, for certain: everything below may take as long as there is time.
            let learnt = self.learn(&session, operations, operation, (error, &mut survey));
            match timeout_at(deadline, learnt).await {
                Ok(Ok(None)) => {}
                Ok(Ok(Some(conflict))) => {
                    let key = operation.key().clone();
                    return Err(CommitError::Conflict { key, conflict });
                }
                Ok(Err(trouble)) => return Err(trouble.into()),
                Err(_) => return Err(too_slow()),
            }
        }
        Err(too_busy())
    }

    /// Sends a plan. From here on, only an answer of the server says that nothing happened: what
    /// was handed to the library may be sent long after its caller gave up.
    async fn send(&self, session: &Session, deadline: Instant, plan: &Plan) -> Result<(), Failed> {
        let mut writer = session.client.new_multi_writer();
        let create = CreateMode::Persistent.with_acls(self.known().acls());
        let guard = self.known().identity_path();
        let mut filled = writer.add_check_version(&guard, 0);
        for (_, step) in &plan.steps {
            filled = filled.and_then(|()| match step {
                Step::Check { path, version } => writer.add_check_version(path, *version),
                Step::Create { path } => writer.add_create(path, b"", &create),
                Step::Set {
                    path,
                    data,
                    version,
                } => writer.add_set_data(path, data, Some(*version)),
                Step::Delete { path, version } => writer.add_delete(path, Some(*version)),
            });
        }
        if let Err(error) = filled {
            return Err(Failed::Other(Trouble::of_read(&error).into()));
        }
        match timeout_at(deadline, writer.commit()).await {
            Ok(Ok(results)) => {
                for result in results {
                    if let MultiWriteResult::SetData { stat } = result {
                        self.known().saw(&stat);
                    }
                }
                Ok(())
            }
            Ok(Err(MultiWriteError::OperationFailed { index, source })) => {
                let step = index.checked_sub(1).and_then(|index| plan.steps.get(index));
                match step {
                    Some((place, _)) => Err(Failed::At(*place, source)),
                    None if source == Error::NoAuth => {
                        Err(Failed::Other(Trouble::of_read(&source).into()))
                    }
                    None => Err(Failed::Elsewhere),
                }
            }
            Ok(Err(MultiWriteError::RequestFailed { source })) => {
                if error::is_broken(&source) {
                    self.note(session, &source);
                }
                Err(Failed::Other(error::of_request(source)))
            }
            Err(_) => Err(Failed::Other(CommitError::Unknown(Some(
                "the answer did not come in time".into(),
            )))),
        }
    }

    /// Finds out why an operation could not be: a conflict, or something to plan for.
    async fn learn(
        &self,
        session: &Session,
        operations: &[Operation],
        failed: &Operation,
        (error, survey): (Error, &mut Survey),
    ) -> Result<Option<Conflict>, Trouble> {
        match (failed, &error) {
            (Operation::Delete(key, _), Error::NotEmpty) if !survey.crowded.contains(key) => {
                survey.crowded.push(key.clone());
                Ok(None)
            }
            (
                Operation::Update(key, ..)
                | Operation::CheckVersion(key, _)
                | Operation::Delete(key, _),
                Error::NoNode | Error::BadVersion,
            ) => {
                // A version that is gone never comes back: whatever is there now, it is a conflict.
                let now = self
                    .node(session, key)
                    .await
                    .map_err(|e| Trouble::of_read(&e))?;
                Ok(Some(differs(&now)))
            }
            (
                Operation::Create(key, _) | Operation::CheckAbsent(key),
                Error::NodeExists | Error::NoNode | Error::BadVersion | Error::NotEmpty,
            ) => {
                let surveyed = self.survey(session, operations, survey).await;
                surveyed.map_err(|e| Trouble::of_read(&e))?;
                // Of several keys that are taken, the next plan names the first.
                let taken = matches!(survey.nodes.get(key), Some(Node::Holds(..)));
                Ok(taken.then_some(Conflict::Exists))
            }
            _ => Err(Trouble::of_read(&error)),
        }
    }

    /// Looks at every key that should be absent, and makes the directories of those to be created.
    async fn survey(
        &self,
        session: &Session,
        operations: &[Operation],
        survey: &mut Survey,
    ) -> Result<(), Error> {
        let client = &session.client;
        for operation in operations {
            if let Operation::Create(key, _) = operation {
                make_directories(client, self.known(), &node::path(key)).await?;
            }
        }
        survey.gaps.clear();
        for operation in operations {
            let (Operation::Create(key, _) | Operation::CheckAbsent(key)) = operation else {
                continue;
            };
            let found = self.node(session, key).await?;
            if found == Node::Missing {
                for directory in node::ancestors(&node::path(key)) {
                    if client.check_stat(directory).await?.is_none() {
                        survey.gaps.insert(key.clone(), directory.to_owned());
                        break;
                    }
                }
            }
            survey.nodes.insert(key.clone(), found);
        }
        Ok(())
    }

    /// What stands at a key, as this session sees it.
    async fn node(&self, session: &Session, key: &Key) -> Result<Node, Error> {
        match session.client.get_data(&node::path(key)).await {
            Ok((data, stat)) => Ok(Node::parse(&data, stat.version)),
            Err(Error::NoNode) => Ok(Node::Missing),
            Err(other) => Err(other),
        }
    }

    /// Why a transaction cannot even be tried.
    async fn no_plan(
        &self,
        session: &Session,
        deadline: Instant,
        operations: &[Operation],
        no_plan: NoPlan,
    ) -> CommitError {
        let (NoPlan::NoSuchVersion(place) | NoPlan::Taken(place) | NoPlan::WornOut(place)) =
            no_plan;
        let Some(key) = operations.get(place).map(Operation::key) else {
            return too_busy();
        };
        let conflict = match no_plan {
            NoPlan::Taken(_) => Conflict::Exists,
            NoPlan::WornOut(_) => {
                return CommitError::Denied(format!("{key} was changed too often for ZooKeeper"));
            }
            NoPlan::NoSuchVersion(_) => {
                match timeout_at(deadline, self.fresh_node(session, key)).await {
                    Ok(Ok(now)) => differs(&now),
                    Ok(Err(ReadError::Library(error))) => return Trouble::of_read(&error).into(),
                    Ok(Err(ReadError::Final(trouble))) => return trouble.into(),
                    Err(_) => return too_slow(),
                }
            }
        };
        let key = key.clone();
        CommitError::Conflict { key, conflict }
    }

    async fn fresh_node(&self, session: &Session, key: &Key) -> Result<Node, ReadError> {
        self.fence(session).await?;
        Ok(self.node(session, key).await?)
    }

    /// Removes directories that deletes left empty, so that the store does not grow for ever. A
    /// directory's version is 0: nothing that ever held a value is removed here.
    fn tidy_up(&self, session: &Session, operations: &[Operation]) {
        let mut emptied: Vec<String> = operations
            .iter()
            .filter(|op| matches!(op, Operation::Delete(..)))
            .map(|op| node::path(op.key()))
            .collect();
        if emptied.is_empty() {
            return;
        }
        emptied.sort_unstable();
        emptied.dedup_by(|a, b| node::ancestors(a).last() == node::ancestors(b).last());
        let keep = self.known().directory().to_owned();
        let client = session.client.clone();
        tokio::spawn(async move {
            for path in emptied {
                for directory in node::ancestors(&path).into_iter().rev() {
                    // What lies above the own directory is not ours to remove.
                    if directory == keep || keep.starts_with(&format!("{directory}/")) {
                        break;
                    }
                    let is_empty = match client.check_stat(directory).await {
                        Ok(Some(stat)) => stat.num_children == 0 && stat.version == 0,
                        _ => false,
                    };
                    if !is_empty || client.delete(directory, Some(0)).await.is_err() {
                        break;
                    }
                }
            }
        });
    }
}

/// What a demanded version that is gone means, given what is there now.
fn differs(now: &Node) -> Conflict {
    match now {
        Node::Missing | Node::Empty(_) => Conflict::Absent,
        Node::Holds(..) | Node::Foreign => Conflict::VersionDiffers,
    }
}

/// The answer of a store that lost its name.
pub(crate) fn wiped() -> Trouble {
    Trouble::WrongEpoch("the store's own name is gone: it was emptied".to_owned())
}

fn too_busy() -> CommitError {
    Trouble::Unavailable("too many changes at the same keys at once".to_owned()).into()
}

fn too_slow() -> CommitError {
    Trouble::Unavailable("the store is too slow".to_owned()).into()
}
