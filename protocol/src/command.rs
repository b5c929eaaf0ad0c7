//! What a device can be told to do, and what it says became of it.

use serde::{Deserialize, Serialize};

use crate::{EmployeeId, Time, strict_json};

/// How long a command can be acted on unless its type says otherwise, in seconds.
pub const COMMAND_LIFE_S: u32 = 86_400;
/// The same of `forget_photos`, in seconds: as long as any device keeps what it delivered, so that
/// one that was off for months hears of it.
pub const FORGETTING_LIFE_S: u32 = 366 * 86_400;
/// The most commands in an answer.
pub const COMMANDS_GIVEN_MAX: usize = 100;
/// The longest text of a message, in characters.
pub const MESSAGE_CHARS_MAX: usize = 500;
/// The longest detail of a result, in characters.
pub const RESULT_DETAIL_CHARS_MAX: usize = 500;

/// What a device is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[derive(strum::IntoStaticStr, strum::EnumString)]
#[strum(serialize_all = "snake_case")]
#[strum(parse_err_ty = UnknownCommandType, parse_err_fn = UnknownCommandType::of)]
pub enum CommandType {
    /// Walk the manifest anew.
    SyncEmployees,
    /// Deliver what waits now, whatever pause it chose itself.
    UploadPending,
    /// Show a text to who looks at the device.
    ShowMessage,
    /// Erase the photos of a person's punches.
    ForgetPhotos,
    /// End the agent, so that whoever looks after it starts it again.
    RestartAgent,
}

impl CommandType {
    /// The type as the wire and the tables write it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// How long such a command can be acted on, in seconds.
    pub const fn life_s(self) -> u32 {
        match self {
            Self::ForgetPhotos => FORGETTING_LIFE_S,
            _ => COMMAND_LIFE_S,
        }
    }
}

/// A text that names no type of command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a command is one of `sync_employees`, `upload_pending`, `show_message`, `forget_photos`, \
     `restart_agent`"
)]
pub struct UnknownCommandType;

impl UnknownCommandType {
    fn of(_: &str) -> Self {
        Self
    }
}

/// What a device says became of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[derive(strum::IntoStaticStr, strum::EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum CommandStatus {
    Done,
    /// It tried, and couldn't.
    Failed,
    /// It doesn't know such a command, or wouldn't act on it.
    Refused,
}

impl CommandStatus {
    /// The status as the wire and the tables write it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The arguments of a command: those of its type, no others.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CommandArgs {
    /// Of `show_message`: what is shown, 1 to 500 characters.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "strict_json::no_null"
    )]
    pub text: Option<String>,
    /// Of `forget_photos`: whose.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "strict_json::no_null"
    )]
    pub employee: Option<EmployeeId>,
    /// Of `forget_photos`: those of punches captured until then, by the capture's own time.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "strict_json::no_null"
    )]
    pub taken_until: Option<Time>,
}

/// Why arguments aren't those of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadArgs {
    #[error("`{0}` is needed")]
    Missing(&'static str),
    #[error("`{0}` is no argument of this command")]
    Unknown(&'static str),
    #[error("`text` has 1 to {MESSAGE_CHARS_MAX} characters, none of them NUL")]
    Text,
}

impl BadArgs {
    /// The argument at fault.
    pub const fn argument(self) -> &'static str {
        match self {
            Self::Missing(name) | Self::Unknown(name) => name,
            Self::Text => "text",
        }
    }
}

impl CommandArgs {
    /// Checks that these are the arguments of such a command. `taken_until` may be left out.
    ///
    /// # Errors
    /// With the argument at fault.
    pub fn check(&self, of: CommandType) -> Result<(), BadArgs> {
        let (message, photos) = (of == CommandType::ShowMessage, of == CommandType::ForgetPhotos);
        let given = [
            ("text", self.text.is_some(), message, message),
            ("employee", self.employee.is_some(), photos, photos),
            ("taken_until", self.taken_until.is_some(), photos, false),
        ];
        for (name, is_there, is_known, is_needed) in given {
            match (is_there, is_known) {
                (true, false) => return Err(BadArgs::Unknown(name)),
                (false, true) if is_needed => return Err(BadArgs::Missing(name)),
                _ => {}
            }
        }
        let fits = |text: &String| {
            (1..=MESSAGE_CHARS_MAX).contains(&text.chars().count()) && !text.contains('\0')
        };
        if self.text.as_ref().is_some_and(|text| !fits(text)) { Err(BadArgs::Text) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_has_its_arguments_and_no_others() {
        let none = CommandArgs::default();
        let text = CommandArgs { text: Some("Stock-taking at six".to_owned()), ..none.clone() };
        let person = CommandArgs { employee: Some(EmployeeId::NIL), ..none.clone() };
        for plain in
            [CommandType::SyncEmployees, CommandType::UploadPending, CommandType::RestartAgent]
        {
            assert_eq!(none.check(plain), Ok(()));
            assert_eq!(text.check(plain), Err(BadArgs::Unknown("text")));
            assert_eq!(person.check(plain), Err(BadArgs::Unknown("employee")));
        }
        assert_eq!(text.check(CommandType::ShowMessage), Ok(()));
        assert_eq!(none.check(CommandType::ShowMessage), Err(BadArgs::Missing("text")));
        assert_eq!(person.check(CommandType::ForgetPhotos), Ok(()));
        assert_eq!(none.check(CommandType::ForgetPhotos), Err(BadArgs::Missing("employee")));
        for length in [0, MESSAGE_CHARS_MAX + 1] {
            let long = CommandArgs { text: Some("ä".repeat(length)), ..none.clone() };
            assert_eq!(long.check(CommandType::ShowMessage), Err(BadArgs::Text));
        }
    }
}
