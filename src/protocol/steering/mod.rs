//! Which of several listening sockets on one address gets the next connection. Every worker has a socket of its own, a
//! *lane*; all lanes of an address are one `SO_REUSEPORT` group (`socket(7)`), and a small program in the kernel picks one
//! for each new connection: [`program()`] where we may load such programs, [`classic()`] where we may not.
//!
//! # The control block
//!
//! The policy is data: the program reads it from a block of memory that it shares with us (an array map with
//! `BPF_F_MMAPABLE`, `linux/bpf.h`), so that a change is a store and no system call. All numbers are in the byte order of
//! the machine.
//!
//! | bytes | what | who writes |
//! |---|---|---|
//! | 0..4 | mode: a [`Pick`] | we |
//! | 4..8 | how many entries of the table count: 1 to 256; 0 leaves every connection to the kernel's hash | we |
//! | 64..72 | turn: how many connections went in turn | the program |
//! | 72..80 | unsteered: how many were left to the kernel's hash | the program |
//! | 80..84 | still: the process that is held still while its lane is emptied, for a primary that comes after one that died then | we |
//! | 128..1152 | table: 256 entries of 4 bytes, each the number of a lane | we |
//! | 1152..2176 | connections: 4 bytes for each lane | both: the program adds 1 for each that it gives, we write what we have counted |
//! | 2176..4224 | taken: 8 bytes for each lane, how many it was given | the program |
//!
//! The program is asked for whatever belongs to no connection: that is a new one's first packet, but also a late packet of
//! one that is closed (and the last of a handshake with SYN cookies, so it cannot pass them over). Both count, so the
//! numbers are no less than the connections, and may be more.
//!
//! What is only read lies in other cache lines than what every connection writes.
//!
//! The table is the whole policy but for the mode: a lane that is in it twice gets twice as much, and one that is not gets
//! nothing. Lanes that are in no table can stay in the group for ever, and have to: the kernel's hash, which stands in
//! when the program finds no lane, knows no table and gives to all of them.

mod assembler;
mod classic;
mod program;

pub use classic::{ClassicPick, Instruction, classic};
pub use program::program;

/// How many lanes an address can have: their numbers are a byte.
pub const MAX_LANES: u32 = 256;

/// How many entries a table can have.
pub const MAX_ENTRIES: u32 = 256;

/// The size of the control block in bytes: whole pages of 4096.
pub const BLOCK: usize = 8192;

/// Where the mode stands: a u32.
pub const MODE: usize = 0;

/// Where it stands how many entries of the table count: a u32.
pub const ENTRIES: usize = 4;

/// Where the program counts turns: a u64.
pub const TURN: usize = 64;

/// Where the program counts the connections that it left to the kernel's hash: a u64.
pub const UNSTEERED: usize = 72;

/// Where the pid of a process stands that we hold still, or 0: a u32. The program has no use for it.
pub const STILL: usize = 80;

const TABLE: usize = 128;
const CONNECTIONS: usize = TABLE + 4 * 256;
const TAKEN: usize = CONNECTIONS + 4 * 256;
const _: () = assert!(TAKEN + 8 * 256 <= BLOCK);

/// Returns where an entry of the table stands: a u32, the number of a lane.
#[must_use]
pub fn entry(at: u8) -> usize {
    TABLE + 4 * usize::from(at)
}

/// Returns where the connections of a lane stand: a u32.
#[must_use]
pub fn connections(lane: u8) -> usize {
    CONNECTIONS + 4 * usize::from(lane)
}

/// Returns where it stands how many connections a lane was given: a u64, which is never set back.
#[must_use]
pub fn taken(lane: u8) -> usize {
    TAKEN + 8 * usize::from(lane)
}

/// How an entry of the table is picked for a connection; the numbers are those of the mode word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// One after the other: after every whole round all entries have had the same.
    RoundRobin = 0,
    /// By the client's address: a client comes to the same entry again for as long as the table is as long as it was.
    ClientIp = 1,
    /// The next in turn or one at random, whichever of their lanes has fewer connections: the power of two choices, which
    /// needs no loop over all of them.
    LeastConnections = 2,
    /// By the addresses and ports of both sides: all datagrams of a UDP client's socket come to the same entry.
    Flow = 3,
}

/// Returns the stores (offset, u32) that put a table in force, in their order, which matters: the program may read between
/// any two of them, and finds a lane of the old table or of the new one. That is why entries that do not count are filled
/// too. Entries beyond [`MAX_ENTRIES`] are left out; an empty table leaves every connection to the kernel's hash.
#[must_use]
pub fn stores(pick: Pick, table: &[u8]) -> Vec<(usize, u32)> {
    let lanes = table.iter().copied().cycle();
    let mut stores: Vec<(usize, u32)> =
        (0..=u8::MAX).zip(lanes).map(|(at, lane)| (entry(at), lane.into())).collect();
    stores.push((MODE, pick as u32));
    stores.push((ENTRIES, u32::try_from(table.len()).unwrap_or(u32::MAX).min(MAX_ENTRIES)));
    stores
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_block_is_laid_out_as_the_table_above_says() {
        assert_eq!((entry(0), entry(255) + 4), (128, 1152));
        assert_eq!((connections(0), connections(255) + 4), (1152, 2176));
        assert_eq!((taken(0), taken(255) + 8), (2176, 4224));
        assert!(BLOCK.is_multiple_of(4096));
    }

    #[test]
    fn a_table_is_stored_before_its_length_and_fills_every_entry() {
        let stores = stores(Pick::LeastConnections, &[7, 9, 7]);
        assert_eq!(stores.len(), 258);
        assert_eq!(stores[..4], [(128, 7), (132, 9), (136, 7), (140, 7)]);
        assert_eq!(stores[256..], [(MODE, 2), (ENTRIES, 3)]);
        let places: BTreeSet<usize> = stores.iter().map(|(at, _)| *at).collect();
        assert_eq!(places.len(), stores.len());
    }

    #[test]
    fn a_table_that_is_empty_or_too_long_is_still_one() {
        assert_eq!(stores(Pick::RoundRobin, &[]), [(MODE, 0), (ENTRIES, 0)]);
        let long = stores(Pick::Flow, &[1; 300]);
        assert_eq!((long.len(), long.last()), (258, Some(&(ENTRIES, 256))));
    }
}
