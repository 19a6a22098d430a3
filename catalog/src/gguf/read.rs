//! The bytes of a GGUF header; must not trust a single count in them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, BufReader, Read},
    path::Path,
};

use super::{Header, Tensor, Value, kinds};
use crate::{CatalogError, weights::damaged};

/// Longest text, bytes. Chat templates have tens of thousands.
const MAX_TEXT: u64 = 16 << 20;
/// Most metadata entries; real files have some dozens.
const MAX_ENTRIES: u64 = 65_536;
/// Most tensors; the largest models have a few thousand.
const MAX_TENSORS: u64 = 1 << 20;
/// Most dimensions of a tensor; ggml has four.
const MAX_DIMENSIONS: u32 = 8;
/// What a header's values may take, bytes. Vectors grow by doubling, so the process may take twice this.
const MAX_MEMORY: u64 = 256 << 20;
/// What a value takes beside its own bytes: its vector's or map's part, and the allocator's. Rounded up.
const OVERHEAD: u64 = 64;
/// Where tensors start, bytes, in files that do not say (`general.alignment`). Origin: the format.
const ALIGNMENT: u64 = 32;
/// Slots of a vector allocated ahead of what was read.
const AHEAD: u64 = 4096;

const DOWNLOADING: &str = "is it still being downloaded?";

pub(super) fn header(path: &Path) -> Result<Header, CatalogError> {
    let io = |cause: io::Error| match cause.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => CatalogError::Missing(path.to_owned()),
        _ => CatalogError::Io { path: path.to_owned(), cause },
    };
    // Opening a pipe would wait for somebody to write.
    let meta = fs::metadata(path).map_err(io)?;
    if !meta.is_file() {
        return Err(damaged(path, "not a plain file, so not a GGUF file"));
    }
    let file = BufReader::new(File::open(path).map_err(io)?);
    let mut source = Source { file, length: meta.len(), position: 0, memory: 0 };
    let (metadata, tensors) = source.header().map_err(|fault| match fault {
        Fault::Io(cause) => io(cause),
        Fault::Bad(message) => damaged(path, message),
    })?;
    Ok(Header { path: path.to_owned(), metadata, tensors })
}

/// `general.architecture` alone, which comes first in most files: microseconds. `None` where it is missing or the file
/// is damaged.
pub(super) fn architecture(path: &Path) -> Option<String> {
    let meta = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    let file = BufReader::new(File::open(path).ok()?);
    let mut source = Source { file, length: meta.len(), position: 0, memory: 0 };
    source.magic().ok()?;
    let _tensors = source.u64().ok()?;
    for _ in 0..source.u64().ok()?.min(MAX_ENTRIES) {
        let key = source.text().ok()?;
        let kind = source.u32().ok()?;
        let value = source.value(kind, &key).ok()?;
        if let ("general.architecture", Value::Text(name)) = (key.as_str(), value) {
            return Some(name);
        }
    }
    None
}

enum Fault {
    Io(io::Error),
    Bad(String),
}

fn bad<T>(message: impl ToString) -> Result<T, Fault> {
    Err(Fault::Bad(message.to_string()))
}

/// A text from the file, fit for one line of a message.
fn shown(text: &str) -> String {
    format!("{:?}", text.chars().take(64).collect::<String>())
}

struct Source<R> {
    file: R,
    length: u64,
    position: u64,
    memory: u64,
}

impl<R: Read> Source<R> {
    fn header(&mut self) -> Result<(BTreeMap<String, Value>, Vec<Tensor>), Fault> {
        self.magic()?;
        let tensor_count = self.u64()?;
        let entry_count = self.u64()?;
        if entry_count > MAX_ENTRIES || tensor_count > MAX_TENSORS {
            return bad(format!(
                "damaged: its header claims {entry_count} entries and {tensor_count} tensors; download it again"
            ));
        }
        let mut metadata = BTreeMap::new();
        for _ in 0..entry_count {
            let key = self.text()?;
            let kind = self.u32()?;
            let value = self.value(kind, &key)?;
            self.charge(OVERHEAD)?;
            if metadata.contains_key(&key) {
                return bad(format!("damaged: it has the key {} twice", shown(&key)));
            }
            metadata.insert(key, value);
        }
        let mut tensors = Vec::new();
        for _ in 0..tensor_count {
            tensors.push(self.tensor()?);
        }
        let data = match metadata.get("general.alignment") {
            None => self.position.next_multiple_of(ALIGNMENT),
            Some(Value::Unsigned(bytes)) if bytes.is_power_of_two() && *bytes <= u64::from(u32::MAX) => {
                self.position.checked_next_multiple_of(*bytes).ok_or_else(|| Fault::Bad("damaged".to_owned()))?
            }
            Some(_) => return bad("damaged: general.alignment is no power of two"),
        };
        self.check(data, &mut tensors)?;
        Ok((metadata, tensors))
    }

