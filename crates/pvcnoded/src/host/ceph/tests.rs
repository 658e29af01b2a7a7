//! On recorded output, through a runner that answers with it.

use std::sync::{Arc, Mutex};

use super::*;

const STATUS: &str = include_str!("fixtures/rbd-16.2.15-status.json");
const LOCKS: &str = include_str!("fixtures/rbd-16.2.15-lock-list.json");
const BLOCKLIST: &str = include_str!("fixtures/ceph-16.2.15-osd-blocklist-ls.txt");

type Answer = Result<&'static str, Exit>;

/// Answers by the words of the command, and remembers what was run.
#[derive(Debug, Clone)]
struct Recorded {
    answers: Arc<Mutex<Vec<(&'static str, Answer)>>>,
    log: Arc<Mutex<Vec<String>>>,
}

impl CommandRunner for Recorded {
    async fn run(&self, invocation: &Invocation) -> Result<CommandOutput, CommandError> {
        let line = invocation.command_line();
        let words = line.to_string();
        self.log.lock().unwrap().push(words.clone());
        let mut answers = self.answers.lock().unwrap();
        let found = answers.iter().position(|(key, _)| words.contains(key)).unwrap();
        let (_, answer) = answers[found];
        // The last answer to a command stands for all that follow.
        if answers.iter().filter(|(key, _)| words.contains(key)).count() > 1 {
            let _spent = answers.remove(found);
        }
        match answer {
            Ok(text) => Ok(CommandOutput {
                stdout: text.into(),
                stderr: String::new(),
            }),
            Err(Exit::Signal(_)) => Err(CommandError::TimedOut {
                command: line,
                deadline: invocation.deadline,
                stderr: String::new(),
            }),
            Err(exit @ Exit::Code(_)) => Err(CommandError::Failed {
                command: line,
                exit,
                stderr: "(2) No such file or directory".to_owned(),
            }),
        }
    }
}

fn ceph(answers: &[(&'static str, Answer)]) -> (CephCommands<Recorded>, Recorded) {
    let runner = Recorded {
        answers: Arc::new(Mutex::new(answers.to_vec())),
        log: Arc::default(),
    };
    let access = CephAccess::new("/etc/ceph/ceph.conf".into(), "/etc/ceph/key".into());
    (CephCommands::new(runner.clone(), access), runner)
}

fn volume() -> VolumeId {
    "vms/demo_disk0".parse().unwrap()
}

fn lock() -> RbdLock {
    parse::locks(LOCKS).unwrap().remove(0)
}

const MISSING: Answer = Err(Exit::Code(2));
const KILLED: Answer = Err(Exit::Signal(9));

#[tokio::test]
async fn watchers_and_locks_are_read_as_rbd_prints_them() {
    let (ceph, runner) = ceph(&[("status", Ok(STATUS)), ("lock list", Ok(LOCKS))]);
    let found = ceph.volume_use(&volume()).await.unwrap();
    assert_eq!(found.watchers.len(), 1);
    assert_eq!(found.locks.len(), 1);
    assert_eq!(
        found.watchers[0], found.locks[0].client,
        "one client, one address"
    );
    assert!(found.locks[0].id.starts_with("auto "));
    assert!(found.locks[0].locker.starts_with("client."));
    let first = runner.log.lock().unwrap()[0].clone();
    assert_eq!(
        first,
        "rbd --conf /etc/ceph/ceph.conf --keyring /etc/ceph/key --id admin --format json status vms/demo_disk0"
    );
}

#[tokio::test]
async fn output_that_is_not_understood_is_an_error_and_never_nobody() {
    for answers in [
        [("status", Ok("")), ("lock", Ok("[]"))],
        [("status", Ok(STATUS)), ("lock", Ok("{}"))],
    ] {
        let (ceph, _) = ceph(&answers);
        let outcome = ceph.volume_use(&volume()).await;
        assert!(matches!(outcome, Err(StorageError::Failed { .. })), "{outcome:?}");
    }
}

// A missing keyring or pool gives the same exit status as a missing image; taken for one, an operator would be told
// that the data is gone.
#[tokio::test]
async fn a_missing_image_is_told_from_a_missing_pool_or_keyring() {
    let not_there = [
        ("status", MISSING),
        ("lock", MISSING),
        (" ls vms", Ok(r#"["other"]"#)),
    ];
    let outcome = ceph(&not_there).0.volume_use(&volume()).await;
    assert!(
        matches!(outcome, Err(StorageError::NoVolume { .. })),
        "{outcome:?}"
    );
    let no_pool = [("status", MISSING), ("lock", MISSING), (" ls vms", MISSING)];
    let there = [
        ("status", MISSING),
        ("lock", MISSING),
        (" ls vms", Ok(r#"["demo_disk0"]"#)),
    ];
    for answers in [no_pool, there] {
        let outcome = ceph(&answers).0.volume_use(&volume()).await;
        assert!(matches!(outcome, Err(StorageError::Failed { .. })), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_question_that_met_a_dead_monitor_is_asked_once_more() {
    let (once, _) = ceph(&[("status", KILLED), ("status", Ok(STATUS)), ("lock", Ok("[]"))]);
    assert_eq!(once.volume_use(&volume()).await.unwrap().watchers.len(), 1);
    let (always, runner) = ceph(&[("status", KILLED), ("lock", Ok("[]"))]);
    assert!(always.volume_use(&volume()).await.is_err());
    let asked = runner
        .log
        .lock()
        .unwrap()
        .iter()
        .filter(|line| line.contains("status"))
        .count();
    assert_eq!(asked, 2);
}

#[tokio::test]
async fn clients_are_barred_for_ten_years_and_the_list_is_the_proof() {
    let listed = parse::blocklist(BLOCKLIST).unwrap();
    assert!(!listed.is_empty());
    let (ceph, runner) = ceph(&[("blocklist add", Ok("")), ("blocklist ls", Ok(BLOCKLIST))]);
    ceph.blocklist(&listed).await.unwrap();
    let line = runner.log.lock().unwrap()[0].clone();
    assert!(
        line.ends_with(&format!("osd blocklist add {} 315360000", listed[0])),
        "{line}"
    );
    let unlisted: CephClient = "10.103.9.9:0/1".parse().unwrap();
    let outcome = ceph.blocklist(&[unlisted]).await;
    assert!(matches!(outcome, Err(StorageError::Failed { .. })), "{outcome:?}");
}

#[tokio::test]
async fn one_client_that_can_not_be_barred_fails_all_but_the_others_are_tried() {
    let clients: Vec<CephClient> = ["10.0.0.1:0/1", "10.0.0.1:0/2"]
        .map(|text| text.parse().unwrap())
        .into();
    let (ceph, runner) = ceph(&[
        ("add 10.0.0.1:0/1", Err(Exit::Code(1))),
        ("add 10.0.0.1:0/2", Ok("")),
        ("blocklist ls", Ok(BLOCKLIST)),
    ]);
    assert!(ceph.blocklist(&clients).await.is_err());
    assert_eq!(runner.log.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_lock_is_removed_by_id_and_locker_and_gone_already_is_success() {
    let (present, runner) = ceph(&[("lock remove", Ok(""))]);
    assert_eq!(
        present.remove_lock(&volume(), &lock()).await.unwrap(),
        Changed::Done
    );
    let line = runner.log.lock().unwrap()[0].clone();
    // `rbd` takes no --format here and would do nothing.
    let words = format!(
        "--id admin lock remove vms/demo_disk0 {:?} {}",
        lock().id,
        lock().locker
    );
    assert!(line.ends_with(&words), "{line}");
    let (gone, _) = ceph(&[("lock remove", MISSING), ("lock list", Ok("[]"))]);
    assert_eq!(
        gone.remove_lock(&volume(), &lock()).await.unwrap(),
        Changed::AlreadySo
    );
    let (stays, _) = ceph(&[("lock remove", Err(Exit::Code(1))), ("lock list", Ok(LOCKS))]);
    assert!(stays.remove_lock(&volume(), &lock()).await.is_err());
}
