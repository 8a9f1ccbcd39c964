//! A Markdown text as sections of shell blocks and what the comments above them ask for.

/// The sections that have blocks, in their order.
#[derive(Debug, Default)]
pub(crate) struct Document {
    pub(crate) sections: Vec<Section>,
}

/// A heading and what stands below it, up to the next heading.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    pub(crate) title: String,
    level: usize,
    /// The servers of the sections around it.
    inherited: Vec<Block>,
    pub(crate) blocks: Vec<Block>,
}

/// The commands between two fences.
#[derive(Clone, Debug, Default)]
pub(crate) struct Block {
    /// The line of its first fence, from 1.
    pub(crate) line: usize,
    pub(crate) text: String,
    pub(crate) background: bool,
    pub(crate) ready: Vec<String>,
    pub(crate) until: Vec<String>,
    pub(crate) needs: Vec<String>,
    pub(crate) prints: Vec<String>,
    pub(crate) exit: i32,
    pub(crate) skip: Option<String>,
}

/// What people call a shell when they forget that only `sh` is tested.
const SHELLS: [&str; 5] = ["", "bash", "shell", "console", "zsh"];

impl Document {
    /// Reads a Markdown text; the error lists all that is wrong with its markers, with line numbers.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut sections = vec![Section { title: "(before any heading)".into(), level: 0, inherited: vec![], blocks: vec![] }];
        let mut problems = Vec::new();
        let mut marker: Option<(usize, Block)> = None;
        let mut lines = (1..).zip(text.lines());
        while let Some((number, line)) = lines.next() {
            if let Some(clauses) = line.trim().strip_prefix("<!-- test:") {
                let parsed = clauses.strip_suffix("-->").ok_or("the comment must end on its line").and_then(Block::marked);
                match parsed {
                    Ok(_) if marker.is_some() => problems.push(format!("line {number}: the second marker of one block")),
                    Ok(block) => marker = Some((number, block)),
                    Err(problem) => problems.push(format!("line {number}: {problem}")),
                }
            } else if let Some((fence, language)) = fence(line) {
                let body: Vec<&str> = lines.by_ref().map(|(_, line)| line).take_while(|line| line.trim() != fence).collect();
                let (marked, mut block) = marker.take().unwrap_or_default();
                if language == "sh" {
                    (block.line, block.text) = (number, body.join("\n"));
                    sections.last_mut().expect("there is always one").blocks.push(block);
                } else if SHELLS.contains(&language) {
                    problems
                        .push(format!("line {number}: a block of `{language}` is not tested: say `sh`, or `text` for output"));
                } else if marked > 0 {
                    problems.push(format!("line {marked}: the marker is above a block of `{language}`, not of `sh`"));
                }
            } else if let Some((level, title)) = heading(line) {
                let inherited = servers_around(&sections, level);
                sections.push(Section { title: title.into(), level, inherited, blocks: vec![] });
            }
            if let Some((marked, _)) = marker.take_if(|(marked, _)| *marked != number && !line.trim().is_empty()) {
                problems.push(format!("line {marked}: no block follows the marker"));
            }
        }
        if let Some((marked, _)) = marker {
            problems.push(format!("line {marked}: no block follows the marker"));
        }
        sections.retain(|section| !section.blocks.is_empty());
        if problems.is_empty() { Ok(Self { sections }) } else { Err(problems.join("\n")) }
    }
}

/// The servers that run in a new section of `level`: those of the sections it is nested in, the outermost first.
fn servers_around(sections: &[Section], level: usize) -> Vec<Block> {
    let Some(parent) = sections.iter().rev().find(|section| section.level < level) else { return vec![] };
    let own = parent.blocks.iter().filter(|block| block.background && block.skip.is_none());
    parent.inherited.iter().chain(own).cloned().collect()
}

fn fence(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    let ticks = line.bytes().take_while(|&byte| byte == b'`').count();
    (ticks >= 3).then(|| (&line[..ticks], line[ticks..].trim()))
}

fn heading(line: &str) -> Option<(usize, &str)> {
    let level = line.bytes().take_while(|&byte| byte == b'#').count();
    line[level..].strip_prefix(' ').filter(|_| (1..=6).contains(&level)).map(|title| (level, title.trim()))
}

impl Section {
    /// The blocks that run, the servers around it first.
    pub(crate) fn running(&self) -> impl Iterator<Item = &Block> {
        self.inherited.iter().chain(&self.blocks).filter(|block| block.skip.is_none())
    }
}

