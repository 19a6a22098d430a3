//! ByteDance's Seed: Qwen3-Coder's tags in a section of its own, values as they are.

use super::tagged::Tagged;

pub(super) const SEED: Tagged = Tagged {
    name: "seed",
    shown: &["<seed:tool_call>"],
    section: ["<seed:tool_call>", "</seed:tool_call>"],
    call: ["<function=", ">", "</function>"],
    parameter: ["<parameter=", ">", "</parameter>"],
    opens: &["<seed:tool_call>"],
    marks: &["<seed:tool_call>", "</seed:tool_call>"],
    lines: false,
    broken: true,
    typed: false,
    cdata: false,
    shared: false,
};
