//! GRUB's scripts: from text to statements. Pure.

/// Statements within statements.
const DEPTH: u32 = 32;
/// Words and statements of all files together would be bounded by their size; this bounds one list.
const LONGEST: usize = 100_000;

/// Part of a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// As it stands.
    Text(String),
    /// A variable; outside of quotes, its value is split at spaces.
    Variable { name: String, quoted: bool },
}

/// A word: pieces without a space between them. A quoted word may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) pieces: Vec<Piece>,
    pub(super) quoted: bool,
}

impl Word {
    /// Its text, if it is nothing else.
    fn plain(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [Piece::Text(text)] if !self.quoted => Some(text),
            _ => None,
        }
    }
}

/// Statements one after the other.
pub(super) type Block = Vec<Statement>;

/// A statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Statement {
    /// A command and its arguments.
    Command(Vec<Word>),
    /// `menuentry` and `submenu`: arguments and what they hold.
    Menu(Vec<Word>, Block),
    /// Conditions with what follows, and what follows where none holds.
    If(Vec<(Block, Block)>, Block),
    /// `for NAME in WORDS`.
    For(String, Vec<Word>, Block),
    /// `while`, or `until`.
    While { until: bool, condition: Block, body: Block },
    /// `function NAME`.
    Function(String, Block),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(Word),
    /// `;` or the end of a line.
    End,
}

/// Parses a script.
///
/// # Errors
/// What is wrong, with the number of the line.
pub(super) fn parse(text: &str) -> Result<Block, String> {
    let mut parser = Parser { tokens: tokens(text)?, at: 0 };
    let block = parser.block(&[], DEPTH)?;
    match parser.peek() {
        None => Ok(block),
        Some((line, _)) => Err(format!("line {line}: something ends here that has not begun")),
    }
}

fn tokens(text: &str) -> Result<Vec<(usize, Token)>, String> {
    let mut lexer = Lexer { chars: text.chars().peekable(), line: 1, tokens: Vec::new(), word: None };
    lexer.run()?;
    Ok(lexer.tokens)
}

struct Lexer<'a> {
    chars: std::iter::Peekable<std::str::Chars<'a>>,
    line: usize,
    tokens: Vec<(usize, Token)>,
    word: Option<Word>,
}

