//! A worker of the demo in Rust. What all workers do is told at the top of demo/drive.py.
//!
//! `demo_worker NAME FILE_NAME MEM_NAME TEXT`

use netshm::{HashTable, ManageOptions, Name, OpenOptions};
use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::process::parent_id;
use std::time::Duration;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const WORD_BYTES: usize = 64;

struct Worker {
    name: String,
    table: HashTable,
    text: File,
    driver: u32,
}

impl Worker {
    fn open(name: &str, file_name: &str, mem_name: &str, text: &str) -> Result<Worker> {
        let object = OpenOptions::new().open(&Name::posix(file_name, mem_name))?;
        Ok(Worker {
            name: name.to_owned(),
            table: HashTable::manage(&object, &ManageOptions::new())?,
            text: File::open(text)?,
            driver: parent_id(),
        })
    }

    fn run(&self) -> Result<()> {
        self.incr("ready:", 1)?;
        self.count_share(&self.name)?;
        while !self.table.contains(b"finished:")? {
            match self.take_over()? {
                Some(share) => self.count_share(&share)?,
                None => self.nap()?,
            }
        }
        Ok(())
    }

    /// Becomes the owner of a dead process's share, if there is one that nobody has taken over yet.
    fn take_over(&self) -> Result<Option<String>> {
        let Some(share) = self.text("orphan:")? else { return Ok(None) };
        match self.table.compare_and_replace(format!("owner:{share}").as_bytes(), b"", self.name.as_bytes()) {
            Ok(()) => Ok(Some(share)),
            Err(netshm::Error::Changed) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    fn count_share(&self, share: &str) -> Result<()> {
        for i in 0..self.number(&format!("size:{share}"))? {
            while self.number(&format!("given:{share}"))? <= i {
                self.nap()?;
            }
            let key = format!("chunk:{share}:{i}");
            if let Some(chunk) = self.text(&key)? {
                let (offset, len) = chunk.split_once(' ').ok_or("a chunk without length")?;
                self.count_chunk(share, &key, offset.parse()?, len.parse()?)?;
            }
        }
        Ok(())
    }

    /// Counts privately, then adds all to the table in one group, which also takes the chunk off the list.
    fn count_chunk(&self, share: &str, key: &str, offset: u64, len: usize) -> Result<()> {
        let mut text = vec![0; len];
        self.text.read_exact_at(&mut text, offset)?;
        text.make_ascii_lowercase();
        let mut words = BTreeMap::<&[u8], i64>::new(); // sorted: see "Order" in drive.py
        for run in text.split(|byte| !byte.is_ascii_lowercase()).filter(|run| !run.is_empty()) {
            *words.entry(&run[..run.len().min(WORD_BYTES)]).or_default() += 1;
        }

        self.table.table().group_retry(None, || {
            if !self.table.remove(key.as_bytes())? {
                return Ok(()); // it has been counted
            }
            for (word, &times) in &words {
                self.table.increment(word, times, 0)?;
            }
            self.incr(&format!("words:{}", self.name), words.values().sum())?;
            self.incr(&format!("increments:{}", self.name), words.len() as i64)?;
            self.incr(&format!("done:{share}"), 1)
        })
    }

    fn incr(&self, key: &str, delta: i64) -> Result<()> {
        self.table.increment(key.as_bytes(), delta, 0)?;
        Ok(())
    }

    /// The integer that is bound to a key; 0 if there is none.
    fn number(&self, key: &str) -> Result<i64> {
        let mut bytes = [0; 8];
        self.table.find_into(key.as_bytes(), &mut bytes)?;
        Ok(i64::from_le_bytes(bytes))
    }

    /// The text that is bound to a key, unless it is empty.
    fn text(&self, key: &str) -> Result<Option<String>> {
        let bytes = self.table.find(key.as_bytes())?.unwrap_or_default();
        Ok(Some(String::from_utf8(bytes)?).filter(|text| !text.is_empty()))
    }

    fn nap(&self) -> Result<()> {
        if parent_id() != self.driver {
            return Err("the driver is gone".into());
        }
        std::thread::sleep(Duration::from_millis(2));
        Ok(())
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, name, file_name, mem_name, text] = &arguments[..] else {
        return Err("usage: demo_worker NAME FILE_NAME MEM_NAME TEXT".into());
    };
    Worker::open(name, file_name, mem_name, text)?.run()
}
