//! The processes at work on one object, and who starts, stops and kills them, and looks whether they go on.

use crate::book::*;
use crate::step;
use crate::support::process::{Child, Exit, fork, fork_into_namespace, now_ns};
use crate::support::random::Random;
use crate::tables::Plan;
use crate::worker::{self, Fate};
use std::fs::File;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A desk that ends no operation for so long is stuck. On a machine that has other things to do, seconds say little.
pub(crate) const STUCK: Duration = Duration::from_secs(120);

pub(crate) struct Site<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) office: &'static Office,
    processes: [Option<Child>; PROCESSES.len()],
    /// Some die by themselves, at one of their shared stores, or while they give memory back: so many deaths fall into the short time
    /// in which something is half done, which a random moment seldom meets. Others stand still there.
    fates: [Fate; PROCESSES.len()],
    /// Those who stand still, and until when.
    stopped: [Option<u64>; PROCESSES.len()],
    /// May processes have PID namespaces of their own?
    namespaces: bool,
    /// The bytes of the object.
    file: File,
    random: Random,
    pub(crate) counts: Counts,
    /// Of the deaths, those that were not told yet.
    died: u64,
}

/// What has happened.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) in_namespaces: u64,
    /// Deaths at a shared store, and while memory was given back.
    pub(crate) at_stores: u64,
    pub(crate) at_punches: u64,
    pub(crate) stops: u64,
    /// Of these, those of processes that held a lock; and of these, those that were killed before they went on.
    pub(crate) stopped_holders: u64,
    pub(crate) killed_holders: u64,
}

