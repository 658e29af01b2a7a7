//! Guests.

use std::sync::Arc;

use actix_web::http::header::CACHE_CONTROL;
use actix_web::{HttpRequest, HttpResponse, Responder, guard, web};
use pvc_api::PREFIX;
use pvc_api::message::{ErrorCode, ErrorReply, Message};
use pvc_api::vm::{LockFlushStatus, Task, Vm, VmMeta, VmNodeReply, VmStateReply};
use pvc_common::clock::Clock;
use pvc_common::keys;
use pvc_common::schema::NewTag;
use pvc_common::store::{Store, ZnodeVersion};
use pvc_core::access::Role;
use pvc_core::ids::{NodeName, TagName};
use pvc_core::states::{MigrationMethod, NodeSelector, VmState};
use serde::Deserialize;
use utoipa::{IntoParams, OpenApi};

use super::{begun, message, resource};
use crate::access::{Caller, audit};
use crate::app::App;
use crate::error::ApiError;
use crate::extract::{self, Params};
use crate::filter::NameFilter;
use crate::reply::Shown;
use crate::unavailable;
use crate::vm::define::{Apply, Definition, Modification};
use crate::vm::list::{Sense, VmFilter};
use crate::vm::meta::Changes;
use crate::vm::moves::{Action, Liveness, MoveRequest};
use crate::vm::record::{self, Record};
use crate::vm::state::Reply;
use crate::vm::transition::{Force, Request};
use crate::vm::{By, define, entries, list, locks, meta, moves, state, undefine};

/// Adds these routes.
pub(crate) fn configure<S: Store>(services: &mut web::ServiceConfig) {
    services
        .service(
            resource("/vm")
                .route(web::get().to(index::<S>))
                .route(web::post().to(create::<S>)),
        )
        .service(
            resource("/vm/{vm}")
                .route(web::get().to(show::<S>))
                .route(
                    web::post()
                        .guard(guard::fn_guard(is_a_name))
                        .to(create_named::<S>),
                )
                .route(web::put().to(modify::<S>))
                .route(web::delete().to(remove::<S>)),
        )
        .service(
            resource("/vm/{vm}/state")
                .route(web::get().to(state::<S>))
                .route(web::post().to(set_state::<S>)),
        )
        .service(
            resource("/vm/{vm}/locks")
                .route(web::get().to(show_locks::<S>))
                .route(web::post().to(flush_locks::<S>)),
        )
        .service(
            resource("/vm/{vm}/meta")
                .route(web::get().to(meta::<S>))
                .route(web::post().to(set_meta::<S>)),
        )
        .service(
            resource("/vm/{vm}/node")
                .route(web::get().to(node::<S>))
                .route(web::post().to(move_to::<S>)),
        );
}

/// Some jobs of PVC 1.0.3 stand where the names of guests do.
fn is_a_name(context: &guard::GuardContext<'_>) -> bool {
    let path = context.head().uri.path();
    let path = path.strip_prefix(PREFIX).unwrap_or_default();
    unavailable::find(&context.head().method, path).is_none()
}

/// Their description.
#[derive(OpenApi)]
#[openapi(
    paths(index, create, create_named, show, modify, remove, state, set_state, node, move_to, meta, set_meta, flush_locks, show_locks),
    tags((name = "vm", description = "Guests"))
)]
pub(crate) struct Document;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// A regular expression over names; it matches anywhere unless it begins with `^` or ends with `$`.
    limit: Option<String>,
    /// Only guests on this node.
    #[serde(default, deserialize_with = "extract::optional_word")]
    #[param(value_type = Option<String>)]
    node: Option<NodeName>,
    /// Only guests in this state.
    #[serde(default, deserialize_with = "extract::optional_word")]
    #[param(value_type = Option<String>)]
    state: Option<VmState>,
    /// Only guests with this tag.
    #[serde(default, deserialize_with = "extract::optional_word")]
    #[param(value_type = Option<String>)]
    tag: Option<TagName>,
    /// Turns `node`, `state` and `tag` round.
    #[serde(default, deserialize_with = "extract::boolean")]
    negate: bool,
}

