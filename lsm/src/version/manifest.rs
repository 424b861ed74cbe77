//! The manifest file: a numbered file that begins with the whole state and grows by edits.
//!
//! Every record is written and synced on its own. There is no pointer file: the manifest with
//! the highest number whose first record is whole is the valid one, and older ones are removed
//! before the first edit goes into a new one.

use super::Written;
use super::edit::{Edit, State};
use crate::env::{AlignedBuf, Env, File, OpenMode, PAGE};
use crate::log::segment_id;
use crate::{Error, Result};
use coronet_probe::{Bug, seeded};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Format version that this release writes, and the newest it reads.
pub const VERSION: u32 = 7;
/// The oldest that can be read: without keyspaces, runs and policy, and marks of damage.
const OLDEST: u32 = 1;
const MAGIC: [u8; 8] = *b"CRNTMAN\0";
const RECORD_MAGIC: u32 = u32::from_le_bytes(*b"CRME");
/// Bytes before a record's payload: checksum, magic, length, identity, index.
pub(crate) const RECORD_HEADER: usize = 32;
/// A manifest longer than this is written anew.
const REWRITE_BYTES: u64 = 4 << 20;
/// Largest record a reader accepts, bytes.
const MAX_RECORD: u32 = 1 << 30;

/// The path of manifest `number`.
pub fn manifest_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("MANIFEST-{number:06}"))
}

/// The number in a manifest's name.
pub fn manifest_number(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix("MANIFEST-")?.parse().ok()
}

/// What the newest valid manifest says.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The state after all edits.
    pub state: State,
    /// Its number; zero when the folder has no manifest.
    pub number: u64,
    /// Highest number in use by any manifest file.
    pub highest: u64,
}

/// Loads the newest valid manifest of a folder.
pub async fn load<E: Env>(env: &E, dir: &Path) -> Result<Loaded> {
    let names = env.list(dir).await.map_err(|e| Error::io("list", dir, &e))?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|path| manifest_number(path)).collect();
    numbers.sort_unstable();
    let highest = numbers.last().copied().unwrap_or(0);
    for number in numbers.iter().rev().copied() {
        if let Some(mut state) = load_one(env, &manifest_path(dir, number), number).await? {
            date_tables(&mut state, env.wall_micros());
            return Ok(Loaded { state, number, highest });
        }
    }
    // The first manifest of a folder may be half-written, and on a full disk the next attempts, too:
    // then nothing else exists yet.
    let is_data = |path: &PathBuf| super::table_id(path).is_some() || segment_id(path).is_some();
    if names.iter().any(is_data) {
        let path = manifest_path(dir, highest);
        return Err(Error::corruption(&path, 0, "no manifest of this folder is readable"));
    }
    Ok(Loaded { highest, ..Loaded::default() })
}

/// Tables of a manifest that did not keep times count as written now.
fn date_tables(state: &mut State, wall_micros: u64) {
    let undated = state.tables.values_mut().filter(|meta| meta.written == Written::default());
    undated.for_each(|meta| {
        meta.written = Written { oldest: wall_micros, newest: wall_micros };
    });
}

/// Reads one manifest; `None` when its beginning is not whole.
async fn load_one<E: Env>(env: &E, path: &Path, number: u64) -> Result<Option<State>> {
    let failed = |op| move |e: std::io::Error| Error::io(op, path, &e);
    let file = env.open(path, OpenMode::Read).await.map_err(failed("open"))?;
    let len = file.len().await.map_err(failed("length"))?;
    let len = usize::try_from(len).unwrap_or(0).next_multiple_of(PAGE);
    let bytes = file.read_at(0, len).await.map_err(failed("read"))?;
    let Some(uid) = decode_header(&bytes, path, Some(number))? else { return Ok(None) };
    let mut state = None;
    let (mut at, mut index) = (PAGE, 0);
    while let Some(payload) = record_at(&bytes, at, uid, Some(index)) {
        let edit = Edit::decode(payload).map_err(|offset| {
            let offset = (at + RECORD_HEADER + offset) as u64;
            Error::corruption(path, offset, "manifest edit cannot be decoded")
        })?;
        (state.get_or_insert_with(State::default).apply(&edit))
            .map_err(|what| Error::corruption(path, at as u64, what))?;
        at += (RECORD_HEADER + payload.len()).next_multiple_of(PAGE);
        index += 1;
    }
    // Every record was synced before the next was written: a whole one after a broken one
    // proves damage.
    let mut later = at + PAGE;
    while later < bytes.len() {
        if record_at(&bytes, later, uid, None).is_some() {
            return Err(Error::corruption(path, at as u64, "manifest record is damaged"));
        }
        later += PAGE;
    }
    Ok(state)
}

