//! Memory that outlives the primary: a memfd with two copies of a text and a word that says which one counts.
//!
//! A new text goes where the old one is not, and then the word is changed in one write of eight bytes. Whatever
//! instruction SIGKILL hits, one whole text is there: what was written is in the kernel's hands, in that order.

use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;

/// What it begins with; the number changes when an older program could not make sense of it.
const MAGIC: [u8; 8] = *b"dogwat\x00\x01";
/// Where the word is: the length of the text that counts, and in the lowest bit which copy that is.
const WORD: u64 = 8;
/// Where the copies begin. Only what is written takes memory.
const COPIES: [u64; 2] = [4096, 4096 + LARGEST as u64];
/// A text may have so many bytes.
const LARGEST: usize = 64 * 1024 * 1024;

/// Such a memory.
#[derive(Debug)]
pub(in super::super) struct Notebook {
    file: File,
    /// The copy that counts.
    current: usize,
}

impl Notebook {
    /// Returns an empty one.
    ///
    /// # Errors
    /// As memfd_create(2).
    pub(in super::super) fn new(name: &str) -> io::Result<Self> {
        let file = File::from(memfd_create(name, MFdFlags::MFD_CLOEXEC)?);
        file.write_all_at(&MAGIC, 0)?;
        Ok(Self { file, current: 0 })
    }

    /// Returns one that was written by somebody, with its text.
    ///
    /// # Errors
    /// Why it is none, in words.
    pub(in super::super) fn open(fd: OwnedFd) -> Result<(Self, Vec<u8>), String> {
        let file = File::from(fd);
        let metadata = file.metadata().map_err(|e| e.to_string())?;
        if !metadata.is_file() {
            return Err("it is no memory".to_owned());
        }
        let mut head = [0; 16];
        file.read_exact_at(&mut head, 0).map_err(|_| "it is cut off".to_owned())?;
        let (magic, word) = head.split_at(8);
        if magic != MAGIC {
            return Err("it was not written by this program, or by one too far from it".to_owned());
        }
        let word = u64::from_ne_bytes(word.try_into().unwrap_or_default());
        let current = usize::from(word & 1 == 1);
        let length = usize::try_from(word >> 1).unwrap_or(usize::MAX);
        let begin = COPIES[current];
        if length > LARGEST || metadata.len() < begin.saturating_add(length as u64) {
            return Err("it is cut off".to_owned());
        }
        let mut text = vec![0; length];
        file.read_exact_at(&mut text, begin).map_err(|e| e.to_string())?;
        Ok((Self { file, current }, text))
    }

    /// Replaces the text.
    ///
    /// # Errors
    /// As pwrite(2); the text before stays.
    pub(in super::super) fn write(&mut self, text: &[u8]) -> io::Result<()> {
        if text.len() > LARGEST {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let other = 1 - self.current;
        self.file.write_all_at(text, COPIES[other])?;
        let word = (text.len() as u64) << 1 | other as u64;
        self.file.write_all_at(&word.to_ne_bytes(), WORD)?;
        self.current = other;
        Ok(())
    }
}

impl AsFd for Notebook {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(notebook: &Notebook) -> OwnedFd {
        notebook.as_fd().try_clone_to_owned().unwrap()
    }

    #[test]
    fn the_last_text_is_read_whichever_copy_it_is_in() {
        let mut notebook = Notebook::new("test").unwrap();
        for text in ["one", "a longer one", "", "two"] {
            notebook.write(text.as_bytes()).unwrap();
            let (mut read, found) = Notebook::open(copy(&notebook)).unwrap();
            assert_eq!(found, text.as_bytes());
            read.write(b"by the next").unwrap();
            notebook = Notebook::open(copy(&notebook)).unwrap().0;
            assert_eq!(Notebook::open(copy(&notebook)).unwrap().1, b"by the next");
        }
    }

    #[test]
    fn a_text_that_was_not_finished_does_not_count() {
        let mut notebook = Notebook::new("test").unwrap();
        notebook.write(b"whole").unwrap();
        let other = COPIES[1 - notebook.current];
        notebook.file.write_all_at(b"half of", other).unwrap();
        assert_eq!(Notebook::open(copy(&notebook)).unwrap().1, b"whole");
    }

    #[test]
    fn whatever_else_it_is_is_refused() {
        let refused = |fd: OwnedFd| Notebook::open(fd).unwrap_err();
        assert_eq!(refused(nix::unistd::pipe().unwrap().0), "it is no memory");
        let write = |bytes: &[u8], at| {
            let mut notebook = Notebook::new("test").unwrap();
            notebook.write(b"text").unwrap();
            notebook.file.write_all_at(bytes, at).unwrap();
            Notebook::open(copy(&notebook)).err()
        };
        assert!(write(b"x", 0).unwrap().contains("not written by this program"));
        assert_eq!(write(&u64::MAX.to_ne_bytes(), WORD).unwrap(), "it is cut off");
        assert_eq!(write(&(4096u64 << 20).to_ne_bytes(), WORD).unwrap(), "it is cut off");
        let notebook = Notebook::new("test").unwrap();
        notebook.file.set_len(10).unwrap();
        assert_eq!(refused(copy(&notebook)), "it is cut off");
    }
}
