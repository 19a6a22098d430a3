//! The management API's routes; must not know who may use them.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use axum::{
    Json,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, State},
    http::StatusCode,
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::future::BoxFuture;
use mesh_proto::identity::NodeId;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use tokio::sync::watch;

use super::{
    ControlError, LoadOrder, LocalModelStatus, MeshControl, ModelOrder, NodeStatus, ShownTicket, TicketOrder, Token,
    dto::{Problem, ProblemText},
    guard::{self, Guard},
};
use crate::{
    local::{LocalModel, LocalState},
    shelf::{Shelf, ShelfError},
};

/// Bytes of a request's body. Orders are a line.
const MAX_BODY: usize = 64 << 10;

/// What the operator's requests reach.
#[derive(Clone)]
pub struct Desk {
    /// The node's models.
    pub shelf: Shelf,
    /// Its mesh, if it is in one.
    pub mesh: Option<Arc<dyn MeshControl>>,
    /// Its OpenAI API's address, to be typed into a client.
    pub api: String,
    /// When it started.
    pub started: Instant,
    /// Turned on, it ends its answers and itself.
    pub stopping: watch::Sender<bool>,
}

/// The routes, behind the guard. `address` is where they are served.
pub fn routes(desk: Desk, token: Token, address: SocketAddr) -> axum::Router {
    axum::Router::new()
        .route("/api/status", get(status))
        .route("/api/load", post(load))
        .route("/api/unload", post(unload))
        .route("/api/stop", post(stop))
        .route("/api/tickets", get(tickets).post(new_ticket))
        .route("/api/tickets/{id}", get(show_ticket).delete(revoke_ticket))
        .route("/api/nodes/{id}/expel", post(expel))
        .fallback(|| async { problem(StatusCode::NOT_FOUND, "there is nothing at this path") })
        .method_not_allowed_fallback(|| async {
            problem(StatusCode::METHOD_NOT_ALLOWED, "this path does not take this method")
        })
        .with_state(desk)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(Guard::new(token, address), guard::check))
}

pub(super) fn problem(status: StatusCode, message: impl ToString) -> Response {
    (status, Json(Problem { error: ProblemText { message: message.to_string() } })).into_response()
}

/// A request that was not carried out.
struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        problem(self.0, self.1)
    }
}

impl From<ControlError> for Refusal {
    fn from(error: ControlError) -> Self {
        let status = match error {
            ControlError::NotFound(_) => StatusCode::NOT_FOUND,
            ControlError::Refused(_) => StatusCode::CONFLICT,
            ControlError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, error.to_string())
    }
}

type Answer<T> = Result<Json<T>, Refusal>;

fn done() -> Answer<serde_json::Value> {
    Ok(Json(json!({})))
}

/// Whatever the content type says: the token stands for the sender, and curl's default is no JSON.
fn order<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refusal> {
    let body = if body.trim_ascii().is_empty() { b"{}" } else { &body[..] };
    serde_json::from_slice(body).map_err(|error| Refusal(StatusCode::BAD_REQUEST, format!("the body: {error}")))
}

async fn status(State(desk): State<Desk>) -> Json<NodeStatus> {
    let locals = desk.shelf.locals().all();
    let models: Vec<LocalModelStatus> = locals.values().map(model_status).collect();
    Json(NodeStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        api: desk.api.clone(),
        uptime_s: desk.started.elapsed().as_secs(),
        stopping: *desk.stopping.borrow(),
        running: models.iter().map(|model| model.running).sum(),
        waiting: models.iter().map(|model| model.waiting).sum(),
        models,
        mesh: desk.mesh.as_ref().map(|mesh| mesh.status()),
    })
}

