//! This node in its mesh: endpoint, admission, links, gossip, and the task that drives mesh-proto's machines; must not
//! know HTTP, or how a generation is routed.
//!
//! ```text
//! strangers ── mesh-llm/admit/1 ─→ admit (one request, one reply) ─┐
//! members ──── mesh-llm/mesh/1 ──→ links (anti-entropy, probes) ───┤→ mail → brain: Directory, Suspicion, Placement
//!              iroh-gossip ──────→ gossip (fresh records) ─────────┘        │
//!              mesh-llm/infer/1 ─→ tunnel::Serve → local engines            └→ view → router, API, operator
//! servers ──── mesh-llm/files/1 ─→ files (who has which model file)
//!              iroh-blobs ───────→ files (its bytes)
//! ```
//! The gate stands before all of them: without membership a connection ends with its handshake, whatever it wanted, but
//! for the admission desk.

mod admit;
mod alpn;
mod brain;
mod clock;
mod control;
mod endpoint;
mod error;
mod files;
mod gate;
pub mod gossip;
mod home;
mod join;
mod links;
mod mail;
mod offers;
mod own;
mod reach;
mod view;

use std::{path::Path, sync::Arc, time::Duration};

use catalog::hub::Elsewhere;
use iroh::protocol::{IncomingFilterOutcome, Router as Protocols};
use mesh_proto::{
    ModelId,
    identity::{MemberRole, MeshId, Ticket},
};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

pub use error::MeshError;
pub use files::FilesOptions;
pub use view::{Joining, MeshModel, Peer, View};

pub(crate) use alpn::INFER;
pub(crate) use clock::local as local_time;
pub(crate) use endpoint::{Net, node_id};
pub(crate) use own::Sketches;

use self::{
    admit::Desk,
    files::{Files, Sends},
    gate::{Gate, Members},
    gossip::Fast,
    home::{Home, replace},
    links::Links,
    mail::{Control, Mail},
    own::Own,
};
use crate::{
    cli::{MeshOptions, Relay, Way},
    local::LocalEngines,
    shelf::Shelf,
    tunnel::{Handover, HandsOver, Pool, Serve},
};

/// Letters that wait for the mesh's task; whoever writes more waits.
const MAIL: usize = 1024;
/// How long a goodbye may take to reach the peers.
const FAREWELL: Duration = Duration::from_millis(300);

/// A node's membership, from the start of joining to the goodbye. See the module's page.
pub struct Mesh {
    view: watch::Receiver<Arc<View>>,
    mail: mpsc::Sender<Mail>,
    net: Net,
    pool: Pool,
    links: Links,
    serve: Serve,
    sketches: Sketches,
    files: Option<Files>,
    handover: watch::Sender<Option<HandsOver>>,
    protocols: Protocols,
    locals: LocalEngines,
    role: MemberRole,
}

