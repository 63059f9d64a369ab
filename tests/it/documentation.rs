//! The documents are true: what they name exists.

use crate::support::root;

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

#[test]
fn the_readme_begins_with_the_two_commands() {
    let readme = read("README.md");
    let commands: Vec<&str> = readme.lines().filter(|line| line.starts_with("bash scripts/")).collect();
    assert_eq!(commands, ["bash scripts/demo.sh", "bash scripts/test.sh"]);
    for command in commands {
        assert!(root().join(command.strip_prefix("bash ").unwrap()).is_file(), "{command}");
    }
    for function in filterdb::functions::all() {
        assert!(readme.contains(function.name()), "README.md does not name {}", function.name());
    }
}

#[test]
fn the_architecture_names_every_module() {
    let text = read("ARCHITECTURE.md");
    for entry in std::fs::read_dir(root().join("src")).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        assert!(text.contains(name.as_str()), "ARCHITECTURE.md does not say what src/{name} is");
    }
}

#[test]
fn every_sql_file_says_what_it_is_for() {
    for folder in ["sql/views", "sql/study"] {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            assert!(std::fs::read_to_string(&path).unwrap().starts_with("-- "), "{}", path.display());
        }
    }
}
