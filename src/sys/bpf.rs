//! Programs and maps in the kernel (`bpf(2)`, `linux/bpf.h`) that pick one of the sockets of a `SO_REUSEPORT` group
//! (`socket(7)`) for each new connection. Making them takes CAP_BPF (`capabilities(7)`); on Linux 5.19 and later, everything
//! that is done with them takes no more than their descriptors. Programs are words here and places are offsets: what they
//! mean is the protocol's.

use nix::errno::Errno;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

mod block;
use block::Block;

/// Commands.
const MAP_CREATE: libc::c_int = 0;
const MAP_LOOKUP_ELEM: libc::c_int = 1;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const PROG_LOAD: libc::c_int = 5;

const MAP_TYPE_ARRAY: u32 = 2;
const MAP_TYPE_REUSEPORT_SOCKARRAY: u32 = 20;
/// `BPF_F_MMAPABLE`.
const MMAPABLE: u32 = 1 << 10;

const PROG_TYPE_SK_REUSEPORT: u32 = 21;
/// `BPF_SK_REUSEPORT_SELECT_OR_MIGRATE`, since Linux 5.14.
const SELECT_OR_MIGRATE: u32 = 40;

/// How a map is made: the first fields of `union bpf_attr`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Shape {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

impl Shape {
    /// Of a map from numbers of lanes to sockets.
    fn sockets(lanes: u32) -> Self {
        let map_type = MAP_TYPE_REUSEPORT_SOCKARRAY;
        Self { map_type, key_size: 4, value_size: 8, max_entries: lanes, flags: 0 }
    }

    /// Of a map whose one value is memory.
    fn control(size: usize) -> io::Result<Self> {
        let value_size = u32::try_from(size).map_err(|_| io::ErrorKind::InvalidInput)?;
        let map_type = MAP_TYPE_ARRAY;
        Ok(Self { map_type, key_size: 4, value_size, max_entries: 1, flags: MMAPABLE })
    }

    /// Reads what `/proc/PID/fdinfo` shows of a map; `None` of anything else.
    fn of_fdinfo(text: &str) -> Option<Self> {
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            Some(line.trim())
        };
        let number = |name| field(name)?.parse().ok();
        Some(Self {
            map_type: number("map_type")?,
            key_size: number("key_size")?,
            value_size: number("value_size")?,
            max_entries: number("max_entries")?,
            flags: u32::from_str_radix(field("map_flags")?.strip_prefix("0x")?, 16).ok()?,
        })
    }
}

#[repr(C)]
struct MapCreate {
    shape: Shape,
    inner_map_fd: u32,
    numa_node: u32,
    name: [u8; 16],
}

#[repr(C)]
struct MapElement {
    fd: u32,
    _padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    count: u32,
    instructions: u64,
    licence: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    expected_attach_type: u32,
}

/// The sockets of the lanes, and the memory that the program shares with us.
#[derive(Debug)]
pub struct Maps {
    sockets: OwnedFd,
    control: OwnedFd,
    block: Block,
}

impl Maps {
    /// Makes both maps: room for the sockets of so many lanes, and a block of memory, all zeros. `block_size` is in bytes.
    /// Both descriptors are close-on-exec, as all of bpf(2) are.
    ///
    /// # Errors
    /// As bpf(2), `BPF_MAP_CREATE`: `PermissionDenied` (EPERM) without CAP_BPF, `EINVAL` from a kernel that knows no such
    /// maps, or when there would be nothing in them; as mmap(2).
    pub fn new(lanes: u32, block_size: usize) -> io::Result<Self> {
        let sockets = create(Shape::sockets(lanes), "dogwatch_lanes")?;
        let control = create(Shape::control(block_size)?, "dogwatch_ctl")?;
        let block = Block::map(&control, block_size)?;
        Ok(Self { sockets, control, block })
    }

    /// Goes on with maps that were made by [`new`](Self::new) with these sizes; nothing in them changes.
    ///
    /// # Errors
    /// `InvalidInput` when a descriptor is of another kind, or its sizes are others; as open(2) without procfs; as mmap(2).
    pub fn resume(
        sockets: OwnedFd,
        control: OwnedFd,
        lanes: u32,
        block_size: usize,
    ) -> io::Result<Self> {
        expect(&sockets, Shape::sockets(lanes))?;
        expect(&control, Shape::control(block_size)?)?;
        let block = Block::map(&control, block_size)?;
        Ok(Self { sockets, control, block })
    }