/// Opens the node's sockets and begins to join; returns at once, whatever the network does. Without `files`, model files
/// neither come from other nodes nor go there.
///
/// # Errors
/// When the state folder, the key, the sockets or the ticket cannot be used.
pub async fn start(
    options: MeshOptions,
    locals: LocalEngines,
    shelf: Shelf,
    budget: Option<u64>,
    files: Option<FilesOptions>,
) -> Result<Arc<Mesh>, MeshError> {
    let home = Home::open(&options.state)?;
    let key = home.key()?;
    let mesh = match &options.way {
        Way::Found { .. } => MeshId::of(&key.id()),
        Way::Join(tickets) => join::mesh_of(tickets)?,
    };
    let drawer = home.drawer(mesh)?;
    let members = Members::default();
    let net = Net::bind(&key, &options, home.ports(), Gate::new(members.clone())).await?;
    home.keep_ports(net.ports());
    let (mail, letters) = mpsc::channel(MAIL);
    let links = Links::new(net.clone(), mail.clone());
    let fast = Fast::spawn(net.clone(), mesh, mail.clone());
    let sketches = Sketches::default();
    let (handover, handed) = watch::channel(None);
    let serve = Serve::new(locals.clone(), mesh, sketches.clone(), handed as Handover);
    let places = Arc::new(Semaphore::new(admit::MAX_STRANGERS));
    let busy = places.clone();
    let mut protocols = Protocols::builder(net.endpoint.clone())
        // While many knock, an address must prove itself before it costs a handshake.
        .incoming_filter(Arc::new(move |incoming| {
            let crowded = busy.available_permits() < admit::MAX_STRANGERS / 2;
            if crowded && !incoming.remote_addr_validated() {
                IncomingFilterOutcome::Retry
            } else {
                IncomingFilterOutcome::Accept
            }
        }))
        .accept(alpn::ADMIT, Desk::new(mail.clone(), places))
        .accept(alpn::MESH, links.clone())
        .accept(alpn::INFER, serve.clone())
        .accept(alpn::GOSSIP, fast.gossip());
    let name = match &options.way {
        Way::Found { name } => name.clone(),
        Way::Join(tickets) => tickets.first().and_then(join::name_in).or_else(|| drawer.name()).unwrap_or_default(),
    };
    let joining = match &options.way {
        Way::Found { .. } => Joining::Founded,
        Way::Join(_) => Joining::Joining { last_error: None },
    };
    let (shown, view) = watch::channel(Arc::new(View::new(key.id(), mesh, name.clone(), joining)));
    let role = options.role;
    // A founder that was never met by anybody waits for nobody.
    let expects = matches!(options.way, Way::Join(_)) || !drawer.peers().is_empty();
    let files = files.filter(|_| role == MemberRole::Serve);
    let files = files.and_then(|files| Files::new(files, &options.state, net.clone(), view.clone(), expects));
    let shares = files.as_ref().is_some_and(Files::shares);
    if let Some(files) = files.as_ref().filter(|files| files.shares()) {
        protocols = protocols.accept(alpn::FILES, files.clone()).accept(alpn::BLOBS, Sends::new(files));
    }
    let protocols = protocols.spawn();
    let membership = join::Membership {
        home,
        drawer,
        key,
        mesh,
        name,
        options,
        net: net.clone(),
        links: links.clone(),
        fast,
        members,
        locals: locals.clone(),
        shelf,
        own: Own::new(sketches.clone(), budget, shares),
        mail: mail.clone(),
        view: shown,
    };
    tokio::spawn(membership.run(letters));
    let pool = Pool::new(net.clone());
    Ok(Arc::new(Mesh { view, mail, pool, net, links, serve, sketches, files, handover, protocols, locals, role }))
}

impl Mesh {
    /// The mesh as this node sees it now.
    pub fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    /// Wakes whenever that changes.
    pub fn subscribe(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }

    /// A client asked for this model. Never waits.
    pub fn asked(&self, model: ModelId) {
        // Where the mesh's task is that busy, one request more is no news.
        let _ = self.mail.try_send(Mail::Asked(model));
    }

    /// The other nodes, as those who may have a file of the hub.
    pub fn elsewhere(&self) -> Option<Arc<dyn Elsewhere>> {
        self.files.clone().map(|files| Arc::new(files) as Arc<dyn Elsewhere>)
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(crate) fn sketches(&self) -> &Sketches {
        &self.sketches
    }

    /// Whether nobody reads the mail yet: there is nobody to say goodbye to either.
    fn is_joining(&self) -> bool {
        matches!(self.view().joining, Joining::Joining { .. })
    }

    /// Takes nothing new from peers, and hands their running generations over where another node serves the model.
    /// What nobody else serves runs on.
    pub async fn drain(&self) {
        let (reply, told) = oneshot::channel();
        if !self.is_joining() && self.mail.send(Mail::Control(Control::Drain { reply })).await.is_ok() {
            // The record is out; a peer that has not seen it yet is told with each refusal.
            let _ = told.await;
        }
        let view = self.view.clone();
        self.handover.send_replace(Some(Arc::new(move |model| view.borrow().others_serve(model))));
        let (handover, mut view) = (self.handover.clone(), self.view.clone());
        // Somebody may come to serve a model only now, because this node gave up its place.
        tokio::spawn(async move {
            while view.changed().await.is_ok() {
                handover.send_modify(|_| {});
            }
        });
    }

    /// Says goodbye and closes everything.
    pub async fn leave(&self) {
        let (reply, told) = oneshot::channel();
        if !self.is_joining() && self.mail.send(Mail::Control(Control::Leave { reply })).await.is_ok() {
            let _ = told.await;
            tokio::time::sleep(FAREWELL).await;
        }
        if let Err(error) = self.protocols.shutdown().await {
            tracing::debug!(%error, "a protocol's task ended badly");
        }
        self.net.endpoint.close().await;
    }
}

/// Writes a ticket for its owner's eyes only.
fn write_ticket(path: &Path, ticket: &Ticket) -> Result<(), MeshError> {
    let text = ticket.to_text().map_err(|_| MeshError::Ticket(mesh_proto::identity::TicketError::Empty))?;
    replace(path, format!("{text}\n").as_bytes())
        .map_err(|cause| MeshError::TicketFile { path: path.to_owned(), cause })
}
