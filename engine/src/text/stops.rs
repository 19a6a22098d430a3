//! Stop strings, across token borders; must not know which part of an answer it looks at.

/// Looks for stop strings in a text that comes in pieces. The match that starts first in the text wins; of several
/// that start there, the shortest.
#[derive(Debug, Default)]
pub(crate) struct Stops {
    stops: Vec<String>,
    held: String,
}

impl Stops {
    /// Empty strings are left out.
    pub(crate) fn new(stops: &[String]) -> Self {
        let mut stops: Vec<String> = stops.iter().filter(|stop| !stop.is_empty()).cloned().collect();
        stops.sort_by_key(String::len);
        Self { stops, held: String::new() }
    }

    /// More text: appends to `out` what cannot be the start of a stop string. Returns the one that was met; then the
    /// text before it has been given out, and nothing after it will be.
    pub(crate) fn push(&mut self, text: &str, out: &mut String) -> Option<String> {
        if self.stops.is_empty() {
            out.push_str(text);
            return None;
        }
        self.held.push_str(text);
        self.scan(false, out)
    }

    /// The text ends here: gives out what was held back.
    pub(crate) fn finish(&mut self, out: &mut String) -> Option<String> {
        self.scan(true, out)
    }

    /// Each place of the held text is looked at until one could become a match: at most (held bytes × stop strings)
    /// comparisons of which nearly all end at the first byte.
    fn scan(&mut self, last: bool, out: &mut String) -> Option<String> {
        let mut keep = self.held.len();
        for (at, _) in self.held.char_indices() {
            let rest = &self.held.as_bytes()[at..];
            if let Some(stop) = self.stops.iter().find(|stop| rest.starts_with(stop.as_bytes())) {
                out.push_str(&self.held[..at]);
                let stop = stop.clone();
                self.held.clear();
                self.stops.clear();
                return Some(stop);
            }
            if !last && self.stops.iter().any(|stop| stop.as_bytes().starts_with(rest)) {
                keep = at;
                break;
            }
        }
        out.push_str(&self.held[..keep]);
        self.held.drain(..keep);
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run<S: AsRef<str>>(stops: &[String], pieces: &[S]) -> (String, Option<String>) {
        let (mut out, mut matcher) = (String::new(), Stops::new(stops));
        for piece in pieces {
            let stop = matcher.push(piece.as_ref(), &mut out);
            if stop.is_some() {
                return (out, stop);
            }
        }
        let stop = matcher.finish(&mut out);
        (out, stop)
    }

    fn strings(stops: &[&str]) -> Vec<String> {
        stops.iter().map(|stop| (*stop).to_owned()).collect()
    }

    #[test]
    fn a_stop_string_over_four_pieces_is_met_and_is_not_given_out() {
        let stops = strings(&["<<HALT>>"]);
        let met = run(&stops, &["alpha", " be", "ta<", "<HA", "LT>", ">gam"]);
        assert_eq!(met, ("alpha beta".into(), Some("<<HALT>>".into())));
    }

    #[test]
    fn only_what_could_become_a_stop_string_is_held_back() {
        let (mut matcher, mut out) = (Stops::new(&strings(&["<<HALT>>"])), String::new());
        assert_eq!(matcher.push("ta<", &mut out), None);
        assert_eq!(out, "ta");
        assert_eq!(matcher.push("3", &mut out), None);
        assert_eq!(out, "ta<3");
    }

    #[test]
    fn the_earliest_match_wins_over_the_order_of_the_list() {
        assert_eq!(run(&strings(&["delta", "beta"]), &["alpha beta delta"]), ("alpha ".into(), Some("beta".into())));
        assert_eq!(run(&strings(&["cd", "bcde"]), &["abcd", "e"]), ("a".into(), Some("bcde".into())));
        assert_eq!(run(&strings(&["cd", "bcde"]), &["abcd", "x"]), ("ab".into(), Some("cd".into())));
        assert_eq!(run(&strings(&["cd", "bcde"]), &["abcd"]), ("ab".into(), Some("cd".into())));
    }

    #[test]
    fn empty_stop_strings_are_ignored() {
        assert_eq!(run(&strings(&["", ""]), &["a", "b"]), ("ab".into(), None));
    }

    proptest! {
        #[test]
        fn any_split_of_a_text_stops_where_the_whole_text_does(
            text in "[abé]{0,40}", stops in prop::collection::vec("[abé]{0,4}", 0..4), cuts in prop::collection::vec(0usize..4, 0..40),
        ) {
            let expected = stops.iter().filter(|stop| !stop.is_empty())
                .filter_map(|stop| text.find(stop.as_str()).map(|at| (at, stop.len(), stop.clone()))).min();
            let mut pieces = Vec::new();
            let mut characters = text.chars();
            for cut in cuts {
                pieces.push(characters.by_ref().take(cut).collect::<String>());
            }
            pieces.push(characters.collect());
            let (out, stop) = run(&stops, &pieces);
            match expected {
                Some((at, _, met)) => prop_assert_eq!((out.as_str(), stop), (&text[..at], Some(met))),
                None => prop_assert_eq!((out, stop), (text, None)),
            }
        }
    }
}
