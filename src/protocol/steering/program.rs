//! The program that picks a lane: type `BPF_PROG_TYPE_SK_REUSEPORT`, expected attach type
//! `BPF_SK_REUSEPORT_SELECT_OR_MIGRATE` (`linux/bpf.h`, Linux 5.14), so it is asked as well where the connections of a lane
//! go that is shut down before they were accepted. It has no loop and reads nothing by guess, so that the verifier takes it
//! from who has CAP_BPF alone, without CAP_PERFMON (`capabilities(7)`).

use super::assembler::Register::{Frame, R0, R1, R2, R3, R4, R5, R6, R7, R8, R9};
use super::assembler::{Assembler, Do, If, Label, Map, Register, Width};
use super::{CONNECTIONS, ENTRIES, MAX_ENTRIES, MODE, Pick, TABLE, TAKEN, TURN, UNSTEERED};

/// Fields of struct `sk_reuseport_md`.
const MD_DATA: i16 = 0;
const MD_DATA_END: i16 = 8;
const MD_PROTOCOL: i16 = 20;
const MD_IP_PROTOCOL: i16 = 24;
const MD_HASH: i16 = 32;
const MD_MIGRATING: i16 = 48;
/// Fields of struct `bpf_sock`: its family, and the addresses of its other side.
const SOCK_FAMILY: i16 = 4;
const SOCK_V4: i16 = 52;
const SOCK_V6: i16 = 56;

/// Helpers (`bpf-helpers(7)`): their numbers are the order of `__BPF_FUNC_MAPPER`.
const GET_PRANDOM_U32: i32 = 7;
const SKB_LOAD_BYTES_RELATIVE: i32 = 68;
const SK_SELECT_REUSEPORT: i32 = 82;
/// `BPF_HDR_START_NET`: offsets count from the IP header.
const FROM_IP_HEADER: i32 = 1;
/// `SK_PASS`: what was selected, or what the kernel's hash says if nothing was.
const SK_PASS: i32 = 1;

/// `ETH_P_IP` and `ETH_P_IPV6` in network order.
const IPV4: i32 = 0x0800_u16.to_be() as i32;
const IPV6: i32 = 0x86dd_u16.to_be() as i32;
/// `IPPROTO_TCP`; where the flags stand in its header, and the one that opens a connection.
const TCP: i32 = 6;
const FLAGS: i16 = 13;
const SYN: i32 = 2;
/// `AF_INET`.
const AF_INET: i32 = 2;
/// Where the client's address stands in both IP headers, and its length in bytes.
const SOURCE_V4: (i32, i32) = (12, 4);
const SOURCE_V6: (i32, i32) = (8, 16);

/// What is on our stack: the client's address as one of IPv6, and the lane's number.
const ADDRESS: i16 = -16;
const LANE: i16 = -20;

/// What every number of a lane and of an entry is masked with, so that the verifier sees its bounds.
const BYTE: i32 = 0xff;

/// The odd number next to 2^64 divided by the golden ratio.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// What the registers that calls keep are for.
const CONTEXT: Register = R6;
const COUNT: Register = R7;
const CHOSEN: Register = R8;
const CONTROL: Register = R9;

/// Returns the program as words, each a `struct bpf_insn`. `sockets` is a descriptor of the map with the lanes' sockets
/// (`BPF_MAP_TYPE_REUSEPORT_SOCKARRAY`), `control` of the one whose first value is the control block; both have to be open
/// when the program is loaded, and only then.
#[must_use]
pub fn program(sockets: i32, control: i32) -> Vec<u64> {
    let mut assembler = Assembler::default();
    let asm = &mut assembler;
    let labels = Labels::new(asm);
    start(asm, &labels, control);
    by_client_ip(asm, &labels);
    by_connections(asm, &labels);

    asm.place(labels.flow);
    asm.load(Width::U32, R1, CONTEXT, MD_HASH);
    asm.alu(Do::Modulo, R1, COUNT);
    asm.go(labels.entry);

    asm.place(labels.turn);
    next_in_turn(asm);
    asm.place(labels.entry);
    lane_of_entry(asm, CHOSEN, R1);
    asm.place(labels.select);
    select(asm, &labels, sockets);
    count(asm);
    asm.go(labels.done);

    asm.place(labels.late);
    asm.load(Width::U32, R1, CONTEXT, MD_HASH);
    asm.alu(Do::Modulo, R1, COUNT);
    lane_of_entry(asm, CHOSEN, R1);
    select(asm, &labels, sockets);
    asm.place(labels.done);
    asm.copy(R0, SK_PASS);
    asm.exit();

    asm.place(labels.unsteered);
    asm.copy(R1, 1);
    asm.count(Width::U64, CONTROL, at(UNSTEERED), R1);
    asm.copy(R0, SK_PASS);
    asm.exit();
    assembler.finish()
}

struct Labels {
    /// The ways to pick.
    client: Label,
    least: Label,
    flow: Label,
    turn: Label,
    /// R1 is the entry.
    entry: Label,
    /// CHOSEN is the lane.
    select: Label,
    /// No connection begins.
    late: Label,
    /// The kernel's hash is to decide.
    unsteered: Label,
    done: Label,
}

