//! Picking a lane without any right: a classic BPF program (`Documentation/networking/filter.rst`, `linux/filter.h`) for
//! `SO_ATTACH_REUSEPORT_CBPF` (`socket(7)`), which everybody may attach. It has no memory: the table is written into its
//! instructions, and a change attaches another program. It returns the number of a member of the group, in the order in
//! which they were bound; that order changes when a member is closed (the last one gets its number), so none ever is.

/// One instruction, a `struct sock_filter`: code, how many to skip if true, if false, number.
pub type Instruction = (u16, u8, u8, u32);

/// How an entry of the table is picked for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClassicPick {
    /// At random.
    Random,
    /// By the client's address: a client comes to the same entry again for as long as the table is as long as it was.
    ClientIp,
}

/// `BPF_LD | BPF_W | BPF_ABS` and `BPF_LD | BPF_B | BPF_ABS`: A = what stands there in the packet.
const LOAD: u16 = 0x20;
const LOAD_BYTE: u16 = 0x30;
/// `BPF_MISC | BPF_TAX`: X = A.
const KEEP: u16 = 0x07;
/// `BPF_ALU` with a number, and with X.
const MULTIPLY: u16 = 0x24;
const MODULO: u16 = 0x94;
const SHIFT_RIGHT: u16 = 0x74;
const XOR_KEPT: u16 = 0xac;
/// `BPF_JMP`: always, if A is equal, if A is greater or equal.
const GO: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_AT_LEAST: u16 = 0x35;
/// `BPF_RET | BPF_K`.
const RETURN: u16 = 0x06;

/// `SKF_NET_OFF`: offsets from there on count from the IP header.
const IP_HEADER: u32 = 0xfff0_0000;
/// `SKF_AD_OFF + SKF_AD_RANDOM`.
const RANDOM: u32 = 0xffff_f038;

/// The odd number next to 2^32 divided by the golden ratio.
const SPREAD: u32 = 0x9e37_79b1;

/// The longest table: half of it is as far as a jump reaches.
const LONGEST: usize = super::MAX_ENTRIES as usize;

/// Returns the program that picks an entry of `table`, each the number of a member of the group. Entries beyond
/// [`MAX_ENTRIES`](super::MAX_ENTRIES) are left out; with an empty table, as with a number that no member has, the
/// kernel's hash decides.
#[must_use]
pub fn classic(pick: ClassicPick, table: &[u8]) -> Vec<Instruction> {
    let table = table.get(..LONGEST).unwrap_or(table);
    let Ok(length @ 1..) = u32::try_from(table.len()) else {
        return vec![(RETURN, 0, 0, u32::MAX)];
    };
    let mut program = match pick {
        ClassicPick::Random => vec![(LOAD, 0, 0, RANDOM)],
        ClassicPick::ClientIp => client_ip(),
    };
    program.push((MODULO, 0, 0, length));
    program.extend(search(&runs(table)));
    program
}

/// A = a hash of the client's address. A socket of both families sees packets of both.
fn client_ip() -> Vec<Instruction> {
    let mut v6 = vec![(LOAD, 0, 0, IP_HEADER + 8)];
    for word in [12, 16, 20] {
        v6.extend([(KEEP, 0, 0, 0), (LOAD, 0, 0, IP_HEADER + word), (XOR_KEPT, 0, 0, 0)]);
    }
    let over_v6 = 10;
    debug_assert_eq!(v6.len(), over_v6);
    let mut program = vec![
        (LOAD_BYTE, 0, 0, IP_HEADER),
        (SHIFT_RIGHT, 0, 0, 4),
        (IF_EQUAL, 2, 0, 6),
        (LOAD, 0, 0, IP_HEADER + 12),
        (GO, 0, 0, 10),
    ];
    program.extend(v6);
    // The upper half, which all bits of the address have a part in.
    program.extend([(MULTIPLY, 0, 0, SPREAD), (SHIFT_RIGHT, 0, 0, 16)]);
    program
}

/// The entries at which the table changes, with their members.
fn runs(table: &[u8]) -> Vec<(u32, u8)> {
    let mut runs: Vec<(u32, u8)> = vec![];
    for (at, member) in (0..).zip(table) {
        if runs.last().is_none_or(|(_, last)| last != member) {
            runs.push((at, *member));
        }
    }
    runs
}

