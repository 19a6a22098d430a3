//! A file that is arriving: written and hashed on the way, shown only when whole and right; must not know where its bytes
//! come from.
//!
//! In order it is nothing but the bytes so far (`.incomplete`, as other tools have it), so that its length is the whole
//! journal: whoever finds it after a kill hashes what is there and asks for the rest. In any order it has another name, since
//! others would take its length for its journal, and a [`Journal`] beside it. The validator (`ETag`) that its server gave lies
//! there too, so that the rest is asked for only of the same bytes. All of this blocks.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    ops::Range,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

use super::{
    FileInfo, HubError,
    journal::{self, Journal, PIECE, Piece, Pieces, WriteAt},
    layout,
    layout::Place,
    ranges::Ranges,
};

/// Bytes read at once where a file is hashed; of those that came out of order, each time that others are written.
const CHUNK: usize = PIECE as usize;
/// A validator longer than this is not kept. Real ones have 70 bytes.
const VALIDATOR_BYTES: usize = 256;

/// A file that is arriving. Whoever has it has the lock.
pub(crate) struct Part {
    file: File,
    path: PathBuf,
    place: Place,
    name: String,
    size: u64,
    here: Ranges,
    /// How many bytes from the start on `sum` has.
    summed: u64,
    sum: Sum,
    /// Those of the bytes that were found in order.
    found: Vec<Piece>,
    pieces: Pieces,
    /// Where bytes may come in any order.
    journal: Option<Journal>,
    validator: Option<String>,
    write: WriteAt,
    _lock: File,
}

impl Part {
    /// What is there of a file, which may be nothing.
    pub(crate) fn open(place: &Place, name: &str, size: u64, lock: File) -> Result<Self, HubError> {
        let (plain, apart, journal) = (place.part(name), place.pieces(name), place.journal(name));
        for path in [&plain, &apart, &journal] {
            if fs::symlink_metadata(path).is_ok_and(|meta| !meta.is_file()) {
                return Err(HubError::Planted { path: path.clone(), why: "it should be a file of its own" });
            }
        }
        let (told, good) = journal::read(&journal, size);
        if told.is_empty() && apart.exists() {
            // Without its journal it says nothing.
            fs::remove_file(&apart).map_err(HubError::io(&apart))?;
        }
        let spread = apart.exists();
        let path = if spread { apart } else { plain };
        let failed = HubError::io(&path);
        let options = &mut OpenOptions::new();
        let file = layout::open(&path, options.read(true).write(true).create(true)).map_err(&failed)?;
        let mut part = Self {
            file,
            path,
            place: place.clone(),
            name: name.to_owned(),
            size,
            here: Ranges::default(),
            summed: 0,
            sum: Sum::new(name, size),
            found: Vec::new(),
            pieces: Pieces::default(),
            journal: None,
            validator: None,
            write: File::write_at,
            _lock: lock,
        };
        if spread {
            part.compare(told, good)?;
        } else {
            part.take_up().map_err(failed)?;
        }
        let kept = fs::read_to_string(part.note()).ok();
        part.validator = kept.filter(|text| part.arrived() > 0 && is_strong(text));
        Ok(part)
    }