    /// Makes a socket that of a lane, in place of the one before. The kernel takes it out by itself when it is closed or
    /// shut down.
    ///
    /// # Errors
    /// As bpf(2), `BPF_MAP_UPDATE_ELEM`: `EBUSY` when the socket lies in such a map already, `EINVAL` when it does not
    /// listen or has no `SO_REUSEPORT`, `E2BIG` when there is no such lane.
    pub fn put(&self, lane: u32, listener: impl AsFd) -> io::Result<()> {
        let socket = u64::from(number(listener.as_fd())?);
        let update = MapElement {
            fd: number(self.sockets.as_fd())?,
            _padding: 0,
            key: address(&lane),
            value: address(&socket),
            flags: 0,
        };
        // SAFETY: the kernel reads a key and a value of the map's sizes, which are those of a u32 and of a u64, from `lane`
        // and `socket`; both live until it returns.
        unsafe { bpf(MAP_UPDATE_ELEM, &update) }?;
        Ok(())
    }

    /// Whether a socket is that of a lane, by its cookie (`SO_COOKIE` in `include/uapi/asm-generic/socket.h`).
    ///
    /// # Errors
    /// As bpf(2), `BPF_MAP_LOOKUP_ELEM`: `E2BIG` when there is no such lane; as getsockopt(2).
    pub fn holds(&self, lane: u32, listener: impl AsFd) -> io::Result<bool> {
        let mut cookie = 0u64;
        let lookup = MapElement {
            fd: number(self.sockets.as_fd())?,
            _padding: 0,
            key: address(&lane),
            value: (&raw mut cookie).expose_provenance() as u64,
            flags: 0,
        };
        // SAFETY: the kernel reads a key of a u32's size and writes a value of a u64's; both live until it returns.
        match unsafe { bpf(MAP_LOOKUP_ELEM, &lookup) } {
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            looked => looked.and_then(|_| Ok(cookie == cookie_of(listener)?)),
        }
    }

    /// Returns the map with the sockets.
    #[must_use]
    pub fn sockets(&self) -> BorrowedFd<'_> {
        self.sockets.as_fd()
    }

    /// Returns the map with the block.
    #[must_use]
    pub fn control(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }

    /// Returns the number at an offset in bytes of the block; `None` where there is none, for it does not end inside or is
    /// not aligned.
    #[must_use]
    pub fn load_u32(&self, offset: usize) -> Option<u32> {
        self.block.load_u32(offset)
    }

    /// As [`load_u32`](Self::load_u32), of 64 bits.
    #[must_use]
    pub fn load_u64(&self, offset: usize) -> Option<u64> {
        self.block.load_u64(offset)
    }

    /// Stores a number at an offset in bytes of the block, after everything that was stored before; `None` where there is
    /// none, and nothing is done.
    pub fn store_u32(&self, offset: usize, value: u32) -> Option<()> {
        self.block.store_u32(offset, value)
    }

    /// As [`store_u32`](Self::store_u32), of 64 bits.
    pub fn store_u64(&self, offset: usize, value: u64) -> Option<()> {
        self.block.store_u64(offset, value)
    }
}