    fn magic(&mut self) -> Result<(), Fault> {
        let mut start = Vec::new();
        (&mut self.file).take(4).read_to_end(&mut start).map_err(Fault::Io)?;
        self.position = start.len() as u64;
        if start == b"vers" {
            let mut rest = Vec::new();
            (&mut self.file).take(20).read_to_end(&mut rest).map_err(Fault::Io)?;
            if rest.starts_with(b"ion https://git-lfs") {
                return bad("not a GGUF file but a Git LFS pointer to one: fetch it with `git lfs pull`");
            }
        }
        if start != b"GGUF" {
            return bad(if start.is_empty() {
                format!("empty, so not a GGUF file: {DOWNLOADING}")
            } else {
                "not a GGUF file (it does not start with GGUF): download it again".to_owned()
            });
        }
        match self.u32()? {
            2 | 3 => Ok(()),
            version @ 0..=1 => bad(format!("a GGUF file of version {version}, which is too old: convert it again")),
            version if version & 0xffff == 0 => bad("a big-endian GGUF file: convert it to little endian"),
            version => bad(format!("a GGUF file of version {version}, which this program does not know: update it")),
        }
    }

    fn tensor(&mut self) -> Result<Tensor, Fault> {
        let name = self.text()?;
        let dimensions = self.u32()?;
        if dimensions > MAX_DIMENSIONS {
            return bad(format!("damaged: tensor {} has {dimensions} dimensions", shown(&name)));
        }
        self.charge(OVERHEAD * 2)?;
        let mut shape = Vec::with_capacity(dimensions as usize);
        for _ in 0..dimensions {
            shape.push(self.u64()?);
        }
        let (kind, offset) = (self.u32()?, self.u64()?);
        let bytes = match kinds::block(kind) {
            // Filled in once the neighbours are known.
            None => 0,
            Some((elements, bytes)) => {
                let row = shape.first().copied().unwrap_or(1);
                if row % elements != 0 {
                    return bad(format!("damaged: rows of tensor {} are no whole blocks of its kind", shown(&name)));
                }
                let count = shape.iter().try_fold(1_u64, |count, side| count.checked_mul(*side));
                let total = count.and_then(|count| (count / elements).checked_mul(bytes));
                total.ok_or_else(|| Fault::Bad(format!("damaged: the shape of tensor {} overflows", shown(&name))))?
            }
        };
        Ok(Tensor { name, shape, kind, bytes, offset })
    }

    /// Fills in the lengths of unknown kinds, and compares what tensors claim with the file's length.
    fn check(&self, data: u64, tensors: &mut [Tensor]) -> Result<(), Fault> {
        let mut names = BTreeSet::new();
        if let Some(tensor) = tensors.iter().find(|tensor| !names.insert(&tensor.name)) {
            return bad(format!("damaged: it has the tensor {} twice", shown(&tensor.name)));
        }
        let mut offsets: Vec<u64> = tensors.iter().map(|tensor| tensor.offset).collect();
        offsets.sort_unstable();
        let end = self.length.saturating_sub(data);
        let mut needed = 0;
        for tensor in tensors {
            if kinds::block(tensor.kind).is_none() {
                let next = offsets.get(offsets.partition_point(|offset| *offset <= tensor.offset));
                tensor.bytes = next.copied().unwrap_or(end).saturating_sub(tensor.offset);
            }
            let last = data.checked_add(tensor.offset).and_then(|start| start.checked_add(tensor.bytes));
            let Some(last) = last else {
                return bad(format!("damaged: tensor {} lies beyond any file's end", shown(&tensor.name)));
            };
            needed = needed.max(last);
        }
        if needed > self.length {
            let missing = needed - self.length;
            return bad(format!(
                "cut short: it has {} bytes and its header promises {needed}, so {missing} are missing; {DOWNLOADING}",
                self.length
            ));
        }
        Ok(())
    }