impl Labels {
    fn new(asm: &mut Assembler) -> Self {
        Self {
            client: asm.label(),
            least: asm.label(),
            flow: asm.label(),
            turn: asm.label(),
            entry: asm.label(),
            select: asm.label(),
            late: asm.label(),
            unsteered: asm.label(),
            done: asm.label(),
        }
    }
}

/// Goes where the mode says.
fn start(asm: &mut Assembler, to: &Labels, control: i32) {
    asm.copy(CONTEXT, R1);
    asm.map(CONTROL, Map::Value, control);
    asm.load(Width::U32, COUNT, CONTROL, at(ENTRIES));
    asm.jump(If::Equal, COUNT, 0, to.unsteered);
    asm.jump(If::Greater, COUNT, MAX_ENTRIES.cast_signed(), to.unsteered);
    asm.load(Width::U32, R1, CONTROL, at(MODE));
    asm.jump(If::Equal, R1, Pick::ClientIp as i32, to.client);
    asm.jump(If::Equal, R1, Pick::Flow as i32, to.flow);
    sort_out_late(asm, to);
    asm.jump(If::Equal, R1, Pick::RoundRobin as i32, to.turn);
    asm.jump(If::Equal, R1, Pick::LeastConnections as i32, to.least);
    asm.go(to.unsteered);
}

/// A segment that opens no connection and belongs to none is the last of one that is closed, which will be answered with a
/// reset, or the end of a handshake by SYN cookie, which may be at any lane. Neither is anybody's turn. What moves from one
/// lane to another comes without a segment.
fn sort_out_late(asm: &mut Assembler, to: &Labels) {
    let opens = asm.label();
    asm.load(Width::U32, R2, CONTEXT, MD_IP_PROTOCOL);
    asm.jump(If::NotEqual, R2, TCP, opens);
    asm.load(Width::U64, R2, CONTEXT, MD_DATA);
    asm.load(Width::U64, R3, CONTEXT, MD_DATA_END);
    asm.copy(R4, R2);
    asm.alu(Do::Add, R4, i32::from(FLAGS) + 1);
    asm.jump(If::Greater, R4, R3, opens);
    asm.load(Width::U8, R2, R2, FLAGS);
    asm.alu(Do::And, R2, SYN);
    asm.jump(If::Equal, R2, 0, to.late);
    asm.place(opens);
}

/// The address is taken as one of IPv6 in any case, `::ffff:a.b.c.d` for IPv4, so that there is one hash for all of them.
fn by_client_ip(asm: &mut Assembler, to: &Labels) {
    let (v4, v6, read, hash) = (asm.label(), asm.label(), asm.label(), asm.label());
    asm.place(to.client);
    asm.store(Width::U64, Frame, ADDRESS, 0);
    asm.store(Width::U32, Frame, ADDRESS + 8, i32::from_ne_bytes([0, 0, 0xff, 0xff]));
    asm.store(Width::U32, Frame, ADDRESS + 12, 0);
    asm.load(Width::U32, R1, CONTEXT, MD_PROTOCOL);
    asm.jump(If::Equal, R1, IPV4, v4);
    asm.jump(If::Equal, R1, IPV6, v6);
    address_of_migrating(asm, to, hash);

    asm.place(v4);
    asm.copy(R2, SOURCE_V4.0);
    asm.copy(R3, Frame);
    asm.alu(Do::Add, R3, i32::from(ADDRESS) + 12);
    asm.copy(R4, SOURCE_V4.1);
    asm.go(read);
    asm.place(v6);
    asm.copy(R2, SOURCE_V6.0);
    asm.copy(R3, Frame);
    asm.alu(Do::Add, R3, i32::from(ADDRESS));
    asm.copy(R4, SOURCE_V6.1);
    asm.place(read);
    // R0 = skb_load_bytes_relative(context, R2, R3, R4, from the IP header)
    asm.copy(R1, CONTEXT);
    asm.copy(R5, FROM_IP_HEADER);
    asm.call(SKB_LOAD_BYTES_RELATIVE);
    asm.jump(If::NotEqual, R0, 0, to.unsteered);

    asm.place(hash);
    asm.load(Width::U64, R1, Frame, ADDRESS);
    asm.load(Width::U64, R2, Frame, ADDRESS + 8);
    asm.wide(R3, SPREAD);
    asm.alu(Do::Multiply, R1, R3);
    asm.alu(Do::Xor, R1, R2);
    // Twice, so that neighbours in any octet differ in the lowest bits of what is left.
    for _ in 0..2 {
        asm.copy(R2, R1);
        asm.alu(Do::ShiftRight, R2, 32);
        asm.alu(Do::Xor, R1, R2);
        asm.alu(Do::Multiply, R1, R3);
    }
    asm.alu(Do::ShiftRight, R1, 32);
    asm.alu(Do::Modulo, R1, COUNT);
    asm.go(to.entry);
}