impl Lexer<'_> {
    fn run(&mut self) -> Result<(), String> {
        while let Some(c) = self.chars.next() {
            match c {
                '\n' => {
                    self.end();
                    self.line += 1;
                }
                ';' => self.end(),
                ' ' | '\t' | '\r' => self.finish(),
                '#' if self.word.is_none() => while self.chars.next_if(|c| *c != '\n').is_some() {},
                '\\' => match self.chars.next() {
                    Some('\n') => self.line += 1,
                    Some(c) => self.push(c),
                    None => {}
                },
                '\'' => self.single()?,
                '"' => self.double()?,
                '$' => self.variable(false)?,
                c => self.push(c),
            }
            if self.tokens.len() > LONGEST {
                return Err(format!("line {}: the script is too long", self.line));
            }
        }
        self.end();
        Ok(())
    }

    fn finish(&mut self) {
        if let Some(word) = self.word.take() {
            self.tokens.push((self.line, Token::Word(word)));
        }
    }

    fn end(&mut self) {
        self.finish();
        self.tokens.push((self.line, Token::End));
    }

    fn push(&mut self, c: char) {
        let word = self.word.get_or_insert_default();
        match word.pieces.last_mut() {
            Some(Piece::Text(text)) => text.push(c),
            _ => word.pieces.push(Piece::Text(c.to_string())),
        }
    }

    fn quote(&mut self) {
        self.word.get_or_insert_default().quoted = true;
    }

    fn single(&mut self) -> Result<(), String> {
        self.quote();
        let began = self.line;
        loop {
            match self.chars.next() {
                Some('\'') => return Ok(()),
                Some(c) => {
                    self.line += usize::from(c == '\n');
                    self.push(c);
                }
                None => return Err(format!("line {began}: a quote is not closed")),
            }
        }
    }

    fn double(&mut self) -> Result<(), String> {
        self.quote();
        let began = self.line;
        loop {
            match self.chars.next() {
                Some('"') => return Ok(()),
                Some('$') => self.variable(true)?,
                Some('\\') => match self.chars.next() {
                    Some('\n') => self.line += 1,
                    Some(c) => {
                        if !['"', '\\', '$'].contains(&c) {
                            self.push('\\');
                        }
                        self.push(c);
                    }
                    None => {}
                },
                Some(c) => {
                    self.line += usize::from(c == '\n');
                    self.push(c);
                }
                None => return Err(format!("line {began}: a quote is not closed")),
            }
        }
    }

    /// A variable; a `$` without a name is a `$`.
    fn variable(&mut self, quoted: bool) -> Result<(), String> {
        let mut name = String::new();
        if self.chars.next_if_eq(&'{').is_some() {
            loop {
                match self.chars.next() {
                    Some('}') => break,
                    Some(c) if c != '\n' => name.push(c),
                    _ => return Err(format!("line {}: a variable's brace is not closed", self.line)),
                }
            }
        } else if let Some(c) = self.chars.next_if(|c| c.is_ascii_digit() || "?@*#".contains(*c)) {
            name.push(c);
        } else {
            while let Some(c) = self.chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
                name.push(c);
            }
        }
        if name.is_empty() {
            self.push('$');
            return Ok(());
        }
        self.word.get_or_insert_default().pieces.push(Piece::Variable { name, quoted });
        Ok(())
    }
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> Option<&(usize, Token)> {
        self.tokens.get(self.at)
    }

    fn line(&self) -> usize {
        self.peek().or(self.tokens.last()).map_or(0, |(line, _)| *line)
    }

    /// The next word's text, if it is plain.
    fn keyword(&self) -> Option<&str> {
        match self.peek()? {
            (_, Token::Word(word)) => word.plain(),
            (_, Token::End) => None,
        }
    }

    fn skip_ends(&mut self) {
        while matches!(self.peek(), Some((_, Token::End))) {
            self.at += 1;
        }
    }

    fn expect(&mut self, word: &str) -> Result<(), String> {
        self.skip_ends();
        if self.keyword() == Some(word) {
            self.at += 1;
            return Ok(());
        }
        Err(format!("line {}: {word:?} is missing", self.line()))
    }

    /// Statements up to one of the words, which is left.
    fn block(&mut self, until: &[&str], depth: u32) -> Result<Block, String> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(format!("line {}: statements are nested too deeply", self.line()));
        };
        let mut block = Vec::new();
        loop {
            self.skip_ends();
            match self.peek() {
                None => return Ok(block),
                Some(_) if self.keyword().is_some_and(|k| until.contains(&k)) => return Ok(block),
                Some(_) if self.keyword() == Some("}") => {
                    return Err(format!("line {}: a brace closes that was not opened", self.line()));
                }
                Some(_) => block.push(self.statement(depth)?),
            }
        }
    }

    fn statement(&mut self, depth: u32) -> Result<Statement, String> {
        match self.keyword() {
            Some("if") => self.condition(depth),
            Some("for") => self.for_each(depth),
            Some(word @ ("while" | "until")) => {
                let until = word == "until";
                self.at += 1;
                let condition = self.block(&["do"], depth)?;
                let body = self.body(depth)?;
                Ok(Statement::While { until, condition, body })
            }
            Some("function") => {
                self.at += 1;
                let name = self.plain("a function's name")?;
                Ok(Statement::Function(name, self.braces(depth)?))
            }
            Some("menuentry" | "submenu") => {
                let words = self.words(true);
                Ok(Statement::Menu(words, self.braces(depth)?))
            }
            _ => Ok(Statement::Command(self.words(false))),
        }
    }

    fn plain(&mut self, what: &str) -> Result<String, String> {
        let text = self.keyword().map(str::to_owned);
        self.at += 1;
        text.ok_or_else(|| format!("line {}: {what} is missing", self.line()))
    }

    /// Words up to the end of the statement, or to a brace.
    fn words(&mut self, to_brace: bool) -> Vec<Word> {
        let mut words = Vec::new();
        while let Some((_, Token::Word(word))) = self.peek() {
            if word.plain() == Some("}") || to_brace && word.plain() == Some("{") {
                break;
            }
            words.push(word.clone());
            self.at += 1;
        }
        words
    }

    fn braces(&mut self, depth: u32) -> Result<Block, String> {
        self.expect("{")?;
        let block = self.block(&["}"], depth)?;
        self.expect("}")?;
        Ok(block)
    }

    fn body(&mut self, depth: u32) -> Result<Block, String> {
        self.expect("do")?;
        let body = self.block(&["done"], depth)?;
        self.expect("done")?;
        Ok(body)
    }

    fn condition(&mut self, depth: u32) -> Result<Statement, String> {
        let mut branches = Vec::new();
        self.at += 1;
        loop {
            let condition = self.block(&["then"], depth)?;
            self.expect("then")?;
            branches.push((condition, self.block(&["elif", "else", "fi"], depth)?));
            match self.keyword() {
                Some("elif") => self.at += 1,
                Some("else") => {
                    self.at += 1;
                    let otherwise = self.block(&["fi"], depth)?;
                    self.expect("fi")?;
                    return Ok(Statement::If(branches, otherwise));
                }
                _ => {
                    self.expect("fi")?;
                    return Ok(Statement::If(branches, Vec::new()));
                }
            }
        }
    }

    fn for_each(&mut self, depth: u32) -> Result<Statement, String> {
        self.at += 1;
        let name = self.plain("a variable's name")?;
        self.expect("in")?;
        let words = self.words(false);
        Ok(Statement::For(name, words, self.body(depth)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_quotes_and_variables_are_told_apart() {
        let block = parse("set a=\"x ${b}\" 'c d'$e # no\n").unwrap();
        let Statement::Command(words) = &block[0] else { panic!("{block:?}") };
        assert_eq!(words.len(), 3);
        assert_eq!(
            words[1].pieces,
            [Piece::Text("a=x ".into()), Piece::Variable { name: "b".into(), quoted: true }]
        );
        assert_eq!(words[2].pieces[1], Piece::Variable { name: "e".into(), quoted: false });
    }

    #[test]
    fn what_is_not_closed_is_told_with_its_line() {
        for (text, expected) in [
            ("\nset a='b", "line 2: a quote"),
            ("if true; then\necho a\n", "\"fi\" is missing"),
            ("menuentry a {\nlinux /b\n", "\"}\" is missing"),
            ("echo a\n}\n", "line 2: a brace closes"),
            ("echo ${a", "line 1: a variable's brace"),
            ("function\n", "a function's name is missing"),
            ("for a of b", "\"in\" is missing"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let text = "if true; then\n".repeat(1000);
        assert!(parse(&text).unwrap_err().contains("too deeply"));
    }
}
