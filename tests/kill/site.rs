//! The processes at work on one object, and who starts, stops and kills them, and looks whether they go on.

use crate::book::*;
use crate::step;
use crate::support::process::{Child, Exit, fork, fork_into_namespace, now_ns};
use crate::support::random::Random;
use crate::tables::Plan;
use crate::worker;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A desk that ends no operation for so long is stuck. On a machine that has other things to do, seconds say little.
pub(crate) const STUCK: Duration = Duration::from_secs(120);

pub(crate) struct Site<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) office: &'static Office,
    processes: [Option<Child>; PROCESSES.len()],
    /// Those who die by themselves, at one of their shared stores: so many deaths fall into the short time in which a change is
    /// half done, which a random moment seldom meets.
    armed: [bool; PROCESSES.len()],
    /// May processes have PID namespaces of their own?
    namespaces: bool,
    pub(crate) in_namespaces: u64,
    pub(crate) at_stores: u64,
    random: Random,
}

impl Site<'_> {
    pub(crate) fn new<'a>(plan: &'a Plan, office: &'static Office, namespaces: bool) -> Site<'a> {
        Site {
            plan,
            office,
            processes: [const { None }; PROCESSES.len()],
            armed: [false; PROCESSES.len()],
            namespaces,
            in_namespaces: 0,
            at_stores: 0,
            random: Random::new(plan.seed),
        }
    }

    /// Starts those who are dead. Gives how many died by themselves.
    pub(crate) fn revive(&mut self) -> u64 {
        self.look_after();
        let dead: Vec<usize> = (0..PROCESSES.len()).filter(|p| !self.is_alive(*p)).collect();
        dead.iter().for_each(|process| self.start(*process));
        std::mem::take(&mut self.at_stores)
    }

    pub(crate) fn start(&mut self, process: usize) {
        let desks = PROCESSES[process];
        desks.iter().for_each(|desk| self.office.desk(*desk).set_parked(false));
        let (plan, office) = (self.plan, self.office);
        // The first process of a namespace cannot kill itself.
        let in_namespace = self.namespaces && self.random.once_in(4);
        self.armed[process] = cfg!(feature = "inject") && !in_namespace && self.random.once_in(2);
        let (bits, any) = (self.random.below(18), self.random.next());
        let dies_at = self.armed[process].then_some(any % (2 << bits));
        let body = || worker::live(plan, office, desks, dies_at);
        let child = if in_namespace {
            self.in_namespaces += 1;
            fork_into_namespace(body).expect("a namespace, as before")
        } else {
            fork(body)
        };
        self.processes[process] = Some(child);
    }

    pub(crate) fn is_alive(&self, process: usize) -> bool {
        self.processes[process].is_some()
    }

    pub(crate) fn kill(&mut self, process: usize) {
        self.look_for_failure();
        if let Some(mut child) = self.processes[process].take() {
            let exit = child.kill();
            assert_eq!(exit, Exit::KILLED, "process {process} was alive: {}", self.in_hand(process));
        }
    }

    pub(crate) fn signal(&self, process: usize, signal: i32) {
        if let Some(child) = &self.processes[process] {
            child.signal(signal);
        }
    }

    /// What a process has in hand.
    fn in_hand(&self, process: usize) -> String {
        let tell = |desk: &usize| {
            let desk = self.office.desk(*desk);
            let n = desk.begun();
            let what = step::step(self.plan.seed, desk.number, n, &desk.book());
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

    /// Fails if somebody has ended, or is stuck.
    pub(crate) fn look_after(&mut self) {
        self.look_for_failure();
        for (process, desks) in PROCESSES.iter().enumerate() {
            let Some(child) = &mut self.processes[process] else { continue };
            let (ended, pid) = (child.poll(), child.pid());
            if ended == Some(Exit::KILLED) && self.armed[process] {
                self.processes[process] = None;
                self.at_stores += 1;
                continue;
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
        self.look_after();
        let end = now_ns() + time.as_nanos() as u64;
        loop {
            let left = end.saturating_sub(now_ns());
            if left == 0 {
                return;
            }
            std::thread::sleep(Duration::from_nanos(left.min(20_000_000)));
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
            self.at_stores = self.revive();
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
            let at_a_store = exit == Some(Exit::KILLED) && self.armed[n];
            assert!(exit == Some(Exit::Code(0)) || at_a_store, "process {n} at the end: {exit:?}");
        }
    }
}