fn encode_header(uid: u64, number: u64) -> AlignedBuf {
    let mut page = AlignedBuf::zeroed(PAGE);
    page[..8].copy_from_slice(&MAGIC);
    page[8..12].copy_from_slice(&VERSION.to_le_bytes());
    page[16..24].copy_from_slice(&uid.to_le_bytes());
    page[24..32].copy_from_slice(&number.to_le_bytes());
    let crc = crc32c::crc32c(&page[16..]);
    page[12..16].copy_from_slice(&crc.to_le_bytes());
    page
}

/// The identity in a manifest's first page; `None` when the page is not whole.
pub(crate) fn decode_header(bytes: &[u8], path: &Path, number: Option<u64>) -> Result<Option<u64>> {
    if bytes.len() < PAGE
        || bytes[..8] != MAGIC
        || crc32c::crc32c(&bytes[16..PAGE]) != u32_at(bytes, 12)
    {
        return Ok(None);
    }
    let found = u32_at(bytes, 8);
    if !(OLDEST..=VERSION).contains(&found) {
        return Err(Error::UnknownVersion { path: path.to_owned(), found, supported: VERSION });
    }
    if number.is_some_and(|number| u64_at(bytes, 24) != number) {
        return Err(Error::corruption(path, 24, "manifest carries another number than its name"));
    }
    Ok(Some(u64_at(bytes, 16)))
}

/// One record, padded to whole pages.
fn encode_record(uid: u64, index: u64, payload: &[u8]) -> AlignedBuf {
    let mut record = AlignedBuf::with_capacity(RECORD_HEADER + payload.len());
    record.extend_from_slice(&[0; 4]);
    record.extend_from_slice(&RECORD_MAGIC.to_le_bytes());
    record.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    record.extend_from_slice(&uid.to_le_bytes());
    record.extend_from_slice(&index.to_le_bytes());
    record.extend_from_slice(payload);
    let crc = crc32c::crc32c(&record[4..]);
    record[..4].copy_from_slice(&crc.to_le_bytes());
    record.pad_to_page();
    record
}

