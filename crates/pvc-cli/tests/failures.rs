//! What `pvc` makes of an API that does not answer as it should.
#![expect(clippy::unwrap_used, reason = "tests")]

mod answers;
#[path = "../../pvcapid/tests/common/mod.rs"]
mod common;
mod program;

use std::path::{Path, PathBuf};

use answers::{Answer, Server};
use common::{Cluster, TOKEN, guest_xml, vm_id};
use program::{Said, done, program, pvc, pvc_at};
use pvcapid::tls::{Certificate, TlsFiles};

fn json(status: u16, code: &str) -> Answer {
    let body =
        format!("{{\"message\": \"It is like that.\", \"code\": \"{code}\", \"request_id\": \"4711\"}}");
    Answer::Reply(status, "Content-Type: application/json\r\n", body)
}

/// A script that is told "try again later" of a change which was made makes it twice.
#[test]
fn a_change_that_may_have_been_made_is_not_called_one_that_was_not() {
    let start = &["vm", "start", "web1"][..];
    let check = |answer: Answer, args: &[&str], code: i32, words: &str| {
        let server = Server::start(move |_| answer.clone());
        let said = pvc_at(&server.url, args);
        assert_eq!(said.code, code, "{said:?}");
        assert!(said.err.contains(words), "{said:?}");
        server.seen().len()
    };
    let look = "look with 'pvc vm info web1'";
    assert_eq!(check(Answer::HangUp, start, 5, look), 1, "never sent again");
    assert_eq!(check(json(503, "outcome_unknown"), start, 5, look), 1);
    check(json(502, "no code of ours"), start, 5, look);
    check(json(503, "store_unavailable"), start, 4, "It is like that");
    // Ordered before the API began to wait, and so it stands.
    check(
        json(503, "store_unavailable"),
        &["vm", "undefine", "web1", "-y"],
        5,
        look,
    );
    check(
        json(503, "store_unavailable"),
        &["vm", "disable", "web1", "-y"],
        5,
        look,
    );
    check(json(429, "too_many_failures"), start, 1, "It is like that");
    check(json(504, "wait_timeout"), start, 5, "It is like that");
    assert_eq!(
        check(Answer::HangUp, &["node", "list"], 4, "lost"),
        3,
        "a read is"
    );
    assert_eq!(
        check(
            json(429, "too_many_failures"),
            &["node", "list"],
            1,
            "It is like that"
        ),
        1
    );
    // Nobody listens there: nothing was sent.
    let nobody = pvc_at("http://127.0.0.1:1", start);
    assert_eq!(nobody.code, 4, "{nobody:?}");
}

/// A script that is told that there are no guests goes on as if there were none.
#[test]
fn what_is_no_api_is_not_an_empty_cluster() {
    let list = |body: &str| {
        let answer = Answer::Reply(404, "Content-Type: application/json\r\n", body.to_owned());
        let server = Server::start(move |_| answer.clone());
        pvc_at(&server.url, &["vm", "list", "-f", "json"])
    };
    for (body, code) in [
        ("<html>not here</html>", 1),
        (
            "{\"message\": \"x\", \"code\": \"no_route\", \"request_id\": \"1\"}",
            1,
        ),
        (
            "{\"message\": \"x\", \"code\": \"not_found\", \"request_id\": \"1\"}",
            0,
        ),
        // As PVC 1.0.3 says that nothing is there.
        ("{\"message\": \"VM not found.\"}", 0),
    ] {
        let said = list(body);
        assert_eq!(said.code, code, "{body}: {said:?}");
        assert_eq!(said.out.trim() == "[]", code == 0, "{body}: {said:?}");
    }
}

#[test]
fn what_was_never_sent_is_not_called_perhaps_done() {
    let nowhere = pvc_at("http://no-such-host.invalid:7370", &["vm", "stop", "web1", "-y"]);
    assert_eq!(nowhere.code, 4, "{nowhere:?}");
    let unmade = pvc_at("http://127.0.0.1:1", &["api", "GET", "/vm/t 1"]);
    assert_eq!(unmade.code, 2, "{unmade:?}");
    let unnamed = pvc_at("http://127.0.0.1:1", &["vm", "undefine", "", "-y"]);
    assert_eq!(
        (unnamed.code, unnamed.err.contains("empty")),
        (2, true),
        "{unnamed:?}"
    );
}

/// Without a target the cluster chooses, and the second time it chooses another node.
#[test]
fn a_move_is_sent_again_only_if_that_comes_to_the_same() {
    for (args, times) in [
        (&["vm", "move", "web1"][..], 1),
        (&["vm", "migrate", "web1"], 1),
        (&["vm", "move", "web1", "-t", "hv2"], 3),
        (&["vm", "migrate", "web1", "-t", "hv2"], 3),
        (&["vm", "unmigrate", "web1"], 3),
    ] {
        let server = Server::start(|_| Answer::HangUp);
        let said = pvc_at(&server.url, args);
        assert_eq!((said.code, server.seen().len()), (5, times), "{args:?}: {said:?}");
    }
}

/// A script that reads while the primary role moves is answered by the next one.
#[test]
fn a_raw_read_is_tried_again_as_others_are() {
    let tries = std::sync::atomic::AtomicU32::new(0);
    let server = Server::start(
        move |_| match tries.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => Answer::HangUp,
            1 => json(503, "store_unavailable"),
            _ => Answer::Reply(200, "", "[]".to_owned()),
        },
    );
    let said = pvc_at(&server.url, &["api", "GET", "/node"]);
    assert_eq!((said.code, said.out.as_str()), (0, "[]\n"), "{said:?}");
    // One that goes on is printed once, as it came last.
    let server = Server::start(|_| json(503, "store_unavailable"));
    let said = pvc_at(&server.url, &["api", "GET", "/node"]);
    assert_eq!((said.code, said.out.lines().count()), (4, 1), "{said:?}");
    assert!(said.out.contains("4711"), "{said:?}");
}

