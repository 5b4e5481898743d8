//! Runs GRUB's scripts: variables, functions, menus. Bounded in steps and depth.

use std::collections::BTreeMap;

use super::script::{self, Block, Piece, Statement, Word};
use super::{FileRef, LoaderKind, Menu, commands, device_name};
use crate::filesystem::FileSystemKind;
use crate::limits;
use crate::loader::{Entry, Kernel};
use crate::partition::PartitionKind;
use crate::volume::{VolumeId, Volumes};

/// Statements that are run for a menu, and for each entry.
const STEPS: u32 = 100_000;
/// Functions and files within each other.
const DEPTH: u32 = 24;
/// Bytes of all variables together.
const MEMORY: usize = 1 << 20;

/// An entry of the menu before it is run.
#[derive(Clone, Debug)]
struct Choice {
    title: String,
    id: String,
    /// Places of the submenus it is in, and its own.
    path: Vec<usize>,
    body: Body,
}

#[derive(Clone, Debug)]
enum Body {
    /// A script with the entry's arguments and the variables of its menu.
    Script(Block, Vec<String>, BTreeMap<String, String>),
    /// Of the Boot Loader Specification.
    Ready(Box<Entry>),
}

/// What `linux` and `initrd` have named.
#[derive(Clone, Debug, Default)]
pub(super) struct Loaded {
    pub(super) kernel: Option<FileRef>,
    pub(super) command_line: String,
    pub(super) initrds: Vec<FileRef>,
    /// Why this entry is none of Linux.
    pub(super) odd: Option<String>,
}

/// GRUB, as far as its configuration can see it.
pub(super) struct Machine<'a> {
    pub(super) volumes: &'a Volumes,
    pub(super) variables: BTreeMap<String, String>,
    functions: BTreeMap<String, Block>,
    choices: Vec<Choice>,
    /// Titles and ids of the menus that are open, and how many entries each has.
    menus: Vec<(String, String, usize)>,
    arguments: Vec<String>,
    pub(super) loaded: Loaded,
    pub(super) notes: Vec<String>,
    steps: u32,
    depth: u32,
}

impl<'a> Machine<'a> {
    /// Before it runs the configuration at `path`.
    pub(super) fn new(volumes: &'a Volumes, path: &FileRef) -> Self {
        let root = device_name(volumes, path.volume);
        let folder = path.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let is_efi = volumes.all.iter().any(|v| v.kind == PartitionKind::Esp);
        let mut variables = BTreeMap::new();
        let given = [
            ("prefix", format!("({root}){folder}")),
            ("root", root),
            ("grub_cpu", "x86_64".to_owned()),
            ("grub_platform", if is_efi { "efi" } else { "pc" }.to_owned()),
            ("cmdpath", "(hd0)".to_owned()),
        ];
        variables.extend(given.map(|(name, value)| (name.to_owned(), value)));
        for feature in FEATURES {
            variables.insert(format!("feature_{feature}"), "y".to_owned());
        }
        Self {
            volumes,
            variables,
            functions: BTreeMap::new(),
            choices: Vec::new(),
            menus: vec![(String::new(), String::new(), 0)],
            arguments: Vec::new(),
            loaded: Loaded::default(),
            notes: Vec::new(),
            steps: STEPS,
            depth: DEPTH,
        }
    }

    /// Runs a script.
    ///
    /// # Errors
    /// What is wrong with it. A command that fails is none: GRUB goes on, too.
    pub(super) fn run_text(&mut self, text: &str) -> Result<bool, String> {
        let block = script::parse(text)?;
        self.run(&block)
    }

    pub(super) fn variable(&self, name: &str) -> &str {
        self.variables.get(name).map_or("", String::as_str)
    }

