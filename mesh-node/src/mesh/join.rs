//! From a ticket, or a key alone, to a membership that stands; must not know what a member does then.

use std::{sync::Arc, time::Duration};

use mesh_proto::{
    codec::Ext,
    identity::{
        Admission, AdmitRefusal, CertChain, Contact, JoinError, MemberRole, MeshId, NodeKey, Nonce, Revocations, Terms,
        Ticket,
    },
};
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

use super::{
    MeshError, admit,
    admit::AskError,
    brain::{Brain, Parts},
    clock,
    endpoint::Net,
    gate::Members,
    gossip::Fast,
    home::{Drawer, Given, Home},
    links::Links,
    mail::Mail,
    own::Own,
    view::{Joining, View},
    write_ticket,
};
use crate::{
    cli::{MeshOptions, Relay, Way, say},
    local::LocalEngines,
    shelf::Shelf,
};

/// Between two rounds of asking to be let in. Unit: seconds; default 0.5 and doubling up to 15, a guess: an operator who
/// starts both machines by hand waits no longer than he types.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));
/// After a refusal that only a new ticket mends.
const REFUSED_RETRY: Duration = Duration::from_secs(30);
/// Tag of the mesh's name in a ticket's additions.
const NAME_TAG: u16 = 1;
/// How long an endpoint may take to learn its own addresses before its ticket is written.
const ADDRESS_WAIT: Duration = Duration::from_secs(5);

/// The mesh that all these tickets are for.
pub(super) fn mesh_of(tickets: &[Ticket]) -> Result<MeshId, MeshError> {
    let mut meshes = tickets.iter().map(|ticket| ticket.invitation.claim().map(|invitation| invitation.mesh));
    let unreadable = |error| MeshError::Ticket(mesh_proto::identity::TicketError::Content(error));
    let first =
        meshes.next().ok_or(MeshError::Ticket(mesh_proto::identity::TicketError::Empty))?.map_err(unreadable)?;
    for mesh in meshes {
        if mesh.map_err(unreadable)? != first {
            return Err(MeshError::TwoMeshes);
        }
    }
    Ok(first)
}

/// What people call the mesh, as a ticket says.
pub(super) fn name_in(ticket: &Ticket) -> Option<String> {
    String::from_utf8(ticket.ext.get(NAME_TAG)?.to_vec()).ok()
}

/// A ticket of this node's own, with where it can be reached.
pub(super) fn ticket(
    admission: &Admission,
    terms: &Terms,
    contact: Contact,
    name: &str,
) -> Result<(Ticket, Given), mesh_proto::identity::AdmissionError> {
    let now = clock::unix();
    let invitation = admission.invite(terms, now)?;
    let given = Given { invitation: invitation.clone(), made_at: now };
    Ok((assemble(admission, &given, terms.nonce, contact, name), given))
}

/// The same ticket again.
pub(super) fn assemble(admission: &Admission, given: &Given, nonce: Nonce, contact: Contact, name: &str) -> Ticket {
    let mut ticket = Ticket::new(vec![contact], given.invitation.clone(), admission.secret(&nonce));
    if !name.is_empty() {
        ticket.ext = Ext::default().with(NAME_TAG, name.as_bytes().to_vec());
    }
    ticket
}

/// All that a membership is made of.
pub(super) struct Membership {
    pub(super) home: Home,
    pub(super) drawer: Drawer,
    pub(super) key: NodeKey,
    pub(super) mesh: MeshId,
    pub(super) name: String,
    pub(super) options: MeshOptions,
    pub(super) net: Net,
    pub(super) links: Links,
    pub(super) fast: Fast,
    pub(super) members: Members,
    pub(super) locals: LocalEngines,
    pub(super) shelf: Shelf,
    pub(super) own: Own,
    pub(super) mail: mpsc::Sender<Mail>,
    pub(super) view: watch::Sender<Arc<View>>,
}

impl Membership {
    /// Becomes a member, however long that takes, and then lives as one.
    pub(super) async fn run(self, letters: mpsc::Receiver<Mail>) {
        let mut revocations = Revocations::new(self.mesh);
        if let Some((root, list)) = self.drawer.revocations()
            && let Err(error) = revocations.apply(root, &list)
        {
            tracing::warn!(%error, "the revocations on disk are no good");
        }
        let (admission, joining) = match &self.options.way {
            Way::Found { .. } => match Admission::found(self.key.clone(), clock::unix()) {
                Ok(admission) => (admission, Joining::Founded),
                Err(error) => return tracing::error!(%error, "no mesh can be founded"),
            },
            Way::Join(tickets) => (self.join(tickets, &revocations).await, Joining::Joined),
        };
        self.drawer.keep_name(&self.name);
        if let Some(path) = self.options.ticket_file.clone() {
            self.hand_out(&admission, &path);
        }
        let Self {
            home, drawer, key, name, options, net, links, fast, members, locals, shelf, own, mail, view, ..
        } = self;
        let tickets = match options.way {
            Way::Found { .. } => Vec::new(),
            Way::Join(tickets) => tickets,
        };
        let mut bootstrap: Vec<Contact> = tickets.into_iter().flat_map(|ticket| ticket.contacts).collect();
        bootstrap.extend(drawer.peers());
        spawn_moves(&net, &mail);
        let own_role = admission.chain().member.claim().map_or(MemberRole::Client, |cert| cert.role);
        let parts = Parts {
            // What the certificate does not allow, nobody would believe.
            role: options.role.max(own_role),
            key,
            name,
            joining,
            net,
            links,
            fast,
            members,
            drawer,
            admission,
            revocations,
            locals,
            shelf,
            own,
            mail,
            view,
            bootstrap,
        };
        Brain::new(parts).run(letters).await;
        drop(home);
    }