/// The payload of a whole record at `at`; with `index`, only if it has that position.
pub(crate) fn record_at(bytes: &[u8], at: usize, uid: u64, index: Option<u64>) -> Option<&[u8]> {
    let record = bytes.get(at..)?;
    if record.len() < RECORD_HEADER || u32_at(record, 4) != RECORD_MAGIC {
        return None;
    }
    let len = u64_at(record, 8);
    let ours = u64_at(record, 16) == uid && index.is_none_or(|i| u64_at(record, 24) == i);
    if !ours || len > u64::from(MAX_RECORD) {
        return None;
    }
    let whole = record.get(..RECORD_HEADER + len as usize)?;
    (crc32c::crc32c(&whole[4..]) == u32_at(whole, 0)).then(|| &whole[RECORD_HEADER..])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

/// The manifest that edits go to.
pub struct Manifest<E: Env> {
    env: E,
    dir: PathBuf,
    number: u64,
    uid: u64,
    file: E::File,
    offset: u64,
    index: u64,
    /// Bytes written to this file and those before it.
    written: u64,
    /// A write or sync failed: what the file holds on the device is unknown.
    broken: bool,
}

impl<E: Env> Manifest<E> {
    /// Writes manifest `number` with the whole state, makes it durable, and only then removes
    /// every other manifest.
    pub async fn create(env: E, dir: &Path, number: u64, state: &State) -> Result<Self> {
        let path = manifest_path(dir, number);
        let failed = |op| {
            let path = &path;
            move |e: std::io::Error| Error::io(op, path, &e)
        };
        let file = env.open(&path, OpenMode::CreateNew).await.map_err(failed("create"))?;
        let uid = env.random();
        let mut content = encode_header(uid, number);
        content.extend_from_slice(&encode_record(uid, 0, &state.as_edit().encode()));
        let offset = content.len() as u64;
        file.write_at(0, content).await.0.map_err(failed("write"))?;
        file.sync().await.map_err(failed("sync"))?;
        env.sync_dir(dir).await.map_err(|e| Error::io("sync", dir, &e))?;
        let manifest = Manifest {
            env,
            dir: dir.to_owned(),
            number,
            uid,
            file,
            offset,
            index: 1,
            written: offset,
            broken: false,
        };
        manifest.remove_others().await?;
        Ok(manifest)
    }

    /// Appends an edit and makes it durable, as one record: it is there whole or not at all. After
    /// an error the edit may or may not be on the device: only [`Manifest::rewrite`] settles that.
    pub async fn append(&mut self, edit: &Edit) -> Result<()> {
        if seeded(Bug::ManifestInParts) {
            self.append_record(&Edit { added: Vec::new(), ..edit.clone() }).await?;
            self.env.sleep(Duration::from_millis(100)).await;
            let (added, progress) = (edit.added.clone(), edit.progress);
            return self.append_record(&Edit { added, progress, ..Edit::default() }).await;
        }
        self.append_record(edit).await
    }

    async fn append_record(&mut self, edit: &Edit) -> Result<()> {
        let path = manifest_path(&self.dir, self.number);
        if self.broken {
            return Err(Error::corruption(&path, self.offset, "an earlier append failed"));
        }
        self.broken = true;
        let record = encode_record(self.uid, self.index, &edit.encode());
        let len = record.len() as u64;
        let (written, _) = self.file.write_at(self.offset, record).await;
        written.map_err(|e| Error::io("write", &path, &e))?;
        self.file.sync().await.map_err(|e| Error::io("sync", &path, &e))?;
        self.broken = false;
        self.offset += len;
        self.written += len;
        self.index += 1;
        Ok(())
    }

    /// Bytes written so far, by this manifest and those it continues.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Whether the file is worth writing anew, or must be.
    pub fn wants_rewrite(&self) -> bool {
        self.broken || self.offset > REWRITE_BYTES
    }

    /// Continues in a new manifest that begins with `state`.
    pub async fn rewrite(&mut self, state: &State) -> Result<()> {
        let next = self.next_number().await?;
        let before = self.written;
        *self = Manifest::create(self.env.clone(), &self.dir, next, state).await?;
        self.written += before;
        Ok(())
    }

    async fn next_number(&self) -> Result<u64> {
        let names = self.env.list(&self.dir).await.map_err(|e| Error::io("list", &self.dir, &e))?;
        let highest = names.iter().filter_map(|path| manifest_number(path)).max().unwrap_or(0);
        Ok(highest.max(self.number) + 1)
    }

    async fn remove_others(&self) -> Result<()> {
        let names = self.env.list(&self.dir).await.map_err(|e| Error::io("list", &self.dir, &e))?;
        let mut removed = false;
        for path in names {
            if manifest_number(&path).is_some_and(|number| number != self.number) {
                self.env.remove(&path).await.map_err(|e| Error::io("remove", &path, &e))?;
                removed = true;
            }
        }
        if removed {
            self.env.sync_dir(&self.dir).await.map_err(|e| Error::io("sync", &self.dir, &e))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_their_number() {
        let path = manifest_path(Path::new("/d"), 7);
        assert_eq!(path, Path::new("/d/MANIFEST-000007"));
        assert_eq!(manifest_number(&path), Some(7));
        assert_eq!(manifest_number(Path::new("/d/000007.sst")), None);
    }

    #[test]
    fn header_refuses_newer_versions_and_foreign_names() {
        let path = Path::new("MANIFEST-000003");
        let page = encode_header(11, 3);
        assert_eq!(decode_header(&page, path, Some(3)).unwrap(), Some(11));
        assert!(matches!(decode_header(&page, path, Some(4)), Err(Error::Corruption { .. })));
        let mut newer = page.clone();
        newer[8] = 8;
        assert!(matches!(
            decode_header(&newer, path, Some(3)),
            Err(Error::UnknownVersion { found: 8, supported: 7, .. })
        ));
        let mut torn = page;
        torn[20] ^= 1;
        assert_eq!(decode_header(&torn, path, Some(3)).unwrap(), None);
    }

    #[test]
    fn a_record_counts_only_whole_and_in_place() {
        let record = encode_record(5, 2, b"payload");
        assert_eq!(record_at(&record, 0, 5, Some(2)), Some(&b"payload"[..]));
        assert_eq!(record_at(&record, 0, 5, Some(3)), None);
        assert_eq!(record_at(&record, 0, 6, None), None);
        for at in 0..RECORD_HEADER + 7 {
            let mut flipped = record.clone();
            flipped[at] ^= 0x10;
            assert_eq!(record_at(&flipped, 0, 5, Some(2)), None, "flip at {at}");
        }
    }
}
