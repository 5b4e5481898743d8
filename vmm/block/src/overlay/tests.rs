use std::fs;
use std::io;
use std::path::Path;

use proptest::prelude::*;
use tempfile::TempDir;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use super::*;
use crate::{DiskOptions, FaultKind, ImageFormat, open, open_file};

/// Neither a whole number of blocks, nor of words of bits.
const SIZE: usize = 70 * 4096 + 3 * 512;

fn content() -> Vec<u8> {
    (0..SIZE).map(|at| u8::try_from(at / 512 % 251).unwrap() | 1).collect()
}

fn on(path: &Path) -> Box<dyn Disk> {
    let options = DiskOptions { access: Access::ReadOnly, format: None };
    overlay(open(path, options).unwrap(), tempfile::tempfile().unwrap()).unwrap()
}

fn raw() -> (TempDir, std::path::PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("base.raw");
    fs::write(&path, content()).unwrap();
    (folder, path)
}

/// Two buffers that lie apart, of which the first has `first` bytes.
struct Buffers(GuestMemoryMmap, usize, usize);

impl Buffers {
    fn new(first: usize, len: usize) -> Self {
        Self(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap(), first.min(len), len)
    }

    fn places(&self) -> [(u64, usize); 2] {
        [(8, self.1), (0x80000, self.2 - self.1)]
    }

    fn slices(&self) -> Vec<VolatileSlice<'_>> {
        self.places().map(|(at, len)| self.0.get_slice(GuestAddress(at), len).unwrap()).to_vec()
    }

    fn put(&self, bytes: &[u8]) {
        let mut rest = bytes;
        for (at, len) in self.places() {
            self.0.write_slice(&rest[..len], GuestAddress(at)).unwrap();
            rest = &rest[len..];
        }
    }

    fn get(&self) -> Vec<u8> {
        let mut all = Vec::new();
        for (at, len) in self.places() {
            let mut bytes = vec![0; len];
            self.0.read_slice(&mut bytes, GuestAddress(at)).unwrap();
            all.extend(bytes);
        }
        all
    }
}

fn read(disk: &mut dyn Disk, offset: usize, len: usize, first: usize) -> Result<Vec<u8>, DiskError> {
    let buffers = Buffers::new(first, len);
    disk.read(&buffers.slices(), offset as u64)?;
    Ok(buffers.get())
}

fn write(disk: &mut dyn Disk, offset: usize, bytes: &[u8], first: usize) -> Result<(), DiskError> {
    let buffers = Buffers::new(first, bytes.len());
    buffers.put(bytes);
    disk.write(&buffers.slices(), offset as u64)
}

#[test]
fn the_image_stays_as_it_is_and_the_guest_reads_what_it_wrote() {
    let (_folder, path) = raw();
    let mut disk = on(&path);
    assert_eq!(
        (disk.capacity(), disk.access(), disk.name()),
        (SIZE as u64, Access::ReadWrite, path.to_str().unwrap())
    );
    write(&mut *disk, 1000, &[0; 9000], 4000).unwrap();
    disk.flush().unwrap();
    let mut expected = content();
    expected[1000..10000].fill(0);
    assert_eq!(read(&mut *disk, 0, SIZE, 5000).unwrap(), expected);
    drop(disk);
    assert_eq!(fs::read(&path).unwrap(), content());
    assert_eq!(read(&mut *on(&path), 0, SIZE, 1).unwrap(), content(), "the next guest begins anew");
}

#[test]
fn guests_share_an_image_and_see_nothing_of_each_other() {
    let (_folder, path) = raw();
    let (mut one, mut other) = (on(&path), on(&path));
    write(&mut *one, 4096, &[0; 4096], 0).unwrap();
    assert_eq!(read(&mut *other, 4096, 4096, 0).unwrap(), content()[4096..8192]);
    let options = DiskOptions { access: Access::ReadWrite, format: None };
    assert!(matches!(open(&path, options), Err(OpenError::Locked { .. })), "nobody writes it meanwhile");
}

