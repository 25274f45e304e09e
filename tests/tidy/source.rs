//! Reads one source file into what the rules look at: tokens without comments and literals, the paths that the code
//! names, and the functions with their lengths.
//!
//! It is a lexer, not a parser: macros are read like any other code, and a path that a macro builds is not seen.

/// One source file, as a rule sees it.
pub struct Source {
    /// Its place below the repository's root, with `/`.
    pub file: String,
    /// Its text.
    pub text: String,
    /// Its tokens.
    pub tokens: Vec<Token>,
}

/// A word, or one character of anything else. String and character literals leave `"` behind.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// The word or the character.
    pub text: String,
    /// The line it is on, from 1.
    pub line: usize,
}

/// A path as the code names it, `use` trees written out, with the inline modules around it.
#[derive(Debug, PartialEq)]
pub struct Path {
    /// `crate::wal::disk` is three segments; a glob ends in `*`.
    pub segments: Vec<String>,
    /// How many inline modules (`mod tests { … }`) it stands in.
    pub inline_modules: usize,
    /// The line it begins on.
    pub line: usize,
}

/// A function and the lines it spans, its signature included.
pub struct Function {
    /// Its name.
    pub name: String,
    /// The line of `fn`.
    pub line: usize,
    /// From `fn` to the closing brace.
    pub lines: usize,
}

impl Source {
    /// Reads `text` as the content of `file`.
    pub fn new(file: &str, text: &str) -> Self {
        Self { file: file.to_owned(), text: text.to_owned(), tokens: Lexer::new(text).run() }
    }

    /// The module path of the file: `src/wal/disk.rs` is `wal::disk`; empty for `lib.rs`.
    pub fn module(&self) -> Vec<&str> {
        let inner = self.file.strip_prefix("src/").unwrap_or(&self.file);
        match inner.strip_suffix(".rs").unwrap_or(inner) {
            "lib" => Vec::new(),
            module => module.split('/').collect(),
        }
    }

    fn word(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |token| token.text.as_str())
    }

    fn is_name(&self, at: usize) -> bool {
        self.word(at).starts_with(|first: char| first.is_alphabetic() || first == '_')
    }

    fn separator(&self, at: usize) -> bool {
        self.word(at) == ":" && self.word(at + 1) == ":"
    }

    /// Every path the file names, those of `use` declarations written out one by one.
    pub fn paths(&self) -> Vec<Path> {
        let mut paths = Vec::new();
        let mut braces: Vec<bool> = Vec::new(); // for each open brace: does it belong to an inline module?
        let mut at = 0;
        while at < self.tokens.len() {
            let inline_modules = braces.iter().filter(|module| **module).count();
            match self.word(at) {
                "{" => braces.push(at >= 2 && self.word(at - 2) == "mod"),
                "}" => drop(braces.pop()),
                "use" => {
                    at = self.use_tree(at + 1, &[], inline_modules, &mut paths);
                    continue;
                }
                _ if self.is_name(at) && self.separator(at + 1) => {
                    at = self.plain_path(at, inline_modules, &mut paths);
                    continue;
                }
                _ => {}
            }
            at += 1;
        }
        paths
    }

    /// Reads one `use` tree that stands below `prefix`; returns the place after it.
    fn use_tree(&self, mut at: usize, prefix: &[String], inline_modules: usize, paths: &mut Vec<Path>) -> usize {
        let line = self.tokens.get(at).map_or(0, |token| token.line);
        let mut segments = prefix.to_vec();
        loop {
            match self.word(at) {
                ":" => at += 1,
                "{" => {
                    at += 1;
                    while self.word(at) != "}" && at < self.tokens.len() {
                        at = self.use_tree(at, &segments, inline_modules, paths);
                        at += usize::from(self.word(at) == ",");
                    }
                    return at + 1;
                }
                "as" => at += 2,
                "*" => {
                    segments.push("*".to_owned());
                    at += 1;
                }
                _ if self.is_name(at) => {
                    segments.push(self.word(at).to_owned());
                    at += 1;
                }
                _ => {
                    if segments.len() > prefix.len() {
                        paths.push(Path { segments, inline_modules, line });
                    }
                    return at;
                }
            }
        }
    }

    /// Reads `a::b::c`; returns the place after it.
    fn plain_path(&self, mut at: usize, inline_modules: usize, paths: &mut Vec<Path>) -> usize {
        let line = self.tokens[at].line;
        let mut segments = vec![self.word(at).to_owned()];
        while self.separator(at + 1) && self.is_name(at + 3) {
            at += 3;
            segments.push(self.word(at).to_owned());
        }
        paths.push(Path { segments, inline_modules, line });
        at + 1
    }

    /// The macros that are called, with their lines.
    pub fn macros(&self) -> Vec<(&str, usize)> {
        let called = |at: &usize| self.is_name(*at) && self.word(at + 1) == "!" && self.word(at + 2) != "=";
        (0..self.tokens.len()).filter(called).map(|at| (self.word(at), self.tokens[at].line)).collect()
    }

    /// The lines with an `unwrap()`, those of the tests at the file's end left out: there it is an assertion.
    pub fn unwraps(&self) -> Vec<usize> {
        let tests = |at: &usize| self.word(*at) == "cfg" && self.word(at + 2) == "test";
        let end = (0..self.tokens.len()).find(tests).unwrap_or(self.tokens.len());
        let called = |at: &usize| self.word(*at) == "." && self.word(at + 1) == "unwrap" && self.word(at + 2) == "(";
        (0..end).filter(called).map(|at| self.tokens[at].line).collect()
    }

    /// Every function that has a body.
    pub fn functions(&self) -> Vec<Function> {
        let mut functions = Vec::new();
        for at in 0..self.tokens.len() {
            if self.word(at) == "fn"
                && self.is_name(at + 1)
                && let Some(end) = self.body_end(at + 1)
            {
                let line = self.tokens[at].line;
                functions.push(Function { name: self.word(at + 1).to_owned(), line, lines: end - line + 1 });
            }
        }
        functions
    }

    /// The fields of top-level structs that no doc comment stands above, by line. rustfmt's layout is taken as given.
    pub fn undocumented_fields(&self) -> Vec<(usize, &str)> {
        let (mut inside, mut documented, mut fields) = (false, false, Vec::new());
        for (number, line) in self.text.lines().enumerate() {
            let declaration = line.trim_start_matches("pub ").trim_start_matches("pub(crate) ");
            if declaration.starts_with("struct ") && line.ends_with('{') {
                (inside, documented) = (true, false);
            } else if line == "}" {
                inside = false;
            } else if inside && line.trim_start().starts_with("///") {
                documented = true;
            } else if inside && !line.trim_start().starts_with("#[") {
                let is_field = line.starts_with("    ") && !line.starts_with("     ") && line.contains(": ");
                if is_field && !documented {
                    fields.push((number + 1, line.trim()));
                }
                documented = false;
            }
        }
        fields
    }

    /// The line of the brace that closes the body of the function whose signature begins at `at`.
    fn body_end(&self, at: usize) -> Option<usize> {
        let (mut brackets, mut braces) = (0_i32, 0_i32);
        for token in &self.tokens[at..] {
            match token.text.as_str() {
                "(" | "[" => brackets += 1,
                ")" | "]" => brackets -= 1,
                "{" => braces += 1,
                "}" if braces == 1 && brackets == 0 => return Some(token.line),
                "}" => braces -= 1,
                ";" if braces == 0 && brackets == 0 => return None,
                _ => {}
            }
        }
        None
    }
}

