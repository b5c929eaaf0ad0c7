//! Who may call which route: the one table. The check before each handler, the description of the
//! API and docs/roles.md are made from it, and a test walks it.
//!
//! A row names the roles that may call a route, the scope by which a program's key may, and what it
//! means for a caller who has sites of their own. A route that has no row is an admin's alone, and
//! a test finds it. An admin may do what any row says, and so may a key without scopes; but a row
//! of [`Who::User`] is about oneself, and a key is nobody.

use axum::http::Method;
use punchtrail_infra::access::{
    roles::Role::{self, Admin, Auditor, Manager, Payroll},
    trail::Act,
};

/// Who may call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Anybody: it takes no credentials.
    Anybody,
    /// Whoever is signed in, of whatever role; also before they have set the second factor that
    /// their role needs.
    User,
    /// Users of these roles; keys without scopes if an admin may, others by the row's scope.
    Roles(&'static [Role]),
}

/// What a route is to a caller who has sites of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// It shows and changes what is of their sites; all else isn't there: 404.
    Own,
    /// It is about nothing of any site.
    NoSite,
    /// It is about all sites, and so not theirs to call: 403.
    All,
}

/// A row.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    pub method: &'static str,
    /// The path, as the routes have it.
    pub path: &'static str,
    pub who: Who,
    /// The scope by which a key may call it; none for what no key of scopes may.
    pub scope: Option<&'static str>,
    pub reach: Reach,
    /// As what it goes into the trail when it was done.
    pub noted: Option<Act>,
}

/// By which a key sees names and texts about people, and photos; of no route's own.
pub const NAMES_SCOPE: &str = "names:read";

const EACH: Who = Who::Roles(&[Admin, Manager, Auditor, Payroll]);
const READS: Who = Who::Roles(&[Admin, Manager, Auditor]);
const RULES: Who = Who::Roles(&[Admin, Manager]);
const AUDITS: Who = Who::Roles(&[Admin, Auditor]);
const ADMIN: Who = Who::Roles(&[Admin]);

const fn row(
    method: &'static str,
    path: &'static str,
    who: Who,
    scope: &'static str,
    reach: Reach,
) -> Rule {
    let scope = if scope.is_empty() { None } else { Some(scope) };
    Rule { method, path, who, scope, reach, noted: None }
}

impl Rule {
    const fn noted(self, act: Act) -> Self {
        Self { noted: Some(act), ..self }
    }
}

