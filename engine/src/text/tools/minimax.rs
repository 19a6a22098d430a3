//! MiniMax: M2's `<invoke name="…">` in a section, and M1's JSON objects, one a line, in another.

use super::{Calls, Dialect, Offer, Reads, Tool, hermes::object_grammar, json, tagged::Tagged};
use crate::text::{grammar::Writer, reader::Reader};

pub(super) const M2: Tagged = Tagged {
    name: "minimax-m2",
    shown: &["<minimax:tool_call>"],
    section: ["<minimax:tool_call>", "</minimax:tool_call>"],
    call: ["<invoke name=\"", "\">", "</invoke>"],
    parameter: ["<parameter name=\"", "\">", "</parameter>"],
    opens: &["<minimax:tool_call>"],
    marks: &["<minimax:tool_call>", "</minimax:tool_call>"],
    lines: false,
    broken: true,
    typed: false,
    cdata: false,
    shared: true,
};

const OPEN: &str = "<tool_calls>";
const CLOSE: &str = "</tool_calls>";

#[derive(Debug)]
pub(super) struct M1;

impl Dialect for M1 {
    fn name(&self) -> &'static str {
        "minimax-m1"
    }

    fn is_spoken_in(&self, template: &str) -> bool {
        template.contains(OPEN)
    }

    fn opens(&self) -> &'static [&'static str] {
        &[OPEN]
    }

    fn marks(&self) -> &'static [&'static str] {
        &[OPEN, CLOSE]
    }

    fn read<'a>(&'a self, reader: &'a Reader, offer: &'a Offer, _: &'static str) -> Reads<'a> {
        Box::pin(json::objects(reader, offer, &json::KEYS, CLOSE, false))
    }

    fn one(&self, writer: &mut Writer<'_>) -> Option<String> {
        let object = writer.json(&serde_json::json!({"type": "object"}));
        Some(format!("/\\s*/ {object} /\\s*/ {}", writer.text(CLOSE)))
    }

    fn grammar(&self, tools: &[&Tool], many: bool, writer: &mut Writer<'_>) -> Calls {
        let call = object_grammar(tools, "name", "arguments", writer);
        let line = writer.text("\n");
        let one = if many { format!("({line} {call})+") } else { format!("{line} {call}") };
        Calls { open: OPEN, rest: format!("{one} {}", writer.text(&format!("\n{CLOSE}"))) }
    }
}
