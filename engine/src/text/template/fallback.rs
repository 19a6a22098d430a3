//! What a conversation is written with where the model's own template cannot be used; must not know why.
//!
//! ChatML, with tools and calls as Hermes has them: the layout that most families learnt one like. It is no better than
//! none for a model that does not know its marks, so it is used only where the vocabulary has them as tokens.

use super::ChatTemplates;

/// The marks.
const MARKS: [&str; 2] = ["<|im_start|>", "<|im_end|>"];

/// The template. No system turn of its own, and nothing that could be missing.
const CHATML: &str = r#"
{%- set ns = namespace(tools=tools) -%}
{%- for message in messages -%}
    {%- if ns.tools and (loop.first or message.role != 'system') -%}
        {{- '<|im_start|>system\n' -}}
        {%- if message.role == 'system' %}{{ message.content + '\n\n' }}{% endif -%}
        {{- 'You may call these functions:\n<tools>\n' -}}
        {%- for tool in ns.tools %}{{ tool | tojson + '\n' }}{% endfor -%}
        {{- '</tools>\nFor each call, write:\n<tool_call>\n{"name": "…", "arguments": {…}}\n</tool_call><|im_end|>\n' -}}
        {%- set ns.tools = false -%}
        {%- set written = message.role == 'system' -%}
    {%- else -%}
        {%- set written = false -%}
    {%- endif -%}
    {%- if not written -%}
        {%- if message.role == 'tool' -%}
            {{- '<|im_start|>user\n<tool_response>\n' + (message.content or '') + '\n</tool_response><|im_end|>\n' -}}
        {%- else -%}
            {{- '<|im_start|>' + message.role + '\n' + (message.content or '') -}}
            {%- for call in message.tool_calls or [] -%}
                {{- '\n<tool_call>\n{"name": ' + (call.function.name | tojson) + ', "arguments": ' -}}
                {{- call.function.arguments if call.function.arguments is string else (call.function.arguments | tojson) -}}
                {{- '}\n</tool_call>' -}}
            {%- endfor -%}
            {{- '<|im_end|>\n' -}}
        {%- endif -%}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif -%}
"#;

impl ChatTemplates {
    /// ChatML, for a model whose vocabulary has its marks; `None` for any other.
    pub fn fallback(has_token: impl Fn(&str) -> bool) -> Option<Self> {
        if !MARKS.into_iter().all(has_token) {
            return None;
        }
        Self::compile(vec![("default".to_owned(), CHATML.to_owned())]).ok()
    }
}
