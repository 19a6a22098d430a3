//! What of a file that comes in any order has arrived, with checksums, on disk; must not know where bytes come from.
//!
//! ```text
//! mesh-llm pieces 1 SIZE
//! START LENGTH BLAKE3
//! ```
//! A line is written once its bytes are, and nothing waits for the disk: whoever goes on compares each piece with its line, so
//! a line that is torn, or ahead of its bytes after a power cut, costs that piece and no more.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, BufReader, Read as _},
    ops::Range,
    path::{Path, PathBuf},
};

use blake3::{Hash, Hasher};

use super::layout;

/// How bytes get into a file at an offset. Returns how many did.
pub(crate) type WriteAt = fn(&File, &[u8], u64) -> io::Result<usize>;

/// Bytes of a piece at most; pieces end at its multiples. What a kill may cost each connection. A line of 90 bytes for each
/// is a ten-thousandth of the file.
pub(crate) const PIECE: u64 = 1 << 20;
/// A journal beyond this is none: that of a terabyte.
const JOURNAL_BYTES: u64 = 128 << 20;
/// A line beyond this is none; two numbers and a checksum have 106 bytes at most.
const LINE_BYTES: u64 = 160;

/// Some bytes that have arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) range: Range<u64>,
    pub(crate) sum: Hash,
}

/// Cuts what arrives at several places into pieces, with their checksums.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    /// Those that may still grow, by their ends.
    growing: BTreeMap<u64, (u64, Hasher)>,
}

impl Pieces {
    /// Takes bytes; gives the pieces that are complete with them.
    pub(crate) fn add(&mut self, mut at: u64, mut bytes: &[u8]) -> Vec<Piece> {
        let mut complete = Vec::new();
        while !bytes.is_empty() {
            let (start, mut hasher) = self.growing.remove(&at).unwrap_or_else(|| (at, Hasher::new()));
            let border = (at / PIECE + 1) * PIECE;
            let (now, later) = bytes.split_at(bytes.len().min((border - at) as usize));
            hasher.update(now);
            (at, bytes) = (at + now.len() as u64, later);
            if at == border {
                complete.push(Piece { range: start..at, sum: hasher.finalize() });
            } else {
                self.growing.insert(at, (start, hasher));
            }
        }
        complete
    }

    /// What is not complete, as pieces of their own.
    pub(crate) fn rest(&mut self) -> Vec<Piece> {
        let growing = std::mem::take(&mut self.growing);
        growing.into_iter().map(|(end, (start, hasher))| Piece { range: start..end, sum: hasher.finalize() }).collect()
    }
}

/// The file with the lines, open for more of them.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    length: u64,
    head: u64,
}

impl Journal {
    /// Begins one, in the place of what was there, with these pieces.
    pub(crate) fn begin(path: &Path, size: u64, pieces: &[Piece], write: WriteAt) -> io::Result<Self> {
        let mut fresh = path.as_os_str().to_owned();
        fresh.push(".new");
        let fresh = PathBuf::from(fresh);
        // Left by somebody who was killed; a link that was planted here goes too.
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = layout::open(&fresh, OpenOptions::new().write(true).create_new(true))?;
        let mut journal = Self { file, length: 0, head: 0 };
        let written = journal
            .put(&head(size), write)
            .and_then(|()| {
                journal.head = journal.length;
                journal.add(pieces, write)
            })
            .and_then(|()| fs::rename(&fresh, path));
        written.inspect_err(|_| drop(fs::remove_file(&fresh)))?;
        Ok(journal)
    }

    /// Opens one that is as [`read`] found it: good to its end.
    pub(crate) fn reopen(path: &Path, size: u64) -> io::Result<Self> {
        let file = layout::open(path, OpenOptions::new().write(true))?;
        let length = file.metadata()?.len();
        Ok(Self { file, length, head: head(size).len() as u64 })
    }

    /// Adds lines; where that fails, none of them is there.
    pub(crate) fn add(&mut self, pieces: &[Piece], write: WriteAt) -> io::Result<()> {
        let line = |piece: &Piece| {
            let length = piece.range.end - piece.range.start;
            format!("{} {length} {}\n", piece.range.start, piece.sum.to_hex())
        };
        self.put(&pieces.iter().map(line).collect::<String>(), write)
    }

    /// Forgets all pieces.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        self.file.set_len(self.head)?;
        self.length = self.head;
        Ok(())
    }

    fn put(&mut self, text: &str, write: WriteAt) -> io::Result<()> {
        put(&self.file, text.as_bytes(), self.length, write).inspect_err(|_| drop(self.file.set_len(self.length)))?;
        self.length += text.len() as u64;
        Ok(())
    }
}

