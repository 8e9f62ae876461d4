//! An assembler for the kernel's instruction set (`Documentation/bpf/standardization/instruction-set.rst`, `struct bpf_insn`
//! in `linux/bpf.h`), as much of it as the program needs. It refuses nothing: the kernel's verifier does, and loads no
//! program that could do harm.

/// A register. Calls return in R0, take their arguments in R1 to R5 and leave rubbish in them, and keep R6 to R9.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Register {
    R0 = 0,
    R1 = 1,
    R2 = 2,
    R3 = 3,
    R4 = 4,
    R5 = 5,
    R6 = 6,
    R7 = 7,
    R8 = 8,
    R9 = 9,
    /// Where the stack ends: there are 512 bytes below it.
    Frame = 10,
}

/// How wide an access to memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    U8 = 0x10,
    U32 = 0x00,
    U64 = 0x18,
}

/// What is done to a register, in 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Do {
    Add = 0x00,
    And = 0x50,
    ShiftLeft = 0x60,
    ShiftRight = 0x70,
    Modulo = 0x90,
    Xor = 0xa0,
    Copy = 0xb0,
    Multiply = 0x20,
}

/// What a jump asks of a register, unsigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum If {
    Equal = 0x10,
    Greater = 0x20,
    NotEqual = 0x50,
    LessOrEqual = 0xb0,
}

/// What stands on the right: a register or a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Register(Register),
    Number(i32),
}

impl From<Register> for By {
    fn from(register: Register) -> Self {
        Self::Register(register)
    }
}

impl From<i32> for By {
    fn from(number: i32) -> Self {
        Self::Number(number)
    }
}

/// A descriptor that the loading kernel replaces by what it means (`BPF_PSEUDO_MAP_FD`, `BPF_PSEUDO_MAP_VALUE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Map {
    /// The map itself, as calls want it.
    Itself = 1,
    /// The address of its first value.
    Value = 2,
}

/// Where jumps go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label(usize);

#[derive(Clone, Copy, Debug)]
struct Instruction {
    code: u8,
    to: u8,
    from: u8,
    offset: i16,
    number: i32,
    /// What is to become of the offset.
    jumps_to: Option<Label>,
}

/// A program as far as it is written.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    instructions: Vec<Instruction>,
    /// The instruction that each label stands before.
    labels: Vec<Option<usize>>,
}

impl Assembler {
    /// `to <op>= by`
    pub(super) fn alu(&mut self, op: Do, to: Register, by: impl Into<By>) {
        self.by(op as u8 | 0x07, to, by.into());
    }

    /// `to = by`
    pub(super) fn copy(&mut self, to: Register, by: impl Into<By>) {
        self.alu(Do::Copy, to, by);
    }

    /// `to = number`, of 64 bits: two instructions' room.
    pub(super) fn wide(&mut self, to: Register, number: u64) {
        let [low, high] = halves(number);
        self.push(0x18, to as u8, 0, 0, low);
        self.push(0, 0, 0, 0, high);
    }

    /// `to = ` what a descriptor means.
    pub(super) fn map(&mut self, to: Register, map: Map, fd: i32) {
        self.push(0x18, to as u8, map as u8, 0, fd);
        self.push(0, 0, 0, 0, 0);
    }

    /// `to = *(base + offset)`
    pub(super) fn load(&mut self, width: Width, to: Register, base: Register, offset: i16) {
        self.push(width as u8 | 0x61, to as u8, base as u8, offset, 0);
    }

    /// `*(base + offset) = by`
    pub(super) fn store(&mut self, width: Width, base: Register, offset: i16, by: impl Into<By>) {
        match by.into() {
            By::Register(from) => {
                self.push(width as u8 | 0x63, base as u8, from as u8, offset, 0);
            }
            By::Number(number) => self.push(width as u8 | 0x62, base as u8, 0, offset, number),
        }
    }

    /// `*(base + offset) += by`, atomically
    pub(super) fn count(&mut self, width: Width, base: Register, offset: i16, by: Register) {
        self.push(width as u8 | 0xc3, base as u8, by as u8, offset, 0);
    }

    /// `*(base + offset) += by`, atomically, and `by` = what was there before
    pub(super) fn take(&mut self, width: Width, base: Register, offset: i16, by: Register) {
        self.push(width as u8 | 0xc3, base as u8, by as u8, offset, 1);
    }

    /// `R0 = helper(R1, ..)`
    pub(super) fn call(&mut self, helper: i32) {
        self.push(0x85, 0, 0, 0, helper);
    }

    /// `return R0`
    pub(super) fn exit(&mut self) {
        self.push(0x95, 0, 0, 0, 0);
    }

    /// `if left <when> right goto label`
    pub(super) fn jump(&mut self, when: If, left: Register, right: impl Into<By>, label: Label) {
        self.by(when as u8 | 0x05, left, right.into());
        self.aim(label);
    }

    /// `goto label`
    pub(super) fn go(&mut self, label: Label) {
        self.push(0x05, 0, 0, 0, 0);
        self.aim(label);
    }

    /// Returns a label that stands nowhere yet.
    pub(super) fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// `label:`
    pub(super) fn place(&mut self, label: Label) {
        if let Some(place) = self.labels.get_mut(label.0) {
            *place = Some(self.instructions.len());
        }
    }

