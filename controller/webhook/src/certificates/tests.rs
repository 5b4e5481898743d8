use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, ServerConnection};
use tokio::sync::watch;

use super::*;
use crate::tls;
use crate::tls::trust;

const NAME: &str = "pinion-webhook.pinion-system.svc";

fn start() -> Timestamp {
    "2026-11-20T10:00:00Z".parse().unwrap()
}

fn wish() -> Wish {
    Wish::new(&[NAME, "pinion-webhook.pinion-system.svc.cluster.local"], Lives::default()).unwrap()
}

fn hours(count: i64) -> SignedDuration {
    SignedDuration::from_hours(count)
}

fn replaced(stored: Option<&Stored>, now: Timestamp, wish: &Wish) -> (Stored, Vec<Cause>) {
    match next(stored, now, wish).unwrap() {
        Decision::Replace { stored, causes } => (*stored, causes),
        Decision::Keep { until } => panic!("kept until {until}"),
    }
}

/// A whole handshake in memory between a client that trusts the bundle and a server with what is served.
fn handshake(bundle: &str, served: &Stored, now: Timestamp) -> Result<(), rustls::Error> {
    let (_sender, current) = watch::channel(Some(Arc::new(served.clone())));
    let mut server = ServerConnection::new(Arc::new(tls::config(current).unwrap())).unwrap();
    let name = ServerName::try_from(NAME).unwrap();
    let mut client = ClientConnection::new(Arc::new(trust::client(bundle, now)), name).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        while client.wants_write() {
            let _ = client.write_tls(&mut wire).unwrap();
        }
        let mut rest = &wire[..];
        while !rest.is_empty() {
            let _ = server.read_tls(&mut rest).unwrap();
            let _ = server.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            let _ = server.write_tls(&mut wire).unwrap();
        }
        let mut rest = &wire[..];
        while !rest.is_empty() {
            let _ = client.read_tls(&mut rest).unwrap();
            let _ = client.process_new_packets()?;
        }
    }
    Ok(())
}

#[test]
fn for_three_years_every_client_with_the_bundle_of_the_step_before_connects() {
    let wish = wish();
    let (mut stored, causes) = replaced(None, start(), &wish);
    assert_eq!(causes, [Cause::Authority, Cause::Serving]);
    let mut before = stored.clone();
    let (mut authorities, mut certificates, mut most) = (1, 1, 1);
    for hour in 1..=3 * 365 * 24 {
        let now = start() + hours(hour);
        if let Decision::Replace { stored: new, causes } = next(Some(&stored), now, &wish).unwrap() {
            authorities += i32::from(causes.contains(&Cause::Authority));
            certificates += i32::from(causes.contains(&Cause::Serving));
            most = most.max(new.authorities().len());
            before = std::mem::replace(&mut stored, *new);
            // A replica that has not read what is new serves what was.
            handshake(&stored.bundle(), &before, now).unwrap();
            handshake(&before.bundle(), &stored, now).unwrap();
        } else if hour % 24 != 0 {
            continue;
        }
        handshake(&before.bundle(), &stored, now).unwrap();
        handshake(&stored.bundle(), &stored, now).unwrap();
        assert!(stored.serving().until() > now + hours(9 * 24));
        assert_eq!(Stored::read(&stored.data()).unwrap(), stored);
    }
    // A year's authority is followed after 243 days, a month's certificate after 20.
    assert_eq!((authorities, certificates, most), (5, 55, 2));
}

#[test]
fn what_is_kept_is_looked_at_again_when_something_is_to_do_and_not_before() {
    let wish = wish();
    let (mut stored, _) = replaced(None, start(), &wish);
    let mut now = start();
    let mut looks = 0;
    while now < start() + hours(2 * 365 * 24) {
        match next(Some(&stored), now, &wish).unwrap() {
            Decision::Keep { until } => {
                assert!(until > now);
                // Nothing is missed in between.
                let middle = Timestamp::from_second((now.as_second() + until.as_second()) / 2).unwrap();
                assert!(matches!(next(Some(&stored), middle, &wish).unwrap(), Decision::Keep { .. }));
                now = until;
            }
            Decision::Replace { stored: new, .. } => stored = *new,
        }
        looks += 1;
    }
    assert!(looks < 120, "{looks}");
}

