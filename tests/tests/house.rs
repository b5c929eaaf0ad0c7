//! The house's own rules, where no compiler holds them: arrows between the folders of a crate as
//! its head draws them, one `mod.rs` a folder, words at every public thing, lines that fit, and
//! pages that say what the code says.

#![expect(clippy::unwrap_used, reason = "a test ends where something fails")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use syn::{
    Attribute, Item, Visibility,
    visit::{self, Visit},
};

const CRATES: [&str; 12] = [
    "protocol",
    "vision",
    "domain",
    "infra",
    "projections",
    "api",
    "device",
    "simulator",
    "testkit",
    "tests",
    "bench",
    "fuzz",
];
const LINE_CHARS_MAX: usize = 100;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every file below a folder whose name ends so.
fn files(below: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(below).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.to_str().unwrap().ends_with(ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Sources of the crates: what is built, without tests.
fn sources(of: &str) -> Vec<PathBuf> {
    files(&root().join(of).join("src"), ".rs")
}

/// Every Rust file of the house.
fn rust() -> Vec<PathBuf> {
    CRATES.iter().flat_map(|of| files(&root().join(of), ".rs")).collect()
}

fn parsed(path: &Path) -> syn::File {
    let text = fs::read_to_string(path).unwrap();
    syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.meta.require_list().is_ok_and(|list| {
                let tokens = list.tokens.to_string();
                tokens == "test" || tokens.contains("feature = \"testing\"")
            })
    })
}

/// The folders (or files) right below a crate's root that a source uses.
#[derive(Default)]
struct Uses(BTreeSet<String>);

impl Uses {
    fn tree(&mut self, tree: &syn::UseTree) {
        match tree {
            syn::UseTree::Path(path) => drop(self.0.insert(path.ident.to_string())),
            syn::UseTree::Group(group) => group.items.iter().for_each(|item| self.tree(item)),
            _ => {}
        }
    }
}

