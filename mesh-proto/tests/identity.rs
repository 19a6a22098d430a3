//! Who gets in and who does not: keys, tickets, admission, certificates, revocations.
#![allow(clippy::unwrap_used, reason = "a test says what it expects in the shortest way")]

mod support;

use mesh_proto::{codec, identity::*, record::*, time::*};
use proptest::prelude::*;
use support::*;

fn none() -> Revocations {
    Revocations::new(mesh())
}

fn refusal(reply: &AdmitReply) -> AdmitRefusal {
    match reply {
        AdmitReply::Refused { reason, .. } => *reason,
        AdmitReply::Admitted { .. } | AdmitReply::Welcome { .. } => panic!("let in"),
    }
}

/// Comes with a ticket of these terms; what is said.
fn come(desk: &mut Admission, terms: &Terms, joiner: &NodeKey, now: UnixMillis) -> AdmitReply {
    let invitation = desk.invite(terms, DAY).unwrap();
    let ticket = Ticket::new(vec![], invitation, desk.secret(&terms.nonce));
    let session = session(joiner);
    desk.answer(&AdmitRequest::join(&ticket, &session), &session, &none(), now)
}

fn terms() -> Terms {
    Terms::new(MemberRole::Serve, Nonce([7; 16]))
}

fn list(change: impl FnOnce(&mut RevocationList)) -> Revocations {
    let mut revocations = none();
    let mut list = revocations.list().next(DAY);
    change(&mut list);
    revocations.apply(key(0).id(), &Signed::sign(&list, &key(0)).unwrap()).unwrap();
    revocations
}

#[test]
fn ids_read_back_from_hexadecimal_and_from_base32() {
    let id = key(1).id();
    assert_eq!(id.to_string().parse::<NodeId>().unwrap(), id);
    assert_eq!(id.to_string().to_uppercase().parse::<NodeId>().unwrap(), id);
    assert_eq!("abc".parse::<NodeId>().unwrap_err(), ParseIdError::Length(3));
    assert_eq!("z".repeat(64).parse::<NodeId>().unwrap_err(), ParseIdError::Character);
    assert_eq!(format!("{id:?}"), format!("NodeId({})", id.short()));
}

#[test]
fn secrets_are_in_no_debug_output() {
    let desk = founder();
    let text = format!("{:?} {:?} {:?} {:?}", key(1), ticket(), desk, ticket().secret());
    let seed = format!("{:?}", key(1).seed());
    let secret = format!("{:?}", ticket().secret().expose());
    assert!(!text.contains(seed.trim_matches(['[', ']'])) && !text.contains(secret.trim_matches(['[', ']'])));
    assert!(text.contains("Secret(…)"));
}

#[test]
fn a_signature_is_good_for_its_domain_its_key_and_its_bytes_only() {
    let invitation = ticket().invitation;
    assert!(invitation.open(&key(0).id()).is_ok());
    assert_eq!(invitation.verify(&key(1).id()), Err(BadSignature));
    // The same bytes as another kind of statement.
    let bytes = codec::encode(&AdmitRequest::Join { invitation, proof: [0; 32], ext: codec::Ext::default() }).unwrap();
    for at in [3, 40, bytes.len() - 40] {
        let mut spoiled = bytes.clone();
        spoiled[at] ^= 1;
        if let Ok(AdmitRequest::Join { invitation, .. }) = codec::decode(&spoiled) {
            let touched = at < bytes.len() - 33;
            assert_eq!(invitation.verify(&key(0).id()).is_err(), touched, "byte {at}");
        }
    }
}

#[test]
fn a_key_that_is_no_curve_point_verifies_nothing() {
    assert_eq!(ticket().invitation.verify(&NodeId([0xff; 32])), Err(BadSignature));
    // The neutral element would verify anything under lax rules.
    let mut weak = [0; 32];
    weak[0] = 1;
    assert_eq!(ticket().invitation.verify(&NodeId(weak)), Err(BadSignature));
}

#[test]
fn a_ticket_reads_back_also_wrapped_and_in_capitals() {
    let text = ticket().to_text().unwrap();
    assert!(text.starts_with("meshllm1") && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()));
    assert_eq!(text.parse::<Ticket>().unwrap(), ticket());
    let wrapped = format!("  {}\n {}\n", &text[..100].to_uppercase(), &text[100..]);
    assert_eq!(wrapped.parse::<Ticket>().unwrap(), ticket());
}