#[test]
fn after_any_time_without_anybody_looking_there_is_a_certificate_that_its_bundle_knows() {
    let wish = wish();
    for days in (1..800).step_by(7) {
        let (mut stored, _) = replaced(None, start(), &wish);
        let now = start() + hours(days * 24);
        let mut replacements = 0;
        while let Decision::Replace { stored: new, .. } = next(Some(&stored), now, &wish).unwrap() {
            stored = *new;
            replacements += 1;
        }
        assert!(replacements <= 1, "settled in one step: {replacements} after {days} days");
        handshake(&stored.bundle(), &stored, now).unwrap();
        // From there on it goes as ever, one step at a time.
        let (mut now, end) = (now, now + hours(400 * 24));
        while now < end {
            match next(Some(&stored), now, &wish).unwrap() {
                Decision::Keep { until } => now = until,
                Decision::Replace { stored: new, .. } => {
                    let before = std::mem::replace(&mut stored, *new);
                    assert!(before.serving().until() > now, "{days}");
                    handshake(&before.bundle(), &stored, now).unwrap();
                }
            }
        }
    }
}

#[test]
fn other_names_need_another_certificate_of_the_same_authority() {
    let (stored, _) = replaced(None, start(), &wish());
    let other = Wish::new(&[NAME, "10.0.0.1"], Lives::default()).unwrap();
    let (new, causes) = replaced(Some(&stored), start(), &other);
    assert_eq!(causes, [Cause::Serving]);
    assert_eq!(new.bundle(), stored.bundle());
    assert!(new.serving().names().contains("10.0.0.1"));
    assert!(matches!(next(Some(&new), start(), &other).unwrap(), Decision::Keep { .. }));
}

#[test]
fn a_clock_that_was_ahead_does_no_lasting_harm() {
    let ahead = start() + hours(5000);
    let (stored, _) = replaced(None, ahead, &wish());
    let (new, causes) = replaced(Some(&stored), start(), &wish());
    assert_eq!(causes, [Cause::Authority, Cause::Serving]);
    handshake(&new.bundle(), &new, start()).unwrap();
    assert_eq!(new.authorities().len(), 2, "whoever trusts the other goes on");
}

#[test]
fn a_client_with_another_bundle_does_not_connect() {
    let (stored, _) = replaced(None, start(), &wish());
    let (other, _) = replaced(None, start(), &wish());
    assert!(handshake(&other.bundle(), &stored, start()).is_err());
    assert!(handshake(&stored.bundle(), &stored, start() + hours(31 * 24)).is_err());
    handshake(&stored.bundle(), &stored, start()).unwrap();
}

#[test]
fn every_damage_is_named_and_no_key_is_told() {
    let (stored, _) = replaced(None, start(), &wish());
    let (other, _) = replaced(None, start(), &wish());
    let good = stored.data();
    assert_eq!(Stored::read(&good).unwrap(), stored);
    let wrong = |field: &str, value: Option<&[u8]>| {
        let mut data = good.clone();
        match value {
            Some(value) => data.insert(field.to_owned(), value.to_vec()),
            None => data.remove(field),
        };
        Stored::read(&data)
    };
    for (field, what) in
        [("tls.crt", "certificate"), ("tls.key", "key"), ("ca.crt", "certificate"), ("ca.key", "key")]
    {
        let error = wrong(field, None).unwrap_err();
        assert_eq!(error.to_string(), format!("{field} has no {what}"));
        let key: &[u8] = b"-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";
        let certificate: &[u8] = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let text: &[u8] = b"\xff\xfe";
        for value in [text, if what == "key" { key } else { certificate }, certificate] {
            match wrong(field, Some(value)) {
                Err(error) => {
                    assert!(["Missing", "Unreadable"].contains(&error.reason()), "{field}: {error}")
                }
                Ok(read) => assert!(field == "ca.key" && read.authorities()[0].key().is_none()),
            }
        }
        // Cut anywhere, it is told and never a panic.
        for cut in (0..good[field].len()).step_by(17) {
            assert!(wrong(field, Some(&good[field][..cut])).is_err() || field == "ca.key", "{field} {cut}");
        }
    }
    let others = other.data();
    assert_eq!(wrong("tls.key", Some(&others["tls.key"])).unwrap_err(), DamageError::OtherKey);
    assert_eq!(wrong("ca.crt", Some(&others["ca.crt"])).unwrap_err(), DamageError::OtherAuthority);
    // Without the key nothing can be signed: there is a new authority, and the old one is trusted on.
    let without = wrong("ca.key", Some(b"")).unwrap();
    let (new, causes) = replaced(Some(&without), start(), &wish());
    assert_eq!((causes, new.authorities().len()), (vec![Cause::Authority], 2));
    handshake(&stored.bundle(), &new, start()).unwrap();
    let shown = format!("{stored:?}");
    assert!(!shown.contains("PRIVATE") && shown.len() < 2000, "{shown}");
}
