//! Why a punch refuses a command.

/// A command that a punch refuses. Nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PunchError {
    #[error("there is no such punch")]
    Unknown,
    /// What is out of the count can't be corrected.
    #[error(
        "the punch was taken out of the count; nothing was changed. Accept it to bring it back, \
         then correct it"
    )]
    Voided,
    /// There is no other time to use.
    #[error(
        "the device's clock isn't known to have been wrong then; nothing was changed. Amend the \
         punch with the time that shall count"
    )]
    NoOtherTime,
    /// The ruling asked for is the one that stands.
    #[error("the punch stands like that already; nothing was changed")]
    Unchanged,
    /// A shift begins with an `in` that counts.
    #[error("only an `in` that counts begins a shift; nothing was changed")]
    NoShift,
    /// There is no such shift.
    #[error("the punch is joined with no other; nothing was changed")]
    NotJoined,
    /// The id belongs to a punch that came another way.
    #[error("a punch with this id exists already")]
    Exists,
    /// Another picture stands under the attempt.
    #[error("another picture stands under this attempt; the first one is kept")]
    AttemptTaken,
    /// No picture can be attached to a punch that no device captured.
    #[error("the punch was not captured by a device, so no picture can be attached to it")]
    NotCaptured,
}