/// All of them.
pub const RULES_OF_ROUTES: &[Rule] = {
    use Reach::{All, NoSite, Own};
    &[
        row("GET", "/v1/punches", READS, "punches:read", Own),
        row("GET", "/v1/punches/{punch}", READS, "punches:read", Own),
        row("GET", "/v1/punches/{punch}/events", READS, "punches:read", Own),
        row("GET", "/v1/punches/{punch}/explanation", READS, "punches:read", Own),
        row("POST", "/v1/punches/{punch}/decision", RULES, "punches:write", Own),
        row("POST", "/v1/punches/{punch}/decision/preview", RULES, "punches:write", Own),
        row("POST", "/v1/punches", RULES, "punches:write", Own),
        row("POST", "/v1/punches/preview", RULES, "punches:write", Own),
        row("PUT", "/v1/punches/{punch}/person", RULES, "punches:write", Own),
        row("POST", "/v1/punches/{punch}/person/preview", RULES, "punches:write", Own),
        row("POST", "/v1/punches/{punch}/shift", RULES, "punches:write", Own),
        row("DELETE", "/v1/punches/{punch}/shift", RULES, "punches:write", Own),
        row("POST", "/v1/punches/{punch}/shift/preview", RULES, "punches:write", Own),
        row("GET", "/v1/unknown-badges", READS, "punches:read", Own),
        row("POST", "/v1/unknown-badges/assign", ADMIN, "punches:write", All),
        row("POST", "/v1/unknown-badges/assign/preview", ADMIN, "punches:write", All),
        row("GET", "/v1/reviews", READS, "reviews:read", Own),
        row("GET", "/v1/reviews/counts", READS, "reviews:read", Own),
        row("GET", "/v1/reviews/{punch}", READS, "reviews:read", Own),
        row("POST", "/v1/reviews/accept", RULES, "punches:write", Own),
        row("GET", "/v1/notes/{note}", AUDITS, "notes:read", All),
        row("DELETE", "/v1/notes/{note}", ADMIN, "notes:write", All).noted(Act::NoteErased),
        row("GET", "/v1/timeline", EACH, "timecards:read", Own),
        row("GET", "/v1/timecards", EACH, "timecards:read", Own),
        row("GET", "/v1/quarantine", READS, "quarantine:read", Own),
        row("GET", "/v1/quarantine/{item}", READS, "quarantine:read", Own),
        row("POST", "/v1/quarantine/{item}/admit", RULES, "quarantine:write", Own),
        row("POST", "/v1/quarantine/{item}/dismiss", RULES, "quarantine:write", Own),
        row("GET", "/v1/disputes", READS, "disputes:read", Own),
        row("POST", "/v1/disputes", RULES, "disputes:write", Own),
        row("GET", "/v1/disputes/{dispute}", READS, "disputes:read", Own),
        row("POST", "/v1/disputes/{dispute}/answers", RULES, "disputes:write", Own),
        row("POST", "/v1/disputes/{dispute}/resolution", RULES, "disputes:write", Own),
        row("POST", "/v1/disputes/{dispute}/reopening", RULES, "disputes:write", Own),
        row("GET", "/v1/employees", EACH, "employees:read", Own),
        row("GET", "/v1/employees/{employee}", EACH, "employees:read", Own),
        row("GET", "/v1/employees/{employee}/days/{day}/explanation", READS, "punches:read", Own),
        row("POST", "/v1/employees", RULES, "employees:write", Own),
        row("PUT", "/v1/employees/{employee}/name", RULES, "employees:write", Own),
        row("PUT", "/v1/employees/{employee}/pin", RULES, "employees:write", Own),
        row("DELETE", "/v1/employees/{employee}/pin", RULES, "employees:write", Own),
        row("POST", "/v1/employees/{employee}/departure", RULES, "employees:write", Own),
        row("DELETE", "/v1/employees/{employee}/departure", RULES, "employees:write", Own),
        row("POST", "/v1/employees/{employee}/return", RULES, "employees:write", Own),
        row("PUT", "/v1/employees/{employee}/assignments/{site}", RULES, "employees:write", Own),
        row("GET", "/v1/employees/{employee}/badges", READS, "employees:read", Own),
        row("POST", "/v1/employees/{employee}/badges", RULES, "employees:write", Own),
        row("POST", "/v1/employees/{employee}/badges/{holding}/end", RULES, "employees:write", Own),
        row("POST", "/v1/imports/employees", ADMIN, "employees:write", All),
        row("PUT", "/v1/employees/by-external-id/{external_id}", ADMIN, "employees:write", All),
        row("POST", "/v1/employees/{employee}/legal-hold", ADMIN, "privacy:write", All),
        row("DELETE", "/v1/employees/{employee}/legal-hold", ADMIN, "privacy:write", All),
        row("GET", "/v1/employees/{employee}/erasure", ADMIN, "privacy:write", All),
        row("POST", "/v1/employees/{employee}/erasure", ADMIN, "privacy:write", All)
            .noted(Act::PersonErased),
        row("GET", "/v1/employees/{employee}/export", ADMIN, "privacy:read", All)
            .noted(Act::PersonExported),
        row("GET", "/v1/employees/{employee}/face", RULES, "faces:read", Own),
        row("POST", "/v1/employees/{employee}/face/consent", RULES, "faces:write", Own),
        row("DELETE", "/v1/employees/{employee}/face/consent", RULES, "faces:write", Own)
            .noted(Act::FaceErased),
        row("PUT", "/v1/employees/{employee}/face/references/{sha256}", RULES, "faces:write", Own),
        row(
            "DELETE",
            "/v1/employees/{employee}/face/references/{sha256}",
            RULES,
            "faces:write",
            Own,
        ),
        row("POST", "/v1/employees/{employee}/face/codes", RULES, "faces:write", Own),
        row("PUT", "/v1/employees/{employee}/face/head-covering", RULES, "faces:write", Own),
        row("POST", "/v1/employees/{employee}/face/erasure", ADMIN, "faces:write", Own)
            .noted(Act::FaceErased),
        row("GET", "/v1/photos/{sha256}", READS, "photos:read", Own).noted(Act::PhotoRead),
        row("GET", "/v1/photos/{sha256}/reads", AUDITS, "audit:read", All),
        row("GET", "/v1/sites", EACH, "sites:read", Own),
        row("POST", "/v1/sites", ADMIN, "sites:write", All),
        row("GET", "/v1/sites/{site}", EACH, "sites:read", Own),
        row("PUT", "/v1/sites/{site}/policy", ADMIN, "sites:write", Own),
        row("PUT", "/v1/sites/{site}/zone", ADMIN, "sites:write", Own),
        row("POST", "/v1/sites/{site}/zone/preview", ADMIN, "sites:write", Own),
        row("POST", "/v1/sites/{site}/pairing-codes", RULES, "devices:write", Own)
            .noted(Act::PairingCodeMade),
        row("GET", "/v1/devices", READS, "devices:read", Own),
        row("GET", "/v1/devices/{device}", READS, "devices:read", Own),
        row("POST", "/v1/devices/{device}/revoke", RULES, "devices:write", Own)
            .noted(Act::DeviceRevoked),
        row("GET", "/v1/devices/{device}/pins", RULES, "devices:read", Own),
        row("POST", "/v1/devices/{device}/pins/renewal", RULES, "devices:write", Own),
        row("POST", "/v1/devices/{device}/site", ADMIN, "devices:write", Own),
        row("GET", "/v1/devices/{device}/commands", READS, "devices:read", Own),
        row("POST", "/v1/devices/{device}/commands", RULES, "devices:write", Own),
        row("DELETE", "/v1/devices/{device}/commands/{command}", RULES, "devices:write", Own),
        row("GET", "/v1/figures", READS, "figures:read", Own),
        row("GET", "/v1/ledger", AUDITS, "ledger:read", All),
        row("GET", "/v1/ledger/events", AUDITS, "ledger:read", All),
        row("GET", "/v1/events", AUDITS, "webhooks:read", Own),
        row("GET", "/v1/webhooks", AUDITS, "webhooks:read", All),
        row("POST", "/v1/webhooks", ADMIN, "webhooks:write", All),
        row("GET", "/v1/webhooks/{webhook}", AUDITS, "webhooks:read", All),
        row("PUT", "/v1/webhooks/{webhook}", ADMIN, "webhooks:write", All),
        row("DELETE", "/v1/webhooks/{webhook}", ADMIN, "webhooks:write", All),
        row("POST", "/v1/webhooks/{webhook}/secret", ADMIN, "webhooks:write", All),
        row("PUT", "/v1/webhooks/{webhook}/disabled", ADMIN, "webhooks:write", All),
        row("POST", "/v1/webhooks/{webhook}/test", ADMIN, "webhooks:write", All),
        row("GET", "/v1/webhooks/{webhook}/deliveries", AUDITS, "webhooks:read", All),
        row("GET", "/v1/webhooks/{webhook}/deliveries/{delivery}", AUDITS, "webhooks:read", All),
        row(
            "POST",
            "/v1/webhooks/{webhook}/deliveries/{delivery}/redelivery",
            ADMIN,
            "webhooks:write",
            All,
        ),
        row("GET", "/v1/webhooks/{webhook}/redeliveries", AUDITS, "webhooks:read", All),
        row("POST", "/v1/webhooks/{webhook}/redeliveries", ADMIN, "webhooks:write", All),
        row("GET", "/metrics", ADMIN, "metrics:read", NoSite),
        // Who may come in.
        row("POST", "/v1/sign-in", Who::Anybody, "", NoSite),
        row("GET", "/v1/sign-in", Who::Anybody, "", NoSite),
        row("GET", "/v1/sign-in/provider", Who::Anybody, "", NoSite),
        row("GET", "/v1/sign-in/provider/callback", Who::Anybody, "", NoSite),
        row("POST", "/v1/sign-in/provider/code", Who::Anybody, "", NoSite),
        row("POST", "/v1/links/acceptance", Who::Anybody, "", NoSite),
        row("GET", "/v1/session", Who::User, "", NoSite),
        row("DELETE", "/v1/session", Who::User, "", NoSite),
        row("POST", "/v1/session/password", Who::User, "", NoSite),
        row("POST", "/v1/session/provider", Who::User, "", NoSite),
        row("POST", "/v1/session/second-factor", Who::User, "", NoSite),
        row("POST", "/v1/session/second-factor/confirmation", Who::User, "", NoSite),
        row("POST", "/v1/session/second-factor/removal", Who::User, "", NoSite),
        row("GET", "/v1/sessions", Who::User, "", NoSite),
        row("DELETE", "/v1/sessions/{session}", Who::User, "", NoSite),
        row("GET", "/v1/users", ADMIN, "", NoSite),
        row("POST", "/v1/users", ADMIN, "", NoSite),
        row("GET", "/v1/users/{user}", ADMIN, "", NoSite),
        row("DELETE", "/v1/users/{user}", ADMIN, "", NoSite),
        row("PUT", "/v1/users/{user}/role", ADMIN, "", NoSite),
        row("PUT", "/v1/users/{user}/employee", ADMIN, "", NoSite),
        row("PUT", "/v1/users/{user}/disabled", ADMIN, "", NoSite),
        row("POST", "/v1/users/{user}/link", ADMIN, "", NoSite),
        row("DELETE", "/v1/users/{user}/provider", ADMIN, "", NoSite),
        row("GET", "/v1/users/{user}/sessions", ADMIN, "", NoSite),
        row("DELETE", "/v1/users/{user}/sessions", ADMIN, "", NoSite),
        row("POST", "/v1/users/{user}/grants", ADMIN, "", NoSite),
        row("GET", "/v1/grants", AUDITS, "", NoSite),
        row("DELETE", "/v1/grants/{grant}", ADMIN, "", NoSite),
        row("GET", "/v1/roles", AUDITS, "", NoSite),
        row("PUT", "/v1/roles/{role}", ADMIN, "", NoSite),
        row("GET", "/v1/keys", AUDITS, "", NoSite),
        row("POST", "/v1/keys", ADMIN, "", NoSite),
        row("DELETE", "/v1/keys/{key}", ADMIN, "", NoSite),
        row("GET", "/v1/audit", AUDITS, "audit:read", All),
    ]
};

