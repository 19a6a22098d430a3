//! A JSON body changed a little: its values and fields, or its bytes.

use serde_json::{Map, Value, json};

use super::{Dice, engine::MODEL};

/// Bodies grow no longer.
const MOST_BYTES: usize = 1 << 14;
/// What JSON's readers trip over.
const PIECES: [&str; 28] = [
    "\"model\":\"m\",",
    "\"model\":null,",
    "\"n\":16,",
    "\"stream\":true,",
    "null",
    "true",
    "-0",
    "-1",
    "1e400",
    "1e-400",
    "0.1e1",
    "18446744073709551616",
    "340282366920938463463374607431768211456",
    "-9223372036854775809",
    "\"\\ud800\"",
    "\"\\u0000\"",
    "\"\\",
    "\u{feff}",
    "\u{0}",
    "\u{2028}",
    "ü",
    "/* */",
    "[[[[[[[[",
    "{\"a\":",
    "{}",
    "[]",
    ",",
    "}",
];

/// What bodies are changed with: names that fields have, words that they take, and what was said in earlier answers.
pub struct Words {
    pub fields: Vec<String>,
    pub values: Vec<Value>,
    /// Ids of kept responses, the newest last.
    pub ids: Vec<String>,
}

impl Words {
    /// Those of the document that the node itself gives out.
    pub fn of(document: &Value) -> Self {
        let mut words = Self { fields: Vec::new(), values: Vec::new(), ids: vec!["resp_none".into()] };
        words.read(&document["components"]["schemas"]);
        words.fields.sort();
        words.fields.dedup();
        assert!(words.fields.len() > 50 && words.values.len() > 20, "the document has another form");
        words
    }

    fn read(&mut self, schema: &Value) {
        match schema {
            Value::Object(fields) => {
                if let Some(properties) = fields.get("properties").and_then(Value::as_object) {
                    self.fields.extend(properties.keys().cloned());
                }
                self.values.extend(fields.get("enum").and_then(Value::as_array).into_iter().flatten().cloned());
                self.values.extend(fields.get("const").cloned());
                fields.values().for_each(|value| self.read(value));
            }
            Value::Array(all) => all.iter().for_each(|value| self.read(value)),
            _ => {}
        }
    }

    fn value(&self, dice: &mut Dice) -> Value {
        match dice.roll(16) {
            0 => Value::Null,
            1 => (dice.roll(2) == 0).into(),
            2 => json!(dice.roll(20) as i64 - 2),
            3 => json!(*dice.pick(&[i64::MAX, i64::MIN, -1, 0, 1 << 32, 4096, 2000])),
            4 => json!(u64::MAX),
            5 => json!(*dice.pick(&[0.5, -0.0, 1.0, 1e308, 1e-320, 2.0, 100.0, -100.5])),
            6 => "".into(),
            7 => "\u{0}\u{202e}\u{10ffff}\"\\\n</think><tool_call>".into(),
            8 => "ab ".repeat(dice.roll(600)).into(),
            9 => json!([]),
            10 => json!({}),
            11 => json!(vec![dice.roll(3000); dice.roll(300)]),
            12 => self.ids[dice.roll(self.ids.len())].clone().into(),
            13 => json!({ "type": self.values[dice.roll(self.values.len())], "text": "t", "role": "user" }),
            _ => self.values[dice.roll(self.values.len())].clone(),
        }
    }

    fn field(&self, dice: &mut Dice) -> String {
        if dice.roll(16) == 0 { "no such field".into() } else { self.fields[dice.roll(self.fields.len())].clone() }
    }
}

/// A copy with a few changes; `other` lends pieces.
pub fn mutate(dice: &mut Dice, words: &Words, body: &[u8], other: &[u8]) -> Vec<u8> {
    let parsed = (dice.roll(4) > 0).then(|| serde_json::from_slice(body).ok()).flatten();
    let Some(mut value) = parsed else { return bytes(dice, body, other) };
    let other: Value = serde_json::from_slice(other).unwrap_or_default();
    for _ in 0..1 + dice.roll(4) {
        structure(dice, words, &mut value, &other);
    }
    // Where another model was asked for, nothing more would be looked at.
    if let Value::Object(fields) = &mut value
        && dice.roll(32) > 0
    {
        fields.insert("model".into(), MODEL.into());
    }
    let mut text = value.to_string().into_bytes();
    if text.len() > MOST_BYTES {
        text = body.to_vec();
    }
    text
}

