//! The command line. Pure.

use std::time::Duration;

pub const HELP: &str = "\
usage: corten-demo serve [--port 8080]
       corten-demo client URL [--interval 1s]

serve   answers GET / with the host's name and GET /healthz with ok; one line a request on stdout
client  asks URL (http://HOST[:PORT][/PATH]) again and again; one line an answer on stdout";

#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    Help,
    Version,
    Serve { port: u16 },
    Client { url: Url, interval: Duration },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// `host:port`
    pub authority: String,
    pub path: String,
}

pub fn parse(args: impl Iterator<Item = String>) -> Result<Command, String> {
    let mut args = args.peekable();
    let command = args.next().ok_or("want a command: serve or client")?;
    match command.as_str() {
        "-h" | "--help" | "help" => Ok(Command::Help),
        "--version" => Ok(Command::Version),
        "serve" => {
            let port = option(&mut args, "--port")?.unwrap_or_else(|| "8080".to_owned());
            let port = port.parse().map_err(|_| format!("--port {port}: want a number up to 65535"))?;
            Ok(Command::Serve { port })
        }
        "client" => {
            let url = args.next().ok_or("client: want a URL")?;
            let interval = option(&mut args, "--interval")?.unwrap_or_else(|| "1s".to_owned());
            Ok(Command::Client { url: self::url(&url)?, interval: duration(&interval)? })
        }
        other => Err(format!("unknown command {other:?}")),
    }
}

/// The one option a command has; anything else is refused.
fn option(args: &mut impl Iterator<Item = String>, name: &str) -> Result<Option<String>, String> {
    let mut value = None;
    while let Some(arg) = args.next() {
        let given = match arg.strip_prefix(name) {
            Some("") => args.next().ok_or(format!("{name}: want a value"))?,
            Some(rest) if rest.starts_with('=') => rest[1..].to_owned(),
            _ => return Err(format!("unknown argument {arg:?}")),
        };
        value = Some(given);
    }
    Ok(value)
}

fn url(text: &str) -> Result<Url, String> {
    let rest =
        text.strip_prefix("http://").ok_or_else(|| format!("URL {text}: want http://HOST[:PORT][/PATH]"))?;
    let (authority, path) = match rest.find('/') {
        Some(slash) => (&rest[..slash], &rest[slash..]),
        None => (rest, "/"),
    };
    if authority.is_empty() || authority.contains(char::is_whitespace) || path.contains(char::is_whitespace) {
        return Err(format!("URL {text}: no host, or a space in it"));
    }
    let has_port = authority.rsplit(']').next().is_some_and(|rest| rest.contains(':'));
    let authority = if has_port { authority.to_owned() } else { format!("{authority}:80") };
    Ok(Url { authority, path: path.to_owned() })
}

fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("--interval {text}: want 500ms, 2s or a number of seconds");
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, Duration::from_millis(1)),
        None => (text.strip_suffix('s').unwrap_or(text), Duration::from_secs(1)),
    };
    let number: u32 = number.parse().map_err(|_| bad())?;
    if number == 0 { Err(bad()) } else { Ok(unit * number) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn commands_and_their_options() {
        let client = |authority: &str, path: &str, interval| {
            let url = Url { authority: authority.into(), path: path.into() };
            Ok(Command::Client { url, interval })
        };
        assert_eq!(parsed("serve"), Ok(Command::Serve { port: 8080 }));
        assert_eq!(parsed("serve --port 80"), Ok(Command::Serve { port: 80 }));
        assert_eq!(parsed("serve --port=81"), Ok(Command::Serve { port: 81 }));
        assert_eq!(
            parsed("client http://127.0.0.1:8080"),
            client("127.0.0.1:8080", "/", Duration::from_secs(1))
        );
        let short = client("[::1]:80", "/a?b", Duration::from_millis(250));
        assert_eq!(parsed("client http://[::1]/a?b --interval 250ms"), short);
        for bad in [
            "",
            "fly",
            "serve 80",
            "serve --port",
            "serve --port 70000",
            "client",
            "client https://x",
            "client http:///",
            "client http://x --interval 0",
            "client http://x --interval soon",
        ] {
            assert!(parsed(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