/// The row of a route that has none.
pub const UNLISTED: Rule = row("", "", ADMIN, "", Reach::All);

/// The row of a route; none if it has none. `HEAD` is asked for as `GET` is.
pub fn rule(method: &Method, path: &str) -> Option<&'static Rule> {
    let method = if method == Method::HEAD { "GET" } else { method.as_str() };
    RULES_OF_ROUTES.iter().find(|rule| rule.method == method && rule.path == path)
}

/// Whether anybody may call what the path has.
pub fn is_open(path: &str) -> bool {
    let mut rows = RULES_OF_ROUTES.iter().filter(|rule| rule.path == path).peekable();
    rows.peek().is_some() && rows.all(|rule| rule.who == Who::Anybody)
}

/// Every scope that a key can have, in order.
pub fn scopes() -> Vec<&'static str> {
    let of_routes = RULES_OF_ROUTES.iter().filter_map(|rule| rule.scope);
    let mut scopes: Vec<_> = of_routes.chain([NAMES_SCOPE]).collect();
    scopes.sort_unstable();
    scopes.dedup();
    scopes
}

impl Rule {
    /// Whether users of that role may call it.
    pub fn allows(&self, role: Role) -> bool {
        match self.who {
            Who::Anybody | Who::User => true,
            Who::Roles(roles) => roles.contains(&role),
        }
    }

