//! Tokens, users and sessions that are made while the cluster runs.

use pvc_common::keys;
use pvc_common::store::StoreExt;
use pvc_core::ids::AccountName;
use serde_json::{Value, json};

use crate::client::{Reply, agent, ask_with, eventually, get, post};
use crate::common::{Cluster, OPERATOR_TOKEN, TOKEN, commit};

fn make(cluster: &Cluster, name: &str, role: &str) -> String {
    let reply = post(cluster, "/token", &[("name", name), ("role", role)]);
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.body["token"].as_str().unwrap().to_owned()
}

fn delete(cluster: &Cluster, path: &str) -> Reply {
    ask_with(cluster, TOKEN, "DELETE", path, None)
}

/// Asks as a browser does: with a cookie, and with these headers.
fn browse(
    cluster: &Cluster,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    form: &[(&str, &str)],
) -> (u16, Value, Option<String>) {
    let mut request = ureq::http::Request::builder()
        .method(method)
        .uri(format!("{}/api/v1{path}", cluster.url()));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let agent = agent();
    let mut response = if form.is_empty() {
        agent.run(request.body(()).unwrap()).unwrap()
    } else {
        let request = request.header("Content-Type", "application/x-www-form-urlencoded");
        let body = serde_html_form::to_string(form).unwrap();
        agent.run(request.body(body).unwrap()).unwrap()
    };
    let cookie = response
        .headers()
        .get("Set-Cookie")
        .map(|cookie| cookie.to_str().unwrap().to_owned());
    let text = response.body_mut().read_to_string().unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::Null);
    (response.status().as_u16(), body, cookie)
}

/// Logs in; answers with what the browser sends from then on.
fn log_in(cluster: &Cluster, form: &[(&str, &str)]) -> String {
    let (status, body, cookie) = browse(cluster, "POST", "/login", &[], form);
    assert_eq!(status, 200, "{body}");
    let cookie = cookie.unwrap();
    for part in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    cookie.split(';').next().unwrap().to_owned()
}

fn add_ann(cluster: &Cluster) {
    let form = [
        ("username", "ann"),
        ("role", "operator"),
        ("password", "correct horse battery"),
    ];
    let reply = post(cluster, "/user", &form);
    assert_eq!(reply.status, 200, "{reply:?}");
    let reply = post(cluster, "/user", &form);
    assert_eq!(reply.status, 409, "{reply:?}");
}

#[test]
fn a_token_that_was_made_lets_in_until_it_is_removed() {
    let cluster = Cluster::start();
    let token = make(&cluster, "grafana", "viewer");
    assert_eq!(ask_with(&cluster, &token, "GET", "/node", None).status, 200);
    let reply = ask_with(&cluster, &token, "POST", "/status", Some(&[("state", "true")]));
    assert_eq!((reply.status, reply.code()), (403, "forbidden"));
    assert!(reply.message().contains("token grafana has the role viewer"));
    // The text is in the first reply and nowhere else, in whatever form.
    let secret = token.rsplit('_').next().unwrap();
    let list = get(&cluster, "/token").body;
    assert!(!list.to_string().contains(secret), "{list}");
    assert_eq!(list[3]["name"], json!("grafana"));
    assert_eq!(list[3]["role"], json!("viewer"));
    assert_eq!(list[3]["source"], json!("created"));
    assert_eq!(list[3]["created_by"], json!("token \"tests\""));
    assert!(list[3]["last_used_at"].is_u64(), "{list}");
    let tree = futures::executor::block_on(cluster.store.read_tree("/access")).unwrap();
    assert!(tree.len() > 3);
    for (path, znode) in tree {
        let text = String::from_utf8(znode.data).unwrap();
        assert!(!text.contains(secret), "{path} holds the token");
    }
    assert_eq!(
        post(&cluster, "/token", &[("name", "grafana"), ("role", "admin")]).status,
        409
    );
    // A token that differs from it in its last digit alone.
    let (rest, last) = token.split_at(token.len() - 1);
    let wrong = format!("{rest}{}", if last == "0" { "1" } else { "0" });
    assert_eq!(ask_with(&cluster, &wrong, "GET", "/node", None).status, 401);
    assert_eq!(delete(&cluster, "/token/grafana").status, 200);
    assert_eq!(ask_with(&cluster, &token, "GET", "/node", None).status, 401);
    assert_eq!(delete(&cluster, "/token/grafana").status, 404);
    // One of the same name is another.
    make(&cluster, "grafana", "admin");
    assert_eq!(ask_with(&cluster, &token, "GET", "/node", None).status, 401);
}

#[test]
fn a_token_removed_on_another_node_lets_in_no_longer_than_a_moment() {
    let cluster = Cluster::start();
    let token = make(&cluster, "grafana", "viewer");
    assert_eq!(ask_with(&cluster, &token, "GET", "/node", None).status, 200);
    let name = AccountName::new("grafana").unwrap();
    let removal = pvc_common::store::Txn::new()
        .delete(&keys::token_use(&name), None)
        .delete(&keys::token(&name), None);
    commit(&cluster.store, removal);
    eventually(|| ask_with(&cluster, &token, "GET", "/node", None).status == 401);
}

