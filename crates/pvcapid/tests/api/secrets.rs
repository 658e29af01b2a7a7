//! Passwords in guests' definitions: shown to nobody who has not asked for them as an administrator, and never lost or
//! overwritten by somebody who sends back what he was shown.

use pvc_common::keys;
use serde_json::Value;

use crate::client::{Reply, ask_with, define, eventually, get, post};
use crate::common::{Cluster, OPERATOR_TOKEN, TOKEN, VIEWER_TOKEN, guest_xml, vm_id};

const VNC: &str = "<graphics type='vnc' port='-1' passwd='hunter2'/>";
const MASKED: &str = "<graphics type='vnc' port='-1' passwd='********'/>";

fn start() -> Cluster {
    let cluster = Cluster::start();
    assert_eq!(
        define(&cluster, &guest_xml("web", vm_id(1), VNC), &[]).status,
        200
    );
    cluster
}

fn put(cluster: &Cluster, form: &[(&str, &str)]) -> Reply {
    ask_with(cluster, TOKEN, "PUT", "/vm/web", Some(form))
}

fn stored(cluster: &Cluster) -> String {
    cluster.value(&keys::domain(vm_id(1)).xml())
}

// The console's password of every guest was told to whoever may look at a list.
#[test]
fn nobody_is_shown_a_password_unless_an_administrator_asks() {
    let cluster = start();
    for token in [VIEWER_TOKEN, OPERATOR_TOKEN, TOKEN] {
        for path in ["/vm/web", "/vm", "/vm?limit=web"] {
            let reply = ask_with(&cluster, token, "GET", path, None);
            let xml = reply.body[0]["xml"].as_str().unwrap();
            assert!(
                xml.contains(MASKED) && !reply.body.to_string().contains("hunter2"),
                "{xml}"
            );
        }
    }
    for token in [VIEWER_TOKEN, OPERATOR_TOKEN] {
        assert_eq!(
            ask_with(&cluster, token, "GET", "/vm/web?secrets=true", None).status,
            403
        );
    }
    assert_eq!(get(&cluster, "/vm/web?secrets=perhaps").status, 400);
    let reply = get(&cluster, "/vm/web?secrets=true");
    assert_eq!(reply.body[0]["xml"], Value::from(stored(&cluster)));
    let changed = guest_xml("web", vm_id(1), VNC).replace("hunter2", "hunter3");
    assert_eq!(put(&cluster, &[("xml", &changed)]).status, 200);
    assert_eq!(
        put(&cluster, &[("xml", "<graphics passwd='hunter4'/>")]).status,
        400
    );
    let all = [get(&cluster, "/audit").body, get(&cluster, "/status").body];
    assert!(!format!("{all:?}").contains("hunter"), "{all:?}");
}

#[test]
fn who_sends_back_what_he_was_shown_changes_no_password() {
    let cluster = start();
    let shown = get(&cluster, "/vm/web").body[0]["xml"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        put(&cluster, &[("xml", &shown.replace("512", "768"))]).status,
        200
    );
    assert_eq!(
        stored(&cluster),
        guest_xml("web", vm_id(1), VNC).replace("512", "768")
    );
    // Of another console nothing is known, nor of a guest that is defined from what was shown.
    let spice = shown.replace("vnc", "spice");
    let reply = put(&cluster, &[("xml", &spice)]);
    assert_eq!(reply.status, 400);
    assert!(reply.message().contains("graphics[spice]@passwd"), "{reply:?}");
    assert!(stored(&cluster).contains("hunter2"));
    let copy = guest_xml("copy", vm_id(2), MASKED);
    let reply = define(&cluster, &copy, &[]);
    assert_eq!(reply.status, 400, "{reply:?}");
    assert!(
        reply.message().contains("'xml'") && reply.message().contains("********"),
        "{reply:?}"
    );
    assert_eq!(get(&cluster, "/vm/copy").status, 404);
}

#[test]
fn a_backup_has_passwords_only_if_they_are_asked_for_and_puts_none_in_their_place() {
    let cluster = start();
    let backup = |query: &str| {
        get(&cluster, &format!("/backup{query}"))
            .body
            .as_str()
            .unwrap()
            .to_owned()
    };
    eventually(|| backup("?secrets=true").contains("hunter2"));
    let text = backup("");
    assert!(!text.contains("hunter2") && text.contains("********"), "{text}");
    let restore = || {
        let reply = post(
            &cluster,
            "/restore",
            &[("yes-i-really-mean-it", "yes"), ("cluster_data", &text)],
        );
        assert_eq!(reply.status, 200, "{reply:?}");
    };
    restore();
    assert!(stored(&cluster).contains("hunter2"), "{}", stored(&cluster));
    // Where it is gone, nobody knows the new one.
    assert_eq!(
        ask_with(&cluster, TOKEN, "DELETE", "/vm/web", Some(&[])).status,
        200
    );
    restore();
    let xml = stored(&cluster);
    assert!(!xml.contains("hunter2") && !xml.contains("********"), "{xml}");
    assert!(xml.contains("passwd='") && !xml.contains("passwd=''"), "{xml}");
}
