//! On recorded output, through a runner that answers with it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures::future::join_all;
use pvc_common::command::{CommandError, CommandOutput, Exit, Invocation};
use pvc_core::cluster_faults::CephSeverity;

use super::*;

const USERS: &str = include_str!("fixtures/volume-users-16.2.15.json");
const NOBODY: &str = r#"{"watchers":[],"locks":[]}"#;
const DUMP: &str = include_str!("fixtures/ceph-16.2.15-osd-dump.json");
const OSD_STATUS: &str = include_str!("fixtures/ceph-16.2.15-tell-osd-status.json");

type Answer = Result<&'static str, Exit>;

/// Answers by the words of the command, and remembers what was run.
#[derive(Debug, Clone)]
struct Recorded {
    answers: Arc<Mutex<Vec<(&'static str, Answer)>>>,
    log: Arc<Mutex<Vec<String>>>,
    runs: Arc<AtomicUsize>,
    /// Held while no run may end.
    gate: Arc<tokio::sync::Mutex<()>>,
    /// What the last run said about owners of locks that it removes.
    bars_owners: Arc<Mutex<String>>,
}

impl CommandRunner for Recorded {
    async fn run(&self, invocation: &Invocation) -> Result<CommandOutput, CommandError> {
        self.runs.fetch_add(1, Ordering::Relaxed);
        drop(self.gate.lock().await);
        Ok(CommandOutput {
            stdout: self.batch(invocation).into(),
            stderr: String::new(),
        })
    }
}

impl Recorded {
    fn hold(&self) -> tokio::sync::OwnedMutexGuard<()> {
        Arc::clone(&self.gate).try_lock_owned().unwrap()
    }

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
        assert_eq!(order["config"]["rbd_blocklist_expire_seconds"], "315360000");
        *self.bars_owners.lock().unwrap() = order["config"]["rbd_blocklist_on_break_lock"]
            .as_str()
            .unwrap()
            .to_owned();
        let commands = ["first", "then"].map(|part| order[part].as_array().unwrap().clone());
        let answers: Vec<(i32, String, String)> = commands
            .concat()
            .iter()
            .map(|each| match self.answer(words_of(each)) {
                Ok(text) => (0, text.to_owned(), String::new()),
                Err(Exit::Code(code)) => (code, String::new(), "no such volume".to_owned()),
                Err(exit @ Exit::Signal(_)) => (-110, String::new(), format!("no answer ({exit})")),
            })
            .collect();
        serde_json::to_string(&answers).unwrap()
    }
}

fn words_of(each: &serde_json::Value) -> String {
    if let Some(volume) = each["volume"].as_str() {
        return each.get("unlock").map_or_else(
            || format!("users {volume}"),
            |lock| format!("unlock {volume} {} {}", lock["id"], lock["locker"]),
        );
    }
    let command = each.get("mon").unwrap_or(&each["command"]);
    let osd = each["osd"].as_u64();
    match (command["prefix"].as_str().unwrap(), osd) {
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
        runs: Arc::default(),
        gate: Arc::default(),
        bars_owners: Arc::default(),
    };
    let access = CephAccess::new("/etc/ceph/ceph.conf".into(), "/etc/ceph/key".into());
    (CephCommands::new(runner.clone(), access), runner)
}

fn volume() -> VolumeId {
    "vms/demo_disk0".parse().unwrap()
}

