//! Whether the daemon is well: for load balancers and supervisors, which have no token.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use pvc_api::health::Readiness;
use pvc_common::clock::Clock;
use pvc_common::store::Store;

use super::resource;
use crate::app::App;

/// Whether the daemon runs.
pub(crate) const ALIVE: &str = "/healthz";
/// Whether it can show the cluster as it is now.
pub(crate) const READY: &str = "/readyz";

/// Adds these routes, which stand outside of the API's own.
pub(crate) fn configure<S: Store>(services: &mut web::ServiceConfig) {
    services
        .service(resource(ALIVE).route(web::get().to(alive)))
        .service(resource(READY).route(web::get().to(ready::<S>)));
}

/// It runs and answers.
async fn alive() -> HttpResponse {
    HttpResponse::Ok().json(Readiness {
        status: "alive".to_owned(),
        age: None,
    })
}

/// It can show the cluster as it is now.
async fn ready<S: Store>(app: web::Data<App<S>>) -> HttpResponse {
    let age = app
        .mirror()
        .age(app.clock.now())
        .as_ref()
        .map(Duration::as_secs_f64);
    let (code, status) = match app.view() {
        Ok(_) => (StatusCode::OK, "ready"),
        Err(_) if age.is_none() => (StatusCode::SERVICE_UNAVAILABLE, "loading"),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "stale"),
    };
    HttpResponse::build(code).json(Readiness {
        status: status.to_owned(),
        age,
    })
}