    /// # Errors
    /// When variables take more memory than any configuration needs.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        self.variables.insert(name.to_owned(), value.to_owned());
        let bytes: usize = self.variables.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > MEMORY { Err("its variables are larger than anybody needs".to_owned()) } else { Ok(()) }
    }

    /// Runs what is `inside` one level deeper.
    fn deeper(&mut self, inside: impl FnOnce(&mut Self) -> Result<bool, String>) -> Result<bool, String> {
        self.depth = self.depth.checked_sub(1).ok_or("functions or files call each other for ever")?;
        let result = inside(self);
        self.depth += 1;
        result
    }

    /// Runs statements; tells whether the last succeeded.
    fn run(&mut self, block: &[Statement]) -> Result<bool, String> {
        let mut succeeded = true;
        for statement in block {
            self.steps = self.steps.checked_sub(1).ok_or("it runs for ever")?;
            succeeded = self.statement(statement)?;
        }
        Ok(succeeded)
    }

    fn statement(&mut self, statement: &Statement) -> Result<bool, String> {
        match statement {
            Statement::Command(words) => {
                let words = self.expand(words)?;
                self.command(&words)
            }
            Statement::Menu(words, body) => {
                let words = self.expand(words)?;
                self.offer(&words, body)
            }
            Statement::If(branches, otherwise) => {
                for (condition, then) in branches {
                    if self.run(condition)? {
                        return self.run(then);
                    }
                }
                self.run(otherwise)
            }
            Statement::For(name, words, body) => {
                for word in self.expand(words)? {
                    self.set(name, &word)?;
                    self.run(body)?;
                }
                Ok(true)
            }
            Statement::While { until, condition, body } => {
                while self.run(condition)? != *until {
                    self.steps = self.steps.checked_sub(1).ok_or("it runs for ever")?;
                    self.run(body)?;
                }
                Ok(true)
            }
            Statement::Function(name, body) => {
                self.functions.insert(name.clone(), body.clone());
                Ok(true)
            }
        }
    }

    fn command(&mut self, words: &[String]) -> Result<bool, String> {
        let Some((name, arguments)) = words.split_first() else { return Ok(true) };
        if let Some(body) = self.functions.get(name).cloned() {
            let before = std::mem::replace(&mut self.arguments, arguments.to_vec());
            let result = self.deeper(|machine| machine.run(&body));
            self.arguments = before;
            return result;
        }
        if let Some((name, value)) = name.split_once('=').filter(|(n, _)| !n.is_empty()) {
            self.set(name, value)?;
            return Ok(true);
        }
        commands::run(self, name, arguments)
    }

    /// Runs another file.
    pub(super) fn source(&mut self, path: &str) -> Result<bool, String> {
        let Some(file) = self.locate(path) else { return Ok(false) };
        match self.volumes.read_file(file.volume, &file.path, limits::CONFIGURATION) {
            Ok(text) => self.deeper(|machine| machine.run_text(&String::from_utf8_lossy(&text))),
            Err(_) => Ok(false),
        }
    }

    /// The file that a path of GRUB's names: `(hd0,gpt2)/boot/x`, or below the root.
    pub(super) fn locate(&self, path: &str) -> Option<FileRef> {
        let (device, path) = match path.strip_prefix('(').and_then(|p| p.split_once(')')) {
            Some((device, path)) => (device, path),
            None => (self.variable("root"), path),
        };
        let volume = super::device(self.volumes, device)?;
        Some(FileRef { volume, path: crate::loader::absolute("", path) })
    }

    /// Fills variables in. A word outside of quotes whose value is empty is none.
    fn expand(&self, words: &[Word]) -> Result<Vec<String>, String> {
        let mut expanded = Vec::new();
        for word in words {
            let (mut current, mut is_word) = (String::new(), word.quoted);
            for piece in &word.pieces {
                match piece {
                    Piece::Text(text) => {
                        current.push_str(text);
                        is_word = true;
                    }
                    Piece::Variable { name, quoted: true } => current.push_str(&self.value(name)),
                    Piece::Variable { name, quoted: false } => {
                        let value = self.value(name);
                        let mut parts = value.split_whitespace();
                        if let Some(first) = parts.next() {
                            current.push_str(first);
                            is_word = true;
                        }
                        for part in parts {
                            expanded.push(std::mem::replace(&mut current, part.to_owned()));
                        }
                    }
                }
            }
            if current.len() > limits::COMMAND_LINE * 16 {
                return Err("a word is longer than anybody needs".to_owned());
            }
            if is_word {
                expanded.push(current);
            }
        }
        Ok(expanded)
    }

    fn value(&self, name: &str) -> String {
        match name {
            "@" | "*" => self.arguments.join(" "),
            "#" => self.arguments.len().to_string(),
            name => match name.parse::<usize>() {
                Ok(0) => String::new(),
                Ok(number) => self.arguments.get(number - 1).cloned().unwrap_or_default(),
                Err(_) => self.variable(name).to_owned(),
            },
        }
    }

    /// `menuentry` and `submenu`.
    fn offer(&mut self, words: &[String], body: &Block) -> Result<bool, String> {
        let (mut title, mut id, mut rest) = (None, None, Vec::new());
        let mut words = words.iter();
        let is_submenu = words.next().is_some_and(|w| w == "submenu");
        while let Some(word) = words.next() {
            match word.as_str() {
                "--id" => id = words.next().cloned(),
                "--class" | "--users" | "--hotkey" => drop(words.next()),
                "--unrestricted" => {}
                other => match other.strip_prefix("--id=") {
                    Some(given) => id = Some(given.to_owned()),
                    None if other.starts_with("--") => {}
                    None if title.is_none() => title = Some(other.to_owned()),
                    None => rest.push(other.to_owned()),
                },
            }
        }
        let title = title.unwrap_or_default();
        let id = id.unwrap_or_else(|| title.clone());
        if self.choices.len() >= limits::ENTRIES {
            return Ok(true);
        }
        rest.insert(0, title.clone());
        if !is_submenu {
            let body = Body::Script(body.clone(), rest, self.variables.clone());
            self.choose(title, id, body);
            return Ok(true);
        }
        // What a submenu sets does not leave it.
        let (variables, arguments) = (self.variables.clone(), std::mem::replace(&mut self.arguments, rest));
        self.menus.push((title, id, 0));
        let result = self.deeper(|machine| machine.run(body));
        self.menus.pop();
        (self.variables, self.arguments) = (variables, arguments);
        if let Some((_, _, count)) = self.menus.last_mut() {
            *count += 1;
        }
        result
    }

    fn choose(&mut self, title: String, id: String, body: Body) {
        let path = self.menus.iter().map(|(_, _, count)| *count).collect();
        if let Some((_, _, count)) = self.menus.last_mut() {
            *count += 1;
        }
        self.choices.push(Choice {
            title: self.nested(&title, |m| &m.0),
            id: self.nested(&id, |m| &m.1),
            path,
            body,
        });
    }

    /// A name with those of the submenus it is in: `Advanced options>Linux 6.1`.
    fn nested(&self, name: &str, of: impl Fn(&(String, String, usize)) -> &String) -> String {
        let menus = self.menus.iter().skip(1).map(|m| of(m).as_str());
        menus.chain([name]).collect::<Vec<_>>().join(">")
    }

    /// Entries of the Boot Loader Specification, which `blscfg` puts here.
    pub(super) fn offer_ready(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            let id = entry.id.strip_suffix(".conf").unwrap_or(&entry.id).to_owned();
            self.choose(entry.title.clone(), id, Body::Ready(Box::new(entry)));
        }
    }

    /// What the menu comes to: each entry is run up to what it would boot.
    pub(super) fn menu(mut self, path: FileRef) -> Menu {
        let wanted = self.default_choice();
        let (mut entries, mut default) = (Vec::new(), None);
        let wanted_number = wanted.as_ref().ok().copied();
        for (number, choice) in std::mem::take(&mut self.choices).into_iter().enumerate() {
            match self.boot(&choice) {
                Ok(entry) => {
                    if wanted_number == Some(number) {
                        default = Some(Ok(entries.len()));
                    }
                    entries.push(entry);
                }
                Err(why) if wanted_number == Some(number) => {
                    default = Some(Err(format!("its default entry {:?}: {why}", choice.title)));
                }
                Err(_) => {}
            }
        }
        let nothing = || Err("it has no entries".to_owned());
        let default = default.unwrap_or_else(|| wanted.and_then(|_| nothing()));
        Menu { loader: LoaderKind::Grub, path, entries, default, notes: self.notes }
    }

    /// The choice that `default` names: a place, an id or a title, with submenus before it.
    fn default_choice(&self) -> Result<usize, String> {
        let wanted = self.variable("default").to_owned();
        if self.choices.is_empty() {
            return Err("it has no entries".to_owned());
        }
        if wanted.is_empty() {
            return Ok(0);
        }
        let parts: Result<Vec<usize>, _> = wanted.split('>').map(|p| p.trim().parse::<usize>()).collect();
        let by_place = parts.ok().and_then(|path| self.choices.iter().position(|c| c.path == path));
        let by_name = || {
            let named = |c: &Choice| c.id == wanted || c.title == wanted;
            // An id alone names an entry of a submenu, too.
            let last = |c: &Choice| c.id.rsplit('>').next() == Some(wanted.as_str());
            self.choices.iter().position(named).or_else(|| self.choices.iter().position(last))
        };
        // An entry that is gone: GRUB takes the first.
        Ok(by_place.or_else(by_name).unwrap_or(0))
    }

    fn boot(&mut self, choice: &Choice) -> Result<Entry, String> {
        let (body, arguments, variables) = match &choice.body {
            Body::Ready(entry) => return Ok(Entry { title: choice.title.clone(), ..(**entry).clone() }),
            Body::Script(body, arguments, variables) => (body, arguments, variables),
        };
        self.loaded = Loaded::default();
        self.steps = STEPS;
        let before = std::mem::replace(&mut self.variables, variables.clone());
        self.arguments.clone_from(arguments);
        let ran = self.run(body);
        self.variables = before;
        ran?;
        let loaded = std::mem::take(&mut self.loaded);
        if let Some(odd) = loaded.odd {
            return Err(odd);
        }
        let kernel = loaded.kernel.ok_or("it starts no Linux kernel")?;
        Ok(Entry {
            id: choice.id.clone(),
            title: choice.title.clone(),
            kernel: Kernel::Plain(kernel),
            initrds: loaded.initrds,
            command_line: loaded.command_line,
        })
    }

    /// The volume that a device's name stands for, for `search`.
    pub(super) fn device_of(&self, volume: VolumeId) -> String {
        device_name(self.volumes, volume)
    }

    /// What a volume that is looked for in vain may be: one that cannot be read.
    pub(super) fn unread(&self) -> Option<FileSystemKind> {
        self.volumes.all.iter().map(|v| v.holds).find(|kind| kind.may_boot())
    }
}

/// What this GRUB can: generated configurations ask.
const FEATURES: [&str; 9] = [
    "menuentry_id",
    "all_video_module",
    "chainloader_bpb",
    "default_font_path",
    "menuentry_options",
    "nativedisk_cmd",
    "ntldr",
    "platform_search_hint",
    "timeout_style",
];