#[test]
fn a_bad_ticket_says_what_is_wrong_with_it() {
    let text = ticket().to_text().unwrap();
    assert_eq!(" \n".parse::<Ticket>().unwrap_err(), TicketError::Empty);
    assert_eq!("endpointabc".parse::<Ticket>().unwrap_err(), TicketError::Prefix);
    assert_eq!("meshllm".parse::<Ticket>().unwrap_err(), TicketError::Prefix);
    assert_eq!("meshllm2abc".parse::<Ticket>().unwrap_err(), TicketError::Version('2'));
    let dotted = format!("{}…", &text[..50]);
    assert_eq!(dotted.parse::<Ticket>().unwrap_err(), TicketError::Character { found: '…', at: 51 });
    for end in 8..text.len() {
        assert_eq!(text[..end].parse::<Ticket>().unwrap_err(), TicketError::Checksum, "cut at {end}");
    }
    let long = "meshllm1".to_owned() + &"a".repeat(9000);
    assert!(matches!(long.parse::<Ticket>(), Err(TicketError::TooLong(_))));
}

#[test]
fn a_joiner_with_the_secret_gets_a_certificate_that_anybody_can_check() {
    let mut desk = founder();
    let chain = server(&mut desk, &key(1));
    let cert = chain.open(mesh(), DAY).unwrap();
    assert_eq!((cert.node, cert.role, cert.admits), (key(1).id(), MemberRole::Serve, false));
    assert_eq!(chain.open(MeshId([1; 32]), DAY).unwrap_err(), CertRefusal::OtherMesh);
    let after = DAY.after(CERT_LIFETIME).after(SKEW);
    assert_eq!(chain.open(mesh(), after.after(Millis(1))).unwrap_err(), CertRefusal::Expired);
    assert_eq!(chain.open(mesh(), DAY.before(Millis(3 * SKEW.0))).unwrap_err(), CertRefusal::NotYetValid);
}

#[test]
fn who_lacks_the_secret_learns_nothing_but_that() {
    let mut desk = founder();
    let late = DAY.after(Millis::secs(48 * 3600));
    let invitation = desk.invite(&terms(), DAY).unwrap();
    let ticket = Ticket::new(vec![], invitation, Secret::from_bytes([1; 32]));
    let session = session(&key(1));
    let reply = desk.answer(&AdmitRequest::join(&ticket, &session), &session, &none(), late);
    assert_eq!(refusal(&reply), AdmitRefusal::Proof);
    assert_eq!(desk.refused()[&AdmitRefusal::Proof], 1);
}

#[test]
fn a_proof_is_worth_nothing_in_another_connection_for_another_node_or_from_the_other_side() {
    let secret = Secret::from_bytes([3; 32]);
    let here = session(&key(1));
    let ours = proof(&secret, Side::Joiner, &here);
    assert_ne!(ours, proof(&secret, Side::Admitter, &here));
    assert_ne!(ours, proof(&secret, Side::Joiner, &Session { exporter: [8; 32], ..here.clone() }));
    assert_ne!(ours, proof(&secret, Side::Joiner, &session(&key(2))));

    let mut desk = founder();
    let ticket = ticket();
    let request = AdmitRequest::join(&ticket, &here);
    let elsewhere = Session { exporter: [8; 32], ..here };
    assert_eq!(refusal(&desk.answer(&request, &elsewhere, &none(), DAY)), AdmitRefusal::Proof);
}

#[test]
fn the_joiner_does_not_take_an_imposters_certificate() {
    let mut desk = founder();
    let chain = server(&mut desk, &key(1));
    let reply = AdmitReply::Admitted { chain, proof: [0; 32], ext: codec::Ext::default() };
    assert_eq!(reply.accept(&ticket(), &session(&key(1)), DAY).unwrap_err(), JoinError::Imposter);
    let reply = AdmitReply::refused(AdmitRefusal::Expired);
    let error = reply.accept(&ticket(), &session(&key(1)), DAY).unwrap_err();
    assert_eq!(error.to_string(), "not admitted: the ticket has expired; ask for a new one");
}

#[test]
fn an_invitation_ends() {
    let mut desk = founder();
    let late = DAY.after(INVITATION_LIFETIME).after(Millis(1));
    assert_eq!(refusal(&come(&mut desk, &terms(), &key(1), late)), AdmitRefusal::Expired);
    let early = DAY.before(Millis(2 * SKEW.0));
    assert_eq!(refusal(&come(&mut desk, &terms(), &key(1), early)), AdmitRefusal::NotYetValid);
}

