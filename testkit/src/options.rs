//! The page of every flag and variable of a program, made from what its command line is parsed by.

use std::{fs, path::Path};

use clap::{Arg, ArgAction, Command, builder::PossibleValue, error::ErrorKind};

/// Values that are beyond every range, of numbers with a sign and without.
const BEYOND: [&str; 2] = ["-9223372036854775807", "18446744073709551615"];

/// That a page's part about a program is what the program is parsed by. It stands between
/// `<!-- NAME begins -->` and `<!-- NAME ends -->`; with `PUNCHTRAIL_UPDATE` set it is put there.
///
/// # Panics
/// When it isn't.
pub fn page_holds(path: &str, command: &Command) {
    let path = Path::new(path);
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    let name = command.get_name();
    let mark = |end: &str| format!("<!-- {name} {end} -->\n");
    let (before, rest) = text.split_once(&mark("begins")).unwrap_or_else(|| panic!("no {name}"));
    let (_, after) = rest.split_once(&mark("ends")).unwrap_or_else(|| panic!("no end of {name}"));
    let made = format!("{before}{}{}{}{after}", mark("begins"), page(command), mark("ends"));
    if std::env::var_os("PUNCHTRAIL_UPDATE").is_some()
        && let Err(error) = fs::write(path, &made)
    {
        panic!("{path:?}: {error}");
    }
    let committed = fs::read_to_string(path).unwrap_or_default();
    assert!(committed == made, "{path:?}; run this test with PUNCHTRAIL_UPDATE=1");
}

/// A table for what all commands take, and one for each command that takes more.
fn page(command: &Command) -> String {
    let mut command = command.clone();
    command.build();
    let mut page = String::new();
    walk(&mut page, &command, &[command.get_name().to_owned()], (&command, None));
    page
}

fn walk(
    page: &mut String,
    root: &Command,
    path: &[String],
    (command, above): (&Command, Option<&Command>),
) {
    let is_root = path.len() == 1;
    let has = |of: &Command, arg: &Arg| of.get_arguments().any(|one| one.get_id() == arg.get_id());
    let is_said_above = |arg: &Arg| arg.is_global_set() && above.is_some_and(|of| has(of, arg));
    let options: Vec<&Arg> = command
        .get_arguments()
        .filter(|arg| !arg.is_hide_set() && !arg.is_positional())
        .filter(|arg| !is_said_above(arg))
        .filter(|arg| !["help", "version"].contains(&arg.get_id().as_str()))
        .collect();
    if !options.is_empty() {
        let of = if is_root { format!("Every command of `{}`", path[0]) } else { of(path) };
        page.push_str(&format!("\n### {of}\n\n"));
        page.push_str("| flag | variable | unless given | |\n| --- | --- | --- | --- |\n");
        for arg in options {
            page.push_str(&row(root, path, arg));
        }
    }
    for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
        let path: Vec<String> = path.iter().cloned().chain([below.get_name().to_owned()]).collect();
        walk(page, root, &path, (below, Some(command)));
    }
}

fn of(path: &[String]) -> String {
    format!("`{}`", path.join(" "))
}

fn row(root: &Command, path: &[String], arg: &Arg) -> String {
    let takes = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
    let names = arg.get_value_names().unwrap_or_default();
    let values: String = match takes {
        true => names.iter().map(|name| format!(" {name}")).collect(),
        false => String::new(),
    };
    let flag = format!("`--{}{values}`", arg.get_long().unwrap_or_default());
    let variable = arg.get_env().map(|name| format!("`{}`", name.to_string_lossy()));
    let given = arg.get_default_values().iter().map(|value| value.to_string_lossy());
    let given = given.filter(|value| !value.is_empty()).map(|value| format!("`{value}`"));
    let given = given.collect::<Vec<_>>().join(", ");
    let unless = match (given.is_empty(), arg.is_required_set(), takes) {
        (false, ..) if takes => given,
        (_, true, _) => "has to be given".to_owned(),
        (_, _, false) => "off".to_owned(),
        _ => "–".to_owned(),
    };
    let help = arg.get_help().map(|help| help.to_string()).unwrap_or_default();
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let help = help.trim_end_matches('.');
    let limits = limits(root, path, arg).map(|limits| format!(" ({limits})")).unwrap_or_default();
    let cells =
        [flag, variable.unwrap_or_else(|| "–".to_owned()), unless, format!("{help}{limits}")];
    format!("| {} |\n", cells.map(|cell| cell.replace('|', "\\|")).join(" | "))
}

/// What it takes: the words that it knows, or the range that its parser names when it is left.
fn limits(root: &Command, path: &[String], arg: &Arg) -> Option<String> {
    if !matches!(arg.get_action(), ArgAction::Set | ArgAction::Append) {
        return None;
    }
    let words: Vec<PossibleValue> = arg.get_possible_values();
    if !words.is_empty() {
        let words = words.iter().filter(|word| !word.is_hide_set());
        let words: Vec<String> = words.map(|word| format!("`{}`", word.get_name())).collect();
        return Some(words.join(", "));
    }
    BEYOND.iter().find_map(|beyond| {
        let given = format!("--{}={beyond}", arg.get_long()?);
        let line = path.iter().cloned().chain([given]);
        let error = root.clone().try_get_matches_from(line).err()?;
        let text = error.to_string();
        let line = text.lines().next().filter(|_| error.kind() == ErrorKind::ValueValidation)?;
        // As clap says it, or a parser of our own.
        let own = || line.split_once(": a number from ").map(|(_, range)| range.to_owned());
        line.split_once(" is not in ").map(|(_, range)| in_words(range)).or_else(own)
    })
}

/// `4..=1000` as `4 to 1000`.
fn in_words(range: &str) -> String {
    match range.trim().split_once("..") {
        Some(("", to)) => format!("at most {}", to.trim_start_matches('=')),
        Some((from, "")) => format!("at least {from}"),
        Some((from, to)) => match to.strip_prefix('=') {
            Some(to) => format!("{from} to {to}"),
            None => format!("{from} to below {to}"),
        },
        None => range.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use clap::value_parser;

    use super::*;

    #[test]
    fn a_page_says_what_the_parser_holds() {
        let number =
            Arg::new("n").long("number").value_name("N").default_value("8").env("A_NUMBER");
        let number = number.help("How many.").value_parser(value_parser!(u32).range(4..=1_000));
        let word = Arg::new("w").long("word").required(true).value_parser(["on", "off"]);
        let hidden = Arg::new("h").long("hidden").hide(true);
        let all = Arg::new("all").long("all").global(true).action(ArgAction::SetTrue);
        let its_own = Arg::new("o").long("own").global(true).action(ArgAction::SetTrue);
        let deeper = Command::new("deeper");
        let below = Command::new("below").args([number, word, hidden, its_own]).subcommand(deeper);
        let page = page(&Command::new("program").arg(all).subcommand(below));
        let expected = "\n### Every command of `program`\n\n\
             | flag | variable | unless given | |\n| --- | --- | --- | --- |\n\
             | `--all` | – | off |  |\n\
             \n### `program below`\n\n\
             | flag | variable | unless given | |\n| --- | --- | --- | --- |\n\
             | `--number N` | `A_NUMBER` | `8` | How many (4 to 1000) |\n\
             | `--word` | – | has to be given |  (`on`, `off`) |\n\
             | `--own` | – | off |  |\n";
        assert_eq!(page, expected);
    }
}
