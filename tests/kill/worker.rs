//! A thread at work: finds out what the one before at its desk had in hand when it was killed, and goes on.

use crate::book::*;
use crate::step::*;
use crate::support::model::{Outcome, do_on_table};
use crate::support::process::leave;
use crate::support::random::Random;
use crate::support::scratch::assert_object_sound;
use crate::tables::*;
use netshm::{BlockOp, Error, HashTable, OpenOptions, Update};
#[cfg(feature = "inject")]
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// What a process does to itself. All but the first need the feature `inject`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fate {
    Nothing,
    /// Dies before one of its stores.
    DiesAtStore(u64),
    /// Dies right before or right after it gives memory back.
    DiesAtPunch(u64),
    /// Stands still, now and then, before a store, which is mostly in the middle of a change.
    Stops,
}

/// The life of a process.
pub(crate) fn live(plan: &Plan, office: &'static Office, desks: &[usize], fate: Fate) -> ! {
    #[cfg(feature = "inject")]
    {
        if plan.gives_back {
            netshm::inject::set_quarantine_seconds(0);
        }
        match fate {
            Fate::DiesAtStore(k) => netshm::inject::arm(k),
            Fate::DiesAtPunch(k) => netshm::inject::die_at_punch(k),
            Fate::Nothing | Fate::Stops => {}
        }
    }
    #[cfg(not(feature = "inject"))]
    assert_eq!(fate, Fate::Nothing, "needs the hooks");
    let before = std::panic::take_hook();
    let [failed, told] = office.failure();
    std::panic::set_hook(Box::new(move |info| {
        // Said first: to tell it takes long, and nobody is to be killed over it.
        failed.store(1, Ordering::SeqCst);
        before(info);
        told.store(1, Ordering::SeqCst);
        leave(101);
    }));
    std::thread::scope(|threads| {
        for number in &desks[1..] {
            let thread = std::thread::Builder::new().name(format!("desk {number}"));
            thread
                .spawn_scoped(threads, || Worker::begin(plan, office.desk(*number), fate).work())
                .expect("has threads");
        }
        Worker::begin(plan, office.desk(desks[0]), fate).work();
    });
    leave(0)
}

/// Once in `times` times this process will stand still before one of its next stores.
fn may_stop(stops: &mut Option<Random>, times: u64, stores: u64) {
    let Some(random) = stops else { return };
    if random.once_in(times) {
        let store = random.below(stores);
        #[cfg(feature = "inject")]
        netshm::inject::stop_at(store);
        #[cfg(not(feature = "inject"))]
        panic!("stopping before store {store} needs the hooks");
    }
}

fn stops_no_more(stops: &Option<Random>) {
    #[cfg(feature = "inject")]
    if stops.is_some() {
        netshm::inject::disarm();
    }
    #[cfg(not(feature = "inject"))]
    assert!(stops.is_none());
}

/// What this process has given back to the system has to outlive it.
fn note_given_back(desk: &Desk<'_>) {
    #[cfg(feature = "inject")]
    {
        static NOTED: AtomicU64 = AtomicU64::new(0);
        let now = netshm::inject::punches();
        let before = NOTED.fetch_max(now, Ordering::SeqCst);
        if now > before {
            desk.note_given_back(now - before);
        }
    }
    #[cfg(not(feature = "inject"))]
    desk.note_given_back(0);
}

struct Worker<'a> {
    plan: &'a Plan,
    desk: Desk<'a>,
    t: Tables,
    /// Of those who stand still now and then.
    stops: Option<Random>,
}

/// Of so many operations a process that stands still now and then may do so in one.
const STOPS_IN: u64 = 256;