fn lock() -> RbdLock {
    parse::volume_use(USERS).unwrap().locks.remove(0)
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
async fn watchers_and_locks_are_read_as_they_are_printed() {
    let (ceph, _) = ceph(&[("users", Ok(USERS))]);
    let found = ceph.volume_use(&volume()).await.unwrap();
    assert_eq!(found.watchers.len(), 1);
    assert_eq!(found.locks.len(), 1);
    assert_eq!(
        found.watchers[0], found.locks[0].client,
        "one client, one address"
    );
    assert!(found.locks[0].id.starts_with("auto "));
    assert!(found.locks[0].locker.starts_with("client."));
}

#[tokio::test]
async fn output_that_is_not_understood_is_an_error_and_never_nobody() {
    for answer in ["", "{}", "[]", r#"{"watchers":[]}"#, r#"{"locks":[]}"#] {
        let (ceph, _) = ceph(&[("users", Ok(answer))]);
        let outcome = ceph.volume_use(&volume()).await;
        assert!(matches!(outcome, Err(StorageError::Failed { .. })), "{outcome:?}");
    }
}

// Taken for a missing image, a missing pool or keyring would tell an operator that the data is gone.
#[tokio::test]
async fn a_missing_image_is_told_from_a_volume_that_can_not_be_looked_at() {
    let outcome = ceph(&[("users", MISSING)]).0.volume_use(&volume()).await;
    assert!(
        matches!(outcome, Err(StorageError::NoVolume { .. })),
        "{outcome:?}"
    );
    for answer in [KILLED, Err(Exit::Code(1))] {
        let outcome = ceph(&[("users", answer)]).0.volume_use(&volume()).await;
        assert!(matches!(outcome, Err(StorageError::Failed { .. })), "{outcome:?}");
    }
}

// Ten guests of a dead node: a process for each would be what their recovery waits for.
#[tokio::test]
async fn what_is_asked_at_the_same_time_is_asked_in_one_process_and_each_gets_its_own_answer() {
    let (ceph, runner) = ceph(&[
        ("users vms/free", Ok(NOBODY)),
        ("users vms/used", Ok(USERS)),
        ("users vms/gone", MISSING),
    ]);
    let volumes: Vec<VolumeId> = ["vms/free", "vms/used", "vms/gone", "vms/used"]
        .map(|name| name.parse().unwrap())
        .into();
    let seen = join_all(volumes.iter().map(|volume| ceph.volume_use(volume))).await;
    assert_eq!(runner.runs.load(Ordering::Relaxed), 1);
    assert!(seen[0].as_ref().unwrap().watchers.is_empty());
    assert_eq!(seen[1].as_ref().unwrap().watchers.len(), 1);
    assert!(matches!(seen[2], Err(StorageError::NoVolume { .. })));
    assert_eq!(seen[3].as_ref().unwrap().watchers.len(), 1);
}

// Who asks after a run has begun must not be answered with what it saw: the lock may have been taken since.
#[tokio::test]
async fn nobody_is_answered_with_what_was_seen_before_he_asked() {
    let (ceph, runner) = ceph(&[("users", Ok(NOBODY)), ("users", Ok(USERS))]);
    assert!(ceph.volume_use(&volume()).await.unwrap().locks.is_empty());
    assert_eq!(ceph.volume_use(&volume()).await.unwrap().locks.len(), 1);
    assert_eq!(runner.runs.load(Ordering::Relaxed), 2);
}

// Guests that start on busy processors look again and again, each in its own rhythm.
#[tokio::test]
async fn who_asks_while_others_are_answered_is_asked_for_together_with_those_who_come_meanwhile() {
    let (ceph, runner) = ceph(&[("users", Ok(USERS))]);
    let gate = runner.hold();
    let asked = volume();
    let mut first = Box::pin(ceph.volume_use(&asked));
    while runner.runs.load(Ordering::Relaxed) == 0 {
        assert!(futures::poll!(&mut first).is_pending());
        tokio::task::yield_now().await;
    }
    let volumes: Vec<VolumeId> = (0..4)
        .map(|number| format!("vms/{number}").parse().unwrap())
        .collect();
    let mut others = Box::pin(join_all(volumes.iter().map(|volume| ceph.volume_use(volume))));
    assert!(futures::poll!(&mut others).is_pending());
    drop(gate);
    assert_eq!(first.await.unwrap().locks.len(), 1);
    assert!(others.await.iter().all(Result::is_ok));
    assert_eq!(runner.runs.load(Ordering::Relaxed), 2, "one alone, four together");
}

// Its waiter has been cancelled before the run began; the next one must not wait for it in vain.
#[tokio::test]
async fn a_question_that_nobody_waits_for_any_more_holds_up_no_other() {
    let (ceph, runner) = ceph(&[("users", Ok(USERS))]);
    let other: VolumeId = "vms/other".parse().unwrap();
    let mut given_up = Box::pin(ceph.volume_use(&other));
    assert!(futures::poll!(&mut given_up).is_pending());
    drop(given_up);
    assert_eq!(ceph.volume_use(&volume()).await.unwrap().locks.len(), 1);
    assert_eq!(runner.runs.load(Ordering::Relaxed), 1);
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
    let (present, runner) = ceph(&[("unlock", Ok(""))]);
    assert_eq!(
        present.remove_lock(&volume(), &lock()).await.unwrap(),
        Changed::Done
    );
    let line = runner.log.lock().unwrap()[0].clone();
    assert_eq!(
        line,
        format!("unlock vms/demo_disk0 {:?} {:?}", lock().id, lock().locker)
    );
    let (gone, _) = ceph(&[("unlock", Err(Exit::Code(1))), ("users", Ok(NOBODY))]);
    assert_eq!(
        gone.remove_lock(&volume(), &lock()).await.unwrap(),
        Changed::AlreadySo
    );
    let (stays, _) = ceph(&[("unlock", Err(Exit::Code(1))), ("users", Ok(USERS))]);
    assert!(stays.remove_lock(&volume(), &lock()).await.is_err());
}

// A lock that is removed from a client which is not barred is taken again by that client, which then writes on.
#[tokio::test]
async fn the_owner_of_a_lock_is_barred_with_its_removal_unless_the_map_has_been_seen_to_bar_it() {
    let lock = RbdLock {
        client: barred(),
        ..lock()
    };
    let answers = [
        ("unlock", Ok("")),
        ("blocklist add", Ok("")),
        ("osd dump", Ok(DUMP)),
    ];
    let (ceph, runner) = ceph(&answers);
    ceph.remove_lock(&volume(), &lock).await.unwrap();
    assert_eq!(*runner.bars_owners.lock().unwrap(), "true");
    ceph.blocklist(&[barred()]).await.unwrap();
    ceph.remove_lock(&volume(), &lock).await.unwrap();
    assert_eq!(*runner.bars_owners.lock().unwrap(), "false");
}

/// In the form of Ceph 16: one warning that an administrator has muted, one that nobody has, one error.
const HEALTH: &str = r#"{"status":"HEALTH_ERR","checks":{
    "OSD_DOWN":{"severity":"HEALTH_WARN","summary":{"message":"1 osds down","count":1},"muted":false},
    "PG_DAMAGED":{"severity":"HEALTH_ERR","summary":{"message":"Possible data damage","count":1},"muted":false},
    "POOL_NO_REDUNDANCY":{"severity":"HEALTH_WARN","summary":{"message":"1 pool(s)","count":1},"muted":true}
    },"mutes":[{"code":"POOL_NO_REDUNDANCY","sticky":false,"summary":"1 pool(s)","count":1}]}"#;