/// Loads a program that picks sockets, each word a `struct bpf_insn`; its descriptor is close-on-exec. The first 15 bytes of
/// `name`, letters, digits and `_`, are what bpftool(8) shows. The program holds the maps that it names.
///
/// # Errors
/// As bpf(2), `BPF_PROG_LOAD`: `PermissionDenied`, EPERM without CAP_BPF and EACCES when the verifier finds that it could do
/// harm; `EINVAL` from kernels before 5.14.
pub fn load(program: &[u64], name: &str) -> io::Result<OwnedFd> {
    let licence = c"MIT";
    let load = ProgLoad {
        prog_type: PROG_TYPE_SK_REUSEPORT,
        count: u32::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        instructions: program.as_ptr().expose_provenance() as u64,
        licence: licence.as_ptr().expose_provenance() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name: short(name),
        interface: 0,
        expected_attach_type: SELECT_OR_MIGRATE,
    };
    // SAFETY: the kernel reads `count` instructions of 8 bytes, which are the words of `program`, and a C string; both live
    // until it returns. There is no log to be written.
    let fd = unsafe { bpf(PROG_LOAD, &load) }?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes a program that of a listener's whole group, in place of the one before: of those that are in it and of those that
/// will be (`SO_ATTACH_REUSEPORT_EBPF` in `socket(7)`). It stays for as long as the group has members.
///
/// # Errors
/// As setsockopt(2): `EINVAL` when the socket has no `SO_REUSEPORT` or the descriptor is no program.
pub fn attach(listener: impl AsFd, program: impl AsFd) -> io::Result<()> {
    let fd: libc::c_int = program.as_fd().as_raw_fd();
    set_option(listener.as_fd(), libc::SO_ATTACH_REUSEPORT_EBPF, &fd)
}

/// As [`attach`], but of classic instructions (code, how many to skip if true, if false, number), which needs no right
/// (`SO_ATTACH_REUSEPORT_CBPF` in `socket(7)`).
///
/// # Errors
/// As setsockopt(2): `EINVAL` when the socket has no `SO_REUSEPORT` or the kernel finds the program faulty, `ENOMEM` when it
/// is larger than `net.core.optmem_max`.
pub fn attach_classic(listener: impl AsFd, program: &[(u16, u8, u8, u32)]) -> io::Result<()> {
    let instruction = |&(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k };
    let mut filter: Vec<libc::sock_filter> = program.iter().map(instruction).collect();
    let len = u16::try_from(filter.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len, filter: filter.as_mut_ptr() };
    set_option(listener.as_fd(), libc::SO_ATTACH_REUSEPORT_CBPF, &program)
}

/// Returns the number of a socket that no other has in this network namespace.
fn cookie_of(socket: impl AsFd) -> io::Result<u64> {
    let mut cookie = 0u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).map_err(io::Error::other)?;
    let (fd, place) = (socket.as_fd().as_raw_fd(), (&raw mut cookie).cast());
    // SAFETY: the kernel writes no more than the length that is said, which is that of `cookie`.
    let told =
        unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_COOKIE, place, &raw mut length) };
    Errno::result(told)?;
    Ok(cookie)
}

/// Sets an option of `SOL_SOCKET` whose value is `T`; what that points to has to live as long.
fn set_option<T>(socket: BorrowedFd<'_>, option: libc::c_int, value: &T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    let place = std::ptr::from_ref(value).cast();
    let socket = socket.as_raw_fd();
    // SAFETY: the kernel reads `length` bytes from `value`, and copies what a program there points to before it returns.
    let result = unsafe { libc::setsockopt(socket, libc::SOL_SOCKET, option, place, length) };
    Errno::result(result)?;
    Ok(())
}

fn create(shape: Shape, name: &str) -> io::Result<OwnedFd> {
    let create = MapCreate { shape, inner_map_fd: 0, numa_node: 0, name: short(name) };
    // SAFETY: there are only numbers in it, and a name that ends with a zero.
    let fd = unsafe { bpf(MAP_CREATE, &create) }?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Procfs rather than `BPF_OBJ_GET_INFO_BY_FD`: it says the same, and to everybody on every kernel.
fn expect(map: &OwnedFd, shape: Shape) -> io::Result<()> {
    let fdinfo = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_raw_fd()))?;
    let found = Shape::of_fdinfo(&fdinfo);
    if found == Some(shape) { Ok(()) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

/// Calls bpf(2); returns what it does.
///
/// # Safety
/// What the command's attributes point to has to be there until it returns, in the sizes that the command says.
unsafe fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<RawFd> {
    let place = std::ptr::from_ref(attributes);
    // SAFETY: `T` is as long as it says, and is only read but for what the caller answers for; the kernel takes the fields
    // of `union bpf_attr` beyond it for zeros.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, place, size_of::<T>()) };
    Ok(RawFd::try_from(Errno::result(result)?).map_err(|_| Errno::EBADF)?)
}

fn number(fd: BorrowedFd<'_>) -> io::Result<u32> {
    u32::try_from(fd.as_raw_fd()).map_err(|_| Errno::EBADF.into())
}

/// Pointers are 64 bits wide in bpf(2), whatever they are here.
fn address<T>(of: &T) -> u64 {
    std::ptr::from_ref(of).expose_provenance() as u64
}

/// A name as the kernel keeps it: at most 15 bytes and zeros.
fn short(name: &str) -> [u8; 16] {
    let mut short = [0; 16];
    for (to, from) in short.iter_mut().zip(name.bytes().take(15)) {
        *to = from;
    }
    short
}

#[cfg(test)]
mod tests;
