//! What belongs to one guest: its tags, its name, its devices, its console.

use actix_web::{HttpRequest, HttpResponse, Responder, web};
use pvc_api::message::{ErrorReply, Message};
use pvc_api::vm::{DeviceOrderStatus, Task, VmConsole, VmTags};
use pvc_common::store::Store;
use pvc_core::device_order::DeviceAction;
use pvc_core::ids::{TagName, VmName};
use serde::Deserialize;
use utoipa::{IntoParams, OpenApi};

use super::{begun, message, resource};
use crate::access::Caller;
use crate::app::App;
use crate::error::ApiError;
use crate::extract::{self, Params};
use crate::reply::Shown;
use crate::vm::tags::Protection;
use crate::vm::{By, console, devices, record, rename, tags};

pub(super) fn configure<S: Store>(services: &mut web::ServiceConfig) {
    services
        .service(
            resource("/vm/{vm}/tags")
                .route(web::get().to(show_tags::<S>))
                .route(web::post().to(change_tags::<S>)),
        )
        .service(resource("/vm/{vm}/rename").route(web::post().to(rename::<S>)))
        .service(
            resource("/vm/{vm}/device")
                .route(web::get().to(show_device::<S>))
                .route(web::post().to(attach_device::<S>))
                .route(web::delete().to(detach_device::<S>)),
        )
        .service(resource("/vm/{vm}/console").route(web::get().to(console::<S>)));
}

#[derive(OpenApi)]
#[openapi(paths(
    show_tags,
    change_tags,
    rename,
    show_device,
    attach_device,
    detach_device,
    console
))]
pub(crate) struct Document;

