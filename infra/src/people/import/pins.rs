//! PINs, kept as Argon2id PHC strings (RFC 9106; the parameters are OWASP's 19 MiB, two passes, one
//! lane). Slow on purpose, so it never runs on the threads that serve.
//!
//! A PIN is short: whoever has the string can guess it in hours. It confirms a person who was
//! chosen, and never stands alone.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use argon2::{Argon2, PasswordHasher, PasswordVerifier, password_hash::phc::PasswordHash};

use super::{ImportError, Pin};

/// A PIN to keep, and the string that is kept now.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub pin: Pin,
    pub kept: Option<String>,
}

/// Hashes a PIN under a fresh salt. Takes some 20 ms of one core.
///
/// # Errors
/// When the system has no randomness or memory to give.
pub fn hash(pin: &Pin) -> Result<String, ImportError> {
    let hash: PasswordHash =
        Argon2::default().hash_password(pin.as_bytes()).map_err(|_| ImportError::Hash)?;
    Ok(hash.to_string())
}

/// Whether `phc` is of this PIN. Takes as long as hashing.
pub fn verify(pin: &Pin, phc: &str) -> bool {
    PasswordHash::new(phc)
        .is_ok_and(|hash| Argon2::default().verify_password(pin.as_bytes(), &hash).is_ok())
}

/// The strings to keep, in order; none where the one kept now is of this PIN. Uses every core, and
/// no thread that serves. `progress` hears how many are done.
pub(super) async fn hash_changed(
    wanted: Vec<Wanted>,
    progress: Arc<dyn Fn(usize) + Send + Sync>,
) -> Result<Vec<Option<String>>, ImportError> {
    let wanted = Arc::new(wanted);
    let next = Arc::new(AtomicUsize::new(0));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers: Vec<_> = (0..cores.min(wanted.len()))
        .map(|_| {
            let (wanted, next, progress) =
                (Arc::clone(&wanted), Arc::clone(&next), Arc::clone(&progress));
            tokio::task::spawn_blocking(move || {
                let mut done = Vec::new();
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(Wanted { pin, kept }) = wanted.get(at) else { return Ok(done) };
                    let same = kept.as_ref().is_some_and(|phc| verify(pin, phc));
                    done.push((at, if same { None } else { Some(hash(pin)?) }));
                    progress(at + 1);
                }
            })
        })
        .collect();
    let mut hashed = vec![None; wanted.len()];
    for worker in workers {
        let done: Result<Vec<(usize, Option<String>)>, ImportError> =
            worker.await.map_err(|_| ImportError::Stopped)?;
        for (at, phc) in done? {
            hashed[at] = phc;
        }
    }
    Ok(hashed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_verifies_under_its_own_string_only() {
        let (pin, other) = (Pin::new("4711").unwrap(), Pin::new("4712").unwrap());
        let phc = hash(&pin).unwrap();
        assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{phc}");
        assert!(verify(&pin, &phc) && !verify(&other, &phc) && !verify(&pin, "nonsense"));
        assert_ne!(hash(&pin).unwrap(), phc, "each has a salt of its own");
    }

    #[tokio::test]
    async fn what_is_unchanged_is_not_hashed_again() {
        let (pin, other) = (Pin::new("4711").unwrap(), Pin::new("4712").unwrap());
        let kept = Some(hash(&pin).unwrap());
        let wanted = vec![
            Wanted { pin: pin.clone(), kept: kept.clone() },
            Wanted { pin: other, kept },
            Wanted { pin, kept: None },
        ];
        let hashed = hash_changed(wanted, Arc::new(|_| {})).await.unwrap();
        assert_eq!(hashed.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true, true]);
    }
}
