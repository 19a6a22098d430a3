//! Headers and machines to plan for; must not start llama-server.

mod plans;
mod shapes;

use std::{fs, path::Path};

use catalog::gguf::{self, Header};

use super::{
    KvBits, Machine, Plan, PlanError, Sizes, Wishes, of_shape, plan,
    shape::{Layer, Shape},
    terms,
};
use crate::server::Device;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// A metadata value.
enum Entry<'a> {
    Number(u64),
    Each(&'a [u32]),
    Flags(&'a [bool]),
}
use Entry::{Each, Flags, Number};

fn text(out: &mut Vec<u8>, value: &str) {
    out.extend((value.len() as u64).to_le_bytes());
    out.extend(value.as_bytes());
}

/// A header with these entries under the architecture's name, and f32 tensors of these names and element counts.
fn header(architecture: &str, entries: &[(&str, Entry<'_>)], tensors: &[(&str, u64)]) -> Header {
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend((tensors.len() as u64).to_le_bytes());
    bytes.extend((entries.len() as u64 + 1).to_le_bytes());
    text(&mut bytes, "general.architecture");
    bytes.extend(8_u32.to_le_bytes());
    text(&mut bytes, architecture);
    for (name, entry) in entries {
        text(&mut bytes, &format!("{architecture}.{name}"));
        let start =
            |kind: u32, length: usize| [&9_u32.to_le_bytes()[..], &kind.to_le_bytes(), &length.to_le_bytes()].concat();
        match entry {
            Number(number) => bytes.extend([&10_u32.to_le_bytes()[..], &number.to_le_bytes()].concat()),
            Each(numbers) => {
                bytes.extend(start(4, numbers.len()));
                numbers.iter().for_each(|number| bytes.extend(number.to_le_bytes()));
            }
            Flags(flags) => {
                bytes.extend(start(7, flags.len()));
                bytes.extend(flags.iter().map(|flag| u8::from(*flag)));
            }
        }
    }
    let mut offset = 0_u64;
    for (name, elements) in tensors {
        text(&mut bytes, name);
        bytes.extend(
            [&1_u32.to_le_bytes()[..], &elements.to_le_bytes(), &0_u32.to_le_bytes(), &offset.to_le_bytes()].concat(),
        );
        offset = (offset + elements * 4).next_multiple_of(32);
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    let length = bytes.len().next_multiple_of(32) as u64 + offset;
    fs::write(file.path(), bytes).unwrap();
    file.as_file().set_len(length).unwrap();
    gguf::read(file.path()).unwrap()
}

fn shape(architecture: &str, entries: &[(&str, Entry<'_>)]) -> Shape {
    Shape::of(&[header(architecture, entries, &[])])
}

fn mesh_tiny() -> Header {
    gguf::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/mesh-tiny/mesh-tiny.Q4_1.gguf")).unwrap()
}

/// MiB with two digits, as llama-server logs them.
fn mib(bytes: u64) -> String {
    format!("{:.2}", bytes as f64 / MIB as f64)
}

fn wishes() -> Wishes {
    Wishes { context_tokens: None, parallel: 4, kv_bits: None, gpu_layers: None, max_memory: None }
}

fn gpu(name: &str, free: u64) -> Device {
    Device { name: name.to_owned(), description: String::new(), total: free, free }
}

fn machine(memory: u64, devices: &[Device]) -> Machine {
    Machine { memory, devices: devices.to_vec() }
}
