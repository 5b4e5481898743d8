//! `pinion agent`: the node's daemon.

use pinion_node_agent::{AgentError, AgentOptions as Options, Ledger, run_agent};

use crate::arguments::AgentOptions;
use crate::failure::Failure;

/// Runs it until it is told to end.
///
/// # Errors
/// Why it does not run.
pub(crate) fn run(options: &AgentOptions) -> Result<(), Failure> {
    let ledger = Ledger::at(&options.ledger);
    let socket = ledger.agent_socket();
    let options = Options {
        ledger,
        pages: Some(options.listen).filter(|_| !options.no_pages),
        group: options.group.clone(),
        profile: options.profile.clone(),
        qualification: options.qualification.clone(),
    };
    let ready = |pages: Option<std::net::SocketAddr>| {
        let pages = pages.map(|address| format!(", http://{address}/")).unwrap_or_default();
        eprintln!("pinion agent: ready: {}{pages}", socket.display());
    };
    run_agent(&options, ready).map_err(|e| match e {
        AgentError::Group(_) => Failure::invalid(e),
        e => Failure::failed(e),
    })
}