#[tokio::test]
async fn what_ceph_complains_of_is_read_with_the_osds_that_are_out() {
    let out = DUMP.replacen("\"up\":1,\"in\":1", "\"up\":1,\"in\":0", 1);
    assert_ne!(out, DUMP);
    let out: &'static str = Box::leak(out.into_boxed_str());
    let (ceph, _) = ceph(&[("health", Ok(HEALTH)), ("osd dump", Ok(out))]);
    let health = ceph.health().await.unwrap();
    let told: Vec<(&str, CephSeverity, &str)> = health
        .checks
        .iter()
        .map(|check| (check.name.as_str(), check.severity, check.summary.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            ("OSD_DOWN", CephSeverity::Warning, "1 osds down"),
            ("PG_DAMAGED", CephSeverity::Error, "Possible data damage"),
        ]
    );
    assert_eq!(health.osds_out, [0]);
}

// An answer that is no answer must not look like a healthy cluster.
#[tokio::test]
async fn a_ceph_that_does_not_answer_is_not_healthy() {
    for answers in [
        [("health", MISSING), ("osd dump", Ok(DUMP))],
        [("health", Ok(HEALTH)), ("osd dump", MISSING)],
        [("health", Ok("HEALTH_OK")), ("osd dump", Ok(DUMP))],
    ] {
        let (ceph, _) = ceph(&answers);
        assert!(ceph.health().await.is_err(), "{answers:?}");
    }
}
