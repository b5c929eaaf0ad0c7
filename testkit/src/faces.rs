//! The models that find and compare faces, and pictures to try them on. Neither is part of the
//! repository: `./dev test` and `./dev setup` bring them.

use std::path::{Path, PathBuf};

use crate::not_run;

/// Where `./dev` puts what it brought, below the workspace.
const BROUGHT: &str = "target/tools/faces-1.1.1";
const DETECTOR: &str = "detector.onnx";
const EMBEDDER: &str = "embedder.onnx";

/// The pictures, without their ending `.jpg`: who is seen twice has one letter for both. Credits
/// are in the folder's `CREDITS.md`.
pub const PICTURES: [&str; 6] =
    ["person_a_1", "person_a_2", "person_b_1", "person_b_2", "impostor_1", "impostor_2"];

/// The bytes of both models, and the folder with the pictures.
#[derive(Debug)]
pub struct Faces {
    /// The detector's file.
    pub detector: Vec<u8>,
    /// The embedder's file.
    pub embedder: Vec<u8>,
    models: PathBuf,
    pictures: PathBuf,
}

impl Faces {
    /// What `./dev` brought: where it says in `PUNCHTRAIL_FACE_MODELS` and
    /// `PUNCHTRAIL_TEST_PICTURES`, else where it puts it. If it isn't there, says that the test
    /// can't run.
    ///
    /// # Panics
    /// If it isn't there and the variable `CI` is set.
    #[track_caller]
    pub fn brought() -> Option<Self> {
        let faces = Self::at_hand();
        if faces.is_none() {
            let models = folder("PUNCHTRAIL_FACE_MODELS", BROUGHT);
            not_run(format!(
                "there are no face models in {}; `./dev setup` brings them",
                models.display()
            ));
        }
        faces
    }

    /// The same, without a word if it isn't there.
    pub fn at_hand() -> Option<Self> {
        let models = folder("PUNCHTRAIL_FACE_MODELS", BROUGHT);
        let pictures = folder("PUNCHTRAIL_TEST_PICTURES", &format!("{BROUGHT}/pictures"));
        let read = |name: &str| std::fs::read(models.join(name)).ok();
        let (detector, embedder) = (read(DETECTOR)?, read(EMBEDDER)?);
        pictures.is_dir().then_some(Self { detector, embedder, models, pictures })
    }

    /// The folder with both models, as a server is told it.
    pub fn models(&self) -> &Path {
        &self.models
    }

    /// The bytes of one of [`PICTURES`].
    ///
    /// # Panics
    /// If there is no such picture.
    pub fn picture(&self, name: &str) -> Vec<u8> {
        let path = self.pictures.join(name).with_extension("jpg");
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

fn folder(variable: &str, otherwise: &str) -> PathBuf {
    let named = std::env::var_os(variable).filter(|value| !value.is_empty());
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    named.map_or_else(|| workspace.join(otherwise), PathBuf::from)
}
