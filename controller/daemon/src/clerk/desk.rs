//! One node's ledger: what is stored of it, and what is to be written next.

use std::sync::Arc;

use pinion_nodes::{Booking, LedgerSpec};
use serde_json::{Value, json};
use tokio::sync::Mutex;

/// One node's ledger.
#[derive(Debug, Default)]
pub(super) struct Desk {
    /// Generation of what was seen last; `None` before there is any.
    generation: Option<i64>,
    has_spec: bool,
    stored: Vec<Booking>,
    entered: Vec<Booking>,
    struck: Vec<String>,
    turn: Arc<Mutex<()>>,
}

impl Desk {
    /// The ledger as the API server has it; whether that is news. An older one than was seen is not.
    pub(super) fn see(&mut self, object: &Value) -> bool {
        let generation = object.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0);
        if self.generation.is_some_and(|seen| seen > generation) {
            return false;
        }
        let news = self.generation != Some(generation);
        let spec = object.get("spec").filter(|spec| spec.is_object());
        let read: LedgerSpec =
            spec.and_then(|spec| serde_json::from_value(spec.clone()).ok()).unwrap_or_default();
        self.generation = Some(generation);
        self.has_spec = spec.is_some();
        self.stored = read.bookings;
        let is_stored = |uid: &str| self.stored.iter().any(|booking| booking.uid == uid);
        self.entered.retain(|booking| !is_stored(&booking.uid));
        self.struck.retain(|uid| self.stored.iter().any(|booking| booking.uid == *uid));
        news
    }

    pub(super) const fn is_known(&self) -> bool {
        self.generation.is_some()
    }

    /// Whose turn it is to write.
    pub(super) fn turn(&self) -> Arc<Mutex<()>> {
        Arc::clone(&self.turn)
    }

    /// What is stored.
    pub(super) fn stored(&self) -> Vec<Booking> {
        self.stored.clone()
    }

    /// What is not stored yet.
    pub(super) fn entered(&self) -> Vec<Booking> {
        self.entered.clone()
    }

    /// What is to be in it.
    pub(super) fn bookings(&self) -> impl Iterator<Item = &Booking> {
        let left = self.stored.iter().filter(|booking| !self.struck.contains(&booking.uid));
        left.chain(&self.entered)
    }

    /// What it is to be.
    pub(super) fn spec(&self) -> LedgerSpec {
        LedgerSpec { bookings: self.bookings().cloned().collect() }
    }

    /// Whether an instance has a booking, stored or not.
    pub(super) fn has(&self, uid: &str) -> bool {
        let stored = self.stored.iter().any(|booking| booking.uid == uid);
        (stored && !self.struck.iter().any(|struck| struck == uid))
            || self.entered.iter().any(|b| b.uid == uid)
    }

    /// Enters a booking, in place of one of the same instance.
    pub(super) fn enter(&mut self, booking: Booking) {
        self.struck.retain(|uid| *uid != booking.uid);
        match self.entered.iter_mut().find(|entered| entered.uid == booking.uid) {
            Some(entered) => *entered = booking,
            None => self.entered.push(booking),
        }
    }

    /// Takes a booking out.
    pub(super) fn strike(&mut self, uid: &str) {
        self.entered.retain(|booking| booking.uid != uid);
        if self.stored.iter().any(|booking| booking.uid == uid)
            && !self.struck.iter().any(|struck| struck == uid)
        {
            self.struck.push(uid.to_owned());
        }
    }

    /// What was to be done for an instance is not to be done.
    pub(super) fn forget(&mut self, uid: &str) {
        self.entered.retain(|booking| booking.uid != uid);
        self.struck.retain(|struck| struck != uid);
    }

    /// The JSON patch that makes it what it is to be; nothing where it is. It is only applied to the generation that was
    /// seen: the generation counts what is booked, and not what an agent says.
    pub(super) fn patch(&self) -> Option<Value> {
        let spec = self.spec();
        if spec.bookings == self.stored {
            return None;
        }
        let test = json!({"op": "test", "path": "/metadata/generation", "value": self.generation});
        let change = if self.has_spec {
            json!({"op": "add", "path": "/spec/bookings", "value": spec.bookings})
        } else {
            json!({"op": "add", "path": "/spec", "value": spec})
        };
        Some(json!([test, change]))
    }
}