/// The guests that fit everything that is asked for, sorted by name.
#[utoipa::path(
    get, path = "/vm", operation_id = "list_vms", tag = "vm", params(ListParams),
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "The guests", body = Vec<Vm>),
        (status = 400, description = "A parameter is wrong; the message names it", body = ErrorReply),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 404, description = "No guest fits", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn index<S: Store>(
    app: web::Data<App<S>>,
    request: HttpRequest,
    Params(params): Params<ListParams>,
) -> Result<HttpResponse, ApiError> {
    let filter = VmFilter {
        name: NameFilter::parse(params.limit.as_deref())?,
        node: params.node,
        state: params.state,
        tag: params.tag,
        sense: if params.negate {
            Sense::Negated
        } else {
            Sense::Matching
        },
    };
    let view = app.view()?;
    let guests = || {
        let ids = list::list(&view, &filter)?;
        if ids.is_empty() {
            return Err(ApiError::not_found("No VM fits what was asked for"));
        }
        Ok(ids)
    };
    if view.branch(keys::domains().path()).count() > entries::MOST_AT_ONCE {
        // To put all in their order takes longer than to tell that none has changed.
        if filter.takes_all()
            && let Some(unchanged) = entries::long_unchanged(&app, &view, &request)
        {
            return Ok(unchanged);
        }
        return Ok(entries::streamed(app.clone(), view.clone(), guests()?, &request));
    }
    let make = || {
        app.entries
            .listed(&app.replies, &view, app.clock.wall(), &guests()?)
    };
    let body = if filter.takes_all() {
        let all = view.branch(keys::domains().path());
        app.replies.list("vm", &all, app.clock_seconds(), make)?
    } else {
        Arc::new(make()?)
    };
    Ok(body.answer(&request))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct DefineParams {
    /// The nodes that it may run on: separated by commas, or given several times. Any if none is named.
    #[serde(default)]
    limit: Vec<String>,
    /// The node to put it on; the best one if none is named.
    #[serde(default, deserialize_with = "extract::optional_word")]
    #[param(value_type = Option<String>)]
    node: Option<NodeName>,
    /// How the best node is chosen: `mem`, `memprov`, `load`, `vcpus`, `vms`, or `none` for the cluster's way.
    #[serde(default, deserialize_with = "extract::optional_word")]
    #[param(value_type = Option<String>)]
    selector: Option<NodeSelector>,
    /// Whether it is started when its node becomes ready the next time.
    #[serde(default, deserialize_with = "extract::boolean")]
    autostart: bool,
    /// How it may be moved: `live`, `shutdown`, or `none` for live if possible.
    #[serde(default, deserialize_with = "extract::optional_word")]
    #[param(value_type = Option<String>)]
    migration_method: Option<MigrationMethod>,
    /// How long it may pause at the end of a live migration, in milliseconds; 300 if not given.
    #[serde(default, deserialize_with = "extract::optional_word")]
    #[param(value_type = Option<u32>)]
    migration_max_downtime: Option<u32>,
    /// Tags; may be given several times.
    #[serde(default)]
    user_tags: Vec<String>,
    /// Tags that can not be removed; may be given several times.
    #[serde(default)]
    protected_tags: Vec<String>,
    /// In which order guests are recovered from a dead node: higher first; 0 if not given. Addition to PVC 1.0.3.
    #[serde(default, deserialize_with = "extract::optional_word")]
    #[param(value_type = Option<i32>)]
    recovery_priority: Option<i32>,
    /// Groups of guests that should not share a node: separated by commas, or given several times. Addition to PVC
    /// 1.0.3.
    #[serde(default)]
    anti_affinity: Vec<String>,
    /// Its libvirt XML.
    xml: String,
}

impl DefineParams {
    fn definition(self) -> Result<Definition, ApiError> {
        let limit = names("limit", &self.limit)?;
        let mut tags: Vec<NewTag> = Vec::new();
        for (parameter, names, protected) in [
            ("user_tags", &self.user_tags, false),
            ("protected_tags", &self.protected_tags, true),
        ] {
            for name in names {
                let name =
                    TagName::new(name.as_str()).map_err(|error| ApiError::invalid(parameter, error))?;
                if tags.iter().any(|tag| tag.name == name) {
                    return Err(ApiError::invalid(
                        parameter,
                        format!("tag {name} is given more than once"),
                    ));
                }
                tags.push(NewTag { name, protected });
            }
        }
        Ok(Definition {
            xml: self.xml,
            node: self.node,
            limit,
            selector: self.selector.unwrap_or(NodeSelector::None),
            autostart: self.autostart,
            migration_method: self.migration_method.unwrap_or(MigrationMethod::None),
            migration_max_downtime_ms: self.migration_max_downtime.unwrap_or(300),
            tags,
            recovery_priority: self.recovery_priority.unwrap_or(0),
            anti_affinity: names("anti_affinity", &self.anti_affinity)?,
        })
    }
}

/// The names in a parameter that is given several times, or once with commas, or both.
fn names<T>(parameter: &str, texts: &[String]) -> Result<Vec<T>, ApiError>
where
    T: std::str::FromStr + PartialEq,
    T::Err: std::fmt::Display,
{
    let mut names = Vec::new();
    for text in texts.iter().flat_map(|text| text.split(',')).map(str::trim) {
        if text.is_empty() {
            continue;
        }
        let name: T = text
            .parse()
            .map_err(|error| ApiError::invalid(parameter, error))?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// Defines a guest. It is in state `stop` then.
#[utoipa::path(
    post, path = "/vm", operation_id = "define_vm", tag = "vm", params(DefineParams),
    security(("token" = ["operator"])),
    responses(
        (status = 200, description = "Defined", body = Message),
        (status = 400, description = "A parameter is missing or wrong; the message names it", body = ErrorReply),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 409, description = "Name, UUID or a volume is taken, or no node fits", body = ErrorReply),
        (status = 413, description = "The XML is too large", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn create<S: Store>(
    app: web::Data<App<S>>,
    Params(params): Params<DefineParams>,
) -> Result<impl Responder, ApiError> {
    let definition = params.definition()?;
    let _turn = app.turn_to_place().await?;
    let text = app.promptly(define::define(&app.store, &definition)).await?;
    Ok(message(text))
}

/// Defines a guest. As without the name, which has to be that of the XML.
#[utoipa::path(
    post, path = "/vm/{vm}", operation_id = "define_vm_by_name", tag = "vm",
    params(("vm" = String, Path, description = "The guest's name or UUID"), DefineParams),
    security(("token" = ["operator"])),
    responses(
        (status = 200, description = "Defined", body = Message),
        (status = 400, description = "A parameter is missing or wrong; the message names it", body = ErrorReply),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 409, description = "Name, UUID or a volume is taken, or no node fits", body = ErrorReply),
        (status = 413, description = "The XML is too large", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn create_named<S: Store>(
    app: web::Data<App<S>>,
    vm: web::Path<String>,
    Params(params): Params<DefineParams>,
) -> Result<impl Responder, ApiError> {
    let definition = params.definition()?;
    let guest = define::parse_xml(&definition.xml)?;
    if guest.name.as_str() != vm.as_str() && guest.uuid.to_string() != *vm {
        return Err(ApiError::invalid(
            "xml",
            format!("it describes VM {}, and the request is for {vm}", guest.name),
        ));
    }
    let _turn = app.turn_to_place().await?;
    let text = app.promptly(define::define(&app.store, &definition)).await?;
    Ok(message(text))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ShowParams {
    /// Whether passwords are shown in its XML; for the role `admin` alone. Addition to PVC 1.0.3.
    #[serde(default, deserialize_with = "extract::boolean")]
    secrets: bool,
}

/// One guest, as a list of one.
#[utoipa::path(
    get, path = "/vm/{vm}", operation_id = "show_vm", tag = "vm",
    params(("vm" = String, Path, description = "The guest's name or UUID"), ShowParams),
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "The guest, as a list of one", body = Vec<Vm>),
        (status = 400, description = "A parameter is wrong; the message names it", body = ErrorReply),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 403, description = "Passwords are shown to administrators alone", body = ErrorReply),
        (status = 404, description = "There is no such guest", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn show<S: Store>(
    app: web::Data<App<S>>,
    vm: web::Path<String>,
    request: HttpRequest,
    Params(params): Params<ShowParams>,
) -> Result<HttpResponse, ApiError> {
    if params.secrets && Caller::of(&request).role < Role::Admin {
        return Err(ApiError::new(
            ErrorCode::Forbidden,
            "The passwords in a VM's XML are shown to the role admin alone; ask without secrets",
        ));
    }
    let view = app.view()?;
    let id = record::find_in(&app, &view, &vm)?;
    if params.secrets {
        tracing::info!(vm = %id, by = %Caller::of(&request), "the passwords of a VM were looked at");
        let shown = list::one_with_secrets(&view, app.clock.wall(), id, &app.entries.parsed)?;
        audit::shown_secrets(&app, &request, "show_vm").await;
        return Ok(HttpResponse::Ok()
            .insert_header((CACHE_CONTROL, "no-store"))
            .json([shown]));
    }
    let entry = app.entries.entry(&app.replies, &view, app.clock.wall(), id)?;
    Ok(entry.body(&app.replies).answer(&request))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ModifyParams {
    /// Whether it is restarted, so that the change applies now.
    #[serde(default, deserialize_with = "extract::boolean")]
    restart: bool,
    /// Its new libvirt XML, with the same name and UUID. Where it has `********` for a password, the present one stays.
    xml: String,
    /// The `xml_version` of what was read and changed: if the XML has another by now, nothing is changed and the answer is
    /// 409. Addition to PVC 1.0.3.
    #[serde(default, deserialize_with = "extract::optional_word")]
    #[param(value_type = Option<i32>)]
    xml_version: Option<i32>,
}

/// Replaces a guest's definition.
#[utoipa::path(
    put, path = "/vm/{vm}", operation_id = "modify_vm", tag = "vm",
    params(("vm" = String, Path, description = "The guest's name or UUID"), ModifyParams),
    security(("token" = ["operator"])),
    responses(
        (status = 200, description = "Replaced", body = Message),
        (status = 400, description = "A parameter is missing or wrong; the message names it", body = ErrorReply),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 404, description = "There is no such guest", body = ErrorReply),
        (status = 409, description = "A volume belongs to another guest, or the XML is not that of `xml_version`", body = ErrorReply),
        (status = 413, description = "The XML is too large", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn modify<S: Store>(
    app: web::Data<App<S>>,
    vm: web::Path<String>,
    Params(params): Params<ModifyParams>,
) -> Result<impl Responder, ApiError> {
    let modification = Modification {
        xml: params.xml,
        apply: if params.restart {
            Apply::Now
        } else {
            Apply::AtNextStart
        },
        read: params.xml_version.map(ZnodeVersion),
    };
    let _turn = app.turn_to_place().await?;
    let text = app
        .promptly(async {
            let id = record::find(&app, &vm)?;
            define::modify(&app.store, id, &modification).await
        })
        .await?;
    Ok(message(text))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct RemoveParams {
    /// Whether its volumes are removed as well. Not possible yet.
    #[serde(default, deserialize_with = "extract::boolean")]
    delete_disks: bool,
}

/// Stops a guest and removes its definition. Its volumes are kept.
#[utoipa::path(
    delete, path = "/vm/{vm}", operation_id = "undefine_vm", tag = "vm",
    params(("vm" = String, Path, description = "The guest's name or UUID"), RemoveParams),
    security(("token" = ["operator"])),
    responses(
        (status = 200, description = "Removed", body = Message),
        (status = 400, description = "A parameter is wrong; the message names it", body = ErrorReply),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 404, description = "There is no such guest", body = ErrorReply),
        (status = 409, description = "The guest can not be stopped now", body = ErrorReply),
        (status = 501, description = "Volumes can not be removed yet", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
        (status = 504, description = "The guest was not seen to stop in time", body = ErrorReply),
    )
)]
pub(crate) async fn remove<S: Store>(
    app: web::Data<App<S>>,
    vm: web::Path<String>,
    Params(params): Params<RemoveParams>,
) -> Result<impl Responder, ApiError> {
    if params.delete_disks {
        return Err(ApiError::not_implemented(
            "This release can not remove volumes yet: undefine the VM without delete_disks ('pvc vm undefine'), and remove them with rbd",
        ));
    }
    let id = record::find(&app, &vm)?;
    // Who hangs up has not called it off: a guest that is stopped for it must not stay.
    let text = audit::finished(async move { undefine::undefine(&app, id).await }).await?;
    Ok(message(text))
}

/// A guest's state.
#[utoipa::path(
    get, path = "/vm/{vm}/state", operation_id = "vm_state", tag = "vm",
    params(("vm" = String, Path, description = "The guest's name or UUID")),
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "The state", body = VmStateReply),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 404, description = "There is no such guest", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn state<S: Store>(
    app: web::Data<App<S>>,
    vm: web::Path<String>,
) -> Result<impl Responder, ApiError> {
    let record = read(&app, &vm)?;
    Ok(Shown(VmStateReply {
        name: record.name.to_string(),
        state: record.state.value,
    }))
}

fn read<S: Store>(app: &App<S>, vm: &str) -> Result<Record, ApiError> {
    let view = app.view()?;
    let id = record::find_in(app, &view, vm)?;
    Record::from(&view, id)?.ok_or_else(|| record::unknown(vm))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct StateParams {
    /// `start`, `shutdown`, `stop`, `restart` or `disable`.
    #[serde(deserialize_with = "extract::word")]
    #[param(value_type = String)]
    state: Request,
    /// Overrides the safety check: of a mirror, of a migration, or of an orderly shutdown before `disable`.
    #[serde(default, deserialize_with = "extract::boolean")]
    force: bool,
    /// Answers only when the shutdown or restart is over.
    #[serde(default, deserialize_with = "extract::boolean")]
    wait: bool,
}

/// Asks for another state of a guest. Its node carries it out after the reply, unless `wait` is given.
#[utoipa::path(
    post, path = "/vm/{vm}/state", operation_id = "set_vm_state", tag = "vm",
    params(("vm" = String, Path, description = "The guest's name or UUID"), StateParams),
    security(("token" = ["operator"])),
    responses(
        (status = 200, description = "Asked for, or so already", body = Message),
        (status = 400, description = "A parameter is missing or wrong; the message names it", body = ErrorReply),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 404, description = "There is no such guest", body = ErrorReply),
        (status = 409, description = "Not possible in the guest's present state", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
        (status = 504, description = "Asked for, but not done in the time that a request may wait", body = ErrorReply),
    )
)]
pub(crate) async fn set_state<S: Store>(
    app: web::Data<App<S>>,
    vm: web::Path<String>,
    Params(params): Params<StateParams>,
) -> Result<impl Responder, ApiError> {
    let force = if params.force { Force::Yes } else { Force::No };
    let reply = if params.wait {
        Reply::WhenDone
    } else {
        Reply::AtOnce
    };
    let id = record::find(&app, &vm)?;
    let wanted = params.state;
    let work = async move { state::request(&app, id, wanted, force, reply).await };
    let text = match wanted {
        // Its second half is written when the guest has shut down, whether or not the client waits for that.
        Request::Disable => audit::finished(work).await?,
        Request::Start | Request::Restart | Request::Shutdown | Request::Stop => work.await?,
    };
    Ok(message(text))
}

/// Where a guest is.
#[utoipa::path(
    get, path = "/vm/{vm}/node", operation_id = "vm_node", tag = "vm",
    params(("vm" = String, Path, description = "The guest's name or UUID")),
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "Its node", body = VmNodeReply),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 404, description = "There is no such guest", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn node<S: Store>(
    app: web::Data<App<S>>,
    vm: web::Path<String>,
) -> Result<impl Responder, ApiError> {
    let record = read(&app, &vm)?;
    Ok(Shown(VmNodeReply {
        name: record.name.to_string(),
        node: record.node.value.to_string(),
        last_node: record
            .last_node
            .value
            .map(|node| node.to_string())
            .unwrap_or_default(),
    }))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct MoveParams {
    /// `migrate`: away for a while. `unmigrate`: back home. `move`: for good.
    #[serde(deserialize_with = "extract::word")]
    #[param(value_type = String)]
    action: Action,
    /// The node to go to; the best one if none is named. `unmigrate` knows it.
    #[serde(default, deserialize_with = "extract::optional_word")]
    #[param(value_type = Option<String>)]
    node: Option<NodeName>,
    /// Migrates a guest that is migrated already (its home stays the first one), and puts guests together that should
    /// be kept apart.
    #[serde(default, deserialize_with = "extract::boolean")]
    force: bool,
    /// Answers only when the guest runs there, or is known not to come there.
    #[serde(default, deserialize_with = "extract::boolean")]
    wait: bool,
    /// Refuses what would shut the guest down.
    #[serde(default, deserialize_with = "extract::boolean")]
    force_live: bool,
}

/// Moves a guest to another node. Its node carries it out after the reply, unless `wait` is given. A guest that does not
/// run is put on the other node at once.
#[utoipa::path(
    post, path = "/vm/{vm}/node", operation_id = "move_vm", tag = "vm",
    params(("vm" = String, Path, description = "The guest's name or UUID"), MoveParams),
    security(("token" = ["operator"])),
    responses(
        (status = 200, description = "On its way, there, or so already", body = Message),
        (status = 400, description = "A parameter is missing or wrong; the message names it", body = ErrorReply),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 404, description = "There is no such guest", body = ErrorReply),
        (status = 409, description = "Not possible as things are, or with wait: it did not come there", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
        (status = 504, description = "On its way, but not there in the time that a request may wait", body = ErrorReply),
    )
)]
pub(crate) async fn move_to<S: Store>(
    app: web::Data<App<S>>,
    vm: web::Path<String>,
    Params(params): Params<MoveParams>,
) -> Result<impl Responder, ApiError> {
    let id = record::find(&app, &vm)?;
    let request = MoveRequest {
        action: params.action,
        target: params.node,
        force: if params.force { Force::Yes } else { Force::No },
        liveness: if params.force_live {
            Liveness::LiveOnly
        } else {
            Liveness::AsSet
        },
    };
    let reply = if params.wait {
        Reply::WhenDone
    } else {
        Reply::AtOnce
    };
    Ok(message(moves::request(&app, id, &request, reply).await?))
}

/// How a guest is placed, moved and recovered.
#[utoipa::path(
    get, path = "/vm/{vm}/meta", operation_id = "vm_meta", tag = "vm",
    params(("vm" = String, Path, description = "The guest's name or UUID")),
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "Its settings", body = VmMeta),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 404, description = "There is no such guest", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn meta<S: Store>(
    app: web::Data<App<S>>,
    vm: web::Path<String>,
) -> Result<impl Responder, ApiError> {
    let view = app.view()?;
    let found = meta::show(&view, record::find_in(&app, &view, &vm)?)?;
    Ok(Shown(found))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct MetaParams {
    /// The nodes that it may run on: separated by commas, or given several times; empty for any.
    limit: Option<Vec<String>>,
    /// How the best node is chosen: `mem`, `memprov`, `load`, `vcpus`, `vms`, or `none` for the cluster's way.
    #[serde(default, deserialize_with = "extract::optional_word")]
    #[param(value_type = Option<String>)]
    selector: Option<NodeSelector>,
    /// Whether it is started when its node becomes ready the next time.
    #[serde(default, deserialize_with = "extract::optional_boolean")]
    autostart: Option<bool>,
    /// The provisioner profile that it belongs to; empty for none.
    profile: Option<String>,
    /// How it may be moved: `live`, `shutdown`, or `none` for live if possible.
    #[serde(default, deserialize_with = "extract::optional_word")]
    #[param(value_type = Option<String>)]
    migration_method: Option<MigrationMethod>,
    /// How long it may pause at the end of a live migration, in milliseconds.
    #[serde(default, deserialize_with = "extract::optional_word")]
    #[param(value_type = Option<u32>)]
    migration_max_downtime: Option<u32>,
    /// In which order guests are recovered from a dead node: higher first. Addition to PVC 1.0.3.
    #[serde(default, deserialize_with = "extract::optional_word")]
    #[param(value_type = Option<i32>)]
    recovery_priority: Option<i32>,
    /// Groups of guests that should not share a node: separated by commas, or given several times; empty or `none` for none.
    /// Addition to PVC 1.0.3.
    anti_affinity: Option<Vec<String>>,
}

/// Changes how a guest is placed, moved and recovered. What is not given stays.
#[utoipa::path(
    post, path = "/vm/{vm}/meta", operation_id = "set_vm_meta", tag = "vm",
    params(("vm" = String, Path, description = "The guest's name or UUID"), MetaParams),
    security(("token" = ["operator"])),
    responses(
        (status = 200, description = "Changed", body = Message),
        (status = 400, description = "A parameter is wrong; the message names it", body = ErrorReply),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 404, description = "There is no such guest", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn set_meta<S: Store>(
    app: web::Data<App<S>>,
    vm: web::Path<String>,
    Params(params): Params<MetaParams>,
) -> Result<impl Responder, ApiError> {
    let changes = Changes {
        limit: params.limit.map(|limit| names("limit", &limit)).transpose()?,
        selector: params.selector,
        autostart: params.autostart,
        profile: params.profile,
        migration_method: params.migration_method,
        migration_max_downtime_ms: params.migration_max_downtime,
        recovery_priority: params.recovery_priority,
        anti_affinity: match params.anti_affinity.as_deref() {
            // As with the selector and the method.
            Some([none]) if none == "none" => Some(Vec::new()),
            Some(groups) => Some(names("anti_affinity", groups)?),
            None => None,
        },
    };
    let text = app
        .promptly(async {
            let id = record::find(&app, &vm)?;
            meta::change(&app.store, id, &changes).await
        })
        .await?;
    Ok(message(text))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct LocksParams {
    /// Also in states in which the guest should run, as long as nobody owns it. Addition to PVC 1.0.3.
    #[serde(default, deserialize_with = "extract::boolean")]
    force: bool,
}

/// Removes the locks that a dead client has left on a guest's volumes. The guest's node does it after the reply; its holder
/// is barred from Ceph first.
#[utoipa::path(
    post, path = "/vm/{vm}/locks", operation_id = "flush_vm_locks", tag = "vm",
    params(("vm" = String, Path, description = "The guest's name or UUID"), LocksParams),
    security(("token" = ["operator"])),
    responses(
        (status = 202, description = "Ordered; the header Location tells where it shows", body = Task),
        (status = 400, description = "A parameter is wrong; the message names it", body = ErrorReply),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 404, description = "There is no such guest", body = ErrorReply),
        (status = 409, description = "The locks may be in use, or the guest's node does not run", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn flush_locks<S: Store>(
    app: web::Data<App<S>>,
    vm: web::Path<String>,
    request: HttpRequest,
    Params(params): Params<LocksParams>,
) -> Result<HttpResponse, ApiError> {
    let force = if params.force { Force::Yes } else { Force::No };
    let caller = Caller::of(&request);
    let by = By {
        who: &caller,
        at: app.clock_seconds(),
    };
    let order = app
        .promptly(async {
            let id = record::find(&app, &vm)?;
            locks::order(&app.store, id, force, &by).await
        })
        .await?;
    Ok(begun(Task {
        task_id: order.id.chars().take(8).collect(),
        task_name: "vm.flush_locks".to_owned(),
        run_on: order.node.to_string(),
    }))
}

/// What has become of the last order to remove the locks of a guest's volumes.
#[utoipa::path(
    get, path = "/vm/{vm}/locks", operation_id = "vm_locks", tag = "vm",
    params(("vm" = String, Path, description = "The guest's name or UUID")),
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "How far it is and what was removed", body = LockFlushStatus),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 404, description = "There is no such guest, or nobody has ordered it", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn show_locks<S: Store>(
    app: web::Data<App<S>>,
    vm: web::Path<String>,
) -> Result<impl Responder, ApiError> {
    let view = app.view()?;
    let found = locks::show(&view, record::find_in(&app, &view, &vm)?)?;
    Ok(Shown(found))
}
