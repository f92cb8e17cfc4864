//! The newest roster that a node has heard of, on its disk.
//!
//! ```text
//! magic "PELAGORO"  cluster:u128  version:u64  roster (see `codec.rs`)  crc32:u32
//! ```
//! The checksum covers everything before it; the file is replaced atomically. A lost one is heard
//! again from any peer.

use bytes::{Buf, BufMut, Bytes};
use groups::ids::{ClusterId, NodeId};
use groups::log::Disk;

use super::{Roster, RosterNode};
use crate::node::layout::Layout;

/// The file's name in the data directory.
pub const FILE: &str = "ROSTER";

const MAGIC: &[u8; 8] = b"PELAGORO";
/// The largest cluster's is smaller.
const MAX_BYTES: usize = 2 << 20;

/// The bytes of the file.
fn to_bytes(cluster: ClusterId, roster: &Roster) -> Vec<u8> {
    let body = roster.encode();
    let mut out = Vec::with_capacity(36 + body.len());
    out.put_slice(MAGIC);
    out.put_u128_le(cluster.0);
    out.put_u64_le(roster.version());
    out.put_slice(&body);
    let crc = crc32fast::hash(&out);
    out.put_u32_le(crc);
    out
}

fn from_bytes(bytes: &[u8]) -> Option<(ClusterId, Roster)> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    if u32::from_le_bytes(*crc) != crc32fast::hash(body) {
        return None;
    }
    let mut rest = Bytes::copy_from_slice(body.strip_prefix(MAGIC)?);
    let cluster = ClusterId(rest.try_get_u128_le().ok()?);
    let version = rest.try_get_u64_le().ok()?;
    Some((cluster, Roster::decode(version, rest)?))
}

/// Writes it down, durably.
///
/// # Errors
/// When the file system fails; the old one is still there then.
pub fn store<D: Disk>(disk: &D, cluster: ClusterId, roster: &Roster) -> std::io::Result<()> {
    disk.write_small(FILE, &to_bytes(cluster, roster))
}

/// The newest roster of this cluster that a directory has, else the one that the cluster was born with,
/// in which `founder` says where the nodes are.
pub fn known<D: Disk>(
    disk: &D,
    cluster: ClusterId,
    layout: &Layout,
    founder: impl Fn(NodeId) -> RosterNode,
) -> Roster {
    load(disk, cluster)
        .filter(|roster| roster.groups() == layout.groups())
        .unwrap_or_else(|| Roster::birth(layout, layout.nodes().iter().map(|id| founder(*id)).collect()))
}

/// What the file of a directory says of this cluster; `None` when there is none, or none that can be
/// used.
fn load<D: Disk>(disk: &D, cluster: ClusterId) -> Option<Roster> {
    match disk.read_small(FILE, MAX_BYTES) {
        Ok(bytes) => match from_bytes(&bytes?) {
            Some((of, roster)) if of == cluster => Some(roster),
            Some((of, _)) => {
                tracing::warn!("{FILE} is of another cluster, {of}: it is not used");
                None
            }
            None => {
                tracing::warn!(
                    "{FILE} is damaged: who the cluster's nodes are is heard again from the peers"
                );
                None
            }
        },
        Err(e) => {
            tracing::warn!("cannot read {FILE}: {e}");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::roster::tests::{born, entry};

    #[test]
    fn a_roster_survives_its_bytes_and_nothing_else_does() {
        let roster = born(3, 16, 3).add(entry(4), 3).expect("a new node");
        let cluster = ClusterId(7);
        let bytes = to_bytes(cluster, &roster);
        assert_eq!(from_bytes(&bytes), Some((cluster, roster.clone())));
        for length in 0..bytes.len() {
            assert_eq!(from_bytes(&bytes[..length]), None, "cut to {length}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(from_bytes(&flipped), None, "bit {bit}");
        }
        let body = roster.encode();
        for length in 0..body.len() {
            assert_eq!(Roster::decode(1, body.slice(..length)), None, "cut to {length}");
        }
    }

    #[test]
    fn a_group_is_placed_on_nodes_that_there_are() {
        let layout = Layout::new(vec![NodeId(1), NodeId(2)], 1, 2);
        let mut roster = Roster::birth(&layout, vec![entry(1), entry(2)]);
        for wrong in [vec![], vec![NodeId(3)], vec![NodeId(1), NodeId(1)]] {
            roster.placement[0] = wrong;
            assert_eq!(Roster::decode(1, roster.encode()), None);
        }
    }
}
