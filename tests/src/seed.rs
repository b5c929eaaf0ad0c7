//! What chance decides, by a seed that is printed and can be given again.

use anyhow::Context;

/// Names a seed that is to be used again.
const VARIABLE: &str = "PUNCHTRAIL_SEED";

/// The seed in `PUNCHTRAIL_SEED`, else a new one. Says which, so that a run can be repeated: a
/// failed test's output shows it.
///
/// # Errors
/// When the variable holds something else than a number.
pub fn seed() -> anyhow::Result<u64> {
    let seed = match std::env::var(VARIABLE) {
        Ok(text) => {
            text.parse().with_context(|| format!("{VARIABLE} is a number, not {text:?}"))?
        }
        Err(_) => u64::from(rand::random::<u32>()),
    };
    eprintln!("{VARIABLE}={seed} repeats what chance decided here");
    Ok(seed)
}
