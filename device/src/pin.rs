//! PINs: a PIN confirms a person already chosen by badge, and nothing else.
//!
//! It is never stored, logged or sent. A wrong one is guidance: nothing is recorded, and the worker
//! tries again or punches without it. Guessing is bounded per person and per device within a window
//! of uptime, counted before each look, so that neither many processes at once nor a restart gets
//! more guesses. What this can't help against is said in docs/device-agent.md: whoever takes the
//! tablet has the manifest's hashes, and a short PIN is soon found from its hash.

use std::fmt;

use argon2::{Algorithm, Argon2, Params, PasswordHash, PasswordVerifier, Version};
use punchtrail_protocol::EmployeeId;
use zeroize::Zeroizing;

use crate::{
    clock::Moment,
    store::{Store, StoreError, guesses},
};

/// The window in which guesses count, in milliseconds.
pub const GUESS_WINDOW_MS: u64 = 600_000;
/// Wrong PINs for one person within the window.
pub const GUESSES_PER_PERSON_MAX: u64 = 5;
/// Wrong PINs on one device within the window.
pub const GUESSES_PER_DEVICE_MAX: u64 = 30;
/// The longest PIN that is looked at, in bytes.
pub const PIN_BYTES_MAX: usize = 64;
/// The most memory that a manifest's hash may ask of this device, in KiB.
const ARGON2_MEMORY_KIB_MAX: u32 = 256 * 1_024;
/// The most passes that it may ask.
const ARGON2_PASSES_MAX: u32 = 32;

/// A PIN as typed; wiped when dropped, never shown.
#[derive(Clone)]
pub struct Pin(Zeroizing<String>);

impl Pin {
    /// Takes what was typed.
    pub fn typed(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// Whether it is exactly `text`. For telling a placeholder; PINs are compared by their hash.
    pub fn is(&self, text: &str) -> bool {
        self.0.as_str() == text
    }
}

impl std::str::FromStr for Pin {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self::typed(text))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pin(…)")
    }
}

/// What a look at a PIN gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    Right,
    Wrong,
    /// Too many were wrong; no look was taken.
    Throttled,
    /// The manifest's hash can't be checked on this device.
    Unreadable,
}

/// Looks whether `pin` is that of `employee`, whose hash the manifest gives as `phc`.
///
/// # Errors
/// When the guess can't be written down; then no look was taken.
pub async fn look(
    store: &Store,
    employee: EmployeeId,
    pin: Pin,
    phc: String,
    now: &Moment,
) -> Result<Look, StoreError> {
    let mut write = store.write().await?;
    let recent = guesses::recent(&mut write, employee, now, GUESS_WINDOW_MS).await?;
    if recent.of_person >= GUESSES_PER_PERSON_MAX || recent.of_device >= GUESSES_PER_DEVICE_MAX {
        write.commit().await?;
        return Ok(Look::Throttled);
    }
    guesses::add(&mut write, employee, now).await?;
    write.commit().await?;

    // Argon2 is meant to be slow: tens of milliseconds that no other task should wait for.
    let look = tokio::task::spawn_blocking(move || verify(&pin, &phc))
        .await
        .map_err(|error| StoreError::unreadable(format_args!("a PIN check: {error}")))?;
    if look == Look::Right {
        let mut write = store.write().await?;
        guesses::clear(&mut write, employee).await?;
        write.commit().await?;
    }
    Ok(look)
}

fn verify(pin: &Pin, phc: &str) -> Look {
    let Ok(hash) = PasswordHash::new(phc) else { return Look::Unreadable };
    let Ok(params) = Params::try_from(&hash) else { return Look::Unreadable };
    let affordable =
        params.m_cost() <= ARGON2_MEMORY_KIB_MAX && params.t_cost() <= ARGON2_PASSES_MAX;
    if hash.algorithm.as_str() != "argon2id" || !affordable {
        return Look::Unreadable;
    }
    if pin.0.len() > PIN_BYTES_MAX {
        return Look::Wrong;
    }
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    match argon2.verify_password(pin.0.as_bytes(), &hash) {
        Ok(()) => Look::Right,
        Err(_) => Look::Wrong,
    }
}

#[cfg(test)]
mod tests {
    use argon2::PasswordHasher;

    use super::*;

    fn hashed(pin: &str) -> String {
        let cheap = Params::new(8, 1, 1, None).unwrap();
        Argon2::new(Algorithm::Argon2id, Version::V0x13, cheap)
            .hash_password(pin.as_bytes())
            .unwrap()
            .to_string()
    }

    #[test]
    fn a_pin_is_right_or_wrong_by_its_hash() {
        let phc = hashed("4711");
        assert_eq!(verify(&Pin::typed("4711"), &phc), Look::Right);
        assert_eq!(verify(&Pin::typed("4712"), &phc), Look::Wrong);
        assert_eq!(verify(&Pin::typed(""), &phc), Look::Wrong);
        assert_eq!(verify(&Pin::typed("4711"), "4711"), Look::Unreadable);
        let greedy = phc.replacen("m=8", "m=4000000", 1);
        assert_ne!(greedy, phc);
        assert_eq!(verify(&Pin::typed("4711"), &greedy), Look::Unreadable);
    }

    #[test]
    fn a_pin_is_never_shown() {
        assert!(!format!("{:?}", Pin::typed("4711")).contains("4711"));
    }
}
