//! `--timeout PHASE=TIME`: how long a request to another node may take; must not know what happens then.

use clap::error::ErrorKind;
use jiff::SignedDuration;
use mesh_proto::{routing::AttemptConfig, time::Millis};

use super::config::usage;

/// Longest time of a phase. Beyond it, nobody waits. (guess)
const MOST: Millis = Millis::secs(3600);

/// The defaults with what was typed.
pub(super) fn meant(typed: &[String]) -> Result<AttemptConfig, clap::Error> {
    let mut config = AttemptConfig::default();
    for word in typed {
        let wrong = |why: &str| usage(ErrorKind::ValueValidation, format!("--timeout {word}: {why}"));
        let (phase, time) = word.split_once('=').ok_or_else(|| wrong("write PHASE=TIME, e.g. connect=1500ms"))?;
        let place = match phase {
            "connect" => &mut config.connect,
            "first-event" => &mut config.first_event,
            "between-events" => &mut config.between_events,
            "stall" => &mut config.stall,
            "take-over" => &mut config.take_over,
            _ => return Err(wrong("the phases are connect, first-event, between-events, stall and take-over")),
        };
        let time: SignedDuration = time.parse().map_err(|_| wrong("not a time: write 800ms, 2s or 1m"))?;
        let millis = u64::try_from(time.as_millis()).ok().filter(|millis| (1..=MOST.0).contains(millis));
        *place = Millis(millis.ok_or_else(|| wrong("from 1ms to 1h"))?);
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(words: &[&str]) -> Result<AttemptConfig, String> {
        let typed: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        meant(&typed).map_err(|error| error.to_string())
    }

    #[test]
    fn every_phase_has_its_time_and_the_rest_stays() {
        assert_eq!(config(&[]).unwrap(), AttemptConfig::default());
        let words = ["connect=100ms", "first-event=3s", "between-events=1500ms", "stall=1m", "take-over=5s"];
        let expected = AttemptConfig {
            connect: Millis(100),
            first_event: Millis(3000),
            between_events: Millis(1500),
            stall: Millis(60_000),
            take_over: Millis(5000),
            ..AttemptConfig::default()
        };
        assert_eq!(config(&words).unwrap(), expected);
        assert_eq!(config(&["stall=30s"]).unwrap().connect, AttemptConfig::default().connect);
    }

    #[test]
    fn what_is_no_phase_or_no_time_is_refused_by_name() {
        for (word, said) in [
            ("connect", "write PHASE=TIME"),
            ("never=1s", "the phases are"),
            ("connect=soon", "not a time"),
            ("connect=0s", "from 1ms"),
            ("connect=-1s", "from 1ms"),
            ("connect=2h", "to 1h"),
        ] {
            let error = config(&[word]).unwrap_err();
            assert!(error.contains(said) && error.contains(word), "{word}: {error}");
        }
    }
}