struct Lexer {
    /// What is read.
    text: Vec<char>,
    /// The next character's place.
    at: usize,
    /// The line it is on, from 1.
    line: usize,
    /// What was read.
    tokens: Vec<Token>,
}

impl Lexer {
    fn new(text: &str) -> Self {
        Self { text: text.chars().collect(), at: 0, line: 1, tokens: Vec::new() }
    }

    fn peek(&self, ahead: usize) -> char {
        self.text.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn step(&mut self) {
        self.line += usize::from(self.peek(0) == '\n');
        self.at += 1;
    }

    fn push(&mut self, text: String, line: usize) {
        self.tokens.push(Token { text, line });
    }

    fn run(mut self) -> Vec<Token> {
        while self.at < self.text.len() {
            let (this, next) = (self.peek(0), self.peek(1));
            if this == '/' && next == '/' {
                while self.at < self.text.len() && self.peek(0) != '\n' {
                    self.step();
                }
            } else if this == '/' && next == '*' {
                self.block_comment();
            } else if this == '"' {
                self.quoted(0, false);
            } else if this == '\'' {
                self.character_or_lifetime();
            } else if this.is_alphanumeric() || this == '_' {
                self.word();
            } else {
                if !this.is_whitespace() {
                    self.push(this.to_string(), self.line);
                }
                self.step();
            }
        }
        self.tokens
    }

    fn block_comment(&mut self) {
        let mut depth = 0;
        while self.at < self.text.len() {
            match (self.peek(0), self.peek(1)) {
                ('/', '*') => depth += 1,
                ('*', '/') => depth -= 1,
                _ => {
                    self.step();
                    continue;
                }
            }
            self.step();
            self.step();
            if depth == 0 {
                return;
            }
        }
    }

    /// A string whose opening quote is next, and whose closing one is followed by `hashes`; backslashes are plain in a
    /// raw one.
    fn quoted(&mut self, hashes: usize, raw: bool) {
        self.push("\"".to_owned(), self.line);
        self.step();
        while self.at < self.text.len() {
            if self.peek(0) == '\\' && !raw {
                self.step();
            } else if self.peek(0) == '"' && (1..=hashes).all(|ahead| self.peek(ahead) == '#') {
                (0..=hashes).for_each(|_| self.step());
                return;
            }
            self.step();
        }
    }

    fn character_or_lifetime(&mut self) {
        if self.peek(1) == '\\' || self.peek(2) == '\'' {
            self.push("\"".to_owned(), self.line);
            self.step();
            while self.at < self.text.len() && self.peek(0) != '\'' {
                if self.peek(0) == '\\' {
                    self.step();
                }
                self.step();
            }
        }
        self.step(); // the closing quote, or the tick of a lifetime, whose name is read as a word
    }

    fn word(&mut self) {
        let mut word = String::new();
        while self.peek(0).is_alphanumeric() || self.peek(0) == '_' {
            word.push(self.peek(0));
            self.step();
        }
        let hashes = (0..).take_while(|ahead| self.peek(*ahead) == '#').count();
        match word.as_str() {
            "r" | "br" | "cr" if self.peek(hashes) == '"' => {
                (0..hashes).for_each(|_| self.step());
                self.quoted(hashes, true);
            }
            "b" | "c" if self.peek(0) == '"' => self.quoted(0, false),
            _ => self.push(word, self.line),
        }
    }
}
