//! Qwen3-Coder and Qwen3.5: `<tool_call>`, `<function=name>`, and each `<parameter=key>` with its value on lines of its own.

use super::tagged::Tagged;

pub(super) const QWEN3_CODER: Tagged = Tagged {
    name: "qwen3-coder",
    shown: &["<function=", "<parameter=", "<tool_call>"],
    section: ["<tool_call>", "</tool_call>"],
    call: ["<function=", ">", "</function>"],
    parameter: ["<parameter=", ">", "</parameter>"],
    opens: &["<tool_call>", "<function="],
    marks: &["<tool_call>", "</tool_call>"],
    lines: true,
    broken: true,
    typed: false,
    cdata: false,
    shared: false,
};