/// Returns what finds the run that A is in, by halves. Two instructions for each run at most: 255 for half of 256, which a
/// jump just reaches over.
fn search(runs: &[(u32, u8)]) -> Vec<Instruction> {
    let (low, high) = runs.split_at(runs.len() / 2);
    match (low, high) {
        ([], [.., (_, member)]) => vec![(RETURN, 0, 0, (*member).into())],
        (_, [(first, _), ..]) => {
            let (low, high) = (search(low), search(high));
            let over_low = u8::try_from(low.len()).unwrap_or(u8::MAX);
            [vec![(IF_AT_LEAST, over_low, 0, *first)], low, high].concat()
        }
        (_, []) => vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would do, with this IP header and this random number.
    fn run(program: &[Instruction], packet: &[u8], random: u32) -> u32 {
        let (mut a, mut x, mut at) = (0u32, 0u32, 0);
        loop {
            let (code, yes, no, number) = program[at];
            let place = number.wrapping_sub(IP_HEADER) as usize;
            at += 1;
            match code {
                LOAD if number == RANDOM => a = random,
                LOAD => a = u32::from_be_bytes(packet[place..place + 4].try_into().unwrap()),
                LOAD_BYTE => a = packet[place].into(),
                KEEP => x = a,
                MULTIPLY => a = a.wrapping_mul(number),
                MODULO => a %= number,
                SHIFT_RIGHT => a >>= number,
                XOR_KEPT => a ^= x,
                GO => at += number as usize,
                IF_EQUAL => at += usize::from(if a == number { yes } else { no }),
                IF_AT_LEAST => at += usize::from(if a >= number { yes } else { no }),
                RETURN => return number,
                other => panic!("code {other}"),
            }
        }
    }

    fn v4(last: u8) -> [u8; 20] {
        let mut packet = [0; 20];
        packet[0] = 0x45;
        packet[12..16].copy_from_slice(&[10, 0, 0, last]);
        packet
    }

    fn v6(at: usize, octet: u8) -> [u8; 40] {
        let mut packet = [0; 40];
        packet[0] = 0x60;
        packet[8..12].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
        packet[8 + at] = octet;
        packet
    }

    fn tables() -> Vec<Vec<u8>> {
        let all: Vec<u8> = (0..=255).collect();
        let twice: Vec<u8> = (0..=255).map(|at| at / 2).collect();
        let back = all.iter().rev().copied().collect();
        vec![vec![0], vec![7, 7, 7], vec![3, 1, 2, 0], all, twice, back, vec![5; 256]]
    }

    #[test]
    fn every_entry_of_every_table_is_found() {
        for table in tables() {
            let program = classic(ClassicPick::Random, &table);
            for (at, member) in (0..).zip(&table) {
                let length = u32::try_from(table.len()).unwrap();
                assert_eq!(run(&program, &[], at), u32::from(*member));
                assert_eq!(run(&program, &[], at + 5 * length), u32::from(*member));
            }
        }
    }

    #[test]
    fn equal_neighbours_cost_one_instruction_and_others_two() {
        assert_eq!(classic(ClassicPick::Random, &[5; 256]).len(), 3);
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(classic(ClassicPick::Random, &all).len(), 2 + 511);
    }

    #[test]
    fn clients_of_both_families_stick_and_spread() {
        let table = [2, 0, 3, 1];
        let program = classic(ClassicPick::ClientIp, &table);
        let mut counts = [[0; 4]; 3];
        for octet in 0..=255 {
            let packets = [&v4(octet)[..], &v6(15, octet), &v6(6, octet)];
            for (count, packet) in counts.iter_mut().zip(packets) {
                let member = run(&program, packet, 0);
                assert_eq!(run(&program, packet, 1), member);
                count[member as usize] += 1;
            }
        }
        for count in counts {
            assert!(count.iter().all(|n| (32..=96).contains(n)), "{counts:?}");
        }
    }

    #[test]
    fn a_table_that_is_empty_or_too_long_is_still_one() {
        assert_eq!(run(&classic(ClassicPick::ClientIp, &[]), &[], 0), u32::MAX);
        let long: Vec<u8> = (0..300).map(|at| u8::try_from(at / 2).unwrap()).collect();
        let program = classic(ClassicPick::Random, &long);
        assert_eq!(run(&program, &[], 255), 127);
        assert_eq!(run(&program, &[], 256), 0);
    }
}