impl Block {
    /// An empty block with what `clauses` ask for.
    fn marked(clauses: &str) -> Result<Self, &'static str> {
        let mut block = Self::default();
        for clause in clauses.split(';').map(str::trim) {
            let (word, rest) = clause.split_once(' ').unwrap_or((clause, ""));
            match (word, rest.trim()) {
                ("background", "") => block.background = true,
                ("ready", url) if url.starts_with("http://") || url.starts_with("tcp://") => block.ready.push(url.into()),
                ("until", text) if !text.is_empty() => block.until.push(text.into()),
                ("needs", tools) if !tools.is_empty() => block.needs.extend(tools.split_whitespace().map(str::to_owned)),
                ("exit", code) => block.exit = code.parse().map_err(|_| "`exit` takes a number")?,
                ("prints", text) if !text.is_empty() => block.prints.push(text.into()),
                ("skip", why) if !why.is_empty() => block.skip = Some(why.into()),
                _ => {
                    return Err(
                        "clauses are: background | ready URL | until TEXT | needs TOOL | exit N | prints TEXT | skip WHY",
                    );
                }
            }
        }
        Ok(block)
    }

    /// Its commands one by one: without comments, lines that end with a backslash joined.
    pub(crate) fn commands(&self) -> Vec<String> {
        let mut commands = Vec::new();
        let mut command = String::new();
        for line in self.text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
            match line.strip_suffix('\\') {
                Some(start) => command.extend([start.trim_end(), " "]),
                None => {
                    command.push_str(line);
                    commands.push(std::mem::take(&mut command));
                }
            }
        }
        commands.push(command);
        commands.retain(|command| !command.is_empty());
        commands
    }
}

/// The reader's own tests, in the form that this test program runs.
pub(crate) mod tests {
    use libtest_mimic::Trial;

    use super::Document;

    const TEXT: &str = r#"
# Title
```sh
first \
    command # kept
```
## Servers
<!-- test: background; ready tcp://127.0.0.1:1; until it runs -->

```sh
# a comment
server one
server two
```
```json
{}
```
### Nested
<!-- test: needs nats jq; exit 3; prints a b -->
```sh
client
```
## Alone
<!-- test: skip no disk of 1 TB here -->
```sh
huge
```
"#;

    pub(crate) fn trials() -> Vec<Trial> {
        let case = |name: &str, test: fn()| {
            Trial::test(format!("document: {name}"), move || {
                test();
                Ok(())
            })
        };
        vec![
            case("sections have blocks with markers", sections_have_blocks_with_markers),
            case("servers run in nested sections only", servers_run_in_nested_sections_only),
            case("commands are joined and stripped", commands_are_joined_and_stripped),
            case("mistakes are told with their lines", mistakes_are_told_with_their_lines),
        ]
    }

    fn sections_have_blocks_with_markers() {
        let sections = Document::parse(TEXT).unwrap().sections;
        assert_eq!(sections.iter().map(|s| s.title.as_str()).collect::<Vec<_>>(), ["Title", "Servers", "Nested", "Alone"]);
        assert_eq!(sections.iter().map(|s| s.blocks[0].line).collect::<Vec<_>>(), [3, 10, 20, 25]);
        assert!(sections[1].blocks[0].background);
        assert_eq!(sections[1].blocks[0].ready, ["tcp://127.0.0.1:1"]);
        assert_eq!(sections[1].blocks[0].until, ["it runs"]);
        let nested = &sections[2].blocks[0];
        assert_eq!((nested.needs.len(), nested.exit, nested.prints[0].as_str()), (2, 3, "a b"));
        assert_eq!(sections[3].blocks[0].skip.as_deref(), Some("no disk of 1 TB here"));
    }

    fn servers_run_in_nested_sections_only() {
        let sections = Document::parse(TEXT).unwrap().sections;
        assert_eq!(sections[2].running().map(|block| block.line).collect::<Vec<_>>(), [10, 20]);
        assert_eq!(sections[1].running().count(), 1);
        assert_eq!(sections[3].running().count(), 0);
    }

    fn commands_are_joined_and_stripped() {
        let document = Document::parse(TEXT).unwrap();
        assert_eq!(document.sections[0].blocks[0].commands(), ["first command # kept"]);
        assert_eq!(document.sections[1].blocks[0].commands(), ["server one", "server two"]);
    }

    fn mistakes_are_told_with_their_lines() {
        let wrong = "<!-- test: backgruond -->\n```sh\nx\n```\n<!-- test: exit 1 -->\ntext\n```bash\nx\n```\n<!-- test: exit 1 -->\n```json\n```";
        let problems = Document::parse(wrong).unwrap_err();
        let lines: Vec<_> = problems.lines().map(|line| line.split(':').next().unwrap()).collect();
        assert_eq!(lines, ["line 1", "line 5", "line 7", "line 10"], "{problems}");
    }
}
