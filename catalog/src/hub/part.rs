//! A file that is arriving: appended to, hashed on the way, shown only when whole and right; must not know where its bytes
//! come from.
//!
//! The part is nothing but the bytes so far, in order, so that its length is the whole journal: whoever finds it after a
//! kill hashes what is there and asks for the rest. Beside it lies the validator (`ETag`) that its server gave, so that
//! the rest is asked for only of the same bytes. All of this blocks.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::PathBuf,
};

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

use super::{FileInfo, HubError, layout, layout::Place};

/// Bytes read at once when a part that was found is hashed.
const CHUNK: usize = 1 << 20;
/// A validator longer than this is not kept. Real ones have 70 bytes.
const VALIDATOR_BYTES: usize = 256;

/// A file that is arriving. Whoever has it has the lock.
pub(crate) struct Part {
    file: File,
    path: PathBuf,
    place: Place,
    name: String,
    length: u64,
    size: u64,
    sum: Sum,
    validator: Option<String>,
    _lock: File,
}

impl Part {
    /// What is there of a file, which may be nothing.
    pub(crate) fn open(place: &Place, name: &str, size: u64, lock: File) -> Result<Self, HubError> {
        let path = place.part(name);
        let failed = HubError::io(&path);
        if fs::symlink_metadata(&path).is_ok_and(|meta| !meta.is_file()) {
            return Err(HubError::Planted { path, why: "it should be a file of its own" });
        }
        let options = &mut OpenOptions::new();
        let file = layout::open(&path, options.read(true).write(true).create(true)).map_err(&failed)?;
        let mut part = Self {
            file,
            path,
            place: place.clone(),
            name: name.to_owned(),
            length: 0,
            size,
            sum: Sum::new(name, size),
            validator: None,
            _lock: lock,
        };
        part.take_up().map_err(failed)?;
        Ok(part)
    }

    fn take_up(&mut self) -> io::Result<()> {
        if self.file.metadata()?.len() > self.size {
            return self.restart();
        }
        let mut buffer = vec![0; CHUNK];
        loop {
            match self.file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    self.sum.add(&buffer[..count]);
                    self.length += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let kept = fs::read_to_string(self.note()).ok();
        self.validator = kept.filter(|text| self.length > 0 && is_strong(text));
        Ok(())
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.length == self.size
    }

    /// What the server called these bytes.
    pub(crate) fn validator(&self) -> Option<&str> {
        self.validator.as_deref()
    }

    /// Says what the server calls the bytes that come now, from the first one on.
    pub(crate) fn call(&mut self, validator: Option<&str>) {
        self.validator = validator.filter(|text| is_strong(text)).map(str::to_owned);
        // If it cannot be kept, the rest is asked for without it.
        let _ = match &self.validator {
            Some(text) => layout::open(&self.note(), OpenOptions::new().write(true).create(true).truncate(true))
                .and_then(|mut note| note.write_all(text.as_bytes())),
            None => fs::remove_file(self.note()),
        };
    }

    /// Forgets all that has arrived.
    pub(crate) fn restart(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.length = 0;
        self.sum = Sum::new(&self.name, self.size);
        self.call(None);
        Ok(())
    }

    /// Appends bytes; what is more than the file has is left out, and the checksum tells whether that was right.
    pub(crate) fn add(&mut self, bytes: &[u8]) -> Result<(), HubError> {
        let room = usize::try_from(self.size - self.length).unwrap_or(usize::MAX);
        let bytes = &bytes[..bytes.len().min(room)];
        self.file.write_all(bytes).map_err(HubError::io(&self.path))?;
        self.sum.add(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Checks a whole part, and gives it its name if it is right. If not, it comes back empty, with what was wrong.
    pub(crate) fn finish(mut self) -> Result<Option<(Self, String)>, HubError> {
        let failed = HubError::io(&self.path);
        let sum = std::mem::replace(&mut self.sum, Sum::new(&self.name, self.size)).hex();
        if sum != self.name {
            let why = format!("checksum {}… instead of {}…", &sum[..12], &self.name[..12]);
            self.restart().map_err(failed)?;
            return Ok(Some((self, why)));
        }
        self.file.sync_all().map_err(&failed)?;
        fs::rename(&self.path, self.place.blob(&self.name)).map_err(&failed)?;
        let _ = fs::remove_file(self.note());
        // Without it the new name may be gone after a power cut. Not every file system can.
        let _ = File::open(self.place.blobs()).and_then(|dir| dir.sync_all());
        Ok(None)
    }

    /// Leaves nothing behind.
    pub(crate) fn discard(self) -> Result<(), HubError> {
        let _ = fs::remove_file(self.note());
        fs::remove_file(&self.path).map_err(HubError::io(&self.path))
    }

    fn note(&self) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(".etag");
        path.into()
    }
}

/// Only strong validators say that bytes are the same. (RFC 9110, 8.8.1)
fn is_strong(text: &str) -> bool {
    text.len() <= VALIDATOR_BYTES && text.starts_with('"') && text.bytes().all(|byte| (0x21..0x7f).contains(&byte))
}

/// The checksum by which a blob is called: SHA-256 of large files, git's SHA-1 (with its header) of small ones.
pub(crate) struct Sum(Context);

impl Sum {
    pub(crate) fn new(name: &str, size: u64) -> Self {
        if super::names::is_sha256(name) {
            return Self(Context::new(&SHA256));
        }
        let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
        context.update(format!("blob {size}\0").as_bytes());
        Self(context)
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn hex(self) -> String {
        self.0.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Whether a finished blob has the bytes that its name promises.
pub(crate) fn is_right(place: &Place, file: &FileInfo) -> Result<bool, HubError> {
    let Some(name) = layout::blob_name(file) else { return Ok(false) };
    let path = place.blob(name);
    let mut open = layout::open(&path, OpenOptions::new().read(true)).map_err(HubError::io(&path))?;
    let sum = Sum::new(name, open.metadata().map_err(HubError::io(&path))?.len());
    Ok(read_sum(&mut open, sum).map_err(HubError::io(&path))? == name)
}

/// The checksum of all that a file has from here on.
pub(crate) fn read_sum(file: &mut File, mut sum: Sum) -> io::Result<String> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(sum.hex()),
            Ok(count) => sum.add(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