#[test]
fn a_token_expires() {
    let cluster = Cluster::start();
    let reply = post(
        &cluster,
        "/token",
        &[("name", "short"), ("role", "viewer"), ("expires_in", "3600")],
    );
    let token = reply.body["token"].as_str().unwrap().to_owned();
    assert_eq!(ask_with(&cluster, &token, "GET", "/node", None).status, 200);
    let key = keys::token(&AccountName::new("short").unwrap());
    let mut record = cluster.value(&key);
    record.expires_at = Some(1);
    cluster.set(&key, &record);
    eventually(|| ask_with(&cluster, &token, "GET", "/node", None).status == 401);
    assert_eq!(get(&cluster, "/token").body[3]["expired"], json!(true));
}

#[test]
fn what_can_be_no_token_is_refused_by_name() {
    let cluster = Cluster::start();
    for (form, parameter) in [
        (&[("role", "viewer")][..], "'name'"),
        (&[("name", "a")], "'role'"),
        (&[("name", "a/b"), ("role", "viewer")], "'name'"),
        (&[("name", ".."), ("role", "viewer")], "'name'"),
        (&[("name", "a"), ("role", "root")], "'role'"),
        (
            &[("name", "a"), ("role", "viewer"), ("expires_in", "0")],
            "'expires_in'",
        ),
        (
            &[("name", "a"), ("role", "viewer"), ("expires_in", "-1")],
            "'expires_in'",
        ),
    ] {
        let reply = post(&cluster, "/token", form);
        assert_eq!(
            (reply.status, reply.code()),
            (400, "invalid_parameter"),
            "{form:?}"
        );
        assert!(reply.message().contains(parameter), "{reply:?}");
    }
    for path in ["/token/a%2Fb", "/token/..", "/token/%00", "/token/none"] {
        assert_eq!(delete(&cluster, path).status, 404, "{path}");
    }
}

#[test]
fn a_session_lasts_until_its_user_logs_out() {
    let cluster = Cluster::start();
    add_ann(&cluster);
    let cookie = log_in(
        &cluster,
        &[("username", "ann"), ("password", "correct horse battery")],
    );
    let with = |headers: &[(&str, &str)], method: &str, path: &str, form: &[(&str, &str)]| {
        let mut all = vec![("Cookie", cookie.as_str())];
        all.extend_from_slice(headers);
        browse(&cluster, method, path, &all, form)
    };
    let (status, who, _) = with(&[], "GET", "/session", &[]);
    assert_eq!((status, &who["role"]), (200, &json!("operator")));
    assert_eq!(who["who"], json!("user ann"));
    assert!(who["expires_at"].is_u64());
    // A page of another site must not be able to change anything with it.
    let maintenance = [("state", "true")];
    let origin = cluster.url().to_owned();
    for (headers, expected) in [
        (&[][..], 403),
        (&[("Origin", "https://evil.example")], 403),
        (&[("Origin", "null")], 403),
        (&[("X-Requested-With", "pvc")], 200),
        (&[("Origin", origin.as_str())], 200),
    ] {
        let (status, body, _) = with(headers, "POST", "/status", &maintenance);
        assert_eq!(status, expected, "{headers:?}: {body}");
    }
    assert_eq!(with(&[], "GET", "/token", &[]).0, 403, "an operator");
    assert_eq!(
        with(&[], "POST", "/logout", &[]).0,
        403,
        "by a page of another site"
    );
    let (status, _, gone) = with(&[("Origin", origin.as_str())], "POST", "/logout", &[]);
    assert_eq!(status, 200);
    assert!(gone.unwrap().contains("Max-Age=0"));
    // What the browser has kept all the same is worth nothing.
    assert_eq!(with(&[], "GET", "/node", &[]).0, 401);
    let (status, _, _) = browse(&cluster, "POST", "/logout", &[], &[]);
    assert_eq!(status, 200, "so already");
}