impl<'a> Visit<'a> for Uses {
    fn visit_item_mod(&mut self, module: &'a syn::ItemMod) {
        if !is_for_tests(&module.attrs) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_use_path(&mut self, path: &'a syn::UsePath) {
        if path.ident == "crate" {
            self.tree(&path.tree);
        }
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        let mut segments = path.segments.iter();
        if segments.next().is_some_and(|first| first.ident == "crate")
            && let Some(folder) = segments.next().filter(|_| path.segments.len() > 2)
        {
            self.0.insert(folder.ident.to_string());
        }
        visit::visit_path(self, path);
    }
}

/// What may be used by what, as a crate's head draws it: to each folder all that stand left of it.
fn drawn(of: &str) -> BTreeMap<String, BTreeSet<String>> {
    let head = fs::read_to_string(root().join(of).join("src/lib.rs")).unwrap();
    let mut left = BTreeMap::<String, BTreeSet<String>>::new();
    for line in
        head.lines().filter_map(|line| line.strip_prefix("//! ")).filter(|l| l.contains('←'))
    {
        let names = |side: &str| -> Vec<String> {
            side.split(',').map(|name| name.trim().to_owned()).collect()
        };
        let sides: Vec<_> = line.split('←').map(names).collect();
        for pair in sides.windows(2) {
            for to in &pair[1] {
                left.entry(to.clone()).or_default().extend(pair[0].iter().cloned());
            }
            for from in &pair[0] {
                left.entry(from.clone()).or_default();
            }
        }
    }
    // What stands left of what stands left.
    loop {
        let further: Vec<(String, String)> = left
            .iter()
            .flat_map(|(to, from)| from.iter().map(move |from| (to, from)))
            .flat_map(|(to, from)| left[from].iter().map(move |far| (to.clone(), far.clone())))
            .filter(|(to, far)| !left[to].contains(far))
            .collect();
        if further.is_empty() {
            return left;
        }
        for (to, far) in further {
            left.entry(to).or_default().insert(far);
        }
    }
}

#[test]
fn every_transaction_and_every_lent_connection_is_used_within_a_time() {
    let mut unbounded = Vec::new();
    for path in ["infra", "projections", "api"].iter().flat_map(|of| sources(of)) {
        let text = fs::read_to_string(&path).unwrap();
        let text = text.split("#[cfg(test)]\nmod ").next().unwrap();
        let count = |what: &str| text.matches(what).count();
        let lent = |from: &str| {
            count(&format!("{from}.begin().await"))
                + count(&format!("{from}.begin_with("))
                + count(&format!("{from}.acquire()"))
        };
        let taken: usize = ["pool", "writer", "owner"].into_iter().map(lent).sum();
        let bounded = count("within(") - count(".within(") - count("Finding::within(");
        // The pools themselves are what bounds the rest.
        if taken > bounded && !path.ends_with("postgres/patience.rs") {
            unbounded.push(path);
        }
    }
    assert!(unbounded.is_empty(), "a silent connection is waited for without end: {unbounded:?}");
}

#[test]
fn arrows_between_folders_run_as_the_crates_heads_draw_them() {
    let mut wrong = Vec::new();
    for of in ["protocol", "vision", "domain", "infra", "projections", "api", "device"] {
        let (drawn, src) = (drawn(of), root().join(of).join("src"));
        assert!(drawn.len() > 2, "{of}'s head draws its arrows");
        for folder in drawn.keys() {
            let there =
                src.join(folder).is_dir() || src.join(folder).with_extension("rs").is_file();
            assert!(there, "{of}'s head names {folder}, which isn't there");
        }
        for path in sources(of) {
            let inside = path.strip_prefix(&src).unwrap().with_extension("");
            let own = inside.iter().next().unwrap().to_str().unwrap().to_owned();
            if !drawn.contains_key(&own) || inside.iter().any(|part| part == "tests") {
                continue;
            }
            let mut uses = Uses::default();
            uses.visit_file(&parsed(&path));
            let against = |used: &&String| drawn.get(*used).is_some_and(|left| left.contains(&own));
            wrong.extend(uses.0.iter().filter(against).map(|used| {
                format!("{of}: {own} uses {used}, which stands right of it ({})", path.display())
            }));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_folder_of_modules_has_its_mod_rs_inside() {
    let beside: Vec<_> = rust()
        .into_iter()
        .filter(|path| path.with_extension("").is_dir() && path.with_extension("") != root())
        .filter(|path| path.with_extension("").join("mod.rs").exists() || path.ends_with("mod.rs"))
        .collect();
    assert!(beside.is_empty(), "both a file and a folder with mod.rs: {beside:?}");
    let named: Vec<_> = CRATES
        .iter()
        .flat_map(|of| sources(of))
        .filter(|path| path.with_extension("").is_dir())
        .collect();
    assert!(named.is_empty(), "a folder's module is its mod.rs: {named:?}");
}

/// The numbers and texts of a source's lines, but for texts of several lines that stand as they
/// are.
fn folded(text: &str) -> Vec<(usize, &str)> {
    let mut verbatim: Option<&str> = None;
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if let Some(end) = verbatim {
            verbatim = Some(end).filter(|end| !line.contains(end));
            continue;
        }
        lines.push((number, line));
        verbatim = [("r#\"", "\"#"), (" r\"", "\""), ("@r\"", "\"")]
            .into_iter()
            .find(|(start, end)| {
                line.split_once(start).is_some_and(|(_, rest)| !rest.contains(end))
            })
            .map(|(_, end)| end);
    }
    lines
}

#[test]
fn lines_fit() {
    let long: Vec<String> = rust()
        .into_iter()
        .flat_map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let long = |(_, line): &(usize, &str)| line.chars().count() > LINE_CHARS_MAX;
            let named = |(number, _)| format!("{}:{number}", path.display());
            folded(&text).into_iter().filter(long).map(named).collect::<Vec<_>>()
        })
        .collect();
    assert!(long.is_empty(), "over {LINE_CHARS_MAX} characters:\n{}", long.join("\n"));
}

/// Public things without a word about them. Fields and variants may speak for themselves.
struct Wordless<'a> {
    file: &'a Path,
    found: Vec<String>,
}

impl Wordless<'_> {
    fn check(&mut self, visibility: &Visibility, attributes: &[Attribute], name: &syn::Ident) {
        let public = matches!(visibility, Visibility::Public(_));
        let words = attributes.iter().any(|attribute| attribute.path().is_ident("doc"));
        if public && !words {
            self.found.push(format!("{}: {name}", self.file.display()));
        }
    }
}