/// A guest's tags.
#[utoipa::path(
    get, path = "/vm/{vm}/tags", operation_id = "vm_tags", tag = "vm",
    params(("vm" = String, Path, description = "The guest's name or UUID")),
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "Its tags", body = VmTags),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 404, description = "There is no such guest", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn show_tags<S: Store>(
    app: web::Data<App<S>>,
    vm: web::Path<String>,
) -> Result<impl Responder, ApiError> {
    let view = app.view()?;
    let found = tags::show(&view, record::find_in(&app, &view, &vm)?)?;
    Ok(Shown(found))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TagAction {
    Add,
    Remove,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct TagParams {
    /// `add` or `remove`.
    #[param(value_type = String)]
    action: TagAction,
    /// The tag.
    #[serde(deserialize_with = "extract::word")]
    #[param(value_type = String)]
    tag: TagName,
    /// Whether it can't be removed any more; for `add`.
    #[serde(default, deserialize_with = "extract::boolean")]
    protected: bool,
}

/// Puts a tag on a guest, or takes one off. What is so already is success.
#[utoipa::path(
    post, path = "/vm/{vm}/tags", operation_id = "change_vm_tags", tag = "vm",
    params(("vm" = String, Path, description = "The guest's name or UUID"), TagParams),
    security(("token" = ["operator"])),
    responses(
        (status = 200, description = "It is so", body = Message),
        (status = 400, description = "A parameter is missing or wrong; the message names it", body = ErrorReply),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 404, description = "There is no such guest", body = ErrorReply),
        (status = 409, description = "The tag is protected", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn change_tags<S: Store>(
    app: web::Data<App<S>>,
    vm: web::Path<String>,
    Params(params): Params<TagParams>,
) -> Result<impl Responder, ApiError> {
    let text = app
        .promptly(async {
            let id = record::find(&app, &vm)?;
            match params.action {
                TagAction::Add => {
                    let protection = if params.protected {
                        Protection::Protected
                    } else {
                        Protection::None
                    };
                    tags::add(&app.store, id, &params.tag, protection).await
                }
                TagAction::Remove => tags::remove(&app.store, id, &params.tag).await,
            }
        })
        .await?;
    Ok(message(text))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct RenameParams {
    /// Its new name.
    #[serde(deserialize_with = "extract::word")]
    #[param(value_type = String)]
    new_name: VmName,
}

/// Gives a guest that does not run another name. Its volumes keep theirs.
#[utoipa::path(
    post, path = "/vm/{vm}/rename", operation_id = "rename_vm", tag = "vm",
    params(("vm" = String, Path, description = "The guest's name or UUID"), RenameParams),
    security(("token" = ["operator"])),
    responses(
        (status = 200, description = "Renamed", body = Message),
        (status = 400, description = "A parameter is missing or wrong; the message names it", body = ErrorReply),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 404, description = "There is no such guest", body = ErrorReply),
        (status = 409, description = "It runs, or the name is taken", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn rename<S: Store>(
    app: web::Data<App<S>>,
    vm: web::Path<String>,
    Params(params): Params<RenameParams>,
) -> Result<impl Responder, ApiError> {
    let _turn = app.turn_to_place().await?;
    let text = app
        .promptly(async {
            let id = record::find(&app, &vm)?;
            rename::rename(&app.store, id, &params.new_name).await
        })
        .await?;
    Ok(message(text))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct DeviceParams {
    /// The device's libvirt XML: a `<disk>` or an `<interface>`.
    xml: String,
}

/// Attaches a device to a guest that runs. A disk has to be in the guest's definition already.
#[utoipa::path(
    post, path = "/vm/{vm}/device", operation_id = "attach_vm_device", tag = "vm",
    params(("vm" = String, Path, description = "The guest's name or UUID"), DeviceParams),
    security(("token" = ["operator"])),
    responses(
        (status = 202, description = "Ordered; the header Location tells where it shows", body = Task),
        (status = 400, description = "A parameter is missing or wrong; the message names it", body = ErrorReply),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 404, description = "There is no such guest", body = ErrorReply),
        (status = 409, description = "It does not run, its definition lacks the disk, or another device is under way", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn attach_device<S: Store>(
    app: web::Data<App<S>>,
    vm: web::Path<String>,
    request: HttpRequest,
    Params(params): Params<DeviceParams>,
) -> Result<HttpResponse, ApiError> {
    order(&app, &vm, &request, DeviceAction::Attach, &params.xml).await
}

/// Detaches a device from a guest that runs. Its definition stays as it is.
#[utoipa::path(
    delete, path = "/vm/{vm}/device", operation_id = "detach_vm_device", tag = "vm",
    params(("vm" = String, Path, description = "The guest's name or UUID"), DeviceParams),
    security(("token" = ["operator"])),
    responses(
        (status = 202, description = "Ordered; the header Location tells where it shows", body = Task),
        (status = 400, description = "A parameter is missing or wrong; the message names it", body = ErrorReply),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 404, description = "There is no such guest", body = ErrorReply),
        (status = 409, description = "It does not run, or another device is under way", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn detach_device<S: Store>(
    app: web::Data<App<S>>,
    vm: web::Path<String>,
    request: HttpRequest,
    Params(params): Params<DeviceParams>,
) -> Result<HttpResponse, ApiError> {
    order(&app, &vm, &request, DeviceAction::Detach, &params.xml).await
}

async fn order<S: Store>(
    app: &App<S>,
    vm: &str,
    request: &HttpRequest,
    action: DeviceAction,
    xml: &str,
) -> Result<HttpResponse, ApiError> {
    let caller = Caller::of(request);
    let by = By {
        who: &caller,
        at: app.clock_seconds(),
    };
    let order = app
        .promptly(async {
            let id = record::find(app, vm)?;
            devices::order(&app.store, id, action, xml, &by).await
        })
        .await?;
    Ok(begun(Task {
        task_id: devices::task_id(&order),
        task_name: devices::task_name(action).to_owned(),
        run_on: order.node.to_string(),
    }))
}

/// What has become of the last order to attach or detach a device of a guest. Addition to PVC 1.0.3.
#[utoipa::path(
    get, path = "/vm/{vm}/device", operation_id = "vm_device", tag = "vm",
    params(("vm" = String, Path, description = "The guest's name or UUID")),
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "How far it is", body = DeviceOrderStatus),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 404, description = "There is no such guest, or nobody has ordered it", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn show_device<S: Store>(
    app: web::Data<App<S>>,
    vm: web::Path<String>,
) -> Result<impl Responder, ApiError> {
    let view = app.view()?;
    let found = devices::show(&view, record::find_in(&app, &view, &vm)?)?;
    Ok(Shown(found))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ConsoleParams {
    /// How many lines; 10 if not given.
    #[serde(default, deserialize_with = "extract::optional_word")]
    #[param(value_type = Option<u32>)]
    lines: Option<u32>,
}

/// The last lines of a guest's console, as its node has published them.
#[utoipa::path(
    get, path = "/vm/{vm}/console", operation_id = "vm_console", tag = "vm",
    params(("vm" = String, Path, description = "The guest's name or UUID"), ConsoleParams),
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "The lines", body = VmConsole),
        (status = 400, description = "A parameter is wrong; the message names it", body = ErrorReply),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 404, description = "There is no such guest", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn console<S: Store>(
    app: web::Data<App<S>>,
    vm: web::Path<String>,
    Params(params): Params<ConsoleParams>,
) -> Result<impl Responder, ApiError> {
    let lines = usize::try_from(params.lines.unwrap_or(10)).unwrap_or(usize::MAX);
    let found = app
        .promptly(async {
            let id = record::find(&app, &vm)?;
            console::show(&app.store, id, lines).await
        })
        .await?;
    Ok(Shown(found))
}
