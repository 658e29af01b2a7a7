//! Commands about volumes that come at about the same time are run in one process.
//!
//! When a node has died the volumes of all its guests are looked at, freed of locks, and looked at again by the starts. Each
//! asks for itself, and a process for each was what a recovery of ten guests waited for, some ninety times.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use pvc_common::clock::{Clock, HostClock};
use tokio::sync::Semaphore;

use super::batch::{Answer, Command};
use crate::host::StorageError;

/// For how long others may join a command that is about to be run: a tenth of what its process takes.
const JOIN_WITHIN: Duration = Duration::from_millis(20);
/// For how long commands wait, and gather, while others run: longer than a run takes when all is well. One that hangs
/// keeps nobody waiting for longer.
const BEHIND_WITHIN: Duration = Duration::from_millis(500);
/// How many run in one process at most. The next one begins another.
const MOST: usize = super::batch::AT_ONCE;

type Outcome = Result<Arc<Vec<Answer>>, StorageError>;
type Run = Shared<BoxFuture<'static, Outcome>>;

/// The commands that wait to be run together.
#[derive(Debug, Clone)]
pub(super) struct Gathering {
    open: Arc<Mutex<Option<Round>>>,
    /// Held by the commands that run.
    turn: Arc<Semaphore>,
}

impl Default for Gathering {
    fn default() -> Gathering {
        Gathering {
            open: Arc::default(),
            turn: Arc::new(Semaphore::new(1)),
        }
    }
}

/// Commands that run in one process. Whoever waits for one of them drives all; when nobody waits any more it ends.
#[derive(Debug, Clone)]
struct Round {
    commands: Arc<Mutex<Vec<Command>>>,
    run: Run,
}

impl Gathering {
    /// Runs `command` together with others, by `run`, which gives an answer to each. It is begun after this call.
    ///
    /// # Errors
    /// That of `run`, for all that ran together.
    pub(super) async fn run<F>(
        &self,
        command: Command,
        run: impl FnOnce(Vec<Command>) -> F + Send + 'static,
    ) -> Result<Answer, StorageError>
    where
        F: Future<Output = Result<Vec<Answer>, StorageError>> + Send,
    {
        let (place, round) = self.join(command, run);
        let answers = round.await?;
        answers
            .get(place)
            .cloned()
            .ok_or_else(|| super::failed("ask Ceph", "an answer is missing"))
    }

    /// The command's place in the round that is open, or in a new one.
    fn join<F>(&self, command: Command, run: impl FnOnce(Vec<Command>) -> F + Send + 'static) -> (usize, Run)
    where
        F: Future<Output = Result<Vec<Answer>, StorageError>> + Send,
    {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(round) = open.as_ref() {
            let mut commands = round.commands.lock().unwrap_or_else(PoisonError::into_inner);
            if commands.len() < MOST {
                commands.push(command);
                return (commands.len() - 1, round.run.clone());
            }
        }
        let commands = Arc::new(Mutex::new(vec![command]));
        let (gathering, gathered) = (self.clone(), Arc::clone(&commands));
        let whole = async move {
            HostClock.sleep(JOIN_WITHIN).await;
            let turn = Arc::clone(&gathering.turn).acquire_owned();
            let _turn = HostClock.timeout(BEHIND_WITHIN, turn).await;
            let commands = gathering.close(&gathered);
            run(commands).await.map(Arc::new)
        };
        let whole = whole.boxed().shared();
        *open = Some(Round {
            commands,
            run: whole.clone(),
        });
        (0, whole)
    }

    /// Nobody joins this round any more: who comes now must not be answered with what was seen before.
    fn close(&self, commands: &Arc<Mutex<Vec<Command>>>) -> Vec<Command> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open
            .as_ref()
            .is_some_and(|round| Arc::ptr_eq(&round.commands, commands))
        {
            *open = None;
        }
        std::mem::take(&mut *commands.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
