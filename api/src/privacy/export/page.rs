//! The page for people: whole in itself, readable on a phone and on paper. Whatever somebody typed
//! stands on it as text.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use punchtrail_infra::people::badges::HeldBadge;

use super::{
    ExportError, PAGE_PUNCHES_MAX,
    archive::Spool,
    punches::Told,
    subject::{Consented, Held, Noted, Subject},
};

/// The most notes that stand on the page.
/// What the page may load: nothing but its own styles.
const CONTENT_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";
const NOTES_MAX: usize = 1_000;

const STYLE: &str = include_str!("page.css");
/// What ends the page.
const END: &[u8] = b"</main></body></html>\n";

/// A page that is being written.
pub(super) struct Writing {
    spool: Spool,
    punches: u64,
}

impl Writing {
    pub(super) async fn begin(subject: &Subject, notes: &[Noted]) -> Result<Self, ExportError> {
        let mut spool = Spool::new()?;
        let begun = html! {
            (DOCTYPE)
            (PreEscaped("<html lang=\"en\"><head>"))
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta http-equiv="Content-Security-Policy" content=(CONTENT_POLICY);
            title { "What Punchtrail holds of " (name(subject)) }
            style { (PreEscaped(STYLE)) }
            (PreEscaped("</head><body><main>"))
            h1 { (name(subject)) }
            p.lead {
                "Everything that Punchtrail holds of this person. The same for programs is in the "
                "files beside this page: " code { "person.json" } ", " code { "punches.csv" } ", "
                code { "timecards.csv" } ", " code { "events.jsonl" } " and others; pictures are "
                "in " code { "photos" } "."
            }
            (person(subject))
            (face(subject))
            (noted(notes))
            h2 { "Punches" }
            p { "The newest first. Times are in UTC; the sentences tell them as at the site." }
        };
        spool.write(begun.into_string().as_bytes()).await?;
        Ok(Self { spool, punches: 0 })
    }

    /// Adds a punch, as long as there is room for it.
    pub(super) async fn punch(&mut self, told: &Told) -> Result<(), ExportError> {
        self.punches += 1;
        if self.punches > PAGE_PUNCHES_MAX {
            return Ok(());
        }
        Ok(self.spool.write(punch(told).into_string().as_bytes()).await?)
    }

    /// The whole page.
    pub(super) async fn end(mut self) -> Result<Spool, ExportError> {
        let rest = match self.punches {
            0 => html! { p { "There are none." } },
            all if all > PAGE_PUNCHES_MAX => html! {
                p { "These are the newest " (PAGE_PUNCHES_MAX) " of " (all)
                    "; all of them are in " code { "punches.csv" } "." }
            },
            _ => html! {},
        };
        self.spool.write(rest.into_string().as_bytes()).await?;
        self.spool.write(END).await?;
        Ok(self.spool)
    }
}

fn name(subject: &Subject) -> &str {
    subject.person.name.as_deref().unwrap_or("somebody without a name")
}

fn fact(what: &str, value: &str) -> Markup {
    html! { dt { (what) } dd { (value) } }
}

fn badges(held: &[HeldBadge]) -> String {
    let one = |badge: &HeldBadge| {
        let HeldBadge { number, from, until, .. } = badge;
        let from = from.map(|from| format!(" from {from}")).unwrap_or_default();
        let until = until.map(|until| format!(" until {until}")).unwrap_or_default();
        format!("{number}{from}{until}")
    };
    let all: Vec<String> = held.iter().map(one).collect();
    if all.is_empty() { "none".to_owned() } else { all.join("; ") }
}

fn person(subject: &Subject) -> Markup {
    let one = &subject.person;
    let sites: Vec<&str> = subject.site_names.values().map(String::as_str).collect();
    let none = "none";
    html! {
        h2 { "Who" }
        dl {
            (fact("Badges", &badges(&subject.badges_held)))
            (fact("PIN", if one.has_pin { "set; only a digest of it is kept" } else { none }))
            (fact("Id in another system", one.external_id.as_deref().unwrap_or(none)))
            (fact("Sites", &if sites.is_empty() { none.to_owned() } else { sites.join(", ") }))
            @if let Some(at) = one.departed_at { (fact("Left", &at.to_string())) }
            (fact("Id here", &one.employee.to_string()))
        }
        @for hold in &subject.holds {
            @match hold {
                Held::Placed { at } => p { "A legal hold was placed " (at) "." },
                Held::Lifted { at } => p { "A legal hold was lifted " (at) "." },
            }
        }
    }
}

fn face(subject: &Subject) -> Markup {
    html! {
        h2 { "Face" }
        @if subject.consents.is_empty() { p { "No consent to compare the face was recorded." } }
        @for consent in &subject.consents {
            @match consent {
                Consented::Given { notice, language, at, .. } => p {
                    "Agreed " (at) " that the face is compared, by notice " (notice)
                    " (" (language) ")."
                },
                Consented::Withdrawn { at } => p { "Withdrawn " (at) "." },
            }
        }
        p { "Reference photos: " (subject.references.len()) "." }
        @if subject.head_covering_expected { p { "A head covering is expected on pictures." } }
        @if let Some(at) = subject.face_erased_at {
            p { "Everything until then was erased " (at) "." }
        }
    }
}

fn noted(notes: &[Noted]) -> Markup {
    let kept = notes.iter().filter_map(|note| Some((note, note.body.as_deref()?)));
    html! {
        h2 { "Notes" }
        @if notes.is_empty() { p { "There are none." } }
        @for (note, body) in kept.take(NOTES_MAX) {
            blockquote {
                p { (body) }
                footer {
                    (note.named.event_type) " of " (note.named.aggregate_type) " "
                    (note.named.aggregate_id)
                    @if let Some(author) = &note.author { ", by " (author) }
                }
            }
        }
        @if notes.len() > NOTES_MAX { p { "All of them are in " code { "notes.json" } "." } }
    }
}

fn punch(told: &Told) -> Markup {
    let one = &told.punch;
    let counts = if told.counts { "counts" } else { "does not count" };
    let kind = one.kind.as_str().replace('_', " ");
    let at = one.effective_at.timestamp().strftime("%-d %B %Y %H:%M:%S");
    html! {
        article {
            h3 { (kind) " · " (at) }
            p.standing {
                (one.standing.as_str()) ", " (counts)
                @if let Some(site) = &told.site_name { " · " (site) }
            }
            @for sentence in &told.explanation { p { (sentence) } }
        }
    }
}
