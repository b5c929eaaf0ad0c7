//! A worker's record as the server tells it, read with tolerance: a word that this version doesn't
//! know is no reason to show nothing.

use punchtrail_protocol::{DisputeId, EmployeeId, PunchId, Time};
use serde::{Deserialize, Serialize};

/// A worker's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordOutcome {
    pub employee: EmployeeId,
    pub days: Vec<DayOutcome>,
    pub disputes: Vec<DisputeOutcome>,
}

/// A business day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DayOutcome {
    pub day: String,
    /// Worked minutes that are settled.
    pub accepted_min: u64,
    /// Worked minutes that count until a person has ruled.
    pub provisional_min: u64,
    pub punches: Vec<PunchOutcome>,
}

/// A punch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PunchOutcome {
    pub punch: PunchId,
    pub kind: String,
    pub captured_at: Time,
    pub effective_at: Time,
    pub standing: String,
    pub reasons: Vec<ReasonOutcome>,
}

/// A reason as a code and in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasonOutcome {
    pub code: String,
    pub text: String,
}

/// A dispute, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DisputeOutcome {
    pub dispute: DisputeId,
    pub punch: Option<PunchId>,
    pub day: Option<String>,
    pub cause: String,
    pub state: String,
    pub opened_at: Time,
    pub text: Option<String>,
    pub answers: Vec<AnswerOutcome>,
    pub resolution: Option<ResolutionOutcome>,
}

/// An answer to a dispute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerOutcome {
    pub at: Time,
    pub text: String,
}

/// How a dispute was settled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolutionOutcome {
    pub how: String,
    pub words: String,
    pub by_punch: Option<PunchId>,
    pub at: Time,
    pub text: Option<String>,
}
