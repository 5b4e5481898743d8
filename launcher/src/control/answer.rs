//! What each request is answered.

use std::fs::File;
use std::io::Write;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use pinion_endpoint::guest::{AgentRequest, GuestRequest};
use pinion_endpoint::{Caller, Refusal, Reply, chain};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::broadcast::error::RecvError;

use super::hub::Hub;
use crate::backend::{Action, RunningGuest};
use crate::guest_agent;
use crate::monitor::Monitor;

/// How long a check of everything may take.
const CHECKED_WITHIN: Duration = Duration::from_secs(20);
const LOOK_EACH: Duration = Duration::from_millis(10);

/// What requests are answered from.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) monitor: Monitor,
    pub(super) spec: Value,
    pub(super) keys: File,
    pub(super) hub: Rc<Hub>,
}

pub(super) async fn answer(desk: Rc<Desk>, caller: Caller) {
    // The socket's mode says the same: this holds where somebody has changed that.
    if caller.peer.uid != 0 && caller.peer.uid != geteuid().as_raw() {
        return refuse(caller, "NotPermitted", "only root and the guest's own user may ask").await;
    }
    match serde_json::from_slice::<GuestRequest>(&caller.request) {
        Ok(GuestRequest::Logs { follow }) => stream(&desk, caller, follow, false).await,
        Ok(GuestRequest::Console) => stream(&desk, caller, true, true).await,
        Ok(request) => match one(&desk, &request).await {
            Ok(value) => caller.reply(&Reply::Done(value)).await,
            Err((reason, message)) => refuse(caller, reason, &message).await,
        },
        Err(e) => refuse(caller, "Malformed", &e.to_string()).await,
    }
}

async fn refuse(caller: Caller, reason: &str, message: &str) {
    caller.reply(&Reply::<Value>::Refused(Refusal::new(reason, message))).await;
}

type Answer = Result<Value, (&'static str, String)>;

async fn one(desk: &Desk, request: &GuestRequest) -> Answer {
    match request {
        GuestRequest::Status => value(&desk.monitor.status()),
        GuestRequest::Certificate => certificate(desk),
        GuestRequest::Audit => audit(desk).await,
        GuestRequest::Metrics => desk
            .monitor
            .render()
            .map(Value::from)
            .ok_or(("Unreadable", "the metrics cannot be read".to_owned())),
        GuestRequest::Inspect => Ok(json!({
            "instance": desk.spec.get("instance"),
            "placement": desk.spec.get("placement"),
            "status": value(&desk.monitor.status())?,
            "certificate": certificate(desk).ok(),
        })),
        GuestRequest::Stop { force } => {
            signal(Signal::SIGTERM)?;
            if *force {
                // Two that wait at once are one: the second comes when the first is taken.
                tokio::time::sleep(Duration::from_millis(50)).await;
                signal(Signal::SIGTERM)?;
            }
            Ok(Value::Null)
        }
        GuestRequest::Pause => act(desk, Action::Pause).await,
        GuestRequest::Unpause => act(desk, Action::Unpause).await,
        GuestRequest::Reset => act(desk, Action::Reset).await,
        GuestRequest::SoftReboot => act(desk, Action::SoftReboot).await,
        GuestRequest::Agent { request } => agent(desk, request.clone()).await,
        GuestRequest::Logs { .. } | GuestRequest::Console => Err(("Malformed", "a stream".to_owned())),
    }
}

fn value<T: serde::Serialize>(of: &T) -> Answer {
    serde_json::to_value(of).map_err(|e| ("Unreadable", e.to_string()))
}

fn certificate(desk: &Desk) -> Answer {
    match desk.monitor.certificate() {
        Some(certificate) => value(&certificate),
        None => Err(("NotReady", "the guest is being set up: nothing was checked yet".to_owned())),
    }
}

/// The session checks on its own thread; when it has, the certificate has another number.
async fn audit(desk: &Desk) -> Answer {
    let sequence = |desk: &Desk| desk.monitor.certificate().map(|c| c.sequence);
    let before = sequence(desk).ok_or(("NotReady", "the guest is being set up".to_owned()))?;
    signal(Signal::SIGUSR1)?;
    let checked = async {
        while sequence(desk).is_none_or(|now| now <= before) {
            tokio::time::sleep(LOOK_EACH).await;
        }
    };
    match tokio::time::timeout(CHECKED_WITHIN, checked).await {
        Ok(()) => certificate(desk),
        Err(_) => Err(("NotReady", "the guest's launcher does not come to check".to_owned())),
    }
}

fn running(desk: &Desk) -> Result<Arc<dyn RunningGuest>, (&'static str, String)> {
    desk.monitor.guest().ok_or(("NotReady", "the guest does not run yet, or no longer".to_owned()))
}

async fn act(desk: &Desk, action: Action) -> Answer {
    let guest = running(desk)?;
    let act = move || guest.act(action).map(|()| Value::Null);
    waited(move || act().map_err(|e| ("Failed", chain(e.as_ref())))).await
}

async fn agent(desk: &Desk, request: AgentRequest) -> Answer {
    let guest = running(desk)?;
    waited(move || guest_agent::ask(guest.agent(), &request).map_err(|e| (e.reason(), chain(&e)))).await
}

/// Does what may take a while on a thread of its own, which is born where this one is: others are answered meanwhile.
async fn waited(work: impl FnOnce() -> Answer + Send + 'static) -> Answer {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(("Failed", e.to_string())))
}

fn signal(signal: Signal) -> Result<(), (&'static str, String)> {
    kill(Pid::this(), signal).map_err(|e| ("Failed", e.to_string()))
}

/// The console's output; with `keys`, and what the other end types.
async fn stream(desk: &Desk, caller: Caller, follow: bool, keys: bool) {
    let (memory, live) = desk.hub.follow();
    let Some((stream, typed)) = caller.begin(&Reply::Done(Value::Null)).await else { return };
    let (mut from, mut to) = stream.into_split();
    if keys {
        type_to(&desk.keys, &typed);
    }
    // Whoever attaches a console wants what comes, not what was.
    if !keys && to.write_all(&memory).await.is_err() {
        return;
    }
    let Some(mut live) = live.filter(|_| follow) else { return };
    let mut bytes = [0; 256];
    loop {
        tokio::select! {
            heard = live.recv() => match heard {
                Ok(piece) => if to.write_all(&piece).await.is_err() { return },
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
            read = from.read(&mut bytes) => match read {
                Ok(read) if read > 0 => {
                    if keys {
                        type_to(&desk.keys, bytes.get(..read).unwrap_or_default());
                    }
                }
                _ => return,
            },
        }
    }
}

/// What a guest that does not read has no room for is lost, as on a serial line.
fn type_to(mut keys: &File, typed: &[u8]) {
    let _ = keys.write_all(typed);
}