#[test]
fn an_invitation_for_two_admits_two_and_these_again_also_after_a_restart() {
    let mut desk = founder();
    let two = Terms { max_uses: 2, ..terms() };
    for joiner in [1, 2, 1, 2, 1] {
        assert!(matches!(come(&mut desk, &two, &key(joiner), DAY), AdmitReply::Admitted { .. }));
    }
    assert_eq!(refusal(&come(&mut desk, &two, &key(3), DAY)), AdmitRefusal::UsedUp);

    let mut again = founder();
    for (nonce, not_after, nodes) in desk.uses() {
        again.remember(*nonce, not_after, nodes.clone());
    }
    assert_eq!(refusal(&come(&mut again, &two, &key(3), DAY)), AdmitRefusal::UsedUp);
    assert!(matches!(come(&mut again, &two, &key(2), DAY), AdmitReply::Admitted { .. }));
}

#[test]
fn uses_of_what_has_ended_are_forgotten() {
    let mut desk = founder();
    come(&mut desk, &terms(), &key(1), DAY);
    assert_eq!(desk.uses().count(), 1);
    let other = Terms { nonce: Nonce([8; 16]), ..terms() };
    let late = DAY.after(INVITATION_LIFETIME).after(SKEW).after(Millis(1));
    come(&mut desk, &other, &key(1), late);
    assert_eq!(desk.uses().count(), 0);
}

#[test]
fn an_invitation_for_one_node_admits_no_other() {
    let mut desk = founder();
    let bound = Terms { bound: Some(key(1).id()), ..terms() };
    assert_eq!(refusal(&come(&mut desk, &bound, &key(2), DAY)), AdmitRefusal::BoundToAnother);
    assert!(matches!(come(&mut desk, &bound, &key(1), DAY), AdmitReply::Admitted { .. }));
}

#[test]
fn revoked_invitations_and_expelled_nodes_do_not_get_in() {
    let mut desk = founder();
    let session = session(&key(1));
    let request = AdmitRequest::join(&ticket(), &session);
    let revoked = list(|list| list.invitations.push(Nonce([7; 16])));
    assert_eq!(refusal(&desk.answer(&request, &session, &revoked, DAY)), AdmitRefusal::Revoked);
    let expelled = list(|list| list.nodes.push(key(1).id()));
    assert_eq!(refusal(&desk.answer(&request, &session, &expelled, DAY)), AdmitRefusal::Expelled);
}

#[test]
fn only_the_issuer_honours_its_invitation() {
    let mut desk = founder();
    let chain = server(&mut desk, &key(1));
    let mut other = Admission::open(key(1), chain, DAY).unwrap();
    let session = session(&key(2));
    let request = AdmitRequest::join(&ticket(), &session);
    assert_eq!(refusal(&other.answer(&request, &session, &none(), DAY)), AdmitRefusal::NotMine);
    assert_eq!(other.invite(&terms(), DAY).unwrap_err(), AdmissionError::MayNotAdmit);
    let mut stranger = Admission::found(key(9), DAY).unwrap();
    assert_eq!(refusal(&stranger.answer(&request, &session, &none(), DAY)), AdmitRefusal::OtherMesh);
}

#[test]
fn an_admitter_admits_and_its_members_cannot() {
    let mut desk = founder();
    let chain = member(&mut desk, &key(1), &Terms { admits: true, ..terms() });
    let mut admitter = Admission::open(key(1), chain.clone(), DAY).unwrap();
    let theirs = server(&mut admitter, &key(2));
    assert_eq!(theirs.open(mesh(), DAY).unwrap().issuer, key(1).id());
    let more = Terms { admits: true, ..terms() };
    assert_eq!(admitter.invite(&more, DAY).unwrap_err(), AdmissionError::OnlyFounder);

    // A member without the right signs a certificate all the same.
    let plain = server(&mut desk, &key(3));
    let forged = MembershipCert { node: key(4).id(), issuer: key(3).id(), ..plain.open(mesh(), DAY).unwrap() };
    let member = Signed::sign(&forged, &key(3)).unwrap();
    let chain = CertChain { root: key(0).id(), issuer: Some(plain.member), member };
    assert_eq!(chain.open(mesh(), DAY).unwrap_err(), CertRefusal::IssuerMayNotAdmit);
    // And one that claims to come from the founder.
    let forged = MembershipCert { issuer: key(0).id(), ..forged };
    let chain = CertChain { root: key(0).id(), issuer: None, member: Signed::sign(&forged, &key(3)).unwrap() };
    assert!(matches!(chain.open(mesh(), DAY).unwrap_err(), CertRefusal::Forged(_)));
    // An admitter's gift of the right to admit.
    let gift = MembershipCert { admits: true, ..theirs.open(mesh(), DAY).unwrap() };
    let chain = CertChain { member: Signed::sign(&gift, &key(1)).unwrap(), ..theirs.clone() };
    assert_eq!(chain.open(mesh(), DAY).unwrap_err(), CertRefusal::IssuerMayNotAdmit);
    // The admitter is expelled: what it signed goes with it.
    let expelled = list(|list| list.nodes.push(key(1).id()));
    assert_eq!(theirs.open_unrevoked(&expelled, DAY).unwrap_err(), CertRefusal::Revoked);
}