#[test]
fn nothing_reaches_past_the_end() {
    let (_folder, path) = raw();
    let mut disk = on(&path);
    for offset in [SIZE, SIZE - 511, usize::MAX, usize::MAX - 100] {
        let at = offset as u64;
        let errors = [
            read(&mut *disk, offset, 512, 0).unwrap_err(),
            write(&mut *disk, offset, &[0; 512], 0).unwrap_err(),
            disk.discard(at, 512).unwrap_err(),
            disk.write_zeroes(at, 512, Space::Keep).unwrap_err(),
        ];
        assert!(errors.iter().all(|error| error.kind == FaultKind::OutOfRange), "{offset}: {errors:?}");
    }
    write(&mut *disk, SIZE, &[], 0).unwrap();
    write(&mut *disk, SIZE - 512, &[9; 512], 0).unwrap();
    assert_eq!(read(&mut *disk, SIZE - 1024, 1024, 7).unwrap()[512..], [9; 512]);
}

#[test]
fn only_what_is_written_takes_room() {
    use std::os::unix::fs::MetadataExt;
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("base.raw");
    File::create(&path).unwrap().set_len(1 << 34).unwrap();
    let scratch = tempfile::tempfile().unwrap();
    let seen = scratch.try_clone().unwrap();
    let options = DiskOptions { access: Access::ReadOnly, format: None };
    let mut disk = overlay(open(&path, options).unwrap(), scratch).unwrap();
    read(&mut *disk, 1 << 30, 65536, 0).unwrap();
    write(&mut *disk, (1 << 33) + 512, &[1; 512], 0).unwrap();
    let metadata = seen.metadata().unwrap();
    assert_eq!(metadata.len(), 1 << 34);
    assert!(metadata.blocks() * 512 < 1 << 20, "{}", metadata.blocks());
    disk.discard(1 << 33, 4096).unwrap();
    assert_eq!(read(&mut *disk, 1 << 33, 4096, 0).unwrap(), [0; 4096]);
}

/// An image that says it is as large as it likes.
#[derive(Debug)]
struct Claims(u64);

