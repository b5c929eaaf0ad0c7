//! Who checks faces, and where the checks wait, as an operator says it.

use std::{num::NonZeroU32, path::PathBuf};

use clap::Args;
use punchtrail_api::identity::start::IdentityOptions;
use punchtrail_domain::punch::Provider;
use punchtrail_infra::{
    identity::{CALLS_PER_SECOND_DEFAULT, CALLS_PER_SECOND_MAX},
    queue::Place,
};

use punchtrail_vision::{DETECTOR_FILE, EMBEDDER_FILE};

use super::source::Source;

/// Where the checks wait: needed by whoever looks at the queue, too.
#[derive(Debug, Clone, Args)]
pub(super) struct Line {
    /// Let checks wait in this SQS queue instead of the database; its URL
    #[arg(long, value_name = "URL", env = "PUNCHTRAIL_SQS_QUEUE")]
    sqs_queue: Option<String>,
}

impl Line {
    /// Where the checks wait.
    pub(super) fn place(&self, source: &Source) -> Place {
        match self.sqs_queue.clone().filter(|url| !url.is_empty()) {
            Some(url) => Place::Sqs { url, region: source.region().map(str::to_owned) },
            None => Place::Postgres,
        }
    }
}

/// Who checks faces.
#[derive(Debug, Args)]
pub(super) struct Identity {
    #[command(flatten)]
    line: Line,

    /// Who checks faces, separated by commas; the next is asked where one is out of reach:
    /// `local`, `rekognition`, `review` (a person looks at each picture)
    #[arg(long, value_name = "WHO", env = "PUNCHTRAIL_FACE_CHECKS", value_delimiter = ',',
          default_value = "local", value_parser = provider)]
    face_checks: Vec<Provider>,

    /// The folder with the models of the local check, `detector.onnx` and `embedder.onnx`
    #[arg(long, value_name = "DIR", env = "PUNCHTRAIL_FACE_MODELS")]
    face_models: Option<PathBuf>,

    /// Calls a second of each of Rekognition's two actions, as your account's quota allows
    #[arg(long, value_name = "N", default_value_t = CALLS_PER_SECOND_DEFAULT,
          env = "PUNCHTRAIL_REKOGNITION_CALLS_PER_SECOND", value_parser = calls)]
    rekognition_calls_per_second: NonZeroU32,
}

fn provider(text: &str) -> Result<Provider, String> {
    let unknown = |_| "one of `local`, `rekognition`, `review`".to_owned();
    text.trim().parse().map_err(unknown)
}

fn calls(text: &str) -> Result<NonZeroU32, String> {
    let read = text.parse().ok().filter(|calls| *calls <= CALLS_PER_SECOND_MAX);
    read.ok_or_else(|| format!("a number from 1 to {CALLS_PER_SECOND_MAX}"))
}

impl Identity {
    /// Whether this one is asked to check faces.
    pub(super) fn asks(&self, provider: Provider) -> bool {
        self.face_checks.contains(&provider)
    }

    /// Where the checks wait.
    pub(super) fn place(&self, source: &Source) -> Place {
        self.line.place(source)
    }

    /// Why the models of the local check aren't there; none if they are.
    pub(super) fn missing_models(&self) -> Option<String> {
        let Some(folder) = &self.face_models else {
            return Some("no folder with them was named".to_owned());
        };
        let files = [DETECTOR_FILE, EMBEDDER_FILE].map(|name| folder.join(name));
        let missing = files.into_iter().find(|path| !path.is_file());
        missing.map(|path| format!("{} is no file", path.display()))
    }

    pub(super) fn options(&self, source: &Source) -> IdentityOptions {
        IdentityOptions {
            order: self.face_checks.clone(),
            models: self.face_models.clone(),
            region: source.region().map(str::to_owned),
            calls_per_second: self.rekognition_calls_per_second,
            queue: self.place(source),
        }
    }
}