    fn value(&mut self, kind: u32, key: &str) -> Result<Value, Fault> {
        Ok(match kind {
            0 => Value::Unsigned(u64::from(u8::from_le_bytes(self.bytes()?))),
            1 => Value::Signed(i64::from(i8::from_le_bytes(self.bytes()?))),
            2 => Value::Unsigned(u64::from(u16::from_le_bytes(self.bytes()?))),
            3 => Value::Signed(i64::from(i16::from_le_bytes(self.bytes()?))),
            4 => Value::Unsigned(u64::from(self.u32()?)),
            5 => Value::Signed(i64::from(i32::from_le_bytes(self.bytes()?))),
            6 => Value::Float(f64::from(f32::from_le_bytes(self.bytes()?))),
            7 => Value::Flag(self.bytes::<1>()? != [0]),
            8 => Value::Text(self.text()?),
            9 => self.array(key)?,
            10 => Value::Unsigned(self.u64()?),
            11 => Value::Signed(i64::from_le_bytes(self.bytes()?)),
            12 => Value::Float(f64::from_le_bytes(self.bytes()?)),
            kind => return bad(format!("damaged, or too new: {} has a value of kind {kind}", shown(key))),
        })
    }

    fn array(&mut self, key: &str) -> Result<Value, Fault> {
        let (kind, length) = (self.u32()?, self.u64()?);
        let width: u64 = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            kind => return bad(format!("damaged, or too new: {} is an array of kind {kind}", shown(key))),
        };
        let remaining = self.length - self.position;
        if length.checked_mul(width).is_none_or(|bytes| bytes > remaining) {
            return bad(format!(
                "cut short or damaged: {} claims {length} elements, and {remaining} bytes are left; {DOWNLOADING}",
                shown(key)
            ));
        }
        match kind {
            8 => {
                let mut texts = Vec::with_capacity(length.min(AHEAD) as usize);
                for _ in 0..length {
                    texts.push(self.text()?);
                }
                Ok(Value::Texts(texts))
            }
            6 | 12 => {
                self.skip(length * width)?;
                Ok(Value::Skipped)
            }
            kind => {
                self.charge(length.saturating_mul(8))?;
                let mut numbers = Vec::with_capacity(length.min(AHEAD) as usize);
                for _ in 0..length {
                    numbers.push(match self.value(kind, key)? {
                        Value::Unsigned(number) => i64::try_from(number).unwrap_or(i64::MAX),
                        Value::Signed(number) => number,
                        other => i64::from(other == Value::Flag(true)),
                    });
                }
                Ok(Value::Numbers(numbers))
            }
        }
    }

    fn text(&mut self) -> Result<String, Fault> {
        let length = self.u64()?;
        let remaining = self.length - self.position;
        if length > remaining {
            return bad(format!(
                "cut short or damaged: a text of {length} bytes, and {remaining} are left; {DOWNLOADING}"
            ));
        }
        if length > MAX_TEXT {
            return bad(format!("damaged: a text of {length} bytes in its header; download it again"));
        }
        self.charge(length + OVERHEAD)?;
        let mut bytes = Vec::with_capacity(length as usize);
        (&mut self.file).take(length).read_to_end(&mut bytes).map_err(Fault::Io)?;
        self.position += bytes.len() as u64;
        if (bytes.len() as u64) < length {
            return self.ended();
        }
        String::from_utf8(bytes).or_else(|error| {
            // Each byte may become a replacement character of three.
            self.charge(length * 2)?;
            Ok(String::from_utf8_lossy(error.as_bytes()).into_owned())
        })
    }

    fn charge(&mut self, bytes: u64) -> Result<(), Fault> {
        self.memory = self.memory.saturating_add(bytes);
        if self.memory > MAX_MEMORY {
            return bad(format!("its header is larger than the {} MiB that are read of one", MAX_MEMORY >> 20));
        }
        Ok(())
    }

    fn skip(&mut self, bytes: u64) -> Result<(), Fault> {
        let skipped = io::copy(&mut (&mut self.file).take(bytes), &mut io::sink()).map_err(Fault::Io)?;
        self.position += skipped;
        if skipped < bytes { self.ended() } else { Ok(()) }
    }

    fn u32(&mut self) -> Result<u32, Fault> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    fn u64(&mut self) -> Result<u64, Fault> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut bytes = [0; N];
        match self.file.read_exact(&mut bytes) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return self.ended(),
            Err(error) => return Err(Fault::Io(error)),
        }
        self.position += N as u64;
        // A file that grows meanwhile is still being written; what was there at the start is what counts.
        if self.position > self.length { self.ended() } else { Ok(bytes) }
    }

    fn ended<T>(&self) -> Result<T, Fault> {
        bad(format!("cut short: it ends inside its header, after {} bytes; {DOWNLOADING}", self.length))
    }
}