    /// Until somebody lets it in, or at once where it was let in before.
    async fn join(&self, tickets: &[Ticket], revocations: &Revocations) -> Admission {
        if let Some(admission) = self.drawer.chain().and_then(|chain| self.stands(chain, revocations)) {
            return admission;
        }
        let mut pause = RETRY.0;
        loop {
            let mut wait = pause;
            for ticket in tickets {
                for contact in &ticket.contacts {
                    match admit::join(&self.net, contact, ticket).await {
                        Ok(chain) => {
                            self.drawer.keep_chain(&chain);
                            if let Some(admission) = self.stands(chain, revocations) {
                                say::note(format!("mesh-llm: joined the mesh {}", self.title()));
                                return admission;
                            }
                        }
                        Err(error) => {
                            if is_final(&error) {
                                wait = REFUSED_RETRY;
                            }
                            self.failed(error.to_string());
                        }
                    }
                }
            }
            sleep(wait).await;
            pause = (pause * 2).min(RETRY.1);
        }
    }

    fn stands(&self, chain: CertChain, revocations: &Revocations) -> Option<Admission> {
        let now = clock::unix();
        let cert = chain.of(self.key.id(), revocations, now);
        let role =
            cert.inspect_err(|error| tracing::info!(%error, "the certificate on disk is no good any more")).ok()?;
        if role.role == MemberRole::Client && self.options.role == MemberRole::Serve {
            say::note("mesh-llm: this ticket is a client's: this node's models serve its own door only");
        }
        Admission::open(self.key.clone(), chain, now).ok()
    }

    fn failed(&self, error: String) {
        let told = |view: &View| matches!(&view.joining, Joining::Joining { last_error: Some(last) } if *last == error);
        if told(&self.view.borrow()) {
            return;
        }
        say::note(format!("mesh-llm: not in the mesh {} yet: {error}", self.title()));
        self.view.send_modify(|view| {
            let mut next = View::clone(view);
            next.joining = Joining::Joining { last_error: Some(error) };
            *view = Arc::new(next);
        });
    }

    fn title(&self) -> String {
        if self.name.is_empty() { self.mesh.short() } else { format!("{} ({})", self.name, self.mesh.short()) }
    }

    /// Writes the ticket that the operator asked for at the start, once there are addresses to put into it: in a task of
    /// its own, since a relay may be out of reach, and the mesh does not wait for one.
    fn hand_out(&self, admission: &Admission, path: &std::path::Path) {
        let terms = Terms::new(MemberRole::Serve, Nonce(rand::random()));
        let (mut ticket, given) = match ticket(admission, &terms, self.net.contact(), &self.name) {
            Ok(made) => made,
            Err(error) => return say::note(format!("mesh-llm: no ticket was written: {error}")),
        };
        let mut invitations = self.drawer.invitations();
        invitations.push(given);
        self.drawer.keep_invitations(&invitations);
        let (net, title, path) = (self.net.clone(), self.title(), path.to_owned());
        let relayed = self.options.relay != Relay::None;
        tokio::spawn(async move {
            let known = async {
                // From outside its own network a node is found over its relay, which it knows later than its addresses.
                while if relayed { net.contact().relay.is_none() } else { net.contact().direct.is_empty() } {
                    sleep(Duration::from_millis(10)).await;
                }
            };
            if tokio::time::timeout(ADDRESS_WAIT, known).await.is_err() {
                let what = if relayed { "reaches no relay" } else { "knows no address of its own" };
                say::note(format!("mesh-llm: this node {what}; its ticket can be used on the LAN only"));
            }
            ticket.contacts = vec![net.contact()];
            match write_ticket(&path, &ticket) {
                Ok(()) => say::note(format!("mesh-llm: a ticket into the mesh {title} is in {}", path.display())),
                Err(error) => say::note(format!("mesh-llm: no ticket was written: {error}")),
            }
        });
    }
}

/// A refusal that asking again will not change.
fn is_final(error: &AskError) -> bool {
    let AskError::Join(error) = error else { return false };
    match error {
        JoinError::Refused(reason) => !matches!(reason, AdmitRefusal::NotYetValid | AdmitRefusal::Malformed),
        _ => true,
    }
}

/// Tells the mesh's task whenever the endpoint's addresses change.
fn spawn_moves(net: &Net, mail: &mpsc::Sender<Mail>) {
    use futures_util::StreamExt;
    let (mut moves, mail) = (net.contacts(), mail.clone());
    tokio::spawn(async move {
        while let Some(contact) = moves.next().await {
            if mail.send(Mail::Moved(contact)).await.is_err() {
                return;
            }
        }
    });
}