fn model_status(model: &LocalModel) -> LocalModelStatus {
    let (state, error) = match &model.state {
        LocalState::OnDisk => ("on_disk", None),
        LocalState::Loading => ("loading", None),
        LocalState::Ready(_) => ("ready", None),
        LocalState::Failed(reason) => ("failed", Some(reason.clone())),
    };
    let load = model.served().map(|served| served.engine.load()).unwrap_or_default();
    let context = model.served().map_or(model.facts.context_tokens, |served| served.descriptor().context_tokens);
    LocalModelStatus {
        id: model.id.to_string(),
        state: state.to_owned(),
        error,
        pinned: model.pinned,
        engine: model.facts.engine.clone(),
        family: model.facts.family.clone(),
        quantization: model.facts.identity.quantization.clone(),
        context_tokens: context,
        weight_bytes: model.facts.weight_bytes,
        running: load.running,
        waiting: load.waiting,
        capabilities: model
            .served()
            .map_or_else(Vec::new, |served| served.capabilities.words().into_iter().map(str::to_owned).collect()),
    }
}

/// Answers when the model does.
async fn load(State(desk): State<Desk>, body: Bytes) -> Answer<LocalModelStatus> {
    let LoadOrder { model, format } = order(&body)?;
    let id = desk.shelf.find(&model, format.map(Into::into)).await.map_err(|error| match error {
        ShelfError::SameName(_) => Refusal(StatusCode::CONFLICT, error.to_string()),
        ShelfError::Panicked(_) => Refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        ShelfError::Catalog(_) => Refusal(StatusCode::NOT_FOUND, error.to_string()),
    })?;
    desk.shelf.pin(&id, true);
    let failed = |reason| Refusal(StatusCode::INTERNAL_SERVER_ERROR, format!("{id}: {reason}"));
    desk.shelf.load(&id).await.map_err(failed)?;
    let all = desk.shelf.locals().all();
    let model = all.get(&id).ok_or_else(|| failed("it has gone meanwhile".to_owned()))?;
    Ok(Json(model_status(model)))
}

/// Answers when the memory is free.
async fn unload(State(desk): State<Desk>, body: Bytes) -> Answer<serde_json::Value> {
    let ModelOrder { model } = order(&body)?;
    let id = mesh_proto::ModelId::new(&*model);
    if !desk.shelf.locals().all().contains_key(&id) {
        return Err(Refusal(StatusCode::NOT_FOUND, format!("no model called {id} is on this node")));
    }
    desk.shelf.unload(&id).await.map_err(|reason| Refusal(StatusCode::CONFLICT, reason))?;
    desk.shelf.pin(&id, false);
    done()
}

async fn stop(State(desk): State<Desk>) -> Answer<serde_json::Value> {
    desk.stopping.send_replace(true);
    done()
}

/// What the mesh says, or that there is none.
async fn ask_mesh<T: Serialize>(
    desk: &Desk,
    ask: impl for<'a> FnOnce(&'a dyn MeshControl) -> BoxFuture<'a, Result<T, ControlError>>,
) -> Answer<T> {
    let Some(mesh) = &desk.mesh else {
        let message = "this node is in no mesh: start it with --mesh-name NAME or --join TICKET";
        return Err(Refusal(StatusCode::CONFLICT, message.to_owned()));
    };
    Ok(Json(ask(&**mesh).await?))
}

async fn tickets(State(desk): State<Desk>) -> Response {
    ask_mesh(&desk, |mesh| mesh.tickets()).await.into_response()
}

async fn new_ticket(State(desk): State<Desk>, body: Bytes) -> Response {
    match order::<TicketOrder>(&body) {
        Ok(order) => ask_mesh(&desk, |mesh| mesh.ticket(order)).await.into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

async fn show_ticket(State(desk): State<Desk>, Path(id): Path<String>) -> Response {
    let shown =
        ask_mesh(&desk, move |mesh| Box::pin(async move { mesh.show(&id).await.map(|ticket| ShownTicket { ticket }) }));
    shown.await.into_response()
}

async fn revoke_ticket(State(desk): State<Desk>, Path(id): Path<String>) -> Response {
    ask_mesh(&desk, |mesh| mesh.revoke(id)).await.map(|_| done()).into_response()
}

async fn expel(State(desk): State<Desk>, Path(id): Path<String>) -> Response {
    let node: NodeId = match id.parse() {
        Ok(node) => node,
        Err(error) => return problem(StatusCode::BAD_REQUEST, format!("{id:?} is no node: {error}")),
    };
    ask_mesh(&desk, |mesh| mesh.expel(node)).await.map(|_| done()).into_response()
}