impl Worker<'_> {
    /// Opens the tables, and finds out what has become of what the one before had in hand.
    fn begin<'a>(plan: &'a Plan, desk: Desk<'a>, fate: Fate) -> Worker<'a> {
        let mut stops = (fate == Fate::Stops)
            .then(|| Random::new(u64::from(std::process::id()) << 8 | desk.number as u64));
        may_stop(&mut stops, 4, 400);
        let worker = Worker { plan, desk, t: Tables::open(plan, desk.number), stops };
        worker.resolve();
        stops_no_more(&worker.stops);
        worker
    }

    /// Finds out what has become of the operation in flight when the one before was killed.
    fn resolve(&self) {
        let (begun, ended) = (self.desk.begun(), self.desk.ended());
        if begun == ended {
            return;
        }
        assert_eq!(begun, ended + 1);
        let desk = self.desk.number;
        let before = self.desk.book();
        let step = step(self.plan, desk, begun, &before);
        let mut after = after(&step, desk, begun, &before);
        let whole = matches!(step, Step::Pieces(..));
        let compare_with = |book: &Book| self.t.compare(self.plan, desk, book, whole);
        let was_after = compare_with(&after);
        if let Err(a) = was_after {
            if let Err(b) = compare_with(&before) {
                panic!("desk {desk}, operation {begun}, {step:?}: against before: {b}; against after: {a}");
            }
            after = before;
        } else if let Step::Count(counter, false) = step {
            // Nobody can tell: it was once more, or not.
            self.desk.note_uncertain(counter);
            after = before;
        }
        self.desk.end(&after);
    }

    /// Until the end of the campaign.
    fn work(mut self) {
        let number = self.desk.number;
        loop {
            self.desk.tick();
            while self.desk.must_park() {
                if self.desk.must_end() {
                    return;
                }
                self.desk.set_parked(true);
                std::thread::sleep(Duration::from_millis(1));
            }
            if self.desk.is_parked() {
                self.desk.set_parked(false);
            }
            let n = self.desk.ended() + 1;
            let book = self.desk.book();
            let step = step(self.plan, number, n, &book);
            let after = after(&step, number, n, &book);
            self.desk.begin(n);
            may_stop(&mut self.stops, STOPS_IN, 60);
            self.apply(n, &step, &book, &after);
            stops_no_more(&self.stops);
            self.desk.end(&after);
            note_given_back(&self.desk);
            if n % 16 == 0 {
                self.look_at_one(n, &after);
            }
        }
    }

    /// What has returned is there: one key, without a lock.
    fn look_at_one(&self, n: u64, book: &Book) {
        let (key, desk) = ((n / 16) as usize % KEYS, self.desk.number);
        let should = book.stack(key).last().map(|tag| value(desk, *tag));
        assert_eq!(self.t.raw.find(&own_key(desk, key)).expect("finds"), should, "after operation {n}");
    }

    fn group(&self, mut body: impl FnMut(&HashTable) -> netshm::Result<()>) -> netshm::Result<()> {
        let t = &self.t.raw;
        t.table().group_retry(None, || body(t))
    }

    /// Some changes of own keys. Other groups may win; then the whole is tried again.
    fn all_of(&self, changes: &[Change], book: &mut Book) -> netshm::Result<()> {
        for change in changes {
            let (op, expected) = change.enter(self.desk.number, book);
            let outcome = do_on_table(&self.t.raw, &op);
            if outcome == Outcome::Failed(Error::Deadlock) {
                return Err(Error::Deadlock);
            }
            assert_eq!(outcome, expected, "{change:?}");
        }
        Ok(())
    }

    fn mark(&self, n: u64) -> netshm::Result<()> {
        self.t.raw.replace(&marker_key(self.desk.number), &n.to_le_bytes())
    }

    fn apply(&mut self, n: u64, step: &Step, book: &Book, after: &Book) {
        let (desk, t) = (self.desk.number, &self.t);
        match step {
            Step::Own(change) => {
                self.all_of(std::slice::from_ref(change), &mut book.clone()).expect("no group");
            }
            Step::Bundle(changes, nested) => self
                .group(|raw| {
                    let mut book = book.clone();
                    let (first, rest) = changes.split_at(changes.len() / 2);
                    self.all_of(first, &mut book)?;
                    let aborted = raw.table().group(|| {
                        self.all_of(nested, &mut book.clone())?;
                        Err::<(), _>(Error::Aborted)
                    });
                    assert!(matches!(aborted, Err(Error::Aborted | Error::Deadlock)), "{aborted:?}");
                    self.all_of(rest, &mut book)
                })
                .expect("commits"),
            Step::Aborted(changes) => {
                let aborted =
                    self.group(|_| self.all_of(changes, &mut book.clone()).and(Err(Error::Aborted)));
                assert_eq!(aborted, Err(Error::Aborted));
            }
            Step::Enqueue => {
                let n = book.0[QUEUE_TO];
                t.raw.add(&queue_key(desk, n), &value(desk, n)).expect("adds");
            }
            Step::Dequeue => {
                assert!(t.raw.remove(&queue_key(desk, book.0[QUEUE_FROM])).expect("removes"));
            }
            Step::Count(counter, false) => {
                t.raw.increment(&counter_key(*counter), 1, 0).expect("counts");
            }
            Step::Count(counter, true) => self
                .group(|raw| {
                    raw.increment(&counter_key(*counter), 1, 0)?;
                    self.mark(n)
                })
                .expect("commits"),
            Step::Transfer { from, to, amount } => self
                .group(|raw| {
                    let (from, to) = (account_key(*from), account_key(*to));
                    let balance = number(raw.find(&from)?);
                    raw.replace(&from, &(balance - amount).to_le_bytes())?;
                    self.mark(n)?;
                    raw.increment(&to, *amount, 0).map(|_| ())
                })
                .expect("commits"),
            Step::Audit => {
                self.group(|_| t.sum_accounts().map(|sum| assert_eq!(sum, CAPITAL))).expect("reads");
            }
            Step::Everywhere(tag) => self.everywhere(n, *tag, book),
            Step::Ballast(0) => assert!(t.raw.remove(&ballast_key(desk)).expect("removes")),
            Step::Ballast(tag) => {
                t.raw.replace(&ballast_key(desk), &ballast(desk, *tag)).expect("replaces");
            }
            Step::AddTo(element) => self
                .group(|_| {
                    t.elements.increment(shared_element(*element), 1)?;
                    self.mark(n)
                })
                .expect("commits"),
            Step::Lengths => self.lengths(book),
            Step::Iterate => self.iterate(book),
            Step::Wait(counter) => t.wait(*counter),
            Step::Check => drop(assert_object_sound(&t.object)),
            Step::Sync => t.object.sync(0).expect("syncs"),
            Step::Backup => self.backup(book),
            Step::Reopen => self.t = Tables::open(self.plan, desk),
            _ => self.apply_to_other_tables(step, book, after),
        }
    }

    fn apply_to_other_tables(&self, step: &Step, book: &Book, after: &Book) {
        let (desk, t) = (self.desk.number, &self.t);
        match step {
            Step::Typed(key, how, tag) => {
                let (key, new) = (typed_key(desk, *key), typed_value(*tag));
                match how {
                    Typed::Replace => t.typed.replace(&key, &new).expect("replaces"),
                    Typed::Update => {
                        t.typed.update(&key, |_| Ok(Update::Replace(new))).expect("updates");
                    }
                    Typed::Remove => drop(t.typed.remove(&key).expect("removes")),
                }
            }
            Step::Words(key, how, tag) => self.change_words(*key, *how, *tag, book),
            Step::Set(tag) => t.elements.set_i64(own_element(desk), element(*tag, 0)).expect("sets"),
            Step::Blocks(from, to, tag) => {
                let first = (from * BLOCK_ELEMENTS) as u64;
                let slice = elements(*tag, BLOCK_ELEMENTS).repeat(to - from);
                t.blocks.write(first, &slice).expect("writes");
            }
            Step::Resize(length) => t.blocks.resize((length * BLOCK_ELEMENTS) as u64).expect("resizes"),
            Step::Pieces(from, to, tag) => {
                let slice = elements(*tag, PIECE_ELEMENTS).repeat(to - from);
                t.pieces.write(piece_index(desk, *from), &slice).expect("writes");
            }
            Step::Text(n, tag) => t.texts.set(text_index(desk, *n), &text(*tag)).expect("sets"),
            Step::Root(Root::Make) => drop(t.root(self.plan, desk)),
            Step::Root(Root::Fill(tag)) => {
                t.root(self.plan, desk).replace(b"filled", &value(desk, *tag)).expect("replaces");
            }
            Step::Root(Root::Drop) => t.object.drop_table(&Tables::root_name(desk)).expect("drops"),
            other => panic!("{other:?} belongs elsewhere, {}", after.bindings()),
        }
    }

    fn change_words(&self, key: usize, how: Words, tag: u64, book: &Book) {
        let (t, k, new) = (&self.t.words, word_key(self.desk.number, key), words(key, tag));
        let depth = book.depth(KEYS + key);
        match how {
            Words::Add if depth < DEPTH => t.add(k, &new).expect("adds"),
            Words::Add | Words::Replace => t.replace(k, &new).expect("replaces"),
            Words::Remove => assert_eq!(t.remove(k).expect("removes"), depth > 0),
            Words::Assign => {
                let (mut binding, mut at) = (0, 0);
                t.write_blocks(&[BlockOp::Remove], k, |fragment| {
                    let Some(fragment) = fragment else {
                        binding += 1;
                        let removed = (depth > 2 && binding == depth).then_some(BlockOp::Remove);
                        return Ok((netshm::Step::Next, removed));
                    };
                    if binding == 0 {
                        fragment.copy_from_slice(&new[at..at + fragment.len()]);
                        at += fragment.len();
                    }
                    Ok((netshm::Step::Go, None))
                })
                .expect("assigns");
                assert_eq!(binding, depth, "bindings of the key");
            }
        }
    }

    /// A table of each kind, in one group.
    fn everywhere(&self, n: u64, tag: u64, book: &Book) {
        let (desk, t) = (self.desk.number, &self.t);
        let all = |raw: &HashTable| {
            raw.replace(&own_key(desk, 0), &value(desk, tag))?;
            t.typed.replace(&typed_key(desk, 0), &typed_value(tag))?;
            t.words.replace(word_key(desk, 0), &words(0, tag))?;
            t.elements.set_i64(own_element(desk), element(tag, 0))?;
            t.elements.increment(shared_element(0), 1)?;
            t.texts.set(text_index(desk, 0), &text(tag))?;
            t.blocks.resize(2 * BLOCK_ELEMENTS as u64)?;
            t.blocks.write(BLOCK_ELEMENTS as u64, &elements(tag, BLOCK_ELEMENTS))?;
            self.mark(n)
        };
        self.group(all).unwrap_or_else(|e| panic!("{e}, length {}", book.0[LENGTH]));
    }

    fn lengths(&self, book: &Book) {
        let t = &self.t;
        assert!(t.raw.len().expect("counts") >= book.bindings());
        assert!(t.words.len().expect("counts") > 0 || book.depth(KEYS) == 0);
        let length = t.blocks.length().expect("has one");
        assert_eq!(length, book.0[LENGTH] * BLOCK_ELEMENTS as u64);
    }

    fn iterate(&self, book: &Book) {
        let mine = format!("desk {} ", self.desk.number).into_bytes();
        let is =
            self.t.raw.iter().map(|b| b.expect("iterates").0).filter(|k| k.starts_with(&mine)).count() as u64;
        assert_eq!(is, book.bindings(), "own bindings");
    }

    /// Nobody else changes what this desk has: the copy must have all of it.
    fn backup(&self, book: &Book) {
        let desk = self.desk.number;
        let copy = self.plan.copied_to(&self.plan.backup_name(desk));
        self.t.object.backup(&copy.name, 0o600, true, 0).expect("backs up");
        assert_object_sound(&OpenOptions::new().open(&copy.name).expect("opens the copy"));
        let copied = Tables::open(&copy, desk);
        copied.compare(&copy, desk, book, true).unwrap_or_else(|e| panic!("desk {desk}, backup: {e}"));
    }
}