/// Writes all of it.
pub(crate) fn put(file: &File, mut bytes: &[u8], mut at: u64, write: WriteAt) -> io::Result<()> {
    while !bytes.is_empty() {
        match write(file, bytes, at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                bytes = bytes.get(count..).unwrap_or_default();
                at += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn head(size: u64) -> String {
    format!("mesh-llm pieces 1 {size}\n")
}

/// The pieces of a file of this size that a journal tells of, and whether all of it made sense.
pub(crate) fn read(path: &Path, size: u64) -> (Vec<Piece>, bool) {
    let open = layout::open(path, OpenOptions::new().read(true));
    let Ok(file) = open else { return (Vec::new(), false) };
    let mut lines = BufReader::new(file.take(JOURNAL_BYTES));
    if line(&mut lines).is_none_or(|first| first != head(size).trim_end()) {
        return (Vec::new(), false);
    }
    let mut pieces = Vec::new();
    loop {
        match lines.fill_buf() {
            Ok([]) => return (pieces, true),
            Ok(_) => {}
            Err(_) => return (pieces, false),
        }
        let Some(piece) = line(&mut lines).and_then(|line| piece(&line, size)) else { return (pieces, false) };
        pieces.push(piece);
    }
}

/// A whole line, without its end.
fn line(lines: &mut impl io::BufRead) -> Option<String> {
    let mut line = String::new();
    lines.take(LINE_BYTES).read_line(&mut line).ok()?;
    line.strip_suffix('\n').map(str::to_owned)
}

fn piece(line: &str, size: u64) -> Option<Piece> {
    let mut words = line.split(' ');
    let (start, length): (u64, u64) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let sum = Hash::from_hex(words.next()?).ok()?;
    let end = start.checked_add(length).filter(|end| *end <= size && (1..=PIECE).contains(&length))?;
    words.next().is_none().then_some(Piece { range: start..end, sum })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

    const SIZE: u64 = 5 * PIECE + 7;

    fn pieces(count: u64) -> Vec<Piece> {
        let piece = |number: u64| Piece {
            range: number * PIECE..((number + 1) * PIECE).min(SIZE),
            sum: blake3::hash(&number.to_le_bytes()),
        };
        (0..count).map(piece).collect()
    }

    #[test]
    fn what_is_written_is_read_and_what_is_torn_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        assert_eq!(read(&path, SIZE), (vec![], false));
        let mut journal = Journal::begin(&path, SIZE, &pieces(2), File::write_at).unwrap();
        journal.add(&pieces(6)[2..4], File::write_at).unwrap();
        assert_eq!(read(&path, SIZE), (pieces(4), true));
        assert_eq!(read(&path, SIZE + 1), (vec![], false), "another file's");
        let mut journal = Journal::reopen(&path, SIZE).unwrap();
        journal.add(&pieces(6)[4..], File::write_at).unwrap();
        assert_eq!(read(&path, SIZE), (pieces(6), true));

        let whole = fs::read(&path).unwrap();
        let ends: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] == b'\n').map(|at| at + 1).collect();
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let lines = ends.iter().filter(|end| **end <= cut).count();
            let (found, good) = read(&path, SIZE);
            assert_eq!(found, pieces(lines.saturating_sub(1) as u64), "{cut}");
            assert_eq!(good, ends.contains(&cut), "{cut}");
        }
        journal.clear().unwrap();
        fs::write(&path, &whole[..ends[0]]).unwrap();
        assert_eq!(read(&path, SIZE), (vec![], true));
    }

    #[test]
    fn lines_that_claim_what_cannot_be_are_no_lines() {
        let sum = blake3::hash(b"").to_hex();
        for claim in ["0 0", "0 1048577", "5242880 8", "18446744073709551615 1", "-1 5", "x 1", "1", "", "0 1 2"] {
            assert_eq!(piece(&format!("{claim} {sum}"), SIZE), None, "{claim}");
        }
        assert_eq!(piece(&format!("0 1 {}", &sum[1..]), SIZE), None);
        assert_eq!(piece(&format!("5242880 7 {sum}"), SIZE).unwrap().range, 5 * PIECE..SIZE);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        fs::write(&path, format!("{}{}", head(SIZE), "9".repeat(1 << 20))).unwrap();
        assert_eq!(read(&path, SIZE), (vec![], false));
    }

    #[test]
    fn a_full_disk_leaves_the_lines_that_were_there() {
        let full: WriteAt = |file, bytes, at| match at {
            0..200 => file.write_at(&bytes[..bytes.len().min(10)], at),
            _ => Err(io::ErrorKind::StorageFull.into()),
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut journal = Journal::begin(&path, SIZE, &pieces(1), full).unwrap();
        assert_eq!(journal.add(&pieces(6)[1..], full).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(read(&path, SIZE), (pieces(1), true));
        journal.add(&pieces(2)[1..], File::write_at).unwrap();
        assert_eq!(read(&path, SIZE), (pieces(2), true));
        assert!(Journal::begin(&path, SIZE, &pieces(6), full).is_err());
        assert_eq!(read(&path, SIZE), (pieces(2), true), "the old one stays");
    }

    #[test]
    fn bytes_that_come_in_any_order_become_the_same_pieces() {
        let bytes: Vec<u8> = (0..3 * PIECE + 5).map(|at| (at % 251) as u8).collect();
        let expected = |range: Range<u64>| {
            let sum = blake3::hash(&bytes[range.start as usize..range.end as usize]);
            Piece { range, sum }
        };
        let mut cut = Pieces::default();
        let mut found = Vec::new();
        // Two places at once, in bits of odd lengths, of which one crosses a border.
        let (mut one, mut two) = (0, PIECE + 100);
        while one < PIECE + 100 || two < bytes.len() as u64 {
            for (at, end) in [(&mut one, PIECE + 100), (&mut two, bytes.len() as u64)] {
                let to = (*at + 70_001).min(end);
                found.extend(cut.add(*at, &bytes[*at as usize..to as usize]));
                *at = to;
            }
        }
        found.extend(cut.rest());
        found.sort_by_key(|piece| piece.range.start);
        let end = bytes.len() as u64;
        // The two met in the middle of a piece: what was growing there goes on, or is a piece of its own.
        assert_eq!(found.first(), Some(&expected(0..PIECE)));
        assert_eq!(found.last(), Some(&expected(3 * PIECE..end)));
        let mut at = 0;
        for piece in found {
            assert_eq!((piece.range.start, piece.clone()), (at, expected(piece.range.clone())));
            at = piece.range.end;
        }
        assert_eq!((at, cut.rest()), (end, vec![]));
    }
}
