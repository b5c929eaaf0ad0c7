//! What people are here, and what is settled for a whole role.

use serde::{Deserialize, Serialize};

use crate::postgres::Pool;

/// What somebody who signs in may do; which routes those are says the table of routes.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    strum::IntoStaticStr,
    strum::EnumString,
    strum::VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Role {
    /// Everything, also who may do what.
    Admin,
    /// What concerns named sites.
    Manager,
    /// Reads and changes nothing; names and photos only by a grant.
    Auditor,
    /// Hours and their export.
    Payroll,
}

impl Role {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Whether such a person has sites, and sees nothing of others.
    pub const fn has_sites(self) -> bool {
        matches!(self, Self::Manager)
    }

    pub(super) fn of(text: &str) -> Result<Self, sqlx::Error> {
        text.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))
    }
}

/// What is settled for a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoleRule {
    pub role: Role,
    /// Whether its people need a second factor.
    pub second_factor_required: bool,
}

/// What is settled for each role.
///
/// # Errors
/// When the database is out of reach.
pub async fn rules(writer: &Pool) -> Result<Vec<RoleRule>, sqlx::Error> {
    let rows: Vec<(String, bool)> =
        sqlx::query_as("select role, totp_required from role_rules order by role")
            .fetch_all(writer)
            .await?;
    let rule = |(role, second_factor_required): (String, bool)| {
        Ok(RoleRule { role: Role::of(&role)?, second_factor_required })
    };
    rows.into_iter().map(rule).collect()
}