    /// Whether a key of these scopes may call it; of one without scopes none.
    pub fn allows_key(&self, scopes: Option<&[String]>) -> bool {
        match (self.who, scopes) {
            (Who::Anybody, _) => true,
            (Who::User, _) => false,
            (Who::Roles(roles), None) => roles.contains(&Admin),
            (Who::Roles(_), Some(scopes)) => {
                self.scope.is_some_and(|scope| scopes.iter().any(|of| of == scope))
            }
        }
    }

    /// Who may call it, in words.
    pub fn who_in_words(&self) -> String {
        match self.who {
            Who::Anybody => "anybody".to_owned(),
            Who::User => "whoever is signed in, for themselves".to_owned(),
            Who::Roles(roles) => {
                roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(", ")
            }
        }
    }
}

/// The table as docs/roles.md has it.
pub fn page() -> String {
    let mut page = "| route | who | scope of a key | with sites of one's own | in the trail |\n\
                    | --- | --- | --- | --- | --- |\n"
        .to_owned();
    for rule in RULES_OF_ROUTES {
        let scope = rule.scope.map_or_else(|| "–".to_owned(), |scope| format!("`{scope}`"));
        let reach = match rule.reach {
            Reach::Own => "what is of them",
            Reach::NoSite => "the same",
            Reach::All => "403",
        };
        let noted = rule.noted.map_or_else(String::new, |act| format!("`{}`", act.as_str()));
        let (method, path, who) = (rule.method, rule.path, rule.who_in_words());
        page.push_str(&format!("| `{method} {path}` | {who} | {scope} | {reach} | {noted} |\n"));
    }
    page
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_route_has_one_row() {
        let rows: BTreeSet<_> = RULES_OF_ROUTES.iter().map(|r| (r.method, r.path)).collect();
        assert_eq!(rows.len(), RULES_OF_ROUTES.len());
    }

    #[test]
    fn an_auditor_changes_nothing_and_a_key_of_scopes_makes_no_keys() {
        for rule in RULES_OF_ROUTES.iter().filter(|rule| matches!(rule.who, Who::Roles(_))) {
            assert!(rule.allows(Role::Admin), "{rule:?}");
            assert!(rule.method == "GET" || !rule.allows(Role::Auditor), "{rule:?}");
            let about_access = ["users", "keys", "grants", "roles", "session"];
            if about_access.iter().any(|of| rule.path.starts_with(&format!("/v1/{of}"))) {
                assert_eq!(rule.scope, None, "{rule:?}");
            }
        }
        let all: Vec<String> = scopes().into_iter().map(str::to_owned).collect();
        assert!(!rule(&Method::POST, "/v1/keys").unwrap().allows_key(Some(&all)));
        assert!(rule(&Method::HEAD, "/v1/punches").unwrap().allows_key(Some(&all)));
    }

    /// What stands between the marks is made from the table.
    #[test]
    fn the_page_of_roles_is_the_table() {
        const MARKS: (&str, &str) = ("<!-- the table begins -->\n", "<!-- the table ends -->\n");
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/roles.md");
        let text = std::fs::read_to_string(path).unwrap();
        let (before, rest) = text.split_once(MARKS.0).unwrap();
        let (_, after) = rest.split_once(MARKS.1).unwrap();
        let made = format!("{before}{}{}{}{after}", MARKS.0, page(), MARKS.1);
        if std::env::var_os("PUNCHTRAIL_UPDATE").is_some() {
            std::fs::write(path, &made).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap();
        assert!(committed == made, "docs/roles.md; run this test with PUNCHTRAIL_UPDATE=1");
        for scope in scopes() {
            assert!(committed.contains(&format!("`{scope}`")), "{scope}");
        }
    }
}