#[test]
fn a_member_renews_without_a_ticket_and_nobody_else_with_its_certificate() {
    let mut desk = founder();
    let chain = server(&mut desk, &key(1));
    let later = DAY.after(Millis(CERT_LIFETIME.0 / 2));
    let request = AdmitRequest::Renew { chain: chain.clone(), ext: codec::Ext::default() };
    let reply = desk.answer(&request, &session(&key(1)), &none(), later);
    let renewed = reply.renewed(mesh(), key(1).id(), later).unwrap();
    assert!(renewed.open(mesh(), later).unwrap().not_after > chain.open(mesh(), later).unwrap().not_after);
    let reply = desk.answer(&request, &session(&key(2)), &none(), later);
    assert_eq!(refusal(&reply), AdmitRefusal::Certificate);
    let expelled = list(|list| list.nodes.push(key(1).id()));
    assert_eq!(refusal(&desk.answer(&request, &session(&key(1)), &expelled, later)), AdmitRefusal::Expelled);
}

fn hello(chain: &CertChain) -> AdmitRequest {
    AdmitRequest::Hello { chain: chain.clone(), ext: codec::Ext::default() }
}

#[test]
fn a_member_that_says_hello_is_welcomed_and_each_end_knows_the_other() {
    let mut desk = founder();
    let chain = server(&mut desk, &key(1));
    // Any member answers, one without the right to admit too.
    let theirs = member(&mut desk, &key(2), &terms());
    let mut other = Admission::open(key(2), theirs, DAY).unwrap();
    for (answering, desk) in [(key(0), &mut desk), (key(2), &mut other)] {
        let reply = desk.answer(&hello(&chain), &session(&key(1)), &none(), DAY);
        assert_eq!(reply.welcomed(answering.id(), &none(), DAY).unwrap().node, answering.id());
        assert!(desk.refused().is_empty());
        // It is no admission.
        let error = reply.renewed(mesh(), key(1).id(), DAY).unwrap_err();
        assert_eq!(error, JoinError::Refused(AdmitRefusal::Malformed));
    }
}

#[test]
fn only_a_member_in_its_own_name_is_welcomed() {
    let mut desk = founder();
    let chain = server(&mut desk, &key(1));
    let mut say = |chain: &CertChain, who: u64, revocations: &Revocations, now: UnixMillis| {
        refusal(&desk.answer(&hello(chain), &session(&key(who)), revocations, now))
    };
    // With another node's chain, a chain of one's own making, one of another mesh, one that is over.
    assert_eq!(say(&chain, 2, &none(), DAY), AdmitRefusal::Certificate);
    let cert = MembershipCert { node: key(2).id(), ..chain.open(mesh(), DAY).unwrap() };
    let forged = CertChain { member: Signed::sign(&cert, &key(2)).unwrap(), ..chain.clone() };
    assert_eq!(say(&forged, 2, &none(), DAY), AdmitRefusal::Certificate);
    let mut elsewhere = Admission::found(key(9), DAY).unwrap();
    assert_eq!(say(&server(&mut elsewhere, &key(2)), 2, &none(), DAY), AdmitRefusal::OtherMesh);
    let over = DAY.after(CERT_LIFETIME).after(SKEW).after(Millis(1));
    assert_eq!(say(&chain, 1, &none(), over), AdmitRefusal::Certificate);
    // Expelled, or its certificate taken back.
    let expelled = list(|list| list.nodes.push(key(1).id()));
    assert_eq!(say(&chain, 1, &expelled, DAY), AdmitRefusal::Expelled);
    let serial = chain.open(mesh(), DAY).unwrap().serial;
    let revoked = list(|list| list.serials.push(serial));
    assert_eq!(say(&chain, 1, &revoked, DAY), AdmitRefusal::Expelled);
    assert_eq!(desk.refused().values().sum::<u64>(), 6);
}

