//! On recorded output, through a runner that answers with it.

use std::sync::{Arc, Mutex};

use super::*;

const STATUS: &str = include_str!("fixtures/rbd-16.2.15-status.json");
const LOCKS: &str = include_str!("fixtures/rbd-16.2.15-lock-list.json");
const DUMP: &str = include_str!("fixtures/ceph-16.2.15-osd-dump.json");
const OSD_STATUS: &str = include_str!("fixtures/ceph-16.2.15-tell-osd-status.json");

type Answer = Result<&'static str, Exit>;

/// Answers by the words of the command, and remembers what was run.
#[derive(Debug, Clone)]
struct Recorded {
    answers: Arc<Mutex<Vec<(&'static str, Answer)>>>,
    log: Arc<Mutex<Vec<String>>>,
}

impl CommandRunner for Recorded {
    async fn run(&self, invocation: &Invocation) -> Result<CommandOutput, CommandError> {
        if invocation.program == Program::Python3 {
            return Ok(CommandOutput {
                stdout: self.batch(invocation).into(),
                stderr: String::new(),
            });
        }
        let line = invocation.command_line();
        match self.answer(line.to_string()) {
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

impl Recorded {
    fn answer(&self, words: String) -> Answer {
        self.log.lock().unwrap().push(words.clone());
        let mut answers = self.answers.lock().unwrap();
        let found = answers.iter().position(|(key, _)| words.contains(key)).unwrap();
        let (_, answer) = answers[found];
        // The last answer to a command stands for all that follow.
        if answers.iter().filter(|(key, _)| words.contains(key)).count() > 1 {
            let _spent = answers.remove(found);
        }
        answer
    }

    /// As the program does: each command of the order is looked up by the words that `ceph` would be run with.
    fn batch(&self, invocation: &Invocation) -> String {
        assert_eq!(invocation.command_line().to_string(), "python3 -I -B -");
        let program = String::from_utf8(invocation.stdin.clone().unwrap()).unwrap();
        let call = program.lines().last().unwrap();
        let text = call.strip_prefix("main(").unwrap().strip_suffix(')').unwrap();
        let order: String = serde_json::from_str(text).unwrap();
        let order: serde_json::Value = serde_json::from_str(&order).unwrap();
        assert_eq!(order["file"], "/etc/ceph/ceph.conf");
        assert_eq!(order["config"]["keyring"], "/etc/ceph/key");
        let commands = ["first", "then"].map(|part| order[part].as_array().unwrap().clone());
        let answers: Vec<(i32, String, String)> = commands
            .concat()
            .iter()
            .map(|each| match self.answer(words_of(each)) {
                Ok(text) => (0, text.to_owned(), String::new()),
                Err(exit) => (-110, String::new(), format!("no answer ({exit})")),
            })
            .collect();
        serde_json::to_string(&answers).unwrap()
    }
}

fn words_of(each: &serde_json::Value) -> String {
    let command = &each["command"];
    match (command["prefix"].as_str().unwrap(), each["osd"].as_u64()) {
        ("osd blocklist", None) => format!(
            "osd blocklist {} {} {}",
            command["blocklistop"].as_str().unwrap(),
            command["addr"].as_str().unwrap(),
            command["expire"].as_f64().unwrap()
        ),
        ("osd down", None) => {
            let ids: Vec<&str> = command["ids"]
                .as_array()
                .unwrap()
                .iter()
                .map(|id| id.as_str().unwrap())
                .collect();
            let sure = if command["definitely_dead"] == true {
                " --definitely-dead"
            } else {
                ""
            };
            format!("osd down {}{sure}", ids.join(" "))
        }
        ("status", Some(osd)) => format!("tell osd.{osd} status"),
        (prefix, None) => prefix.to_owned(),
        (prefix, Some(osd)) => panic!("{prefix} to osd.{osd}"),
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

/// The epoch of the recorded map.
const EPOCH: u64 = 48;

/// The client that was barred when the map was recorded.
fn barred() -> CephClient {
    "10.102.0.99:0/12345".parse().unwrap()
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
        "rbd --conf /etc/ceph/ceph.conf --keyring /etc/ceph/key --id admin --mon_client_hunt_interval=0.5 \
         --mon_client_hunt_interval_backoff=1.0 --format json status vms/demo_disk0"
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

#[test]
fn the_map_has_its_epoch_the_barred_clients_and_the_osds() {
    let map = parse::osd_map(DUMP).unwrap();
    assert_eq!(map.epoch, MapEpoch(EPOCH));
    assert!(map.blocklist[&barred()].lasts(), "{:?}", map.blocklist);
    let osds: Vec<(u32, bool, String)> = map
        .osds
        .iter()
        .map(|osd| (osd.id, osd.up, osd.ip.to_string()))
        .collect();
    let [first, second, third] = ["10.102.0.1", "10.102.0.2", "10.102.0.3"].map(str::to_owned);
    assert_eq!(osds, [(0, true, first), (1, true, second), (2, true, third)]);
    assert_eq!(parse::newest_map(OSD_STATUS).unwrap(), MapEpoch(EPOCH));
}

// An OSD that is left out of the proof may take the writes of a barred client.
#[test]
fn an_osd_that_is_up_is_never_left_out_of_the_map() {
    let one = |up, address| {
        format!(
            r#"{{"epoch":7,"modified":"2026-11-22","blocklist":{{}},"osds":[{{"osd":3,"up":{up},"public_addr":"{address}"}}]}}"#
        )
    };
    assert!(parse::osd_map(&one(1, ":/0")).is_err());
    assert_eq!(parse::osd_map(&one(0, ":/0")).unwrap().osds, []);
    assert_eq!(
        parse::osd_map(&one(0, "10.102.0.1:6800/1")).unwrap().osds.len(),
        1
    );
    for incomplete in [
        r#"{"epoch":7,"osds":[]}"#,
        r#"{"epoch":7,"blocklist":{}}"#,
        "",
        "[]",
    ] {
        assert!(parse::osd_map(incomplete).is_err(), "{incomplete}");
    }
}

#[tokio::test]
async fn clients_are_barred_for_ten_years_and_the_map_is_the_proof() {
    let (listing, runner) = ceph(&[("blocklist add", Ok("")), ("osd dump", Ok(DUMP))]);
    assert_eq!(listing.blocklist(&[barred()]).await.unwrap(), MapEpoch(EPOCH));
    let line = runner.log.lock().unwrap()[0].clone();
    assert!(
        line.ends_with(&format!("osd blocklist add {} 315360000", barred())),
        "{line}"
    );
    // Recovery asks again for what the proof has just barred: that costs nothing.
    let commands = runner.log.lock().unwrap().len();
    assert_eq!(listing.blocklist(&[barred()]).await.unwrap(), MapEpoch(EPOCH));
    assert_eq!(runner.log.lock().unwrap().len(), commands);
    let (missing, _) = ceph(&[("blocklist add", Ok("")), ("osd dump", Ok(DUMP))]);
    let unlisted: CephClient = "10.103.9.9:0/1".parse().unwrap();
    let outcome = missing.blocklist(&[barred(), unlisted]).await;
    assert!(matches!(outcome, Err(StorageError::Failed { .. })), "{outcome:?}");
}

// Observed on Ceph 16.2.15: the second entry for a client is acknowledged with its own end, and the first one stays. A
// client that somebody else has barred for an hour would write again after that hour, in spite of our ten years.
#[tokio::test]
async fn an_entry_of_somebody_else_that_ends_too_soon_is_no_proof() {
    let short = DUMP.replace("2036-11-19T22:31:30.301604", "2026-11-22T23:31:30.301604");
    let short: &'static str = Box::leak(short.into_boxed_str());
    let (ceph, _) = ceph(&[("blocklist add", Ok("")), ("osd dump", Ok(short))]);
    let outcome = ceph.blocklist(&[barred()]).await;
    let Err(StorageError::Failed { reason, .. }) = outcome else {
        panic!("{outcome:?}")
    };
    assert!(reason.contains("until 2026-11-22T23:31:30"), "{reason}");
}

fn status_of(epoch: u64) -> &'static str {
    Box::leak(format!(r#"{{"oldest_map":1,"newest_map":{epoch}}}"#).into_boxed_str())
}

// A barred client goes on writing at an OSD that has not heard of it: the proof would be none.
#[tokio::test]
async fn each_osd_that_is_up_is_asked_until_it_knows_the_map() {
    let (late, runner) = ceph(&[
        ("osd dump", Ok(DUMP)),
        ("osd.0", Ok(OSD_STATUS)),
        ("osd.1", Ok(status_of(EPOCH - 1))),
        ("osd.1", KILLED),
        ("osd.1", Ok(status_of(EPOCH + 1))),
        ("osd.2", Ok(OSD_STATUS)),
    ]);
    late.every_osd_knows(MapEpoch(EPOCH)).await.unwrap();
    let count = |word: &str| {
        runner
            .log
            .lock()
            .unwrap()
            .iter()
            .filter(|line| line.contains(word))
            .count()
    };
    assert_eq!((count("osd.0"), count("osd.1"), count("osd.2")), (1, 3, 1));
    assert!(
        runner
            .log
            .lock()
            .unwrap()
            .iter()
            .any(|line| line.ends_with("tell osd.0 status"))
    );
}

#[tokio::test]
async fn an_osd_that_never_says_so_fails_the_proof_unless_it_is_marked_down() {
    let (mut silent, _) = ceph(&[
        ("osd dump", Ok(DUMP)),
        ("osd.0", Ok(OSD_STATUS)),
        ("osd.1", KILLED),
        ("osd.2", Ok(OSD_STATUS)),
    ]);
    silent.access.call_limit = Duration::from_millis(500);
    let outcome = silent.every_osd_knows(MapEpoch(EPOCH)).await;
    let Err(StorageError::Failed { reason, .. }) = outcome else {
        panic!("{outcome:?}")
    };
    assert!(reason.contains("osd.1") && !reason.contains("osd.2"), "{reason}");
    let without = DUMP.replacen(r#""osd":1,"#, r#""osd":1,"ignored":1,"#, 1);
    let place = without.find(r#""ignored":1,"#).unwrap();
    let (head, tail) = without.split_at(place);
    let marked = format!("{head}{}", tail.replacen(r#""up":1"#, r#""up":0"#, 1));
    let (down, _) = ceph(&[
        ("osd dump", Ok(DUMP)),
        ("osd dump", Ok(Box::leak(marked.into_boxed_str()))),
        ("osd.0", Ok(OSD_STATUS)),
        ("osd.1", KILLED),
        ("osd.2", Ok(OSD_STATUS)),
    ]);
    down.every_osd_knows(MapEpoch(EPOCH)).await.unwrap();
    // A monitor that lags behind shows a map in which an OSD may be missing: what the others say is not enough.
    let (mut old, _) = ceph(&[("osd dump", Ok(DUMP)), ("tell", Ok(status_of(EPOCH + 1)))]);
    old.access.call_limit = Duration::from_millis(300);
    assert!(old.every_osd_knows(MapEpoch(EPOCH + 1)).await.is_err());
}

// `--definitely-dead` lets others serve what the OSD may still serve: only with its machine seen off.
#[tokio::test]
async fn osds_are_marked_down_as_sure_as_it_is() {
    let (storage, runner) = ceph(&[("osd down", Ok(""))]);
    storage.osd_down(&[], OsdDown::Plain).await.unwrap();
    storage.osd_down(&[0, 2], OsdDown::Plain).await.unwrap();
    storage.osd_down(&[1], OsdDown::DefinitelyDead).await.unwrap();
    let log = runner.log.lock().unwrap().clone();
    assert_eq!(log.len(), 2);
    assert!(log[0].ends_with("osd down 0 2"), "{}", log[0]);
    assert!(log[1].ends_with("osd down 1 --definitely-dead"), "{}", log[1]);
}

#[tokio::test]
async fn one_client_that_can_not_be_barred_fails_all_but_the_others_are_tried() {
    let clients: Vec<CephClient> = ["10.0.0.1:0/1", "10.0.0.1:0/2"]
        .map(|text| text.parse().unwrap())
        .into();
    let (ceph, runner) = ceph(&[
        ("add 10.0.0.1:0/1", Err(Exit::Code(1))),
        ("add 10.0.0.1:0/2", Ok("")),
        ("osd dump", Ok(DUMP)),
    ]);
    assert!(ceph.blocklist(&clients).await.is_err());
    assert_eq!(runner.log.lock().unwrap().len(), 3, "both, and the map");
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
        " --rbd_blocklist_expire_seconds=315360000 lock remove vms/demo_disk0 {:?} {}",
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
