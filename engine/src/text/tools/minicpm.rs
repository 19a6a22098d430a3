//! MiniCPM 5: `<function name="…"><param name="…">value</param></function>`, with CDATA where a value needs it.

use super::tagged::Tagged;

pub(super) const MINICPM: Tagged = Tagged {
    name: "minicpm",
    shown: &["<function name=", "<param name="],
    section: ["", ""],
    call: ["<function name=\"", "\">", "</function>"],
    parameter: ["<param name=\"", "\">", "</param>"],
    opens: &["<function name=\""],
    marks: &[],
    lines: false,
    broken: false,
    typed: false,
    cdata: true,
    shared: false,
};