#[test]
fn a_welcome_counts_only_from_the_node_at_the_other_end() {
    let mut desk = founder();
    let chain = server(&mut desk, &key(1));
    let welcome = desk.answer(&hello(&chain), &session(&key(1)), &none(), DAY);
    // Somebody else sends the founder's chain on.
    let error = welcome.welcomed(key(2).id(), &none(), DAY).unwrap_err();
    assert_eq!(error, JoinError::Certificate(CertRefusal::OtherNode));
    let expelled = list(|list| list.nodes.push(key(0).id()));
    let error = welcome.welcomed(key(0).id(), &expelled, DAY).unwrap_err();
    assert_eq!(error, JoinError::Certificate(CertRefusal::Revoked));
    let elsewhere = Revocations::new(MeshId([1; 32]));
    let error = welcome.welcomed(key(0).id(), &elsewhere, DAY).unwrap_err();
    assert_eq!(error, JoinError::Certificate(CertRefusal::OtherMesh));
    let refused = AdmitReply::refused(AdmitRefusal::Expelled);
    let error = refused.welcomed(key(0).id(), &none(), DAY).unwrap_err();
    assert_eq!(error, JoinError::Refused(AdmitRefusal::Expelled));
    // An admission is no answer to a hello.
    let admitted = come(&mut desk, &terms(), &key(3), DAY);
    let error = admitted.welcomed(key(0).id(), &none(), DAY).unwrap_err();
    assert_eq!(error, JoinError::Refused(AdmitRefusal::Malformed));
}

#[test]
fn revocation_lists_only_grow_and_only_the_founder_signs_them() {
    let mut here = list(|list| list.serials.push([1; 16]));
    assert_eq!(here.number(), 1);
    let old = Signed::sign(&RevocationList::empty(mesh()), &key(0)).unwrap();
    let error = here.apply(key(0).id(), &old).unwrap_err();
    assert_eq!(error, RevocationRefusal::Stale { found: 0, current: 1 });
    let next = here.list().next(DAY);
    assert!(next.serials.contains(&[1; 16]));
    let forged = Signed::sign(&next, &key(1)).unwrap();
    assert!(matches!(here.apply(key(0).id(), &forged), Err(RevocationRefusal::Forged(_))));
    assert_eq!(here.apply(key(1).id(), &forged).unwrap_err(), RevocationRefusal::OtherMesh);
    here.apply(key(0).id(), &Signed::sign(&next, &key(0)).unwrap()).unwrap();
    assert_eq!(here.number(), 2);
}

#[test]
fn two_lists_of_one_number_end_as_one_on_all_nodes() {
    let sign = |node: u64| {
        let mut list = RevocationList::empty(mesh()).next(DAY);
        list.nodes.push(key(node).id());
        Signed::sign(&list, &key(0)).unwrap()
    };
    let (a, b, root) = (sign(1), sign(2), key(0).id());
    let (mut first, mut second) = (none(), none());
    let _ = (first.apply(root, &a), first.apply(root, &b));
    let _ = (second.apply(root, &b), second.apply(root, &a));
    assert_eq!(first.list(), second.list());
}

#[test]
fn refusals_of_a_newer_build_are_kept_as_numbers() {
    for code in 0..40u16 {
        assert_eq!(u16::from(AdmitRefusal::from(code)), code);
    }
    assert_eq!(AdmitRefusal::from(39), AdmitRefusal::Other(39));
    for byte in 0..=255u8 {
        assert_eq!(u8::from(ModelState::from(byte)), byte);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_ticket_with_any_character_changed_is_refused_and_any_text_is_survived(
        at in 0usize..600, to in "[a-z2-7]", text in ".{0,80}"
    ) {
        thread_local! { static TEXT: String = ticket().to_text().unwrap(); }
        TEXT.with(|good| {
            let mut bad = good.clone();
            let at = at % bad.len();
            bad.replace_range(at..=at, &to);
            assert_eq!(bad.parse::<Ticket>().is_ok(), &bad == good);
        });
        let _ = text.parse::<Ticket>();
        let _ = format!("meshllm1{text}").parse::<Ticket>();
    }
}
