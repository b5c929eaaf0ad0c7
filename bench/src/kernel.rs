//! What a process takes, by the kernel's own account.

use std::fs;

/// The status of a process; none when it is gone.
pub fn status(process: u32) -> Option<String> {
    // A process that has ended and is not yet waited for has a status without memory.
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    status.contains("VmHWM").then_some(status)
}

/// A field of a status in kB, in MiB.
pub fn mib(status: &str, field: &str) -> f64 {
    let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib = value.and_then(|value| value.split_whitespace().next()?.parse().ok());
    kib.unwrap_or(0.0) / 1_024.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_a_process_that_is_not_has_none() {
        let own = status(std::process::id()).map(|status| mib(&status, "VmHWM"));
        assert!(own.is_some_and(|mib| mib > 1.0), "{own:?}");
        assert!(status(u32::MAX).is_none());
    }
}