    /// Returns the program, one word for each `struct bpf_insn`. A jump to a label that stands nowhere, or too far away,
    /// is one to itself, which the verifier refuses.
    pub(super) fn finish(self) -> Vec<u64> {
        let offset = |at: usize, label: Label| {
            let to = i64::try_from((*self.labels.get(label.0)?)?).ok()?;
            i16::try_from(to - i64::try_from(at).ok()? - 1).ok()
        };
        let encode = |(at, instruction): (usize, &Instruction)| {
            let jump = instruction.jumps_to.map(|label| offset(at, label).unwrap_or(-1));
            word(instruction, jump.unwrap_or(instruction.offset))
        };
        self.instructions.iter().enumerate().map(encode).collect()
    }

    fn by(&mut self, code: u8, to: Register, by: By) {
        match by {
            By::Register(from) => self.push(code | 0x08, to as u8, from as u8, 0, 0),
            By::Number(number) => self.push(code, to as u8, 0, 0, number),
        }
    }

    fn aim(&mut self, label: Label) {
        if let Some(last) = self.instructions.last_mut() {
            last.jumps_to = Some(label);
        }
    }

    fn push(&mut self, code: u8, to: u8, from: u8, offset: i16, number: i32) {
        self.instructions.push(Instruction { code, to, from, offset, number, jumps_to: None });
    }
}

fn word(of: &Instruction, offset: i16) -> u64 {
    // Two fields of four bits, which C compilers lay out from the end that the bytes of a number begin at.
    let registers =
        if cfg!(target_endian = "little") { of.from << 4 | of.to } else { of.to << 4 | of.from };
    let [a, b] = offset.to_ne_bytes();
    let [c, d, e, f] = of.number.to_ne_bytes();
    u64::from_ne_bytes([of.code, registers, a, b, c, d, e, f])
}

/// The lower 32 bits and the upper ones.
fn halves(number: u64) -> [i32; 2] {
    let [a, b, c, d, e, f, g, h] = number.to_le_bytes();
    [i32::from_le_bytes([a, b, c, d]), i32::from_le_bytes([e, f, g, h])]
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::Register::*;
    use super::*;

    fn written(write: impl FnOnce(&mut Assembler)) -> Vec<u64> {
        let mut asm = Assembler::default();
        write(&mut asm);
        asm.finish()
    }

    #[test]
    fn instructions_are_encoded_as_the_kernel_wants_them() {
        // As `llvm-objdump` shows them: code, registers, offset, number.
        type Line<'a> = (&'a str, fn(&mut Assembler), &'a [u64]);
        let golden: [Line<'_>; 11] = [
            ("r6 = r1", |a| a.copy(R6, R1), &[0x0000_0000_0000_16bf]),
            ("r0 = 1", |a| a.copy(R0, 1), &[0x0000_0001_0000_00b7]),
            ("r1 %= r7", |a| a.alu(Do::Modulo, R1, R7), &[0x0000_0000_0000_719f]),
            ("r3 += -16", |a| a.alu(Do::Add, R3, -16), &[0xffff_fff0_0000_0307]),
            ("r4 = *(u32 *)(r3 + 64)", |a| a.load(Width::U32, R4, R3, 64), &[0x0040_3461]),
            ("*(u64 *)(r10 - 16) = 0", |a| a.store(Width::U64, Frame, -16, 0), &[0xfff0_0a7a]),
            ("*(u32 *)(r10 - 4) = r8", |a| a.store(Width::U32, Frame, -4, R8), &[0xfffc_8a63]),
            ("lock *(u64 *)(r9 + 8) += r1", |a| a.count(Width::U64, R9, 8, R1), &[0x0008_19db]),
            ("r1 = fetch_add", |a| a.take(Width::U64, R9, 8, R1), &[0x0000_0001_0008_19db]),
            ("r2 = map fd 5", |a| a.map(R2, Map::Itself, 5), &[0x0000_0005_0000_1218, 0]),
            ("call 82", |a| a.call(82), &[0x0000_0052_0000_0085]),
        ];
        for (text, write, words) in golden {
            assert_eq!(written(write), words, "{text}");
        }
        let wide = [0xf00d_cafe_0000_0118, 0xdead_beef_0000_0000];
        assert_eq!(written(|a| a.wide(R1, 0xdead_beef_f00d_cafe)), wide);
    }

    #[test]
    fn jumps_go_to_their_labels_forward_and_back() {
        let words = written(|asm| {
            let (start, end) = (asm.label(), asm.label());
            asm.place(start);
            asm.jump(If::Greater, R1, 256, end);
            asm.jump(If::LessOrEqual, R1, R2, start);
            asm.go(end);
            asm.copy(R0, 1);
            asm.place(end);
            asm.exit();
        });
        assert_eq!(words[0], 0x0000_0100_0003_0125);
        assert_eq!(words[1], 0x0000_0000_fffe_21bd);
        assert_eq!(words[2], 0x0000_0000_0001_0005);
        assert_eq!(words[4], 0x95);
    }

    #[test]
    fn a_jump_to_nowhere_goes_to_itself() {
        let words = written(|asm| {
            let nowhere = asm.label();
            asm.go(nowhere);
        });
        assert_eq!(words, [0xffff_0005]);
    }
}
