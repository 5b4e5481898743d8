//! `pinion audit`: checks everything of guests now.

use pinion_endpoint::guest::GuestRequest;
use pinion_launcher::certificate::{Certificate, Verdict};
use serde_json::json;

use super::Guest;
use crate::arguments::{AuditOptions, ReportFormat};
use crate::failure::Failure;
use crate::output;

/// Checks, and prints what does not hold.
///
/// # Errors
/// [`Failure::Silent`] with exit code 1 where something drifted.
pub(crate) fn run(options: &AuditOptions) -> Result<(), Failure> {
    let (ledger, namespace) = (&options.guests.ledger, &options.guests.namespace);
    let guests: Vec<Guest> = if options.names.is_empty() {
        Guest::all(ledger)?
    } else {
        options.names.iter().map(|name| Guest::find(ledger, namespace, name)).collect::<Result<_, _>>()?
    };
    let certificates: Vec<Certificate> =
        guests.iter().map(|guest| guest.ask(&GuestRequest::Audit)).collect::<Result<_, _>>()?;
    match options.output {
        ReportFormat::Json => output::document("CertificateList", &json!({ "items": certificates }))?,
        ReportFormat::Text => output::text(&certificates.iter().map(text).collect::<String>())?,
    }
    let drifted = certificates.iter().any(|c| c.verdict == Verdict::Drifted);
    if drifted { Err(Failure::Silent(1)) } else { Ok(()) }
}

fn text(certificate: &Certificate) -> String {
    let Certificate { name, verdict, items, mismatches, sequence, .. } = certificate;
    let mut text = format!("{name}: {} items read back, verdict {verdict} (check {sequence})\n", items.len());
    for mismatch in mismatches {
        text.push_str(&format!("  {mismatch}\n"));
    }
    text
}
