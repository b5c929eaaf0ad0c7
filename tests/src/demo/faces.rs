//! Faces in the demo: a third site compares them. A clean match, a miss with guidance and a retake,
//! a miss that goes to a manager, and Amazon Rekognition (its stand-in) failing over to the
//! server's own models.

use std::{
    fs,
    io::Cursor,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use image::ImageFormat;
use punchtrail_protocol::{
    capture::PunchKind,
    guidance::{Guidance, Language},
};
use punchtrail_rekognition_stand_in::{Action, Face, Fault, StandIn};
use punchtrail_testkit::{Faces, PATIENCE, eventually};
use serde_json::Value;

use super::{check::Verdict, screen::Screen, stage::Stage};
use crate::{Agent, Installation};

/// The site that compares faces, and its zone.
const SITE: (&str, &str) = ("Workshop", "Europe/Berlin");
const ROSTER: &str = "badge,name,pin,site\n901,Nora Lindt,,Workshop\n902,Emre Aydin,,Workshop\n";
/// Small portraits are compared, too, and devices report often.
const POLICY: [&str; 5] = [
    "faces=true",
    "face_px_min=40",
    "reconnect_spread_s=0",
    "heartbeat_s=5",
    // Whoever shows it goes as soon as they came.
    "opposite_kind_s=0",
];
/// A picture that was taken without light has this part of it.
const WITHOUT_LIGHT: f32 = 0.12;
/// And another picture of the same moment this.
const A_LITTLE_LESS: f32 = 0.97;
/// What Rekognition would say of a picture that was taken without light.
const DARK: f32 = 4.0;
/// How long a device waits for the verdict at once, in seconds.
const WAIT_S: &str = "20";
/// Between two looks at a punch that is to be settled.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// What faces are checked by.
#[derive(Debug)]
pub struct Checks {
    /// Amazon Rekognition on loopback.
    pub rekognition: StandIn,
    /// The models and pictures; none where they could not be brought.
    faces: Option<Faces>,
}

impl Checks {
    /// Ready before the server is, which is told of both.
    pub async fn ready() -> Self {
        Self { rekognition: StandIn::start().await, faces: Faces::at_hand() }
    }

    /// The server's data, with who checks faces.
    ///
    /// # Errors
    /// When no directory can be made.
    pub fn place(&self) -> anyhow::Result<Installation> {
        let mut place =
            Installation::embedded()?.with_variable("PUNCHTRAIL_FACE_CHECKS", "rekognition,local");
        if let Some(faces) = &self.faces {
            let models = faces.models().display().to_string();
            place = place.with_variable("PUNCHTRAIL_FACE_MODELS", models);
        }
        for (name, value) in self.rekognition.environment() {
            place = place.with_variable(name, value);
        }
        Ok(place)
    }
}

/// A punch whose picture was checked, and how it stands.
#[derive(Debug)]
pub struct Checked {
    title: &'static str,
    punch: String,
    standing: &'static str,
    /// What its explanation has to say.
    says: &'static str,
}

/// Plays it; what was checked, or nothing where there are no models.
///
/// # Errors
/// When something goes otherwise than it must.
pub async fn play(screen: &mut Screen, stage: &Stage) -> anyhow::Result<Vec<Checked>> {
    screen.chapter(
        "A face is advice",
        "A third site compares pictures with reference photos of those who agreed. Rekognition (a \
         stand-in on this machine) is asked first, the server's own models where it can't be had. \
         Whatever is found, the punch stands.",
    );
    let Some(faces) = &stage.checks.faces else {
        screen.done(
            "not shown: the models and pictures could not be brought; `./dev setup` says why",
        );
        return Ok(Vec::new());
    };
    let album = Album::lay(stage, faces)?;
    let agent = door(stage, &album).await?;
    let device = (&agent, faces.models());
    screen.done("two people agreed, by the notice of 2026-01, and each has a reference photo");
    let mut told = Vec::new();
    let rekognition = &stage.checks.rekognition;

    let (punch, _) = press(device, "901", PunchKind::In, &album.nora).await?;
    let verdict = verdict(&agent, &punch).await?;
    screen.done(&format!("Nora clocks in: {}", said(&verdict)));
    told.push(Checked {
        title: "A clean match",
        punch,
        standing: "accepted",
        says: "Amazon Rekognition compared",
    });

    let (punch, seen) = press(device, "902", PunchKind::In, &album.emre_dark).await?;
    screen.done(&format!("Emre clocks in without light; his device says at once: {}", said(&seen)));
    let missed = self::verdict(&agent, &punch).await?;
    screen.done(&format!("and the server: {}. The punch stands already", said(&missed)));
    retake(&agent, &punch, &album.emre).await?;
    screen.done("he turns to the lamp, and the device takes another picture for the same punch");
    told.push(Checked {
        title: "A miss, guided, and a retake",
        punch,
        standing: "accepted",
        says: "Another picture was taken",
    });

    let (punch, _) = press(device, "901", PunchKind::BreakStart, &album.stranger).await?;
    let missed = self::verdict(&agent, &punch).await?;
    screen.done(&format!("somebody else uses Nora's badge: {}", said(&missed)));
    told.push(Checked {
        title: "Somebody else at the door",
        punch,
        standing: "referred",
        says: "a good picture",
    });

    rekognition.always(Action::DetectFaces, Fault::Error(400, "AccessDeniedException"));
    let (punch, _) = press(device, "902", PunchKind::Out, &album.emre_later).await?;
    let verdict = self::verdict(&agent, &punch).await?;
    rekognition.mend();
    screen.done(&format!("Rekognition refuses; Emre clocks out all the same: {}", said(&verdict)));
    told.push(Checked {
        title: "Rekognition can't be had",
        punch,
        standing: "accepted",
        says: "The server's own check",
    });
    Ok(told)
}

/// Holds that each stands as it must, and shows what is said of it.
///
/// # Errors
/// When something can't be read.
pub async fn read_back(
    screen: &Screen,
    stage: &Stage,
    told: &[Checked],
    verdict: &mut Verdict,
) -> anyhow::Result<()> {
    let mut otherwise = Vec::new();
    for Checked { title, punch, standing, says } in told {
        let path = format!("/v1/punches/{punch}");
        let settled = eventually("the punch to stand", PATIENCE, async || {
            let found = stage.operator.get(&path).await?;
            if found["standing"] == *standing {
                return Ok(Some(()));
            }
            tokio::time::sleep(LOOK_EVERY).await;
            Ok(None)
        });
        let settled = settled.await.is_ok();
        let explanation = stage.operator.get(&format!("{path}/explanation")).await?;
        let sentences: Vec<String> = explanation["sentences"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|sentence| sentence.as_str().map(str::to_owned))
            .collect();
        if !settled || !sentences.iter().any(|sentence| sentence.contains(says)) {
            otherwise.push(format!("{title}: {sentences:?}"));
        }
        screen.quote(title, &sentences);
    }
    if !told.is_empty() {
        verdict.hold(
            otherwise.is_empty(),
            "A face is advice: a match accepts, a miss is guided or waits for a manager, and where \
             Rekognition can't be had the server's own models look.",
            otherwise.join("; "),
        );
    }
    Ok(())
}

/// The pictures, as files that a device's camera might have left.
struct Album {
    references: [(&'static str, PathBuf); 2],
    nora: PathBuf,
    emre_dark: PathBuf,
    emre: PathBuf,
    emre_later: PathBuf,
    stranger: PathBuf,
    folder: PathBuf,
}

impl Album {
    fn lay(stage: &Stage, faces: &Faces) -> anyhow::Result<Self> {
        let folder = stage.server.installation().data.path().join("pictures");
        fs::create_dir_all(&folder)?;
        let put = |name: &str, bytes: &[u8]| -> anyhow::Result<PathBuf> {
            let path = folder.join(name).with_extension("jpg");
            fs::write(&path, bytes)?;
            Ok(path)
        };
        let [nora, nora_old] = ["person_a_1", "person_a_2"].map(|name| faces.picture(name));
        let [emre, emre_old] = ["person_b_1", "person_b_2"].map(|name| faces.picture(name));
        let (dark, later) = (lit(&emre, WITHOUT_LIGHT)?, lit(&emre, A_LITTLE_LESS)?);
        let rekognition = &stage.checks.rekognition;
        rekognition.person("Nora", &[&nora, &nora_old]);
        rekognition.person("Emre", &[&emre, &emre_old]);
        rekognition.faces(&dark, [Face { brightness: DARK, ..Face::default() }]);
        Ok(Self {
            references: [
                ("901", put("nora-reference", &nora_old)?),
                ("902", put("emre-reference", &emre_old)?),
            ],
            nora: put("nora", &nora)?,
            emre_dark: put("emre-dark", &dark)?,
            emre: put("emre", &emre)?,
            emre_later: put("emre-later", &later)?,
            stranger: put("stranger", &faces.picture("impostor_1"))?,
            folder,
        })
    }
}

/// The same picture with less light.
fn lit(bytes: &[u8], part: f32) -> anyhow::Result<Vec<u8>> {
    let mut picture = image::load_from_memory(bytes)?.into_rgb8();
    for value in picture.iter_mut() {
        *value = (f32::from(*value) * part) as u8;
    }
    let mut out = Cursor::new(Vec::new());
    picture.write_to(&mut out, ImageFormat::Jpeg)?;
    Ok(out.into_inner())
}

/// The site, its people with their consent, and a device whose agent runs.
async fn door(stage: &Stage, album: &Album) -> anyhow::Result<Agent> {
    let cli = &stage.cli;
    let (name, zone) = SITE;
    cli.json(&["site", "add", "--name", name, "--tz", zone]).await?;
    let mut policy = vec!["site", "policy", name];
    policy.extend(POLICY.iter().flat_map(|value| ["--set", value]));
    cli.json(&policy).await?;
    let roster = album.folder.join("workshop.csv");
    fs::write(&roster, ROSTER)?;
    cli.json(&["employee", "import", text(&roster)?]).await?;
    for (badge, reference) in &album.references {
        let read = ["--notice", "2026-01", "--language", "de"];
        cli.json(&[&["face", "consent", badge][..], &read].concat()).await?;
        cli.json(&["face", "enrol", badge, "--photo", text(reference)?]).await?;
    }
    stage.operator.settled(false, PATIENCE).await?;
    let devices = stage.server.installation().data.path().join("devices");
    let mut agent = Agent::new("Workshop door", &devices.join("workshop"), zone);
    let code = cli.text(&["device", "pair", "--site", name], "code").await?;
    agent.enroll(stage.server.url(), &code).await?;
    agent.start().await?;
    Ok(agent)
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path in UTF-8")
}

/// A press with a first frame: the punch, and what the device says of the picture by itself.
async fn press(
    (agent, models): (&Agent, &Path),
    badge: &str,
    kind: PunchKind,
    photo: &Path,
) -> anyhow::Result<(String, Value)> {
    let kind = kind.as_str();
    let looked = ["--face-models", text(models)?, "--photo", text(photo)?];
    let pressed = ["punch", "--json", "--badge", badge, "--kind", kind];
    let confirmed = agent.ask(&[&pressed[..], &looked].concat()).await?;
    let punch = confirmed["punch"].as_str().context("a punch has an id")?.to_owned();
    Ok((punch, confirmed))
}

async fn retake(agent: &Agent, punch: &str, photo: &Path) -> anyhow::Result<()> {
    agent.ask(&["retake", "--json", "--punch", punch, "--photo", text(photo)?]).await.map(drop)
}

/// Asks until there is a verdict: the punch has to reach the server first.
async fn verdict(agent: &Agent, punch: &str) -> anyhow::Result<Value> {
    let mut last = Value::Null;
    let found = eventually("a verdict", PATIENCE, async || {
        let asked = ["verdict", "--json", "--punch", punch, "--wait-s", WAIT_S, "--language", "en"];
        last = agent.try_ask(&asked).await?;
        if last["attempt"].is_u64() {
            return Ok(Some(last.clone()));
        }
        tokio::time::sleep(LOOK_EVERY).await;
        Ok(None)
    });
    match found.await {
        Ok(verdict) => Ok(verdict),
        Err(error) => bail!("{error}: {last}"),
    }
}

/// What the worker reads.
fn said(verdict: &Value) -> String {
    let guidance = verdict["guidance"].as_array().cloned().unwrap_or_default();
    let texts: Vec<String> = guidance
        .iter()
        .filter_map(|one| {
            let code = one.as_str().and_then(|code| code.parse::<Guidance>().ok());
            let text = code.map(|code| code.text(Language::English)).or(one["text"].as_str());
            text.map(|text| format!("“{text}”"))
        })
        .collect();
    if texts.is_empty() { "recognised".to_owned() } else { texts.join(", ") }
}
