//! What a node remembers of its peers' disks, across its own lives.
//!
//! ```text
//! magic "PELAGOPM"  count:u32  { node:u32 storage:u128 boot:u64 opened:u64 commit:u64 }*  crc32:u32
//! ```
//! All numbers little-endian; the checksum covers everything before it; the file is replaced
//! atomically. It is written when a peer has a new life or another disk, and now and then while
//! the peers' logs go on. It lets a peer whose disk was put back from an older copy be found out
//! after the whole cluster was restarted. A lost file costs that and nothing else.

use bytes::{Buf, BufMut, Bytes};
use groups::ids::{Boot, CommitId, NodeId, StorageId};
use groups::log::Disk;
use groups::peers::Memory;

/// The file's name in the data directory.
pub const FILE: &str = "PEERS";

const MAGIC: &[u8; 8] = b"PELAGOPM";
const ENTRY: usize = 4 + 16 + 8 + 8 + 8;
/// Far more nodes than a cluster has.
const MAX_BYTES: usize = 1 << 20;

/// The bytes of the file.
#[must_use]
pub fn encode(peers: &[(NodeId, Memory)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 + peers.len() * ENTRY);
    out.put_slice(MAGIC);
    out.put_u32_le(peers.len() as u32);
    for (node, memory) in peers {
        out.put_u32_le(node.0);
        out.put_u128_le(memory.storage.0);
        out.put_u64_le(memory.boot.0);
        out.put_u64_le(memory.opened.0);
        out.put_u64_le(memory.commit.0);
    }
    let crc = crc32fast::hash(&out);
    out.put_u32_le(crc);
    out
}

/// Reads the bytes of the file; `None` when they are not what was written.
#[must_use]
pub fn decode(bytes: &[u8]) -> Option<Vec<(NodeId, Memory)>> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    if u32::from_le_bytes(*crc) != crc32fast::hash(body) {
        return None;
    }
    let mut rest = Bytes::copy_from_slice(body.strip_prefix(MAGIC)?);
    let count = rest.try_get_u32_le().ok()? as usize;
    if rest.len() != count.checked_mul(ENTRY)? {
        return None;
    }
    let mut entry = || {
        let node = NodeId(rest.get_u32_le());
        let storage = StorageId(rest.get_u128_le());
        let (boot, opened) = (Boot(rest.get_u64_le()), CommitId(rest.get_u64_le()));
        (node, Memory { storage, boot, opened, commit: CommitId(rest.get_u64_le()) })
    };
    Some((0..count).map(|_| entry()).collect())
}

/// What the file of a directory says; nothing when there is none, or none that can be used.
pub fn load<D: Disk>(disk: &D) -> Vec<(NodeId, Memory)> {
    match disk.read_small(FILE, MAX_BYTES) {
        Ok(None) => Vec::new(),
        Ok(Some(bytes)) => decode(&bytes).unwrap_or_else(|| {
            tracing::warn!("{FILE} is damaged: what this node remembered of its peers' disks is gone");
            Vec::new()
        }),
        Err(e) => {
            tracing::warn!("cannot read {FILE}: {e}");
            Vec::new()
        }
    }
}

/// Adds what a shard remembers: shards hear different words, and together they remember the newest
/// of each peer's disks and the most of it.
pub fn merge(held: &mut Vec<(NodeId, Memory)>, told: &[(NodeId, Memory)]) {
    for (node, news) in told {
        match held.iter_mut().find(|(n, _)| n == node) {
            None => held.push((*node, *news)),
            Some((_, memory)) if memory.storage == news.storage => {
                if memory.is_before(news) {
                    *memory = *news;
                } else if (memory.boot, memory.opened) == (news.boot, news.opened) {
                    memory.commit = memory.commit.max(news.commit);
                }
            }
            Some((_, memory)) if memory.boot < news.boot => *memory = *news,
            Some(_) => {}
        }
    }
}

/// The newest life of `node` that is remembered; 0 for none.
#[must_use]
pub fn boot_of(peers: &[(NodeId, Memory)], node: NodeId) -> Boot {
    peers.iter().find(|(n, _)| *n == node).map_or(Boot(0), |(_, memory)| memory.boot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_remember_the_newest_disk_and_the_most_of_it() {
        let memory = |storage: u128, boot: u64, commit: u64| Memory {
            storage: StorageId(storage),
            boot: Boot(boot),
            opened: CommitId(boot * 20),
            commit: CommitId(commit),
        };
        let mut held = vec![(NodeId(2), memory(7, 5, 110))];
        merge(&mut held, &[(NodeId(2), memory(7, 5, 90)), (NodeId(3), memory(1, 1, 30))]);
        assert_eq!(held, [(NodeId(2), memory(7, 5, 110)), (NodeId(3), memory(1, 1, 30))]);
        merge(&mut held, &[(NodeId(2), memory(7, 6, 120)), (NodeId(3), memory(4, 9, 180))]);
        assert_eq!(held, [(NodeId(2), memory(7, 6, 120)), (NodeId(3), memory(4, 9, 180))]);
        // Another disk with a lower number, and an older copy of this one with a higher.
        merge(&mut held, &[(NodeId(2), memory(8, 5, 500)), (NodeId(3), memory(4, 9, 170))]);
        let copy = Memory { opened: CommitId(100), ..memory(7, 8, 900) };
        merge(&mut held, &[(NodeId(2), copy)]);
        assert_eq!(held, [(NodeId(2), memory(7, 6, 120)), (NodeId(3), memory(4, 9, 180))]);
    }

    #[test]
    fn what_is_remembered_survives_and_damage_is_noticed() {
        let memory = |n: u64| Memory {
            storage: StorageId(n.into()),
            boot: Boot(n),
            opened: CommitId(n * 8),
            commit: CommitId(n * 9),
        };
        let peers = vec![(NodeId(2), memory(7)), (NodeId(3), memory(8))];
        let bytes = encode(&peers);
        assert_eq!(decode(&bytes), Some(peers.clone()));
        assert_eq!((boot_of(&peers, NodeId(3)), boot_of(&peers, NodeId(4))), (Boot(8), Boot(0)));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&bad), None, "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert_eq!(decode(&bytes[..length]), None, "cut to {length}");
        }
    }
}
