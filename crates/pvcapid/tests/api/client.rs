//! Asking the API, as its clients do.

use std::time::Duration;

use pvc_common::clock::{Clock, HostClock};
use serde_json::Value;
use ureq::Agent;

use crate::common::{Cluster, TOKEN};

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Value,
    pub(crate) request_id: String,
    pub(crate) retry_after: String,
    pub(crate) location: String,
}

impl Reply {
    pub(crate) fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }

    pub(crate) fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }
}

pub(crate) fn agent() -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(20)))
        .build()
        .new_agent()
}

/// Asks with a token (an empty one sends none). `form` goes into the body of requests that have one.
pub(crate) fn ask_with(
    cluster: &Cluster,
    token: &str,
    method: &str,
    path: &str,
    form: Option<&[(&str, &str)]>,
) -> Reply {
    let body = form.map(|form| serde_html_form::to_string(form).unwrap());
    let mut request = ureq::http::Request::builder()
        .method(method)
        .uri(format!("{}/api/v1{path}", cluster.url()));
    if !token.is_empty() {
        request = request.header("X-Api-Key", token);
    }
    let agent = agent();
    let mut response = match body {
        None => agent.run(request.body(()).unwrap()).unwrap(),
        Some(body) => {
            let request = request.header("Content-Type", "application/x-www-form-urlencoded");
            agent.run(request.body(body).unwrap()).unwrap()
        }
    };
    let text = response.body_mut().read_to_string().unwrap();
    let header = |name: &str| {
        response
            .headers()
            .get(name)
            .map(|value| value.to_str().unwrap().to_owned())
            .unwrap_or_default()
    };
    Reply {
        status: response.status().as_u16(),
        request_id: header("X-Request-Id"),
        retry_after: header("Retry-After"),
        location: header("Location"),
        body: serde_json::from_str(&text).unwrap_or(Value::Null),
    }
}

pub(crate) fn get(cluster: &Cluster, path: &str) -> Reply {
    ask_with(cluster, TOKEN, "GET", path, None)
}

pub(crate) fn post(cluster: &Cluster, path: &str, form: &[(&str, &str)]) -> Reply {
    ask_with(cluster, TOKEN, "POST", path, Some(form))
}

pub(crate) fn define(cluster: &Cluster, xml: &str, more: &[(&str, &str)]) -> Reply {
    let mut form = vec![("xml", xml)];
    form.extend_from_slice(more);
    post(cluster, "/vm", &form)
}

pub(crate) fn set_state(cluster: &Cluster, vm: &str, state: &str) -> Reply {
    post(cluster, &format!("/vm/{vm}/state"), &[("state", state)])
}

/// Waits until it is so, for at most ten seconds.
pub(crate) fn eventually(so: impl Fn() -> bool) {
    let clock = HostClock;
    let deadline = clock.now() + Duration::from_secs(10);
    while !so() {
        assert!(clock.now() < deadline, "it did not come to be so");
        std::thread::yield_now();
    }
}