    /// Bytes in order: all of them count.
    fn take_up(&mut self) -> io::Result<()> {
        if self.file.metadata()?.len() > self.size {
            return self.restart();
        }
        let mut buffer = vec![0; CHUNK];
        loop {
            match self.file.read_at(&mut buffer, self.summed) {
                Ok(0) => break,
                Ok(count) => {
                    let bytes = &buffer[..count];
                    self.found.extend(self.pieces.add(self.summed, bytes));
                    self.sum.add(bytes);
                    self.summed += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.found.extend(self.pieces.rest());
        self.here.add(0..self.summed);
        Ok(())
    }

    /// Bytes in any order: those count that are what the journal says.
    fn compare(&mut self, mut told: Vec<Piece>, good: bool) -> Result<(), HubError> {
        let failed = HubError::io(&self.path);
        let many = told.len();
        if self.file.metadata().map_err(&failed)?.len() > self.size {
            self.file.set_len(self.size).map_err(&failed)?;
        }
        let mut buffer = vec![0; CHUNK];
        let mut right = Vec::new();
        told.sort_by_key(|piece| piece.range.start);
        for piece in told {
            let bytes = &mut buffer[..(piece.range.end - piece.range.start) as usize];
            match self.file.read_exact_at(bytes, piece.range.start) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => continue,
                Err(error) => return Err(failed(error)),
            }
            if self.here.any_of(&piece.range) || blake3::hash(bytes) != piece.sum {
                continue;
            }
            if piece.range.start == self.summed {
                self.sum.add(bytes);
                self.summed = piece.range.end;
            }
            self.here.add(piece.range.clone());
            right.push(piece);
        }
        let path = self.place.journal(&self.name);
        let journal = if good && right.len() == many {
            Journal::reopen(&path, self.size)
        } else {
            Journal::begin(&path, self.size, &right, self.write)
        };
        self.journal = Some(journal.map_err(|cause| self.failed(cause))?);
        Ok(())
    }

    /// From now on its bytes may come in any order.
    pub(crate) fn spread(mut self) -> Result<Self, HubError> {
        if self.journal.is_some() {
            return Ok(self);
        }
        let begun =
            Journal::begin(&self.place.journal(&self.name), self.size, &std::mem::take(&mut self.found), self.write);
        self.journal = Some(begun.map_err(|cause| self.failed(cause))?);
        // After the journal: without one it would say nothing.
        let (note, apart) = (self.note(), self.place.pieces(&self.name));
        fs::rename(&self.path, &apart).map_err(HubError::io(&apart))?;
        self.path = apart;
        let _ = fs::remove_file(note);
        let validator = self.validator.take();
        self.call(validator.as_deref());
        Ok(self)
    }

    /// Says how bytes get to the disk.
    pub(crate) fn written_by(self, write: WriteAt) -> Self {
        Self { write, ..self }
    }

    pub(crate) fn arrived(&self) -> u64 {
        self.here.total()
    }

    pub(crate) fn gaps(&self) -> Vec<Range<u64>> {
        self.here.gaps(self.size)
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.arrived() == self.size
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
                .and_then(|note| journal::put(&note, text.as_bytes(), 0, self.write)),
            None => fs::remove_file(self.note()),
        };
    }

    /// Forgets all that has arrived.
    pub(crate) fn restart(&mut self) -> io::Result<()> {
        if let Some(journal) = &mut self.journal {
            journal.clear()?;
        }
        self.file.set_len(0)?;
        (self.here, self.pieces, self.found) = (Ranges::default(), Pieces::default(), Vec::new());
        (self.summed, self.sum) = (0, Sum::new(&self.name, self.size));
        self.call(None);
        Ok(())
    }

    /// Puts bytes where they belong; what is more than the file has is left out, and the checksum tells whether that was
    /// right.
    pub(crate) fn add(&mut self, at: u64, bytes: &[u8]) -> Result<(), HubError> {
        let room = usize::try_from(self.size.saturating_sub(at)).unwrap_or(usize::MAX);
        let bytes = &bytes[..bytes.len().min(room)];
        journal::put(&self.file, bytes, at, self.write).map_err(|cause| self.failed(cause))?;
        let end = at + bytes.len() as u64;
        self.here.add(at..end);
        if at == self.summed {
            self.sum.add(bytes);
            self.summed = end;
        } else {
            self.sum_more().map_err(HubError::io(&self.path))?;
        }
        if self.journal.is_some() {
            let complete = self.pieces.add(at, bytes);
            self.tell(&complete)?;
        }
        Ok(())
    }

    /// Tells the journal what it does not know yet, which is what a kill would cost.
    pub(crate) fn settle(&mut self) -> Result<(), HubError> {
        let rest = self.pieces.rest();
        self.tell(&rest)
    }

    fn tell(&mut self, pieces: &[Piece]) -> Result<(), HubError> {
        let told = match &mut self.journal {
            Some(journal) if !pieces.is_empty() => journal.add(pieces, self.write),
            _ => Ok(()),
        };
        told.map_err(|cause| self.failed(cause))
    }

    /// Reads back some of what came out of order; says whether there is more.
    fn sum_more(&mut self) -> io::Result<bool> {
        let end = self.here.end_from(self.summed);
        let count = end.saturating_sub(self.summed).min(CHUNK as u64) as usize;
        if count > 0 {
            let mut bytes = vec![0; count];
            self.file.read_exact_at(&mut bytes, self.summed)?;
            self.sum.add(&bytes);
            self.summed += count as u64;
        }
        Ok(self.summed < end)
    }

    /// Checks a whole part, and gives it its name if it is right. If not, it comes back empty, with what was wrong.
    pub(crate) fn finish(mut self) -> Result<Option<(Self, String)>, HubError> {
        let failed = HubError::io(&self.path);
        while self.sum_more().map_err(&failed)? {}
        let sum = std::mem::replace(&mut self.sum, Sum::new(&self.name, self.size)).hex();
        if sum != self.name {
            let why = format!("checksum {}… instead of {}…", &sum[..12], &self.name[..12]);
            self.restart().map_err(failed)?;
            return Ok(Some((self, why)));
        }
        self.file.sync_all().map_err(&failed)?;
        fs::rename(&self.path, self.place.blob(&self.name)).map_err(&failed)?;
        self.forget();
        // Without it the new name may be gone after a power cut. Not every file system can.
        let _ = File::open(self.place.blobs()).and_then(|dir| dir.sync_all());
        Ok(None)
    }

    /// Leaves nothing behind.
    pub(crate) fn discard(self) -> Result<(), HubError> {
        self.forget();
        fs::remove_file(&self.path).map_err(HubError::io(&self.path))
    }

    /// Removes what lies beside it.
    fn forget(&self) {
        let _ = fs::remove_file(self.note());
        if self.journal.is_some() {
            let _ = fs::remove_file(self.place.journal(&self.name));
            // What another tool has begun meanwhile and left.
            let _ = fs::remove_file(self.place.part(&self.name));
        }
    }

    fn note(&self) -> PathBuf {
        note(&self.path)
    }

    fn failed(&self, cause: io::Error) -> HubError {
        match cause.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                let missing = self.size - self.arrived();
                HubError::Full { path: self.place.blobs(), missing, cause: cause.to_string() }
            }
            _ => HubError::Io { path: self.path.clone(), cause },
        }
    }
}

fn note(path: &Path) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(".etag");
    path.into()
}

/// Only strong validators say that bytes are the same. (RFC 9110, 8.8.1)
pub(crate) fn is_strong(text: &str) -> bool {
    // One that was written while the disk filled lacks its end.
    let quoted = text.len() >= 2 && text.starts_with('"') && text.ends_with('"');
    quoted && text.len() <= VALIDATOR_BYTES && text.bytes().all(|byte| (0x21..0x7f).contains(&byte))
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
