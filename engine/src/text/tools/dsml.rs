//! DeepSeek V4: a section of `<｜DSML｜invoke name="…">`, whose parameters say whether they are strings.

use super::tagged::Tagged;

pub(super) const DSML: Tagged = Tagged {
    name: "deepseek-v4",
    shown: &["｜DSML｜"],
    section: ["<｜DSML｜tool_calls>", "</｜DSML｜tool_calls>"],
    call: ["<｜DSML｜invoke name=\"", "\">", "</｜DSML｜invoke>"],
    parameter: ["<｜DSML｜parameter name=\"", "\"", "</｜DSML｜parameter>"],
    opens: &["<｜DSML｜tool_calls>"],
    marks: &["<｜DSML｜tool_calls>", "</｜DSML｜tool_calls>"],
    lines: false,
    broken: true,
    typed: true,
    cdata: false,
    shared: true,
};
