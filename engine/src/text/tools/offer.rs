//! The tools offered to a model, and what their parameters may be; must not know how a call is written.

use mesh_proto::{GenerateError, ToolDefinition};
use serde_json::{Map, Value as Json, json};

use super::Dialect;

/// Most `$ref`s followed from one parameter (guess: schemas have one or two).
const MOST_REFS: usize = 8;

/// Tools, and how calls of them are written.
#[derive(Debug)]
pub(crate) struct Offer {
    /// How.
    pub(crate) dialect: &'static dyn Dialect,
    /// The tools, in the client's order.
    pub(crate) tools: Vec<Tool>,
}

/// One tool.
#[derive(Debug)]
pub(crate) struct Tool {
    /// Its name.
    pub(crate) name: String,
    /// The schema of its arguments: an object's.
    pub(crate) parameters: Map<String, Json>,
    /// Whether the arguments must follow the schema to the letter: keywords that cannot be enforced are refused then.
    pub(crate) strict: bool,
}

/// What a parameter may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Types {
    pub(crate) string: bool,
    pub(crate) number: bool,
    pub(crate) boolean: bool,
    pub(crate) null: bool,
    pub(crate) array: bool,
    pub(crate) object: bool,
}

impl Offer {
    /// Reads the definitions.
    ///
    /// # Errors
    /// `Invalid`, naming the tool, where one is no JSON or its parameters are no schema.
    pub(crate) fn new(dialect: &'static dyn Dialect, tools: &[ToolDefinition]) -> Result<Self, GenerateError> {
        let tools = tools.iter().enumerate().map(|(index, tool)| Tool::new(index, tool)).collect::<Result<_, _>>()?;
        Ok(Self { dialect, tools })
    }

    /// A tool by its name.
    pub(crate) fn tool(&self, name: &str) -> Option<&Tool> {
        self.tools.iter().find(|tool| tool.name == name)
    }

    /// What a tool's parameter may be; anything where nobody says.
    pub(crate) fn types(&self, tool: &str, parameter: &str) -> Types {
        self.tool(tool).map_or(Types::ANY, |tool| tool.types(parameter))
    }
}

impl Tool {
    fn new(index: usize, tool: &ToolDefinition) -> Result<Self, GenerateError> {
        let json: Json = serde_json::from_str(&tool.json)
            .map_err(|error| GenerateError::invalid("tools", format!("tool `{}` is no JSON: {error}", tool.name)))?;
        let function = if json["function"].is_object() { &json["function"] } else { &json };
        let strict = function["strict"] == true;
        let parameters = match &function["parameters"] {
            Json::Null => Map::new(),
            Json::Object(parameters) => parameters.clone(),
            _ => {
                let field = format!("tools[{index}].function.parameters");
                return Err(GenerateError::invalid(field, "a JSON schema is expected: an object"));
            }
        };
        Ok(Self { name: tool.name.clone(), parameters, strict })
    }

    /// The whole schema, for a grammar.
    pub(crate) fn schema(&self) -> Json {
        let mut schema = self.parameters.clone();
        schema.entry("type").or_insert_with(|| json!("object"));
        if !self.strict {
            schema.insert("x-guidance".to_owned(), json!({"lenient": true}));
        }
        Json::Object(schema)
    }

    /// Its parameters' names and schemas, in their order, and whether each is required.
    pub(crate) fn properties(&self) -> impl Iterator<Item = (&str, &Json, bool)> {
        let required = self.parameters.get("required").and_then(Json::as_array);
        let properties = self.parameters.get("properties").and_then(Json::as_object);
        properties.into_iter().flatten().map(move |(name, schema)| {
            let is_required = required.is_some_and(|required| required.iter().any(|one| one == name));
            (name.as_str(), schema, is_required)
        })
    }

    /// One parameter's schema as one of its own, definitions included.
    pub(crate) fn property_schema(&self, schema: &Json) -> Json {
        let mut schema = schema.clone();
        if let Json::Object(schema) = &mut schema {
            for name in ["$defs", "definitions"] {
                if let Some(definitions) = self.parameters.get(name)
                    && !schema.contains_key(name)
                {
                    schema.insert(name.to_owned(), definitions.clone());
                }
            }
            if !self.strict {
                schema.insert("x-guidance".to_owned(), json!({"lenient": true}));
            }
        }
        schema
    }

    /// What a parameter may be.
    pub(crate) fn types(&self, parameter: &str) -> Types {
        let schema = self.parameters.get("properties").and_then(|properties| properties.get(parameter));
        schema.map_or(Types::ANY, |schema| self.types_of(schema, MOST_REFS))
    }

    fn types_of(&self, schema: &Json, refs: usize) -> Types {
        let mut types = Types::default();
        if let Some(pointer) = schema["$ref"].as_str() {
            let root = pointer.strip_prefix('#').map(|path| path.split('/').skip(1));
            let found = root.and_then(|mut path| {
                let first = self.parameters.get(path.next()?)?;
                path.try_fold(first, |at, name| at.get(name))
            });
            return match found.filter(|_| refs > 0) {
                Some(schema) => self.types_of(schema, refs - 1),
                None => Types::ANY,
            };
        }
        match &schema["type"] {
            Json::String(name) => types.add(name),
            Json::Array(names) => names.iter().filter_map(Json::as_str).for_each(|name| types.add(name)),
            _ => {
                let some = ["anyOf", "oneOf"].iter().filter_map(|name| schema[*name].as_array()).flatten();
                some.for_each(|schema| types = types.or(self.types_of(schema, refs.saturating_sub(1))));
                let values = schema["enum"].as_array().into_iter().flatten().chain(schema.get("const"));
                values.for_each(|value| types = types.or(Types::of(value)));
            }
        }
        if types == Types::default() { Types::ANY } else { types }
    }
}

impl Types {
    /// Anything.
    pub(crate) const ANY: Self =
        Self { string: true, number: true, boolean: true, null: true, array: true, object: true };
    /// A string.
    pub(crate) const STRING: Self =
        Self { string: true, number: false, boolean: false, null: false, array: false, object: false };

    fn add(&mut self, name: &str) {
        match name {
            "string" => self.string = true,
            "number" | "integer" => self.number = true,
            "boolean" => self.boolean = true,
            "null" => self.null = true,
            "array" => self.array = true,
            "object" => self.object = true,
            _ => {}
        }
    }

    fn or(self, other: Self) -> Self {
        Self {
            string: self.string || other.string,
            number: self.number || other.number,
            boolean: self.boolean || other.boolean,
            null: self.null || other.null,
            array: self.array || other.array,
            object: self.object || other.object,
        }
    }

    /// What a value is.
    fn of(value: &Json) -> Self {
        let mut types = Self::default();
        types.add(match value {
            Json::Null => "null",
            Json::Bool(_) => "boolean",
            Json::Number(_) => "number",
            Json::String(_) => "string",
            Json::Array(_) => "array",
            Json::Object(_) => "object",
        });
        types
    }

    /// Whether a value is one of these.
    pub(crate) fn allow(self, value: &Json) -> bool {
        self.or(Self::of(value)) == self
    }
}
