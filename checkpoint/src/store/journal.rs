//! Cuts the torn tail of fjall's journal before fjall sees it.
//!
//! A power loss leaves any part of what was not synced. fjall (3.1.13) truncates a tail that it
//! cannot parse, but a last batch that parses and whose checksum is wrong (one page of a value
//! did not reach the disk) is an error to it, and the whole database with everything that *was*
//! synced does not open. Batches are appended in order, so what lies before the first bad one is
//! an earlier state; whether that is too early is judged by the recorded points, group by group.
//!
//! ```text
//! batch  start | item* or clear* | end
//! start  01 items:u32 sequence:u64
//! item   02 type:u8 compression:u8 keyspace:u64 key:u16 value:u32 stored:u32, key, stored value
//! end    03 xxh3 of the items:u64 "FJL" 03
//! clear  04 keyspace:u64
//! ```

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

const END: &[u8] = b"FJL\x03";

/// The longest key and value of an item; anything larger is no item.
const MAX_ITEM: usize = (64 << 10) + (64 << 20);

/// Cuts the newest journal in `dir` behind its last whole batch. Returns the bytes that were in
/// the way, zeros not counted as such.
///
/// # Errors
/// What the operating system says.
pub(super) fn cut_torn_tail(dir: &Path) -> io::Result<u64> {
    let Some(path) = newest(dir)? else { return Ok(0) };
    let file = OpenOptions::new().read(true).write(true).open(&path)?;
    let length = file.metadata()?.len();
    let mut walk = Walk { from: BufReader::with_capacity(1 << 16, &file), at: 0 };
    let mut whole = 0;
    while walk.batch()? {
        whole = walk.at;
    }
    drop(walk);
    let mut rest = BufReader::new(&file);
    io::Seek::seek(&mut rest, io::SeekFrom::Start(whole))?;
    // fjall allocates its journal ahead: zeros behind the last batch are the clean end.
    let torn = last_byte(&mut rest)?;
    if torn > 0 {
        file.set_len(whole)?;
        file.sync_all()?;
        tracing::warn!(
            file = %path.display(),
            offset = whole,
            bytes = length - whole,
            "cut the torn tail of the mirror's journal"
        );
    }
    Ok(torn)
}

fn newest(dir: &Path) -> io::Result<Option<PathBuf>> {
    let mut newest = None;
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries?,
    };
    for entry in entries {
        let name = entry?.file_name();
        let number: Option<u64> = name.to_str().and_then(|n| n.strip_suffix(".jnl")?.parse().ok());
        newest = newest.max(number);
    }
    Ok(newest.map(|number| dir.join(format!("{number}.jnl"))))
}

/// How far the last byte that is not zero lies from here, in bytes.
fn last_byte(from: &mut impl Read) -> io::Result<u64> {
    let mut buffer = vec![0; 1 << 16];
    let (mut at, mut last) = (0, 0);
    loop {
        let n = from.read(&mut buffer)?;
        if n == 0 {
            return Ok(last);
        }
        if let Some(position) = buffer[..n].iter().rposition(|byte| *byte != 0) {
            last = at + position as u64 + 1;
        }
        at += n as u64;
    }
}

struct Walk<'a> {
    from: BufReader<&'a File>,
    at: u64,
}

impl Walk<'_> {
    /// Walks over a batch; `false` when there is no whole one here.
    fn batch(&mut self) -> io::Result<bool> {
        let Some(start) = self.take::<13>()? else { return Ok(false) };
        if start[0] != 1 {
            return Ok(false);
        }
        let mut items = u32::from_le_bytes([start[1], start[2], start[3], start[4]]);
        let mut hash = Xxh3::new();
        loop {
            let Some([tag]) = self.take::<1>()? else { return Ok(false) };
            match tag {
                2 if items > 0 => {
                    items -= 1;
                    hash.update(&[tag]);
                    if !self.item(&mut hash)? {
                        return Ok(false);
                    }
                }
                4 if items > 0 => {
                    items -= 1;
                    let Some(keyspace) = self.take::<8>()? else { return Ok(false) };
                    hash.update(&[tag]);
                    hash.update(&keyspace);
                }
                3 if items == 0 => {
                    let Some(end) = self.take::<12>()? else { return Ok(false) };
                    let (sum, trailer) = end.split_at(8);
                    return Ok(sum == hash.digest().to_le_bytes() && trailer == END);
                }
                _ => return Ok(false),
            }
        }
    }

    fn item(&mut self, hash: &mut Xxh3) -> io::Result<bool> {
        let Some(head) = self.take::<20>()? else { return Ok(false) };
        hash.update(&head);
        let key = u16::from_le_bytes([head[10], head[11]]) as usize;
        let stored = u32::from_le_bytes([head[16], head[17], head[18], head[19]]) as usize;
        let mut left = key + stored;
        if left > MAX_ITEM {
            return Ok(false);
        }
        let mut buffer = [0; 4096];
        while left > 0 {
            let piece = left.min(buffer.len());
            if !self.fill(&mut buffer[..piece])? {
                return Ok(false);
            }
            hash.update(&buffer[..piece]);
            left -= piece;
        }
        Ok(true)
    }

    fn take<const N: usize>(&mut self) -> io::Result<Option<[u8; N]>> {
        let mut bytes = [0; N];
        Ok(self.fill(&mut bytes)?.then_some(bytes))
    }

    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<bool> {
        match self.from.read_exact(bytes) {
            Ok(()) => {
                self.at += bytes.len() as u64;
                Ok(true)
            }
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(e) => Err(e),
        }
    }
}
