//! Running a model: which fault is in it, how many executions were tried, and how it ended.

use loom::model::Builder;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// A model, and the faults that it has to find.
pub struct Model {
    pub name: &'static str,
    /// What it goes through, for the report.
    pub about: &'static str,
    pub body: fn(),
    /// How many times loom may take the processor away from a thread that could go on; none: always. The long form has
    /// one more.
    pub preemptions: Option<usize>,
    pub faults: &'static [&'static str],
}

static FAULT: OnceLock<String> = OnceLock::new();
static EXECUTIONS: AtomicU64 = AtomicU64::new(0);

/// Is this fault to be in the protocol?
pub fn has(fault: &str) -> bool {
    FAULT.get().is_some_and(|f| f == fault)
}

/// Goes through one model in this process, which ends with 1 if something is found, with 2 if loom gives up.
pub fn one(model: &Model, fault: &str) {
    let _ = FAULT.set(fault.to_owned());
    // Unwinding through what loom keeps may panic again, so the first panic is the end.
    std::panic::set_hook(Box::new(|info| {
        let payload = info.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or(payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic");
        let complaint = text.lines().next().unwrap_or_default();
        let gave_up = complaint.contains("exceeded") || complaint.contains("MAX_");
        println!("{} executions: {complaint}", EXECUTIONS.load(Ordering::Relaxed));
        std::process::exit(if gave_up { 2 } else { 1 });
    }));
    let mut builder = Builder::new();
    builder.max_branches = 10_000;
    let more = usize::from(std::env::var_os("NETSHM_LONG").is_some());
    if builder.preemption_bound.is_none() {
        builder.preemption_bound = model.preemptions.map(|bound| bound + more);
    }
    let body = model.body;
    builder.check(move || {
        EXECUTIONS.fetch_add(1, Ordering::Relaxed);
        body();
    });
    println!("{} executions: holds", EXECUTIONS.load(Ordering::Relaxed));
}

/// Goes through all models, each with each of its faults in a process of its own. False: one does not hold, or does
/// not find a fault.
pub fn all(models: &[Model]) -> bool {
    let me = std::env::current_exe().expect("the path of this program");
    let mut good = true;
    for model in models {
        println!("{}: {}", model.name, model.about);
        for fault in std::iter::once(&"none").chain(model.faults) {
            let begun = Instant::now();
            let output = Command::new(&me).args([model.name, fault]).output().expect("a process");
            let said = String::from_utf8_lossy(&output.stdout);
            let expected = i32::from(*fault != "none");
            let verdict = match output.status.code() {
                Some(code) if code == expected => "as it should be",
                _ => {
                    good = false;
                    "FAILED"
                }
            };
            println!("  {fault}: {} ({verdict}, {:.1} s)", said.trim(), begun.elapsed().as_secs_f64());
        }
    }
    good
}
