//! Writes small GGUF files for tests, right and wrong ones; must not be needed outside of them.

/// A file in the making: entries and tensors as bytes, with counts that tests may falsify.
#[derive(Clone, Default)]
pub(crate) struct Writer {
    pub(crate) entries: u64,
    pub(crate) tensors: u64,
    metadata: Vec<u8>,
    infos: Vec<u8>,
    data: Vec<u8>,
}

pub(crate) fn text(value: &str) -> Vec<u8> {
    [&(value.len() as u64).to_le_bytes()[..], value.as_bytes()].concat()
}

impl Writer {
    pub(crate) fn new(architecture: &str) -> Self {
        Self::default().text("general.architecture", architecture)
    }

    /// An entry from a kind and the bytes that follow it.
    pub(crate) fn raw(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        self.entries += 1;
        self.metadata.extend(text(key));
        self.metadata.extend(kind.to_le_bytes());
        self.metadata.extend(value);
        self
    }

    pub(crate) fn text(self, key: &str, value: &str) -> Self {
        self.raw(key, 8, &text(value))
    }

    pub(crate) fn number(self, key: &str, value: u32) -> Self {
        self.raw(key, 4, &value.to_le_bytes())
    }

    pub(crate) fn array(self, key: &str, kind: u32, length: u64, elements: &[u8]) -> Self {
        self.raw(key, 9, &[&kind.to_le_bytes()[..], &length.to_le_bytes(), elements].concat())
    }

    /// A tensor with `bytes` bytes of data.
    pub(crate) fn tensor(mut self, name: &str, shape: &[u64], kind: u32, bytes: usize) -> Self {
        let offset = self.data.len() as u64;
        self = self.info(name, shape, kind, offset);
        self.data.resize((self.data.len() + bytes).next_multiple_of(32), 1);
        self
    }

    /// A tensor's entry alone.
    pub(crate) fn info(mut self, name: &str, shape: &[u64], kind: u32, offset: u64) -> Self {
        self.tensors += 1;
        self.infos.extend(text(name));
        self.infos.extend((shape.len() as u32).to_le_bytes());
        shape.iter().for_each(|side| self.infos.extend(side.to_le_bytes()));
        self.infos.extend(kind.to_le_bytes());
        self.infos.extend(offset.to_le_bytes());
        self
    }

    pub(crate) fn header(&self, version: u32) -> Vec<u8> {
        let counts = [self.tensors.to_le_bytes(), self.entries.to_le_bytes()].concat();
        [b"GGUF", &version.to_le_bytes()[..], &counts, &self.metadata, &self.infos].concat()
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.header(3);
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes.extend(&self.data);
        bytes
    }
}