/// A connection that has waited in a lane that was shut down comes without a packet, but with its socket.
fn address_of_migrating(asm: &mut Assembler, to: &Labels, hash: Label) {
    let is_v4 = asm.label();
    asm.load(Width::U64, R1, CONTEXT, MD_MIGRATING);
    asm.jump(If::Equal, R1, 0, to.unsteered);
    asm.load(Width::U32, R2, R1, SOCK_FAMILY);
    asm.jump(If::Equal, R2, AF_INET, is_v4);
    for word in [0, 4, 8, 12] {
        asm.load(Width::U32, R2, R1, SOCK_V6 + word);
        asm.store(Width::U32, Frame, ADDRESS + word, R2);
    }
    asm.go(hash);
    asm.place(is_v4);
    asm.load(Width::U32, R2, R1, SOCK_V4);
    asm.store(Width::U32, Frame, ADDRESS + 12, R2);
    asm.go(hash);
}

/// The next in turn against one at random; the first wins a draw, so lanes without load go in turn.
fn by_connections(asm: &mut Assembler, to: &Labels) {
    asm.place(to.least);
    next_in_turn(asm);
    lane_of_entry(asm, CHOSEN, R1);
    asm.call(GET_PRANDOM_U32);
    asm.copy(R1, R0);
    asm.alu(Do::Modulo, R1, COUNT);
    // COUNT is done with.
    let other = COUNT;
    lane_of_entry(asm, other, R1);
    connections_of(asm, R1, CHOSEN);
    connections_of(asm, R2, other);
    asm.jump(If::LessOrEqual, R1, R2, to.select);
    asm.copy(CHOSEN, other);
    asm.go(to.select);
}

/// R1 = the next entry in turn
fn next_in_turn(asm: &mut Assembler) {
    asm.copy(R1, 1);
    asm.take(Width::U64, CONTROL, at(TURN), R1);
    asm.alu(Do::Modulo, R1, COUNT);
}

/// `lane` = table[`entry`], with R3 for scratch
fn lane_of_entry(asm: &mut Assembler, lane: Register, entry: Register) {
    asm.alu(Do::And, entry, BYTE);
    asm.alu(Do::ShiftLeft, entry, 2);
    asm.copy(R3, CONTROL);
    asm.alu(Do::Add, R3, entry);
    asm.load(Width::U32, lane, R3, at(TABLE));
    asm.alu(Do::And, lane, BYTE);
}

/// `number` = connections[`lane`], with R3 and R4 for scratch
fn connections_of(asm: &mut Assembler, number: Register, lane: Register) {
    asm.copy(R4, lane);
    asm.alu(Do::ShiftLeft, R4, 2);
    asm.copy(R3, CONTROL);
    asm.alu(Do::Add, R3, R4);
    asm.load(Width::U32, number, R3, at(CONNECTIONS));
}

/// Gives the connection to the socket of lane CHOSEN.
fn select(asm: &mut Assembler, to: &Labels, sockets: i32) {
    asm.store(Width::U32, Frame, LANE, CHOSEN);
    // R0 = sk_select_reuseport(context, sockets, &lane, 0): no socket there, or one of another group, is an error
    asm.copy(R1, CONTEXT);
    asm.map(R2, Map::Itself, sockets);
    asm.copy(R3, Frame);
    asm.alu(Do::Add, R3, i32::from(LANE));
    asm.copy(R4, 0);
    asm.call(SK_SELECT_REUSEPORT);
    asm.jump(If::NotEqual, R0, 0, to.unsteered);
}

/// Counts a connection of lane CHOSEN.
fn count(asm: &mut Assembler) {
    asm.copy(R1, 1);
    for (width, shift, place) in [(Width::U32, 2, CONNECTIONS), (Width::U64, 3, TAKEN)] {
        asm.copy(R2, CHOSEN);
        asm.alu(Do::ShiftLeft, R2, shift);
        asm.copy(R3, CONTROL);
        asm.alu(Do::Add, R3, R2);
        asm.count(width, R3, at(place), R1);
    }
}

/// An offset in the control block, which is smaller than that.
fn at(offset: usize) -> i16 {
    i16::try_from(offset).unwrap_or(i16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_maps_are_named_and_every_jump_ends_inside() {
        let words = program(40, 50);
        let map = |word: &&u64| word.to_ne_bytes()[0] == 0x18 && word.to_ne_bytes()[1] >> 4 != 0;
        let fds: Vec<u64> = words.iter().filter(map).map(|word| word >> 32).collect();
        assert_eq!(fds, [50, 40, 40]);
        for (number, word) in words.iter().enumerate() {
            let [code, _, a, b, ..] = word.to_ne_bytes();
            let is_jump = code & 0x07 == 0x05 && code != 0x85 && code != 0x95;
            if is_jump {
                let target = number as i64 + 1 + i64::from(i16::from_ne_bytes([a, b]));
                assert!(target > number as i64 && target < words.len() as i64);
            }
        }
        assert!(words.len() < 256, "{}", words.len());
    }
}
