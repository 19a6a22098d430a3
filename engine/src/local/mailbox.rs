//! What callers and the worker's thread share: the mailbox, beside the house; must not know tokens or devices.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use mesh_proto::GenerateError;

use crate::{house::House, local::request::Request};

/// Requests on their way to the worker.
#[derive(Debug)]
pub(super) struct Mailbox {
    pub(super) house: Arc<House>,
    mail: Mutex<Mail>,
    bell: Condvar,
}

#[derive(Debug, Default)]
struct Mail {
    requests: Vec<Request>,
    /// Somebody read an event, or left.
    rung: bool,
    /// The engine is being dropped.
    stop: bool,
    /// The worker takes nothing more.
    closed: bool,
}

/// What the worker finds in its mailbox.
pub(super) struct Delivery {
    /// New requests, oldest first.
    pub(super) requests: Vec<Request>,
    /// Whether to end.
    pub(super) stop: bool,
}

impl Mailbox {
    pub(super) fn new(house: Arc<House>) -> Self {
        Self { house, mail: Mutex::default(), bell: Condvar::new() }
    }

    fn mail(&self) -> MutexGuard<'_, Mail> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a request to the worker, or says why not.
    pub(super) fn post(&self, request: Request) -> Result<(), GenerateError> {
        let mut mail = self.mail();
        if mail.closed {
            drop(mail);
            return Err(self.house.refusal().unwrap_or(GenerateError::ShuttingDown));
        }
        mail.requests.push(request);
        drop(mail);
        self.bell.notify_one();
        Ok(())
    }

    /// Lets the worker look again: somebody read, or left.
    pub(super) fn ring(&self) {
        self.mail().rung = true;
        self.bell.notify_one();
    }

    /// Ends the worker.
    pub(super) fn stop(&self) {
        self.mail().stop = true;
        self.bell.notify_one();
    }

    /// Worker: what has come; waits for something if `idle`.
    pub(super) fn take(&self, idle: bool) -> Delivery {
        let mut mail = self.mail();
        while idle && mail.requests.is_empty() && !mail.rung && !mail.stop {
            mail = self.bell.wait(mail).unwrap_or_else(PoisonError::into_inner);
        }
        mail.rung = false;
        // Who is not taken in before the end is found by `close`.
        let requests = if mail.stop { Vec::new() } else { std::mem::take(&mut mail.requests) };
        Delivery { requests, stop: mail.stop }
    }

    /// Worker: takes nothing more; callers get `error` from now on. Returns what was not taken.
    pub(super) fn close(&self, error: GenerateError) -> Vec<Request> {
        let mut mail = self.mail();
        mail.closed = true;
        self.house.close(Some(error));
        std::mem::take(&mut mail.requests)
    }
}
