//! Says what is wrong with a JSON text in the words of Go's scanner, which clients see and match. Only texts that were
//! refused come here. Source: Go `encoding/json/scanner.go`.

/// `None`: Go would take it.
pub(crate) fn complaint(text: &[u8]) -> Option<String> {
    let mut scan = Scan { text, at: 0 };
    let result = scan.document();
    result.err().map(|trouble| match trouble {
        Trouble::End => "unexpected end of JSON input".to_owned(),
        Trouble::Depth => "exceeded max depth".to_owned(),
        Trouble::At(context) => format!("invalid character {} {context}", character(text[scan.at])),
    })
}

enum Trouble {
    End,
    /// A character that may not stand there.
    At(String),
    Depth,
}

/// As Go's.
const DEEPEST: usize = 10_000;

struct Scan<'a> {
    text: &'a [u8],
    at: usize,
}

fn at<T>(context: &str) -> Result<T, Trouble> {
    Err(Trouble::At(context.to_owned()))
}

fn character(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        b'\\' => r"'\\'".to_owned(),
        b'\n' => r"'\n'".to_owned(),
        b'\r' => r"'\r'".to_owned(),
        b'\t' => r"'\t'".to_owned(),
        0..0x20 | 0x7f => format!(r"'\x{byte:02x}'"),
        // Go makes a character of the byte.
        _ => format!("'{}'", byte as char),
    }
}

impl Scan<'_> {
    fn peek(&self) -> Result<u8, Trouble> {
        self.text.get(self.at).copied().ok_or(Trouble::End)
    }

    fn space(&mut self) {
        while matches!(self.text.get(self.at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// Keeps its own stack: the text is hostile.
    fn document(&mut self) -> Result<(), Trouble> {
        let mut open: Vec<u8> = Vec::new();
        loop {
            self.space();
            let byte = self.peek()?;
            match byte {
                b'{' | b'[' => {
                    open.push(byte);
                    if open.len() > DEEPEST {
                        return Err(Trouble::Depth);
                    }
                    self.at += 1;
                    self.space();
                    let close = if byte == b'{' { b'}' } else { b']' };
                    if self.peek()? != close {
                        if byte == b'{' {
                            self.key()?;
                        }
                        continue;
                    }
                }
                b'"' => self.string()?,
                b'-' | b'0'..=b'9' => self.number()?,
                b't' => self.literal("true")?,
                b'f' => self.literal("false")?,
                b'n' => self.literal("null")?,
                _ => return at("looking for beginning of value"),
            }
            // Behind a value, or at the bracket that closes an empty one.
            loop {
                self.space();
                match (open.last(), self.text.get(self.at)) {
                    (None, None) => return Ok(()),
                    (None, Some(_)) => return at("after top-level value"),
                    (Some(_), None) => return Err(Trouble::End),
                    (Some(b'{'), Some(b'}')) | (Some(b'['), Some(b']')) => {
                        self.at += 1;
                        open.pop();
                    }
                    (Some(b'{'), Some(b',')) => {
                        self.at += 1;
                        self.space();
                        self.key()?;
                        break;
                    }
                    (Some(_), Some(b',')) => {
                        self.at += 1;
                        break;
                    }
                    (Some(b'{'), Some(_)) => return at("after object key:value pair"),
                    (Some(_), Some(_)) => return at("after array element"),
                }
            }
        }
    }

    fn key(&mut self) -> Result<(), Trouble> {
        if self.peek()? != b'"' {
            return at("looking for beginning of object key string");
        }
        self.string()?;
        self.space();
        if self.peek()? != b':' {
            return at("after object key");
        }
        self.at += 1;
        Ok(())
    }

    fn string(&mut self) -> Result<(), Trouble> {
        self.at += 1;
        loop {
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\\' => {
                    self.at += 1;
                    match self.peek()? {
                        b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => self.at += 1,
                        b'u' => {
                            self.at += 1;
                            for _ in 0..4 {
                                if !self.peek()?.is_ascii_hexdigit() {
                                    return at("in \\u hexadecimal character escape");
                                }
                                self.at += 1;
                            }
                        }
                        _ => return at("in string escape code"),
                    }
                }
                0..0x20 => return at("in string literal"),
                _ => self.at += 1,
            }
        }
    }

    fn digits(&mut self) {
        while self.text.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
    }

    fn number(&mut self) -> Result<(), Trouble> {
        if self.peek()? == b'-' {
            self.at += 1;
        }
        match self.peek()? {
            b'0' => self.at += 1,
            b'1'..=b'9' => self.digits(),
            _ => return at("in numeric literal"),
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            if !self.peek()?.is_ascii_digit() {
                return at("after decimal point in numeric literal");
            }
            self.digits();
        }
        if matches!(self.text.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek()?, b'+' | b'-') {
                self.at += 1;
            }
            if !self.peek()?.is_ascii_digit() {
                return at("in exponent of numeric literal");
            }
            self.digits();
        }
        Ok(())
    }

    fn literal(&mut self, word: &str) -> Result<(), Trouble> {
        for expected in word.bytes() {
            if self.peek()? != expected {
                return Err(Trouble::At(format!("in literal {word} (expecting '{}')", expected as char)));
            }
            self.at += 1;
        }
        Ok(())
    }
}
