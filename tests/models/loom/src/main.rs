//! Models of the library's protocols, gone through by loom: every interleaving, within the bound that each model names,
//! and every old value that the memory model of C11 lets a load see. The models take the memory orders from the
//! code (`memory`), the bits of a lock word from its very file (`format`), and name at their head the functions that they
//! repeat. Each has to find the faults that can be put into it: a model that cannot fail fails.
//!
//! usage: netshm-models [MODEL [FAULT]]   without arguments: all of them. NETSHM_LONG=1 allows one preemption more.

mod election;
mod format;
mod gate;
mod lock_word;
mod locks;
mod memory;
mod reading;
mod run;
mod split;
mod watch;

fn main() {
    let models: Vec<run::Model> = [
        reading::models(),
        lock_word::models(),
        gate::models(),
        watch::models(),
        split::models(),
        election::models(),
    ]
    .into_iter()
    .flatten()
    .collect();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let code = match &arguments[..] {
        [] => i32::from(!run::all(&models)),
        [name, rest @ ..] => match models.iter().find(|model| model.name == name) {
            Some(model) => {
                run::one(model, rest.first().map_or("none", String::as_str));
                0
            }
            None => {
                eprintln!(
                    "no such model; there are: {}",
                    models.iter().map(|model| model.name).collect::<Vec<_>>().join(" ")
                );
                3
            }
        },
    };
    std::process::exit(code);
}
