//! The examples of the pages and of the README are run, as they stand there.

use std::fs;
use std::path::Path;

use dms_tests::{Broker, Lab, run};

fn project() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Runs snippets one after the other, in one node and one directory, as a reader would. Those that
/// need a broker have one.
fn run_all(what: &str, snippets: &[String], broker: Option<&Broker>) {
    let lab = Lab::new();
    let secret = lab.secret("good", |_| ());
    fs::create_dir(lab.path("work")).expect("room for it");
    // A snippet that fails half-way may have left a listener behind, which would be waited for.
    let mut settings = "trap 'kill $(jobs -p) 2>/dev/null || :' EXIT\n".to_owned();
    for (number, snippet) in snippets.iter().enumerate() {
        let script = format!("{settings}\n{snippet}");
        let mut command = lab.command("sh", &["-e", "-c", &script]);
        command.current_dir(lab.path("work")).env("SECRET_REF", &secret);
        if let Some(broker) = broker {
            command.env("DMS_RABBITMQ_URL", broker.url());
        }
        let run = run(&mut command, b"");
        assert_eq!(run.code, 0, "{what}, example {number}:\n{snippet}\n{run}");
        // What a snippet exports, the next ones see.
        settings.extend(
            snippet.lines().filter(|line| line.starts_with("export ")).map(|l| format!("{l}\n")),
        );
    }
    assert_eq!(lab.mounted("target-123"), None, "{what} leaves a mount behind");
}

/// The literal blocks of a page's EXAMPLES section.
fn examples_of_page(text: &str) -> Vec<String> {
    let section = text.split("\n.Sh ").find(|section| section.starts_with("EXAMPLES\n"));
    let mut snippets = Vec::new();
    let mut snippet: Option<String> = None;
    for line in section.unwrap_or_default().lines() {
        if line.starts_with(".Bd -literal") {
            snippet = Some(String::new());
        } else if line == ".Ed" {
            snippets.extend(snippet.take());
        } else if let Some(snippet) = &mut snippet {
            assert!(!line.contains('\\') && !line.starts_with('.'), "not plain: {line}");
            snippet.push_str(line);
            snippet.push('\n');
        }
    }
    snippets
}

/// The blocks of a README that are marked as `sh`.
fn examples_of_markdown(text: &str) -> Vec<String> {
    let blocks = text.split("\n```sh\n").skip(1);
    blocks.filter_map(|rest| Some(format!("{}\n", rest.split("\n```").next()?))).collect()
}

#[test]
fn every_example_of_every_page_works() {
    let mut pages: Vec<_> = fs::read_dir(project().join("man"))
        .expect("the pages are there")
        .map(|entry| entry.expect("it can be read").path())
        .collect();
    pages.sort();
    let broker = Broker::start();
    let mut total = 0;
    for page in &pages {
        let text = fs::read_to_string(page).expect("it is text");
        let snippets = examples_of_page(&text);
        assert!(!snippets.is_empty(), "{} has no example", page.display());
        run_all(&page.display().to_string(), &snippets, Some(&broker));
        total += snippets.len();
    }
    assert!(pages.len() >= 7 && total >= 27, "{total} examples in {} pages", pages.len());
}

#[test]
fn every_example_of_the_readme_works() {
    let text = fs::read_to_string(project().join("README.md")).expect("it is text");
    let snippets = examples_of_markdown(&text);
    assert!(snippets.len() >= 3, "{snippets:?}");
    run_all("README.md", &snippets, None);
}