/// Changes a value somewhere below.
fn structure(dice: &mut Dice, words: &Words, root: &mut Value, other: &Value) {
    let places = count(root);
    let mut at = dice.roll(places);
    let Some(place) = find(root, &mut at) else { return };
    match (dice.roll(9), place) {
        (0, Value::Object(fields)) => {
            let name = fields.keys().nth(dice.roll(fields.len())).cloned();
            name.and_then(|name| fields.remove(&name));
        }
        (1, Value::Object(fields)) => {
            let name = fields.keys().nth(dice.roll(fields.len())).cloned();
            let moved = name.and_then(|name| fields.remove(&name));
            fields.insert(words.field(dice), moved.unwrap_or_default());
        }
        (2 | 3, Value::Object(fields)) => {
            fields.insert(words.field(dice), words.value(dice));
        }
        (0, Value::Array(all)) if !all.is_empty() => drop(all.remove(dice.roll(all.len()))),
        (1 | 2, Value::Array(all)) if !all.is_empty() => {
            let again = all[dice.roll(all.len())].clone();
            let times = *dice.pick(&[1, 1, 2, 5, 200]);
            all.extend(std::iter::repeat_n(again, times));
        }
        (3, Value::Array(all)) => all.push(words.value(dice)),
        (4, place) => {
            let mut from = dice.roll(count(other));
            if let Some(lent) = found(other, &mut from) {
                *place = lent.clone();
            }
        }
        (5, place) => {
            for _ in 0..*dice.pick(&[1, 1, 2, 150]) {
                let inner = place.take();
                *place = match dice.roll(2) {
                    0 => json!([inner]),
                    _ => Value::Object(Map::from_iter([(words.field(dice), inner)])),
                };
            }
        }
        (_, place) => *place = words.value(dice),
    }
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Object(fields) => fields.values().map(count).sum(),
        Value::Array(all) => all.iter().map(count).sum(),
        _ => 0,
    }
}

fn find<'a>(value: &'a mut Value, at: &mut usize) -> Option<&'a mut Value> {
    if *at == 0 {
        return Some(value);
    }
    *at -= 1;
    match value {
        Value::Object(fields) => fields.values_mut().find_map(|inner| find(inner, at)),
        Value::Array(all) => all.iter_mut().find_map(|inner| find(inner, at)),
        _ => None,
    }
}

fn found<'a>(value: &'a Value, at: &mut usize) -> Option<&'a Value> {
    if *at == 0 {
        return Some(value);
    }
    *at -= 1;
    match value {
        Value::Object(fields) => fields.values().find_map(|inner| found(inner, at)),
        Value::Array(all) => all.iter().find_map(|inner| found(inner, at)),
        _ => None,
    }
}

/// Changes bytes.
pub fn bytes(dice: &mut Dice, bytes: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..1 + dice.roll(3) {
        let at = dice.roll(bytes.len() + 1);
        let end = (at + dice.roll(17)).min(bytes.len());
        match dice.roll(8) {
            0 if at < bytes.len() => bytes[at] = dice.next() as u8,
            1 if at < bytes.len() => bytes[at] ^= 1 << dice.roll(8),
            2 => drop(bytes.drain(at..end)),
            3 if dice.roll(4) == 0 => bytes.truncate(at),
            4 => {
                let again = bytes[at..end].repeat(1 + dice.roll(300));
                bytes.splice(at..at, again);
            }
            5 | 6 => {
                let piece = *dice.pick(&PIECES);
                bytes.splice(at..if dice.roll(2) == 0 { at } else { end }, piece.bytes());
            }
            _ => {
                let from = dice.roll(other.len());
                let to = (from + dice.roll(64)).min(other.len());
                bytes.splice(at..end, other[from..to].iter().copied());
            }
        }
    }
    bytes.truncate(MOST_BYTES);
    bytes
}