impl Disk for Claims {
    fn name(&self) -> &str {
        "claims"
    }
    fn capacity(&self) -> u64 {
        self.0
    }
    fn access(&self) -> Access {
        Access::ReadOnly
    }
    fn read(&mut self, _: &[VolatileSlice<'_>], _: u64) -> Result<(), DiskError> {
        Err(DiskError::new("read", "claims", io::ErrorKind::UnexpectedEof.into()))
    }
    fn write(&mut self, _: &[VolatileSlice<'_>], _: u64) -> Result<(), DiskError> {
        Err(DiskError::new("write to", "claims", io::ErrorKind::Unsupported.into()))
    }
    fn flush(&mut self) -> Result<(), DiskError> {
        Ok(())
    }
    fn discard(&mut self, _: u64, _: u64) -> Result<(), DiskError> {
        Ok(())
    }
    fn write_zeroes(&mut self, _: u64, _: u64, _: Space) -> Result<(), DiskError> {
        Ok(())
    }
}

#[test]
fn an_image_that_claims_to_be_enormous_is_refused() {
    for size in [MOST + 512, u64::MAX - 511] {
        let error = overlay(Box::new(Claims(size)), tempfile::tempfile().unwrap()).unwrap_err();
        assert!(matches!(error, OpenError::TooLarge { .. }), "{error}");
    }
    let scratch = File::open("/dev/null").unwrap();
    let error = overlay(Box::new(Claims(4096)), scratch).unwrap_err();
    assert!(matches!(error, OpenError::Scratch { .. }), "{error}");
}

#[test]
fn an_image_that_cannot_be_read_fails_what_needs_it_and_nothing_else() {
    let mut disk = overlay(Box::new(Claims(8192)), tempfile::tempfile().unwrap()).unwrap();
    write(&mut *disk, 512, &[1; 512], 0).unwrap_err();
    write(&mut *disk, 4096, &[1; 4096], 0).unwrap();
    assert_eq!(read(&mut *disk, 4096, 4096, 0).unwrap(), [1; 4096]);
    assert_eq!(read(&mut *disk, 0, 512, 0).unwrap_err().kind, FaultKind::Vanished);
}

#[test]
fn a_qcow2_image_lies_below_as_well_but_none_that_refers_to_another_file() {
    use imago::file::File as Storage;
    use imago::qcow2::Qcow2;
    use imago::{FormatCreateBuilder, Storage as _, StorageOpenOptions};
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("disk.img");
    for backing in [None, Some("/etc/hostname")] {
        File::create(&path).unwrap();
        let storage = Storage::open(StorageOpenOptions::new().filename(&path).write(true)).unwrap();
        let mut builder = Qcow2::<Storage>::create_builder(storage).size(1 << 20);
        if let Some(file) = backing {
            builder = builder.backing(file.into(), "raw".into());
        }
        builder.create().unwrap();
        let options = DiskOptions { access: Access::ReadOnly, format: None };
        let opened = open_file(File::open(&path).unwrap(), "disk.img", options);
        if backing.is_some() {
            assert!(matches!(opened, Err(OpenError::Reference { .. })), "{opened:?}");
            continue;
        }
        let mut disk = overlay(opened.unwrap(), tempfile::tempfile().unwrap()).unwrap();
        assert_eq!(disk.capacity(), 1 << 20);
        write(&mut *disk, 100 * 512, &[5; 1024], 3).unwrap();
        let mut expected = vec![0; 8192];
        expected[4096..4096 + 1024].fill(5);
        assert_eq!(read(&mut *disk, 92 * 512, 8192, 0).unwrap(), expected);
    }
    let stated = DiskOptions { access: Access::ReadOnly, format: Some(ImageFormat::Raw) };
    assert!(open_file(File::open(&path).unwrap(), "disk.img", stated).unwrap().capacity() < 1 << 20);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn bits_are_runs(ranges in proptest::collection::vec((0_u64..400, 0_u64..200), 0..8), from in 0_u64..400, len in 1_u64..200) {
        let (mut written, mut model) = (Written::none(600), vec![false; 600]);
        for (from, len) in ranges {
            written.add(from, from + len);
            let from = usize::try_from(from).unwrap();
            model[from..from + usize::try_from(len).unwrap()].fill(true);
        }
        let to = from + len;
        let at = |block: u64| model[usize::try_from(block).unwrap()];
        let end = (from..to).find(|block| at(*block) != at(from)).unwrap_or(to);
        prop_assert_eq!(written.run(from, to), (at(from), end));
    }

    /// Steps of bytes, not sectors: more than a guest can ask for.
    #[test]
    fn an_overlay_is_a_byte_array_over_another(
        steps in proptest::collection::vec(
            (0..SIZE, 1_usize..20000, any::<u8>(), 0_u8..8, 0_usize..20000), 1..40)
    ) {
        let (_folder, path) = raw();
        let mut disk = on(&path);
        // What is discarded may be anything.
        let mut model: Vec<Option<u8>> = content().into_iter().map(Some).collect();
        for (offset, len, value, kind, first) in steps {
            let len = len.min(SIZE - offset);
            let range = offset..offset + len;
            match kind {
                0..=2 => {
                    let bytes: Vec<u8> = (0..len).map(|at| value ^ u8::try_from(at % 256).unwrap()).collect();
                    write(&mut *disk, offset, &bytes, first).unwrap();
                    model.splice(range, bytes.into_iter().map(Some));
                }
                3 => {
                    let space = if value & 1 == 0 { Space::Free } else { Space::Keep };
                    disk.write_zeroes(offset as u64, len as u64, space).unwrap();
                    model[range].fill(Some(0));
                }
                4 => {
                    disk.discard(offset as u64, len as u64).unwrap();
                    model[range].fill(None);
                }
                5 => disk.flush().unwrap(),
                _ => {
                    let bytes = read(&mut *disk, offset, len, first).unwrap();
                    prop_assert!(agrees(&bytes, &model[range]));
                }
            }
        }
        prop_assert!(agrees(&read(&mut *disk, 0, SIZE, SIZE / 3).unwrap(), &model));
        prop_assert_eq!(fs::read(&path).unwrap(), content());
    }
}

fn agrees(bytes: &[u8], model: &[Option<u8>]) -> bool {
    bytes.len() == model.len()
        && bytes.iter().zip(model).all(|(byte, wanted)| wanted.is_none_or(|w| w == *byte))
}
