//! The description of the API.

use serde_json::{Value, json};

use crate::client::ask_with;
use crate::common::{Cluster, TOKEN};

#[test]
fn every_documented_route_is_served_and_the_document_is_up_to_date() {
    let document = pvcapid::openapi().unwrap();
    let checked_in = include_str!("../../../../docs/openapi/pvcapid.json");
    assert!(
        document == checked_in,
        "docs/openapi/pvcapid.json is stale: run `cargo xtask openapi`"
    );
    let document: Value = serde_json::from_str(&document).unwrap();
    assert_eq!(document["openapi"], json!("3.1.0"));
    let cluster = Cluster::start();
    let mut ids = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let path = path.replace("{node}", "hv1").replace("{vm}", "none");
        // That one has no end, unless it is refused.
        let path = path.replace("/events", "/events?types=none");
        for (method, operation) in methods.as_object().unwrap() {
            let reply = ask_with(&cluster, TOKEN, &method.to_uppercase(), &path, None);
            assert_ne!(reply.status, 405, "{method} {path}");
            assert!(!reply.message().contains("There is no route"), "{method} {path}");
            ids.push(
                operation["operationId"]
                    .as_str()
                    .expect("operation id")
                    .to_owned(),
            );
        }
    }
    let count = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), count, "operation ids are unique");
    assert!(count >= 21, "{count}");
}

#[test]
fn the_description_can_be_asked_for() {
    let cluster = Cluster::start();
    let asked = ask_with(&cluster, TOKEN, "GET", "/openapi.json", None);
    let document: Value = serde_json::from_str(&pvcapid::openapi().unwrap()).unwrap();
    assert_eq!(asked.body, document);
}

// A client that is made from the description would log in with `/login?password=...`, and URLs stand in the logs of proxies.
#[test]
fn what_changes_something_is_sent_in_the_body() {
    let document: Value = serde_json::from_str(&pvcapid::openapi().unwrap()).unwrap();
    let mut forms = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let declared = operation["parameters"].as_array().into_iter().flatten();
            for parameter in declared.filter(|parameter| parameter["in"] == "query") {
                let name = parameter["name"].as_str().unwrap();
                assert!(matches!(&**method, "get" | "delete"), "{method} {path}: {name}");
                assert!(
                    !["password", "token", "cluster_data"].contains(&name),
                    "{path}: {name}"
                );
            }
            forms += usize::from(operation["requestBody"].is_object());
        }
    }
    assert!(forms > 20, "{forms}");
    let body = &document["paths"]["/login"]["post"]["requestBody"];
    let form = &body["content"]["application/x-www-form-urlencoded"]["schema"];
    assert!(
        form["properties"]["password"]["description"].is_string(),
        "{body}"
    );
    let body = &document["paths"]["/vm"]["post"]["requestBody"];
    assert_eq!(body["required"], true);
    let form = &body["content"]["application/x-www-form-urlencoded"]["schema"];
    assert!(
        form["required"].as_array().unwrap().contains(&json!("xml")),
        "{body}"
    );
}