/// The address was handed over after the first try came through: the others reach nobody, and still it may be done.
#[test]
fn what_one_try_may_have_done_is_not_forgotten_by_the_next() {
    let tries = std::sync::atomic::AtomicU32::new(0);
    let server = Server::start(
        move |_| match tries.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => Answer::HangUp,
            _ => json(503, "store_unavailable"),
        },
    );
    let said = pvc_at(&server.url, &["vm", "move", "web1", "-t", "hv2"]);
    assert_eq!((said.code, server.seen().len()), (5, 3), "{said:?}");
}

/// Who lists the clusters to see which of them is ill must not be held up by that one.
#[test]
fn a_cluster_that_hangs_holds_up_no_other() {
    let hung = Server::start(|_| Answer::Silence);
    let cluster = Cluster::start();
    let home = tempfile::tempdir().unwrap();
    let port = |url: &str| url.rsplit(':').next().unwrap().to_owned();
    for (name, url) in [("hung", hung.url.as_str()), ("well", cluster.url())] {
        let port = port(url);
        let args = ["connection", "add", name, "-a", "127.0.0.1", "-p", &port];
        let added = program(home.path())
            .env("PVC_API_KEY", TOKEN)
            .args(args)
            .output()
            .unwrap();
        assert!(added.status.success());
    }
    let said: Said = program(home.path())
        .args(["connection", "detail"])
        .output()
        .unwrap()
        .into();
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.contains("does not answer"), "{said:?}");
    assert!(said.out.contains("hv1"), "{said:?}");
}

/// The token would go along.
#[test]
fn nobody_sends_the_token_elsewhere() {
    let elsewhere = Server::start(|_| Answer::Reply(200, "", "[]".to_owned()));
    let there = format!("Location: {}/api/v1/node\r\n", elsewhere.url);
    let there: &'static str = Box::leak(there.into_boxed_str());
    let server = Server::start(move |_| Answer::Reply(302, there, String::new()));
    let said = pvc_at(&server.url, &["node", "list"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains(&elsewhere.url), "{said:?}");
    assert_eq!(elsewhere.seen(), Vec::<String>::new());
    let head = &server.seen()[0].to_ascii_lowercase();
    assert!(head.contains("x-api-key"), "{head}");
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

/// Without it a company would switch the check off, and send its tokens to whoever answers.
#[test]
fn a_certificate_of_an_own_authority_can_be_trusted() {
    let certificate = Certificate::load(TlsFiles {
        certificate: fixture("tls-certificate.pem"),
        private_key: fixture("tls-key.pem"),
    })
    .unwrap();
    let cluster = Cluster::with_tls(certificate.server_config().unwrap());
    let url = cluster.url().replace("http://", "https://");
    let home = tempfile::tempdir().unwrap();
    let list = |url: &str, authority: &str| -> Said {
        program(home.path())
            .env("PVC_URL", url)
            .env("PVC_API_KEY", TOKEN)
            .env("SSL_CERT_FILE", fixture(authority))
            .args(["node", "list", "-f", "raw"])
            .output()
            .unwrap()
            .into()
    };
    let trusted = list(&url, "tls-authority.pem");
    assert_eq!(
        (trusted.code, trusted.out.as_str()),
        (0, "hv1\nhv2\nhv3\n"),
        "{trusted:?}"
    );
    let stranger = list(&url, "../../../pvcapid/tests/fixtures/tls-certificate.pem");
    assert_eq!(stranger.code, 1, "{stranger:?}");
    assert!(stranger.err.contains("SSL_CERT_FILE"), "{stranger:?}");
    let nobody = list(&url, "none.pem");
    assert_eq!(nobody.code, 1, "{nobody:?}");
    assert!(nobody.err.contains("ca-certificates"), "{nobody:?}");
    // The other way round: https:// where only HTTP is spoken.
    let plain = Cluster::start();
    let url = plain.url().replace("http://", "https://");
    let said = list(&url, "tls-authority.pem");
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("does not speak HTTPS"), "{said:?}");
}

/// A wrong address or name is a mistake to be told, not something to wait for.
#[test]
fn what_can_not_be_shown_is_not_watched() {
    let nobody = pvc_at("http://127.0.0.1:1", &["node", "list", "--watch"]);
    assert_eq!(nobody.code, 4, "{nobody:?}");
    let cluster = Cluster::start();
    let unknown = pvc(&cluster, &["fence", "show", "hv9", "--watch"]);
    assert_eq!(unknown.code, 3, "{unknown:?}");
}

/// A script gives up when it says, and is told that what it asked for goes on.
#[test]
fn a_wait_ends_when_it_is_said() {
    let cluster = Cluster::start();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("guest.xml");
    std::fs::write(&file, guest_xml("web1", vm_id(1), "")).unwrap();
    done(&cluster, &["vm", "define", file.to_str().unwrap(), "-t", "hv1"]);
    // No node is there to start it.
    let said = pvc(&cluster, &["vm", "start", "web1", "-w", "--timeout", "1"]);
    assert_eq!(said.code, 5, "{said:?}");
    assert!(
        said.err.contains("not done after 1 s") && said.err.contains("may still"),
        "{said:?}"
    );
    let alone = pvc(&cluster, &["vm", "start", "web1", "--timeout", "1"]);
    assert_eq!(alone.code, 2, "without --wait it means nothing: {alone:?}");
    let help = done(&cluster, &["vm", "shutdown", "--help"]);
    assert!(help.contains("[default: 900]"), "{help}");
}