impl Site<'_> {
    pub(crate) fn new<'a>(
        plan: &'a Plan,
        path: &Path,
        office: &'static Office,
        namespaces: bool,
    ) -> Site<'a> {
        Site {
            plan,
            office,
            processes: [const { None }; PROCESSES.len()],
            fates: [Fate::Nothing; PROCESSES.len()],
            stopped: [None; PROCESSES.len()],
            namespaces,
            file: File::open(path).expect("opens the bytes of the object"),
            random: Random::new(plan.seed),
            counts: Counts::default(),
            died: 0,
        }
    }

    /// Starts those who are dead. Gives how many died by themselves.
    pub(crate) fn revive(&mut self) -> u64 {
        self.look_after();
        let dead: Vec<usize> = (0..PROCESSES.len()).filter(|p| !self.is_alive(*p)).collect();
        dead.iter().for_each(|process| self.start(*process));
        std::mem::take(&mut self.died)
    }

    pub(crate) fn start(&mut self, process: usize) {
        let desks = PROCESSES[process];
        desks.iter().for_each(|desk| self.office.desk(*desk).set_parked(false));
        let (plan, office) = (self.plan, self.office);
        // The first process of a namespace cannot kill itself.
        let in_namespace = self.namespaces && self.random.once_in(4);
        let fate = if cfg!(feature = "inject") && !in_namespace { self.any_fate() } else { Fate::Nothing };
        self.fates[process] = fate;
        self.stopped[process] = None;
        let body = || worker::live(plan, office, desks, fate);
        let child = if in_namespace {
            self.counts.in_namespaces += 1;
            fork_into_namespace(body).expect("a namespace, as before")
        } else {
            fork(body)
        };
        self.processes[process] = Some(child);
    }

    fn any_fate(&mut self) -> Fate {
        let (bits, any) = (self.random.below(18), self.random.next());
        match self.random.below(12) {
            0..2 if self.plan.gives_back => Fate::DiesAtPunch(any % 4),
            0..6 => Fate::DiesAtStore(any % (2 << bits)),
            6..8 => Fate::Stops,
            _ => Fate::Nothing,
        }
    }

    pub(crate) fn is_alive(&self, process: usize) -> bool {
        self.processes[process].is_some()
    }

    pub(crate) fn kill(&mut self, process: usize) {
        self.look_for_failure();
        let held = self.stopped[process].map_or(0, |_| self.locks_held(process));
        if let Some(mut child) = self.processes[process].take() {
            let exit = child.kill();
            assert_eq!(exit, Exit::KILLED, "process {process} was alive: {}", self.in_hand(process));
            self.counts.killed_holders += u64::from(held > 0);
            self.stopped[process] = None;
        }
    }

    /// Whatever it holds, it holds for a while, until it is to `go_on`.
    pub(crate) fn stop(&mut self, process: usize) {
        let Some(child) = &self.processes[process] else { return };
        child.signal(libc::SIGSTOP);
        let end = now_ns() + 1_000_000;
        while self.stopped[process].is_none() && now_ns() < end {
            std::thread::sleep(Duration::from_micros(20));
            self.notice_stop(process, u64::MAX);
        }
    }

    pub(crate) fn go_on(&mut self, process: usize) {
        self.stopped[process] = None;
        if let Some(child) = &self.processes[process] {
            child.signal(libc::SIGCONT);
        }
    }

    /// How many have died by themselves and were not revived yet.
    pub(crate) fn died(&self) -> u64 {
        self.died
    }

    /// Is anybody standing still?
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.iter().any(Option::is_some)
    }

    /// Takes note of one who has come to stand still, and of what he holds.
    fn notice_stop(&mut self, process: usize, until: u64) {
        let Some(child) = &self.processes[process] else { return };
        if child.has_stopped() {
            self.counts.stops += 1;
            self.counts.stopped_holders += u64::from(self.locks_held(process) > 0);
            self.stopped[process] = Some(until);
        }
    }

    /// Locks of a process that stands still. One in a namespace has a number of its own there, by which it is not found.
    fn locks_held(&self, process: usize) -> u64 {
        #[cfg(feature = "inject")]
        if let Some(child) = &self.processes[process] {
            return netshm::inject::locks_held(&self.file, child.pid() as u32).expect("reads the object");
        }
        let _ = (&self.file, process);
        0
    }

    /// What a process has in hand.
    fn in_hand(&self, process: usize) -> String {
        let tell = |desk: &usize| {
            let desk = self.office.desk(*desk);
            let n = desk.begun();
            let what = step::step(self.plan, desk.number, n, &desk.book());
            format!("desk {} operation {n}, {what:?}", desk.number)
        };
        PROCESSES[process].iter().map(tell).collect::<Vec<_>>().join("; ")
    }

    /// Somebody who has found something wrong may say what.
    fn look_for_failure(&self) {
        let [failed, told] = self.office.failure().map(|word| move || word.load(Ordering::SeqCst) != 0);
        if failed() {
            let end = now_ns() + STUCK.as_nanos() as u64;
            while !told() && now_ns() < end {
                std::thread::sleep(Duration::from_millis(10));
            }
            panic!("a worker has failed, see above");
        }
    }

    /// Fails if somebody has ended, or is stuck. Lets those go on who have stood still for long enough.
    pub(crate) fn look_after(&mut self) {
        self.look_for_failure();
        for (process, desks) in PROCESSES.iter().enumerate() {
            let Some(child) = &mut self.processes[process] else { continue };
            let (ended, pid) = (child.poll(), child.pid());
            if ended == Some(Exit::KILLED) {
                let count = match self.fates[process] {
                    Fate::DiesAtStore(_) => Some(&mut self.counts.at_stores),
                    Fate::DiesAtPunch(_) => Some(&mut self.counts.at_punches),
                    Fate::Nothing | Fate::Stops => None,
                };
                if let Some(count) = count {
                    *count += 1;
                    self.died += 1;
                    self.processes[process] = None;
                    continue;
                }
            }
            if self.fates[process] == Fate::Stops && ended.is_none() {
                let until = now_ns() + 300_000 + self.random.below(4_000_000);
                self.notice_stop(process, until);
                if self.stopped[process].is_some_and(|until| until <= now_ns()) {
                    self.go_on(process);
                }
            }
            if let Some(exit) = ended {
                panic!("process {process} ended by itself, {exit:?}: {}", self.in_hand(process));
            }
            for desk in *desks {
                let idle = now_ns().saturating_sub(self.office.desk(*desk).ended_at());
                if idle > STUCK.as_nanos() as u64 && !self.office.desk(*desk).is_parked() {
                    let wchan = std::fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
                    panic!("desk {desk} is stuck: {}, in {wchan}", self.in_hand(process));
                }
            }
        }
    }

    /// Sleeps, and looks after the workers.
    pub(crate) fn wait(&mut self, time: Duration) {
        let end = now_ns() + time.as_nanos() as u64;
        loop {
            self.look_after();
            let left = end.saturating_sub(now_ns());
            if left == 0 {
                return;
            }
            std::thread::sleep(Duration::from_nanos(left.min(1_000_000)));
        }
    }

    /// From now on it is noted when each desk ends its next operation.
    pub(crate) fn watch(&self) {
        self.office.desks().iter().for_each(Desk::forget_first);
    }

    /// Waits until all who are alive have gone on. Gives the time that the last of them has taken since `from`.
    pub(crate) fn wait_until_all_went_on(&mut self, from: u64) -> u64 {
        let mut slowest = 0;
        for process in (0..PROCESSES.len()).filter(|p| self.is_alive(*p)).collect::<Vec<_>>() {
            for desk in PROCESSES[process] {
                while self.is_alive(process) {
                    if let Some(at) = self.office.desk(*desk).first() {
                        slowest = slowest.max(at.saturating_sub(from));
                        break;
                    }
                    self.wait(Duration::from_micros(100));
                }
            }
        }
        slowest
    }

    /// Lets everybody pause while something is done.
    pub(crate) fn while_paused<R>(&mut self, body: impl FnOnce(&mut Self) -> R) -> R {
        self.office.park(true);
        while self.office.desks().iter().any(|desk| !desk.is_parked()) {
            self.wait(Duration::from_micros(300));
            self.died = self.revive();
        }
        let outcome = body(self);
        self.office.park(false);
        self.office.desks().iter().for_each(|desk| desk.set_parked(false));
        outcome
    }

    /// Everybody leaves in order.
    pub(crate) fn end(&mut self) {
        self.while_paused(|_| ());
        self.office.end();
        for (n, child) in self.processes.iter_mut().enumerate() {
            let exit = child.take().map(|mut child| child.wait());
            let dies = matches!(self.fates[n], Fate::DiesAtStore(_) | Fate::DiesAtPunch(_));
            let as_it_should = exit == Some(Exit::Code(0)) || (dies && exit == Some(Exit::KILLED));
            assert!(as_it_should, "process {n} at the end: {exit:?}");
        }
    }
}
