//! Tool calls as each family's chat template writes them, made anew for the tests.

use serde_json::Value as Json;

/// A call: a name, and arguments, an object.
pub type Call = (String, Json);

/// How one dialect is tried.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// The dialect's name.
    pub name: &'static str,
    /// What a template of that family says, enough to know it by.
    pub template: &'static str,
    /// Its markup, where that is special tokens.
    pub special: &'static [&'static str],
    /// Writes calls.
    pub spell: fn(&[Call]) -> String,
    /// Whether text may stand before calls.
    pub text_before: bool,
    /// Whether text may stand behind them.
    pub text_after: bool,
    /// Whether one answer may hold several.
    pub several: bool,
}

fn entries(arguments: &Json) -> impl Iterator<Item = (&str, &Json)> {
    arguments.as_object().unwrap().iter().map(|(key, value)| (key.as_str(), value))
}

/// A value in a tag: a string as it is, anything else as JSON.
fn bare(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn each(calls: &[Call], between: &str, call: impl Fn(&str, &Json) -> String) -> String {
    calls.iter().map(|(name, arguments)| call(name, arguments)).collect::<Vec<_>>().join(between)
}

fn object(name: &str, key: &str, arguments: &Json) -> String {
    format!("{{\"name\": \"{name}\", \"{key}\": {arguments}}}")
}

fn tagged(arguments: &Json, parameter: impl Fn(&str, &Json) -> String) -> String {
    entries(arguments).map(|(key, value)| parameter(key, value)).collect()
}

fn python(value: &Json) -> String {
    match value {
        Json::Null => "None".into(),
        Json::Bool(true) => "True".into(),
        Json::Bool(false) => "False".into(),
        Json::Array(items) => format!("[{}]", items.iter().map(python).collect::<Vec<_>>().join(", ")),
        Json::Object(entries) => {
            let entries = entries.iter().map(|(key, value)| format!("{}: {}", python_string(key), python(value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
        Json::String(text) => python_string(text),
        Json::Number(number) => number.to_string(),
    }
}

/// In double quotation marks, unless there are some inside and no single ones.
fn python_string(text: &str) -> String {
    let quote = if text.contains('"') && !text.contains('\'') { '\'' } else { '"' };
    let mut out = String::from(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if c == quote => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}

fn pythonic(calls: &[Call]) -> String {
    let call = |name: &str, arguments: &Json| {
        let arguments = entries(arguments).map(|(key, value)| format!("{key}={}", python(value)));
        format!("{name}({})", arguments.collect::<Vec<_>>().join(", "))
    };
    format!("[{}]", each(calls, ", ", call))
}

fn gemma(value: &Json) -> String {
    match value {
        Json::String(text) => format!("<|\"|>{text}<|\"|>"),
        Json::Array(items) => format!("[{}]", items.iter().map(gemma).collect::<Vec<_>>().join(",")),
        Json::Object(_) => gemma_object(value),
        other => other.to_string(),
    }
}

fn gemma_object(value: &Json) -> String {
    let entries = entries(value).map(|(key, value)| format!("{key}:{}", gemma(value)));
    format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
}

const BASE: Family = Family {
    name: "",
    template: "",
    special: &[],
    spell: |_| String::new(),
    text_before: true,
    text_after: true,
    several: true,
};

pub const FAMILIES: [Family; 20] = [
    Family {
        name: "hermes",
        template: "<tool_call>{name, arguments}</tool_call>",
        spell: |calls| {
            let call = |name: &str, arguments: &Json| {
                format!("<tool_call>\n{}\n</tool_call>", object(name, "arguments", arguments))
            };
            each(calls, "\n", call)
        },
        ..BASE
    },
    Family {
        name: "qwen3-coder",
        template: "<tool_call> <function= <parameter=",
        spell: |calls| {
            each(calls, "\n", |name, arguments| {
                let parameters =
                    tagged(arguments, |key, value| format!("<parameter={key}>\n{}\n</parameter>\n", bare(value)));
                format!("<tool_call>\n<function={name}>\n{parameters}</function>\n</tool_call>")
            })
        },
        ..BASE
    },
    Family {
        name: "seed",
        template: "<seed:tool_call> <function= <parameter=",
        special: &["<seed:tool_call>", "</seed:tool_call>"],
        spell: |calls| {
            each(calls, "\n", |name, arguments| {
                let parameters =
                    tagged(arguments, |key, value| format!("<parameter={key}>{}</parameter>\n", bare(value)));
                format!("<seed:tool_call>\n<function={name}>\n{parameters}</function>\n</seed:tool_call>")
            })
        },
        ..BASE
    },
    Family {
        name: "deepseek-v4",
        template: "｜DSML｜",
        spell: |calls| {
            let calls = each(calls, "\n", |name, arguments| {
                let parameters = tagged(arguments, |key, value| {
                    let (string, value) = (value.is_string(), bare(value));
                    format!("<｜DSML｜parameter name=\"{key}\" string=\"{string}\">{value}</｜DSML｜parameter>\n")
                });
                format!("<｜DSML｜invoke name=\"{name}\">\n{parameters}</｜DSML｜invoke>")
            });
            format!("<｜DSML｜tool_calls>\n{calls}\n</｜DSML｜tool_calls>")
        },
        ..BASE
    },
    Family {
        name: "minimax-m2",
        template: "<minimax:tool_call>",
        special: &["<minimax:tool_call>", "</minimax:tool_call>"],
        spell: |calls| {
            let calls = each(calls, "\n", |name, arguments| {
                let parameters =
                    tagged(arguments, |key, value| format!("<parameter name=\"{key}\">{}</parameter>\n", bare(value)));
                format!("<invoke name=\"{name}\">\n{parameters}</invoke>")
            });
            format!("<minimax:tool_call>\n{calls}\n</minimax:tool_call>")
        },
        ..BASE
    },
    Family {
        name: "minimax-m1",
        template: "<tool_calls>",
        spell: |calls| {
            let calls = each(calls, "\n", |name, arguments| object(name, "arguments", arguments));
            format!("<tool_calls>\n{calls}\n</tool_calls>")
        },
        ..BASE
    },
    Family {
        name: "minicpm",
        template: "<function name= <param name=",
        spell: |calls| {
            each(calls, "", |name, arguments| {
                let parameters = tagged(arguments, |key, value| {
                    let value = bare(value);
                    let value = match value.contains(['<', '&', '\n']) {
                        true => format!("<![CDATA[{value}]]>"),
                        false => value,
                    };
                    format!("<param name=\"{key}\">{value}</param>")
                });
                format!("<function name=\"{name}\">{parameters}</function>")
            })
        },
        ..BASE
    },
    Family {
        name: "glm",
        template: "<tool_call> <arg_key>",
        special: &["<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"],
        spell: |calls| {
            each(calls, "\n", |name, arguments| {
                let pairs = tagged(arguments, |key, value| {
                    format!("<arg_key>{key}</arg_key>\n<arg_value>{}</arg_value>\n", bare(value))
                });
                format!("<tool_call>{name}\n{pairs}</tool_call>")
            })
        },
        ..BASE
    },
    Family {
        name: "mistral",
        template: "[TOOL_CALLS]",
        special: &["[TOOL_CALLS]"],
        spell: |calls| {
            let call = |name: &str, arguments: &Json| object(name, "arguments", arguments);
            format!("[TOOL_CALLS][{}]", each(calls, ", ", call))
        },
        ..BASE
    },
    Family {
        name: "mistral-args",
        template: "[TOOL_CALLS] [ARGS]",
        special: &["[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"],
        spell: |calls| each(calls, "", |name, arguments| format!("[TOOL_CALLS]{name}[ARGS]{arguments}")),
        ..BASE
    },
    Family {
        name: "kimi",
        template: "<|tool_calls_section_begin|>",
        special: &[
            "<|tool_calls_section_begin|>",
            "<|tool_calls_section_end|>",
            "<|tool_call_begin|>",
            "<|tool_call_argument_begin|>",
            "<|tool_call_end|>",
        ],
        spell: |calls| {
            let calls: String = calls
                .iter()
                .enumerate()
                .map(|(n, (name, arguments))| {
                    format!(
                        "<|tool_call_begin|>functions.{name}:{n}<|tool_call_argument_begin|>{arguments}<|tool_call_end|>"
                    )
                })
                .collect();
            format!("<|tool_calls_section_begin|>{calls}<|tool_calls_section_end|>")
        },
        ..BASE
    },
    Family {
        name: "deepseek-v3.1",
        template: "<｜tool▁calls▁begin｜> <｜tool▁sep｜>",
        special: &[
            "<｜tool▁calls▁begin｜>",
            "<｜tool▁calls▁end｜>",
            "<｜tool▁call▁begin｜>",
            "<｜tool▁sep｜>",
            "<｜tool▁call▁end｜>",
        ],
        spell: |calls| {
            let calls = each(calls, "", |name, arguments| {
                format!("<｜tool▁call▁begin｜>{name}<｜tool▁sep｜>{arguments}<｜tool▁call▁end｜>")
            });
            format!("<｜tool▁calls▁begin｜>{calls}<｜tool▁calls▁end｜>")
        },
        ..BASE
    },
    Family {
        name: "deepseek-v3",
        template: "<｜tool▁calls▁begin｜> <｜tool▁sep｜> ```json",
        special: &[
            "<｜tool▁calls▁begin｜>",
            "<｜tool▁calls▁end｜>",
            "<｜tool▁call▁begin｜>",
            "<｜tool▁sep｜>",
            "<｜tool▁call▁end｜>",
        ],
        spell: |calls| {
            let calls = each(calls, "\n", |name, arguments| {
                format!(
                    "<｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n```json\n{arguments}\n```<｜tool▁call▁end｜>"
                )
            });
            format!("<｜tool▁calls▁begin｜>{calls}<｜tool▁calls▁end｜>")
        },
        ..BASE
    },
    Family {
        name: "lfm2",
        template: "<|tool_list_start|>",
        special: &["<|tool_call_start|>", "<|tool_call_end|>"],
        spell: |calls| format!("<|tool_call_start|>{}<|tool_call_end|>", pythonic(calls)),
        ..BASE
    },
    Family {
        name: "pythonic",
        template: "[func_name1(params_name1=params_value1, params_name2=params_value2...), func_name2(params)]",
        spell: pythonic,
        text_before: false,
        text_after: false,
        ..BASE
    },
    Family {
        name: "llama3",
        template: "<|python_tag|>",
        spell: |calls| each(calls, "; ", |name, arguments| object(name, "parameters", arguments)),
        text_before: false,
        text_after: false,
        ..BASE
    },
    Family {
        name: "cohere",
        template: "<|START_ACTION|>",
        special: &["<|START_ACTION|>", "<|END_ACTION|>"],
        spell: |calls| {
            let calls = each(calls, ",\n    ", |name, arguments| {
                format!("{{\"tool_call_id\": \"0\", \"tool_name\": \"{name}\", \"parameters\": {arguments}}}")
            });
            format!("<|START_ACTION|>[\n    {calls}\n]<|END_ACTION|>")
        },
        ..BASE
    },
    Family {
        name: "granite",
        template: "<|tool_call|>",
        special: &["<|tool_call|>"],
        spell: |calls| {
            let call = |name: &str, arguments: &Json| object(name, "arguments", arguments);
            format!("<|tool_call|>[{}]", each(calls, ", ", call))
        },
        text_after: false,
        ..BASE
    },
    Family {
        name: "functionary",
        template: "<function=",
        spell: |calls| each(calls, "", |name, arguments| format!("<function={name}>{arguments}</function>")),
        ..BASE
    },
    Family {
        name: "gemma",
        template: "<|tool_call>",
        special: &["<|tool_call>", "<tool_call|>", "<|\"|>"],
        spell: |calls| {
            each(calls, "", |name, arguments| format!("<|tool_call>call:{name}{}<tool_call|>", gemma_object(arguments)))
        },
        ..BASE
    },
];

/// gpt-oss, whose answers are rows of messages.
pub const HARMONY: Family = Family {
    name: "harmony",
    template: "<|channel|><|message|>",
    special: &["<|start|>", "<|channel|>", "<|message|>", "<|constrain|>", "<|end|>", "<|call|>", "<|return|>"],
    spell: |calls| {
        each(calls, "<|call|><|start|>assistant", |name, arguments| {
            format!("<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>{arguments}")
        })
    },
    text_before: false,
    text_after: false,
    several: true,
};
