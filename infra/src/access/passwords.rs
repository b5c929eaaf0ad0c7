//! Passwords: Argon2id (RFC 9106; OWASP's 19 MiB, two passes, one lane), as PHC strings. Taken
//! exactly as typed, judged by length and by being none of those that are tried first.

use argon2::{Argon2, PasswordHasher, PasswordVerifier, password_hash::phc::PasswordHash};

/// The shortest password, in characters.
pub const PASSWORD_CHARS_MIN: usize = 12;
/// The longest, in bytes: enough for any sentence, and bounded.
pub const PASSWORD_BYTES_MAX: usize = 512;

/// Of nobody's password, with the parameters of all others: what a wrong login is checked against,
/// so that it takes as long as a wrong password.
const NOBODYS: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5J3Mgc2FsdCE\
    $AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Whole passwords of twelve characters and more that guesses begin with.
const TRIED_FIRST: &[&str] = &[
    "123456789012",
    "1234567890123",
    "12345678901234",
    "123456789012345",
    "1234567890123456",
    "111111111111",
    "000000000000",
    "123123123123",
    "121212121212",
    "password1234",
    "password12345",
    "password123456",
    "passwordpassword",
    "qwertyuiop12",
    "qwertyuiop123",
    "qwertyuiop[]",
    "qwertyuiopasdf",
    "1qaz2wsx3edc",
    "1q2w3e4r5t6y",
    "q1w2e3r4t5y6",
    "abcdefghijkl",
    "abcdefghijklmnop",
    "abcd12345678",
    "adminadmin12",
    "administrator",
    "administrator1",
    "changeme1234",
    "changemeplease",
    "letmeinletmein",
    "iloveyou1234",
    "welcome12345",
    "welcome123456",
    "monkeymonkey",
    "superman1234",
    "trustno1trustno1",
    "correcthorsebatterystaple",
    "punchtrail12",
    "punchtrail123",
    "punchtrailpunchtrail",
];

/// Why a password isn't taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Anybody could try them all.
    #[error("a password has at least {PASSWORD_CHARS_MIN} characters; a sentence does well")]
    Short,
    /// Longer than is taken.
    #[error("a password has at most {PASSWORD_BYTES_MAX} bytes")]
    Long,
    /// It is tried among the first.
    #[error("this password is among those that are tried first; take another")]
    Common,
    /// The machine gives no memory or randomness.
    #[error("the password can't be kept now")]
    Hash,
}

/// That a password may be taken by somebody who signs in so.
///
/// # Errors
/// See [`PasswordError`].
pub fn check(password: &str, login: &str) -> Result<(), PasswordError> {
    let count = password.chars().count();
    if count < PASSWORD_CHARS_MIN {
        return Err(PasswordError::Short);
    }
    if password.len() > PASSWORD_BYTES_MAX {
        return Err(PasswordError::Long);
    }
    let lower = password.to_lowercase();
    let first = lower.chars().next();
    let same = lower.chars().all(|letter| Some(letter) == first);
    let named = lower == login || login.len() >= 4 && lower.replace(login, "").len() < 4;
    match same || named || TRIED_FIRST.contains(&lower.as_str()) {
        true => Err(PasswordError::Common),
        false => Ok(()),
    }
}

/// Hashes a password under a fresh salt. Takes some 20 ms of one core.
///
/// # Errors
/// When the system has no randomness or memory to give.
pub fn hash(password: &str) -> Result<String, PasswordError> {
    let hash: PasswordHash =
        Argon2::default().hash_password(password.as_bytes()).map_err(|_| PasswordError::Hash)?;
    Ok(hash.to_string())
}

/// Whether `phc` is of this password; without one it isn't, and that takes as long.
pub fn verify(password: &str, phc: Option<&str>) -> bool {
    // Longer ones were never taken; what anybody sends isn't hashed whole.
    let password = password.as_bytes();
    let password = &password[..password.len().min(PASSWORD_BYTES_MAX + 1)];
    let good = PasswordHash::new(phc.unwrap_or(NOBODYS))
        .is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok());
    good && phc.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_taken_as_typed_and_the_first_guesses_are_not() {
        assert_eq!(check("short", "ada"), Err(PasswordError::Short));
        assert_eq!(check("aaaaaaaaaaaaaaaa", "ada"), Err(PasswordError::Common));
        assert_eq!(check("Password1234", "ada"), Err(PasswordError::Common));
        assert_eq!(check("ada@example.org1", "ada@example.org"), Err(PasswordError::Common));
        assert_eq!(check(&"x y".repeat(400), "ada"), Err(PasswordError::Long));
        assert_eq!(check(" drei Türen, 1 Schlüssel", "ada"), Ok(()));
        let phc = hash(" drei Türen, 1 Schlüssel").unwrap();
        assert!(verify(" drei Türen, 1 Schlüssel", Some(&phc)));
        assert!(!verify("drei Türen, 1 Schlüssel", Some(&phc)));
        assert!(!verify("drei Türen, 1 Schlüssel", None));
    }

    #[test]
    fn nobodys_hash_is_one_that_is_worked_through() {
        let nobody = PasswordHash::new(NOBODYS).unwrap();
        let own = hash("drei Türen, 1 Schlüssel").unwrap();
        let own = PasswordHash::new(&own).unwrap();
        assert_eq!((nobody.algorithm, nobody.params.clone()), (own.algorithm, own.params.clone()));
        assert_eq!(nobody.hash.map(|hash| hash.len()), own.hash.map(|hash| hash.len()));
    }
}