impl<'a> Visit<'a> for Wordless<'_> {
    fn visit_item(&mut self, item: &'a Item) {
        match item {
            Item::Mod(module) if is_for_tests(&module.attrs) => return,
            // A module's words are its file's head.
            Item::Mod(module) if module.content.is_some() => {
                self.check(&module.vis, &module.attrs, &module.ident);
            }
            Item::Fn(item) => self.check(&item.vis, &item.attrs, &item.sig.ident),
            Item::Struct(item) => self.check(&item.vis, &item.attrs, &item.ident),
            Item::Enum(item) => self.check(&item.vis, &item.attrs, &item.ident),
            Item::Trait(item) => self.check(&item.vis, &item.attrs, &item.ident),
            Item::Const(item) => self.check(&item.vis, &item.attrs, &item.ident),
            Item::Static(item) => self.check(&item.vis, &item.attrs, &item.ident),
            Item::Type(item) => self.check(&item.vis, &item.attrs, &item.ident),
            _ => {}
        }
        visit::visit_item(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'a syn::ImplItemFn) {
        self.check(&item.vis, &item.attrs, &item.sig.ident);
    }
}

#[test]
fn every_public_thing_has_words_and_every_file_a_head() {
    let mut found = Vec::new();
    for path in CRATES.iter().flat_map(|of| sources(of)) {
        let file = parsed(&path);
        if !file.attrs.iter().any(|attribute| attribute.path().is_ident("doc"))
            && !path.iter().any(|part| part == "tests" || part == "tests.rs")
        {
            found.push(format!("{} has no head", path.display()));
        }
        // What is for tests only says what it is by its name.
        if path.iter().any(|part| part == "testing" || part == "tests") {
            continue;
        }
        let mut wordless = Wordless { file: &path, found: Vec::new() };
        wordless.visit_file(&file);
        found.extend(wordless.found);
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Words of a text that begin so and go on in capitals, digits and underscores.
fn words_from(text: &str, start: &str, more: impl Fn(char) -> bool) -> BTreeSet<String> {
    text.match_indices(start)
        .map(|(at, _)| text[at..].chars().take_while(|c| more(*c)).collect::<String>())
        .filter(|word| word.len() > start.len())
        .collect()
}

fn pages() -> String {
    files(&root().join("docs"), ".md")
        .iter()
        .chain([&root().join("README.md"), &root().join("CONTRIBUTING.md")])
        .map(|path| fs::read_to_string(path).unwrap())
        .collect()
}

/// What is built, the script with it, and what only tests read.
fn code() -> String {
    let mut code: String = rust().iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    code.push_str(&fs::read_to_string(root().join("dev")).unwrap());
    code
}

#[test]
fn every_variable_that_is_read_is_on_the_page_and_no_other() {
    let variable = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let page = fs::read_to_string(root().join("docs/development.md")).unwrap();
    let read = words_from(&code(), "PUNCHTRAIL_", variable);
    // This test names the beginning alone.
    let documented = words_from(&page, "PUNCHTRAIL_", variable);
    let missing: Vec<_> = read.difference(&documented).collect();
    assert!(missing.is_empty(), "not in docs/development.md: {missing:?}");
    let gone: Vec<_> = documented.difference(&read).collect();
    assert!(gone.is_empty(), "in docs/development.md, and read by nobody: {gone:?}");
}

#[test]
fn every_metric_on_a_page_is_measured_and_every_one_measured_is_on_a_page() {
    let metric = |c: char| c.is_ascii_lowercase() || c == '_';
    let called = |text: &str| -> BTreeSet<String> {
        text.split("metrics::")
            .skip(1)
            .filter(|call| ["counter!", "gauge!", "histogram!"].iter().any(|m| call.starts_with(m)))
            .flat_map(|call| {
                words_from(&call[..call.len().min(200)], "\"punchtrail_", |c| metric(c) || c == '"')
            })
            .map(|word| word.trim_matches('"').to_owned())
            .collect()
    };
    let sources: String = ["infra", "projections", "api"]
        .iter()
        .flat_map(|of| sources(of))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let measured = called(&sources);
    assert!(measured.len() > 10, "{measured:?}");
    let pages = pages();
    let missing: Vec<_> = measured.iter().filter(|name| !pages.contains(*name)).collect();
    assert!(missing.is_empty(), "measured, and on no page: {missing:?}");
    // What each is, and that it is there from the start.
    let described = fs::read_to_string(root().join("api/src/metrics.rs")).unwrap();
    let wordless: Vec<_> =
        measured.iter().filter(|name| !described.contains(&format!("\"{name}\","))).collect();
    assert!(wordless.is_empty(), "measured, and not described: {wordless:?}");
    let shown = words_from(&pages, "punchtrail_", metric);
    let roles = ["punchtrail_writer", "punchtrail_reader"];
    let of_a_crate = |word: &str| CRATES.iter().any(|of| word == format!("punchtrail_{of}"));
    let gone: Vec<_> = shown
        .iter()
        .filter(|word| !roles.contains(&word.as_str()) && !of_a_crate(word))
        .filter(|word| !measured.contains(*word))
        .collect();
    assert!(gone.is_empty(), "on a page, and not measured: {gone:?}");
}

#[test]
fn every_path_on_a_page_is_there() {
    let gone: Vec<String> = words_in_ticks(&pages())
        .into_iter()
        .filter(|word| CRATES.iter().any(|of| word.starts_with(&format!("{of}/"))))
        .flat_map(|word| spelled_out(&word))
        .filter(|path| !path.contains(['<', '*', '…']) && !path.contains("NAME"))
        .filter(|path| !root().join(path.split(':').next().unwrap()).exists())
        .collect();
    assert!(gone.is_empty(), "named on a page, and not there: {gone:?}");
}

fn words_in_ticks(text: &str) -> Vec<String> {
    text.split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| !word.contains('\n'))
        .map(str::to_owned)
        .collect()
}

/// `a/{b,c}.rs` is two paths.
fn spelled_out(path: &str) -> Vec<String> {
    let Some((before, rest)) = path.split_once('{') else { return vec![path.to_owned()] };
    let (inside, after) = rest.split_once('}').unwrap_or((rest, ""));
    inside.split(',').map(|part| format!("{before}{}{after}", part.trim())).collect()
}

/// Numbers that pages give, by what they are made from in the code.
#[test]
fn numbers_on_the_pages_are_the_codes() {
    use punchtrail_infra::{follower, postgres::PoolSizes};
    use punchtrail_projections::engine::models;
    let page = |name: &str| fs::read_to_string(root().join("docs").join(name)).unwrap();
    let thousands = |n: u32| format!("{},{:03}", n / 1_000, n % 1_000);
    let sizes = PoolSizes::default();
    let (operations, read_models) = (page("operations.md"), page("read-models.md"));
    for (page, said) in [
        (&operations, format!("opens up to {} connections", sizes.total())),
        (&read_models, format!("gather for {} ms.", models::LINGER_MS)),
        (&read_models, format!("busy ({} events a batch or more)", models::BUSY_BATCH_EVENTS)),
        (&read_models, format!("gather for {} ms, and then", models::BUSY_LINGER_MS)),
        (&read_models, format!("at most {} events", thousands(models::BATCH_EVENTS_MAX))),
    ] {
        assert!(page.replace('\n', " ").contains(&said), "a page should say: {said}");
    }
    assert_eq!((follower::LEASE_MS, follower::RENEW_MS), (6_000, 1_500), "as operations.md says");
    assert_eq!(models::DELIVERING_LINGER_MS, 1_000, "for a second at most, says read-models.md");
}

/// Input reaches all of ours, and a wrong number would be somebody's pay.
#[test]
fn the_release_build_checks_overflow_in_every_crate_of_ours() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let section = |name: &str| -> Vec<&str> {
        let lines = manifest.lines().skip_while(|line| *line != format!("[{name}]")).skip(1);
        lines.take_while(|line| !line.starts_with('[')).collect()
    };
    assert!(section("profile.release").contains(&"overflow-checks = true"));
    // `"*"` are the dependencies; no crate of ours may have a profile that takes it back.
    let of_packages = manifest.matches("[profile.release.package.").count();
    assert_eq!(of_packages, manifest.matches("[profile.release.package.\"*\"]").count());
}

#[test]
fn every_fuzz_target_is_on_the_page_and_has_inputs_to_begin_with() {
    let page = fs::read_to_string(root().join("docs/development.md")).unwrap();
    let manifest = fs::read_to_string(root().join("fuzz/Cargo.toml")).unwrap();
    let targets = files(&root().join("fuzz/fuzz_targets"), ".rs");
    assert!(targets.len() >= 6);
    for target in targets {
        let name = target.file_stem().unwrap().to_str().unwrap();
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
        assert!(page.contains(&format!("| `{name}` |")), "{name}");
        assert!(!files(&root().join("fuzz/corpus").join(name), "").is_empty(), "{name}");
    }
}