#[test]
fn a_session_ends_with_what_was_logged_in_with() {
    let cluster = Cluster::start();
    add_ann(&cluster);
    let ann = [("username", "ann"), ("password", "correct horse battery")];
    let looks = |cookie: &str| browse(&cluster, "GET", "/node", &[("Cookie", cookie)], &[]).0;
    // A changed password.
    let cookie = log_in(&cluster, &ann);
    assert_eq!(looks(&cookie), 200);
    let form = [("password", "a quite different one")];
    assert_eq!(
        ask_with(&cluster, TOKEN, "PUT", "/user/ann", Some(&form)).status,
        200
    );
    assert_eq!(looks(&cookie), 401);
    assert_eq!(browse(&cluster, "POST", "/login", &[], &ann).0, 401);
    // A changed role does not end it, and counts.
    let cookie = log_in(
        &cluster,
        &[("username", "ann"), ("password", "a quite different one")],
    );
    let role =
        |cookie: &str| browse(&cluster, "GET", "/session", &[("Cookie", cookie)], &[]).1["role"].clone();
    assert_eq!(role(&cookie), json!("operator"));
    let form = [("role", "viewer")];
    assert_eq!(
        ask_with(&cluster, TOKEN, "PUT", "/user/ann", Some(&form)).status,
        200
    );
    assert_eq!(role(&cookie), json!("viewer"));
    // A removed user.
    assert_eq!(delete(&cluster, "/user/ann").status, 200);
    assert_eq!(looks(&cookie), 401);
    // A removed token.
    let token = make(&cluster, "kiosk", "viewer");
    let cookie = log_in(&cluster, &[("token", token.as_str())]);
    assert_eq!(looks(&cookie), 200);
    assert_eq!(delete(&cluster, "/token/kiosk").status, 200);
    assert_eq!(looks(&cookie), 401);
}

// Defect D4 of PVC 1.0.3: any part of a token logged in, the empty text included.
#[test]
fn only_a_whole_token_or_password_logs_in() {
    let cluster = Cluster::start();
    add_ann(&cluster);
    let cookie = log_in(&cluster, &[("token", OPERATOR_TOKEN)]);
    let (_, who, _) = browse(&cluster, "GET", "/session", &[("Cookie", cookie.as_str())], &[]);
    assert_eq!(who["role"], json!("operator"));
    for (form, expected) in [
        (&[("token", "")][..], 401),
        (&[("token", "an-operators")], 401),
        (&[("token", "an-operators-token ")], 401),
        (&[("username", "ann"), ("password", "correct horse")], 401),
        (&[("username", "ann"), ("password", "")], 401),
        (
            &[("username", "nobody"), ("password", "correct horse battery")],
            401,
        ),
        (
            &[("username", "../tokens/x"), ("password", "correct horse battery")],
            401,
        ),
        (&[("username", "ann")], 400),
        (&[("username", "ann"), ("password", "x"), ("token", "y")], 400),
        (&[("state", "on")], 400),
    ] {
        let (status, body, cookie) = browse(&cluster, "POST", "/login", &[], form);
        assert_eq!((status, cookie), (expected, None), "{form:?}: {body}");
    }
    for cookie in [
        "pvc_session=",
        "pvc_session=0",
        "pvc_session=../../x",
        "session=1",
    ] {
        let (status, ..) = browse(&cluster, "GET", "/node", &[("Cookie", cookie)], &[]);
        assert_eq!(status, 401, "{cookie}");
    }
    let evil = [("Origin", "https://evil.example")];
    let form = [("token", OPERATOR_TOKEN)];
    assert_eq!(browse(&cluster, "POST", "/login", &evil, &form).0, 403);
}

#[test]
fn guessing_passwords_is_slowed_down_and_tokens_that_work_go_on_working() {
    let cluster = Cluster::start();
    add_ann(&cluster);
    let token = make(&cluster, "grafana", "viewer");
    let guess = |number: u32| {
        let password = format!("a wrong guess, the {number}th");
        let form = [("username", "ann"), ("password", password.as_str())];
        browse(&cluster, "POST", "/login", &[], &form).0
    };
    assert_eq!((0..40).map(guess).find(|status| *status != 401), Some(429));
    let ann = [("username", "ann"), ("password", "correct horse battery")];
    assert_eq!(browse(&cluster, "POST", "/login", &[], &ann).0, 429);
    assert_eq!(ask_with(&cluster, &token, "GET", "/node", None).status, 200);
}

#[test]
fn users_are_listed_without_their_passwords() {
    let cluster = Cluster::start();
    add_ann(&cluster);
    let users = get(&cluster, "/user").body;
    assert_eq!(users[0]["name"], json!("ann"));
    let fields: Vec<&String> = users[0].as_object().unwrap().keys().collect();
    assert_eq!(fields, ["created_at", "created_by", "name", "role"]);
    for (form, parameter) in [
        (
            &[("username", "b"), ("role", "viewer"), ("password", "short")][..],
            "'password'",
        ),
        (&[("username", "b"), ("role", "viewer")], "'password'"),
        (
            &[
                ("username", "b b"),
                ("role", "viewer"),
                ("password", "long enough!"),
            ],
            "'username'",
        ),
    ] {
        let reply = post(&cluster, "/user", form);
        assert_eq!(reply.status, 400);
        assert!(reply.message().contains(parameter), "{reply:?}");
        assert!(!reply.message().contains("long enough"), "{reply:?}");
    }
    assert_eq!(
        ask_with(&cluster, TOKEN, "PUT", "/user/none", Some(&[("role", "viewer")])).status,
        404
    );
    assert_eq!(
        ask_with(&cluster, TOKEN, "PUT", "/user/ann", Some(&[])).status,
        400
    );
}
